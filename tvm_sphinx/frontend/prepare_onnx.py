"""Prepare an ONNX model: settle shapes, inline functions, write loops out, fold arithmetic. [TVM]

TVM's importer takes shapes that are written down, while exporters leave them to be computed by nodes
(``Shape``, ``Gather``, ``Concat``, ...). ONNX Runtime's basic optimisation folds these, and onnxscript's
optimiser does where ONNX Runtime would change the model's arithmetic (half floats, which it computes in
float32) or does not know an operator.
"""

from __future__ import annotations

import importlib.util
import math
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx
import onnx.inliner

from ..errors import ModelError, cause_of, known_choices
from .fold_shapes import fold_shapes, holds_branches
from .onnx_import import unknown_operators
from .onnx_inference import infer_graph
from .onnx_values import nodes_within, plain_domain
from .unroll_loops import holds_loops, unroll_loops

# Operators that give shapes, or that folding may make go away.
_SHAPE_OPERATORS = frozenset(
    "Shape Size If Loop Scan Range ConstantOfShape NonZero Optional OptionalGetElement EyeLike".split()
)
# Inputs that have to be known: position by operator; from that one on for a second entry of True.
_SHAPE_INPUTS: dict[str, tuple[int, ...]] = {
    "Reshape": (1,), "Expand": (1,), "Tile": (1,), "Slice": (1, 2, 3, 4), "Pad": (1, 2, 3),
    "Resize": (1, 2, 3), "Upsample": (1,), "Unsqueeze": (1,), "Squeeze": (1,), "TopK": (1,),
    "OneHot": (1,), "Split": (1,), "CumSum": (1,), "Trilu": (1,), "ReduceSum": (1,), "ReduceMean": (1,),
    "ReduceMax": (1,), "ReduceMin": (1,), "ReduceProd": (1,), "ReduceL1": (1,), "ReduceL2": (1,),
    "ReduceLogSum": (1,), "ReduceLogSumExp": (1,), "ReduceSumSquare": (1,),
}  # fmt: skip
# Of ONNX Runtime's basic optimisations those that change operators which TVM's importer knows well.
_LEFT_OUT = ["MatMulAddFusion", "TransposeOptimizer"]
_HALF = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
# Operators that are defined by operators that are defined by others, and so on.
_MOST_ROUNDS = 8
# What onnxscript folds: tensors of up to this size.
_MOST_BYTES = 1 << 26
# A factor of a product with so many elements is no part of what shapes or tables are computed of.
_LARGE = 1 << 16


@dataclass(frozen=True)
class Prepared:
    """A model, the shapes of its inputs by name where all extents are known, and what is open.

    ``hint`` is a sentence for the error that the model may end in.
    """

    model: Any
    shapes: dict[str, list[int]]
    hint: str = ""


def prepare_onnx(
    model: Any,
    shapes: Mapping[str, Sequence[int]] | None,
    where: str,
    values: Mapping[str, npt.NDArray[Any]] | None = None,
) -> Prepared:
    """Return a model whose shapes are known as far as they can be.

    Parameters
    ----------
    model
        ``onnx.ModelProto``; it is not changed.
    shapes
        Shapes of inputs by name. A named extent that one of them settles is settled for all inputs.
    where
        What to call the model in an error.
    values
        Values of inputs by name, which become weights.

    Raises
    ------
    ModelError
        If there is no such input, a shape does not fit what the model says, or a loop cannot be written
        out.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    if fixed.functions:
        fixed = onnx.inliner.inline_local_functions(fixed)
    _settle_weights(fixed)
    fix_shapes(fixed, _shapes_in_all(fixed, shapes or {}, values or {}, where), where)
    _make_weights(fixed, values or {})
    fixed = _write_out(fixed, where)
    hint, refused = "", ""
    if holds_branches(fixed.graph):
        # ONNX Runtime may crash where it puts a branch that holds others in the place of an If.
        fixed = fold_shapes(fixed)
    if needs_folding(fixed.graph):
        fixed, hint = _fold(fixed)
    if holds_loops(fixed.graph):
        try:
            fixed, hint = _fold(unroll_loops(fixed))
        except ModelError as error:
            refused = str(error)
    if needs_folding(fixed.graph):
        fixed = fold_shapes(fixed)
    if opened := _open_inputs(fixed.graph):
        name, extents = next(iter(opened.items()))
        shown = ",".join(str(extent) for extent in extents)
        open_ = f"Its input {name!r} has open extents, [{shown}]: --input-shapes settles them."
        hint = f"{open_} {hint}".rstrip()
    if refused:
        raise ModelError(f"Cannot import {where}: {refused} {hint}".rstrip())
    return Prepared(fixed, _known_shapes(fixed.graph), hint)


def _write_out(model: Any, where: str) -> Any:
    """Return a model in which what has no converter is written out as the standard defines it.

    ONNX defines many operators by others (``Attention``, ``RotaryEmbedding``), some of which may have no
    converter either. What it does not define so in the model's version stays.

    Raises
    ------
    ModelError
        If onnx fails at it.
    """
    for _ in range(_MOST_ROUNDS):
        versions = {plain_domain(entry.domain): int(entry.version) for entry in model.opset_import}
        unknown = unknown_operators(model.graph)
        defined = [key for key in unknown if _is_defined_by_others(*key, versions.get(key[0], 1))]
        if not defined:
            break
        try:
            model = _expanded(model, defined)
        except Exception as error:  # onnx's errors share no base class
            names = ", ".join(op for _, op in defined)
            raise ModelError(
                f"Cannot import {where}: onnx cannot write out {names}: {cause_of(error)}"
            ) from error
    return model


def _expanded(model: Any, defined: Collection[tuple[str, str]]) -> Any:
    """Return a model in which operators are written out, those in branches too."""
    # Which form an operator takes may depend on types, which onnx looks for among those written down;
    # and a body may read attributes that a node leaves out.
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    for entry in bare.opset_import:
        entry.domain = plain_domain(entry.domain)
    for node in nodes_within(bare.graph):
        node.domain = plain_domain(node.domain)
        if (node.domain, node.op_type) in defined:
            _write_defaults(node)
    typed = onnx.shape_inference.infer_shapes(bare, data_prop=True)
    typed.graph.value_info.extend(
        onnx.helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
        for weight in typed.graph.initializer
    )
    # It looks for one of inputs that are left out, too.
    typed.graph.value_info.append(onnx.helper.make_tensor_value_info("", onnx.TensorProto.FLOAT, []))
    expanded = onnx.inliner.inline_selected_functions(typed, defined, inline_schema_functions=True)
    del expanded.graph.value_info[:]
    _name_parts(typed.graph.node, expanded.graph.node, defined)
    return expanded


def _name_parts(before: Sequence[Any], after: Sequence[Any], defined: Collection[Any]) -> None:
    """Name nodes, in place, after the operator that they are written out from, as ``name/MatMul``.

    They stand where that stood, and the last of them makes what it made.
    """
    made_by = {name: node for node in before for name in node.output}
    owner, owners = None, []
    for node in reversed(after):
        owner = next((made_by[name] for name in node.output if name in made_by), owner)
        owners.append(owner)
    counts: Counter[str] = Counter()
    for node, owner in zip(after, reversed(owners), strict=True):
        if owner is not None and (owner.domain, owner.op_type) in defined:
            label = owner.name or owner.output[0]
            counts[label] += 1
            node.name = f"{label}/{node.op_type}_{counts[label]}"


def _write_defaults(node: Any) -> None:
    """Write the defaults of attributes into a node, in place."""
    given = {attribute.name for attribute in node.attribute}
    for name, attribute in onnx.defs.get_schema(node.op_type, node.domain).attributes.items():
        if name not in given and attribute.default_value.type:
            node.attribute.append(attribute.default_value)


def _is_defined_by_others(domain: str, op: str, version: int) -> bool:
    if not onnx.defs.has(op, version, domain):
        return False
    schema = onnx.defs.get_schema(op, version, domain)
    return bool(schema.has_function or schema.has_context_dependent_function)


def model_inputs(graph: Any) -> list[Any]:
    """Return the inputs of an ONNX graph that are no weights."""
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def _settle_weights(model: Any) -> None:
    """Take weights out of a model's inputs, in place.

    Files of IR version 3 list them there. An optimiser then takes them for values that a caller may
    replace: it folds none of them, and of equal ones it leaves the input behind without its value.
    """
    inputs = model_inputs(model.graph)
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 4)


def _shapes_in_all(
    model: Any,
    shapes: Mapping[str, Sequence[int]],
    values: Mapping[str, npt.NDArray[Any]],
    where: str,
) -> dict[str, Sequence[int]]:
    """Return the shapes that are given, and those of values where the model leaves one open."""
    for name, value in values.items():
        if name in shapes and tuple(shapes[name]) != value.shape:
            raise ModelError(
                f"Expected input {name!r} of {where} of shape {list(shapes[name])}; its value is of "
                f"shape {list(value.shape)}."
            )
    opened = _open_inputs(model.graph)
    return {**shapes, **{name: value.shape for name, value in values.items() if name in opened}}


def _make_weights(model: Any, values: Mapping[str, npt.NDArray[Any]]) -> None:
    """Put weights in the place of inputs, in place."""
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(value, name) for name, value in values.items()
    )
    _settle_weights(model)


def fix_shapes(model: Any, shapes: Mapping[str, Sequence[int]], where: str) -> None:
    """Write shapes of inputs into a model, in place; parameters and errors as in `prepare_onnx`."""
    inputs = {value.name: value for value in model_inputs(model.graph)}
    named: dict[str, int] = {}
    for name, shape in shapes.items():
        if name not in inputs:
            raise ModelError(known_choices(f"input of {where}", name, inputs))
        declared = inputs[name].type.tensor_type
        if not declared.HasField("shape"):
            for _ in shape:
                declared.shape.dim.add()
        _check_fits(name, shape, declared.shape.dim, named, where)
        for dim, extent in zip(declared.shape.dim, shape, strict=True):
            if dim.dim_param:
                named[dim.dim_param] = int(extent)
            dim.dim_value = int(extent)
    if not shapes:
        return
    for value in inputs.values():
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in named:
                dim.dim_value = named[dim.dim_param]
    # What the file says of the shapes between may name extents that are settled now.
    del model.graph.value_info[:]
    for output in model.graph.output:
        if output.type.HasField("tensor_type"):
            output.type.tensor_type.ClearField("shape")


def inferred_output_shapes(
    model: Any,
    shapes: Mapping[str, Sequence[int]] | None,
    where: str,
    values: Mapping[str, npt.NDArray[Any]] | None = None,
) -> dict[str, tuple[int | None, ...]]:
    """Return the shapes of a model's outputs as onnx infers them, whatever it declares.

    An open extent is None; outputs of unknown rank are left out.
    """
    bare = onnx.ModelProto()
    bare.CopyFrom(prepare_onnx(model, shapes, where, values).model)
    for output in bare.graph.output:
        output.type.tensor_type.ClearField("shape")
    inferred = infer_graph(bare)
    return {
        value.name: tuple(
            int(dim.dim_value) if dim.HasField("dim_value") else None
            for dim in value.type.tensor_type.shape.dim
        )
        for value in inferred.output
        if value.type.tensor_type.HasField("shape")
    }


def _check_fits(
    name: str, shape: Sequence[int], dims: Sequence[Any], named: Mapping[str, int], where: str
) -> None:
    wanted = [
        dim.dim_value if dim.HasField("dim_value") else named.get(dim.dim_param, -1) for dim in dims
    ]
    fits = len(wanted) == len(shape) and all(
        extent >= 0 and want in (-1, 0, extent) for want, extent in zip(wanted, shape, strict=True)
    )
    if not fits:
        shown = ", ".join(
            str(want) if want > 0 else dim.dim_param or "any"
            for want, dim in zip(wanted, dims, strict=True)
        )
        raise ModelError(f"Expected input {name!r} of {where} of shape [{shown}]; got {list(shape)}.")


def needs_folding(graph: Any) -> bool:
    """Return whether a graph computes shapes, or holds control flow that a constant may decide."""
    known = {tensor.name for tensor in graph.initializer}
    known |= {node.output[0] for node in graph.node if node.op_type == "Constant"}
    for node in graph.node:
        if node.op_type in _SHAPE_OPERATORS:
            return True
        for position in _SHAPE_INPUTS.get(node.op_type, ()):
            if position < len(node.input) and node.input[position] not in known | {""}:
                return True
    return False


def _fold(model: Any) -> tuple[Any, str]:
    """Return the model with what is constant folded, and a sentence on why it is not, if so."""
    if not _holds_half(model.graph):
        if importlib.util.find_spec("onnxruntime") is None:
            return model, _missing("onnxruntime")
        try:
            return _by_onnxruntime(model), ""
        except Exception as error:  # ONNX Runtime's errors derive from Exception alone
            cause = f"ONNX Runtime cannot prepare it: {cause_of(error)}"
    else:
        cause = _missing("onnxscript")
    if importlib.util.find_spec("onnxscript") is None:
        return model, cause
    try:
        return _by_onnxscript(model), ""
    except Exception as error:  # as above
        return model, f"onnxscript cannot prepare it: {cause_of(error)}"


def _missing(package: str) -> str:
    return f"It computes shapes, which {package} would fold: pip install 'tvm-sphinx[onnx]'."


def _by_onnxruntime(model: Any) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    light, factors = _without_factors(model)
    with tempfile.TemporaryDirectory(prefix="tvm-sphinx-") as folder:
        path = Path(folder) / "folded.onnx"
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(
            light.SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=_LEFT_OUT,
        )
        folded = onnx.load(str(path))
    folded.graph.initializer.extend(factors.values())
    _settle_weights(folded)
    return folded


def _without_factors(model: Any) -> tuple[Any, dict[str, Any]]:
    """Return a model with inputs in the place of the large factors of products, and these by name.

    Nothing is folded of them, and they are most of what a model of language holds, which goes through
    strings and files here.
    """
    read = Counter(name for node in nodes_within(model.graph) for name in node.input)
    factors = {
        name
        for node in model.graph.node
        if node.op_type in ("MatMul", "Gemm")
        for name in node.input[1:2]
        if read[name] == 1
    }
    light = onnx.ModelProto()
    light.CopyFrom(model)
    held, kept = dict[str, Any](), []
    for tensor in light.graph.initializer:
        if tensor.name in factors and math.prod(tensor.dims) >= _LARGE:
            held[tensor.name] = tensor
        else:
            kept.append(tensor)
    light.graph.input.extend(
        onnx.helper.make_tensor_value_info(name, tensor.data_type, tensor.dims)
        for name, tensor in held.items()
    )
    del light.graph.initializer[:]
    light.graph.initializer.extend(kept)
    return light, held


def _by_onnxscript(model: Any) -> Any:
    from onnxscript import optimizer

    return optimizer.optimize(model, input_size_limit=_MOST_BYTES, output_size_limit=_MOST_BYTES)


def _holds_half(graph: Any) -> bool:
    """Return whether tensors of a graph are of half floats."""
    values = [*graph.input, *graph.output, *graph.value_info]
    if any(value.type.tensor_type.elem_type in _HALF for value in values):
        return True
    return any(tensor.data_type in _HALF for tensor in _constants(graph)) or _casts_to_half(graph)


def _constants(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("g"):
                yield from _constants(attribute.g)


def _casts_to_half(graph: Any) -> bool:
    return any(
        attribute.name in ("to", "dtype", "output_dtype") and attribute.i in _HALF
        for node in graph.node
        for attribute in node.attribute
    )


def _open_inputs(graph: Any) -> dict[str, list[Any]]:
    """Return the extents of inputs that have open ones, by name."""
    return {
        value.name: [_extent(dim) for dim in value.type.tensor_type.shape.dim]
        for value in model_inputs(graph)
        if not _is_known(value)
    }


def _extent(dim: Any) -> Any:
    return dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?"


def _is_known(value: Any) -> bool:
    tensor = value.type.tensor_type
    dims = tensor.shape.dim
    return tensor.HasField("shape") and all(d.HasField("dim_value") and d.dim_value >= 0 for d in dims)


def _known_shapes(graph: Any) -> dict[str, list[int]]:
    return {
        value.name: [int(dim.dim_value) for dim in value.type.tensor_type.shape.dim]
        for value in model_inputs(graph)
        if _is_known(value)
    }
