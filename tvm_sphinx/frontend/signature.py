"""What a model file declares: names and types of inputs and outputs, as its user knows them. [TVM]"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .._tvm import relax, tirx
from ..errors import ModelError
from ..notice import warn
from .index_ranges import with_index_ranges
from .model_source import ModelSource
from .tensor_spec import TensorSpec, show_type


@dataclass(frozen=True)
class Declared:
    """An input or output as a file declares it; what it leaves open, also a rank or a type, is None."""

    name: str
    shape: tuple[int | None, ...] | None = None
    dtype: str | None = None


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a source, in the order of its program's."""

    inputs: tuple[Declared, ...]
    outputs: tuple[Declared, ...]

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs."""
        return [declared.name for declared in self.inputs]

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs."""
        return [declared.name for declared in self.outputs]


def source_signature(source: ModelSource, function: Any) -> Signature:
    """Return the names and types that a source declares; ``function`` is what TVM made of it.

    An input that has a value is none any more.
    """
    if source.kind == "relax":
        return function_signature(function)
    is_onnx = source.kind == "onnx"
    found = onnx_signature(source.model) if is_onnx else torch_signature(source.model)
    return replace(found, inputs=tuple(each for each in found.inputs if each.name not in source.fixed))


def onnx_signature(model: Any) -> Signature:
    """Return the signature of an ``onnx.ModelProto``; an initializer is no input."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return Signature(
        tuple(_onnx_value(value) for value in model.graph.input if value.name not in weights),
        tuple(_onnx_value(value) for value in model.graph.output),
    )


def _onnx_value(value: Any) -> Declared:
    from onnx import helper

    tensor = value.type.tensor_type
    dtype = str(helper.tensor_dtype_to_np_dtype(tensor.elem_type)) if tensor.elem_type else None
    if not tensor.HasField("shape"):
        return Declared(str(value.name), None, dtype)
    # An extent of 0 is written and meant; one that has no value is open.
    shape = tuple(int(d.dim_value) if d.HasField("dim_value") else None for d in tensor.shape.dim)
    return Declared(str(value.name), shape, dtype)


def torch_signature(program: Any) -> Signature:
    """Return the signature of a ``torch.export.ExportedProgram``.

    Inputs have the names of the arguments; outputs are named by where the result has them, such as
    ``logits`` of a dictionary or ``output_0`` of a tuple. Numbers and None are neither.
    """
    nodes = {node.name: node for node in program.graph.nodes}
    signature = program.graph_signature
    inputs = [
        _torch_value(spec.arg.name, nodes[spec.arg.name])
        for spec in signature.input_specs
        if spec.kind.name == "USER_INPUT" and type(spec.arg).__name__ == "TensorArgument"
    ]
    specs = [s for s in signature.output_specs if s.kind.name in ("USER_OUTPUT", "LOSS_OUTPUT")]
    paths = _output_paths(program, len(specs))
    outputs = [
        _torch_value(path, nodes[spec.arg.name])
        for path, spec in zip(paths, specs, strict=True)
        if type(spec.arg).__name__ == "TensorArgument"
    ]
    return Signature(tuple(inputs), tuple(outputs))


def _torch_value(name: str, node: Any) -> Declared:
    value = node.meta.get("val")
    if value is None or not hasattr(value, "shape"):
        return Declared(name)
    shape = tuple(extent if isinstance(extent, int) else None for extent in value.shape)
    return Declared(name, shape, str(value.dtype).removeprefix("torch."))


def _output_paths(program: Any, count: int) -> list[str]:
    """Return a name for each output, by its keys in the result."""
    from torch.utils import _pytree as pytree

    positions = [f"output_{number}" for number in range(count)]
    spec = program.call_spec.out_spec
    if spec is None:
        return positions
    leaves, _ = pytree.tree_flatten_with_path(pytree.tree_unflatten(list(range(count)), spec))
    names = list(positions)
    for keys, number in leaves:
        path = [str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", "")))) for key in keys]
        if isinstance(number, int) and any(hasattr(key, "key") or hasattr(key, "name") for key in keys):
            names[number] = ".".join(path)
    return names if len(set(names)) == count else positions


def function_signature(function: Any) -> Signature:
    """Return the signature of a Relax function, whose outputs have no names."""
    inputs = tuple(_relax_value(param) for param in function.params)
    count = len(_tensor_types(function.ret_ty))
    return Signature(inputs, tuple(Declared(f"output_{number}") for number in range(count)))


def _relax_value(param: Any) -> Declared:
    if not isinstance(param.ty, relax.TensorType):
        return Declared(str(param.name))
    extents = _extents(param.ty)
    shape = None if extents is None else tuple(None if extent < 0 else extent for extent in extents)
    return Declared(str(param.name), shape, str(param.ty.dtype))


@dataclass(frozen=True)
class Interface:
    """The tensors that a program takes and returns, under the names of its source."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def read_interface(
    source: ModelSource, function: Any, given_shapes: Mapping[str, Sequence[int]] | None = None
) -> Interface:
    """Return the interface of an imported function, which has to be what its source declares.

    Raises
    ------
    ModelError
        As `input_specs` and `check_declared` do.
    """
    signature = source_signature(source, function)
    try:
        check_declared(function, signature, source.where, given_shapes)
    except ModelError:
        if source.kind != "onnx":
            raise
        # Files exist whose outputs are not what they declare; what their operators make of them decides.
        inferred = _with_inferred_outputs(source, signature, given_shapes)
        check_declared(function, inferred, source.where, None)
        warn(f"{_false_declaration(signature, inferred)} of {source.where}.")
    inputs = with_index_ranges(source, input_specs(function, signature))
    return Interface(inputs, output_specs(function, signature))


def _with_inferred_outputs(
    source: ModelSource, signature: Signature, shapes: Mapping[str, Sequence[int]] | None
) -> Signature:
    from .prepare_onnx import inferred_output_shapes

    found = inferred_output_shapes(source.model, shapes, source.where, source.fixed)
    outputs = [replace(each, shape=found.get(each.name, each.shape)) for each in signature.outputs]
    return replace(signature, outputs=tuple(outputs))


def _false_declaration(declared: Signature, inferred: Signature) -> str:
    pairs = zip(declared.outputs, inferred.outputs, strict=True)
    stated, made = next(pair for pair in pairs if pair[0] != pair[1])
    return (
        f"Output {stated.name!r} is {show_type(made.shape, made.dtype)}, and not "
        f"{show_type(stated.shape, stated.dtype)}, by the operators"
    )


def input_specs(function: Any, signature: Signature | None = None) -> tuple[TensorSpec, ...]:
    """Return the inputs of a Relax function under the names of its source; symbolic extents are -1.

    Raises
    ------
    ModelError
        If an argument is no tensor of known rank.
    """
    specs = []
    for param in function.params:
        ty = param.ty
        if not isinstance(ty, relax.TensorType) or ty.shape is None:
            raise ModelError(f"Expected tensors of known rank; argument {param.name!r} is of type {ty}.")
        specs.append(TensorSpec(str(param.name), _extents(ty) or (), str(ty.dtype)))
    return _renamed(specs, signature.input_names if signature else [])


def output_specs(function: Any, signature: Signature | None = None) -> tuple[TensorSpec, ...]:
    """Return the tensors that a Relax function returns, in order; without extents if of unknown rank."""
    specs = [
        TensorSpec(f"output_{number}", _extents(ty) or (), str(ty.dtype))
        for number, ty in enumerate(_tensor_types(function.ret_ty))
    ]
    return _renamed(specs, signature.output_names if signature else [])


def _renamed(specs: Sequence[TensorSpec], names: Sequence[str]) -> tuple[TensorSpec, ...]:
    if len(names) != len(specs):
        return tuple(specs)  # not what the source declares: `check_declared` says so
    return tuple(replace(spec, name=name) for spec, name in zip(specs, names, strict=True))


def check_declared(
    function: Any, signature: Signature, where: str, given_shapes: Mapping[str, Sequence[int]] | None
) -> None:
    """Check that an imported function returns what its source declares.

    Where shapes of inputs were given in place of the file's, its outputs may have other extents.

    Raises
    ------
    ModelError
        With the first output whose number, type, rank or extents are others.
    """
    types = _tensor_types(function.ret_ty)
    if len(types) != len(signature.outputs):
        raise ModelError(
            f"Expected {len(signature.outputs)} outputs of {where}, as it declares; TVM imports "
            f"{len(types)}."
        )
    fixed = {name: tuple(shape) for name, shape in (given_shapes or {}).items()}
    is_reshaped = any(
        d.name in fixed and d.shape is not None and not _agrees(d.shape, fixed[d.name])
        for d in signature.inputs
    )
    for declared, ty in zip(signature.outputs, types, strict=True):
        wrong_dtype = declared.dtype is not None and str(ty.dtype) != declared.dtype
        extents = _extents(ty)
        shape = declared.shape
        if is_reshaped and shape is not None:
            shape = (None,) * len(shape)
        wrong_shape = shape is not None and extents is not None and not _agrees(shape, extents)
        if wrong_dtype or wrong_shape:
            raise ModelError(
                f"Expected output {declared.name!r} of {where} as {show_type(shape, declared.dtype)}, "
                f"as it declares; TVM imports it as {show_type(extents, str(ty.dtype))}."
            )


def _agrees(declared: Sequence[int | None], extents: Sequence[int]) -> bool:
    return len(declared) == len(extents) and all(
        want is None or got < 0 or want == got for want, got in zip(declared, extents, strict=True)
    )


def _tensor_types(ty: Any) -> list[Any]:
    """Return the tensors of a (nested) type, in order."""
    if isinstance(ty, relax.TupleType):
        return [tensor for field in ty.fields for tensor in _tensor_types(field)]
    return [ty] if isinstance(ty, relax.TensorType) else []


def _extents(ty: Any) -> tuple[int, ...] | None:
    """Return the extents of a tensor type, -1 where they are symbolic; None without a known rank."""
    values = getattr(ty.shape, "values", None)
    if values is None:
        return None if int(ty.ndim) < 0 else (-1,) * int(ty.ndim)
    return tuple(int(e) if isinstance(e, tirx.IntImm) else -1 for e in values)
