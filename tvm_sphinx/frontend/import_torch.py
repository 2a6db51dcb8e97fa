"""Import a ``torch.export`` program through TVM's importer, with each operator checked. [TVM]

TVM's importer loses some arguments, and some results come out in another type or shape than torch's.
Here every operator's operands are promoted as torch promotes them, arguments that the importer does not
look at are found, and the type of each result is compared with what torch recorded for it. What TVM
converts wrongly has a converter of ours, see `tvm_sphinx.frontend.torch_converters`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.export.graph_signature import InputKind, OutputKind
from tvm.relax.frontend.torch import exported_program_translator as translator

from .._tvm import relax, tvm
from ..errors import ModelError, SphinxError, UnsupportedError, cause_of
from .torch_arguments import WatchedNode
from .torch_converters import CONVERTERS
from .torch_decompositions import decompose, nodes_within
from .torch_loops import convert_map, convert_scan, convert_while
from .torch_promotion import operands_in, promotion_of
from .torch_windows import results_read

Converter = Callable[[Any], Any]

_NAMESPACES = ("aten", "prims")
# Operators that draw random numbers in training alone, and are refused there for what they ignore.
_MAY_DRAW = ("_scaled_dot_product", "gru", "lstm", "rnn_", "rrelu_with_noise")
#: Operators of other libraries that there are converters for.
_LIBRARIES = (
    "torchvision.roi_align.default",
    "torchvision.deform_conv2d.default",
    "transformers.grouped_mm_fallback.default",
)


def import_program(program: Any) -> Any:
    """Return the Relax IRModule of a ``torch.export.ExportedProgram``.

    Outputs that are None, or plain numbers, are left out.

    Raises
    ------
    ModelError
        If the program changes its buffers or inputs, or holds an operator that cannot be converted.
    """
    program = decompose(program)
    _check_effects(program)
    _check_random(program)
    _check_outputs(program)
    # Its base is looked up here, where recording may have put another one.
    importer = type("Importer", (_Checked, translator.ExportedProgramImporter), {})()
    try:
        module = importer.from_exported_program(program, False, False, True, None)
    except SphinxError:
        raise
    except AssertionError as error:
        names = cause_of(error).removeprefix("Unsupported function types")
        raise ModelError(f"TVM has no operators for {names.strip()}") from error
    return module


def _check_effects(program: Any) -> None:
    """Refuse operators that do more than to compute, such as those that raise errors on values."""
    if any(spec.kind is InputKind.TOKEN for spec in program.graph_signature.input_specs):
        names = sorted(
            {
                str(node.args[1])
                for node in program.graph.nodes
                if getattr(node.target, "__name__", str(node.target)) == "with_effects"
            }
        )
        raise ModelError(
            f"{', '.join(names)} ends a program over the values that it meets, which no kernel does."
        )


def _check_outputs(program: Any) -> None:
    """Refuse what is lost between two calls: a compiled model has no state."""
    changed = {
        OutputKind.BUFFER_MUTATION: "buffer",
        OutputKind.USER_INPUT_MUTATION: "input",
        OutputKind.PARAMETER_MUTATION: "parameter",
    }
    for spec in program.graph_signature.output_specs:
        if spec.kind in changed:
            raise ModelError(
                f"The model changes its {changed[spec.kind]} {spec.target!r}, and a compiled model "
                f"keeps no state from one call to the next; make it an input and an output instead."
            )


def _check_random(program: Any) -> None:
    """Refuse operators that draw random numbers, of which TVM's importer would draw some once."""
    drawing = sorted({str(node.target) for node in nodes_within(program.graph_module) if _draws(node)})
    if drawing:
        raise ModelError(
            f"{', '.join(drawing)} draws random numbers, which a compiled program does not: draw them "
            f"outside, and make them an input."
        )


def _draws(node: Any) -> bool:
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or not node.users:
        return False
    if torch.Tag.nondeterministic_seeded not in target.tags:
        return False
    if target in (torch.ops.aten.native_dropout.default, torch.ops.aten.dropout.default):
        return bool(node.args[1]) and node.args[2] is not False
    return not target.__name__.startswith(_MAY_DRAW)


class _Checked:
    """Of TVM's importer: `CONVERTERS` in place of its own, and checks around all of them."""

    env: dict[Any, Any]
    block_builder: Any

    def create_convert_map(self) -> dict[str, Converter]:
        """Return the converters by the names of torch's overloads."""
        converters: dict[str, Converter] = super().create_convert_map()  # type: ignore[misc]
        for name, converter in CONVERTERS.items():
            converters[name] = self._with_importer(name, converter, converters.get(name))
        loops = {"map_impl": convert_map, "scan": convert_scan, "while_loop": convert_while}
        for name, loop in loops.items():
            converters[name] = functools.partial(loop, self)
        return {name: self._checked(converter) for name, converter in converters.items()}

    def _check_unsupported_func_type(self, nodes: Sequence[Any]) -> None:
        """Look at the operators of branches and loops too, and at whose they are.

        Converters are found by an operator's name alone: one of another library may do something else.
        """
        nested = _nested(nodes)
        foreign = sorted({str(node.target) for node in nested if not _is_known(node.target)})
        if foreign:
            raise ModelError(
                f"TVM has no operators for {foreign}: expected torch's own, or {', '.join(_LIBRARIES)}."
            )
        super()._check_unsupported_func_type(nested)  # type: ignore[misc]

    @staticmethod
    def _has_cond_op(nodes: Sequence[Any]) -> bool:
        """Return whether a condition is there, or in a loop, whose operators come to stand here."""
        return any(getattr(node.target, "__name__", "") == "cond" for node in _nested(nodes))

    def _with_importer(self, name: str, converter: Any, of_tvm: Converter | None) -> Converter:
        def convert(node: Any) -> Any:
            result = converter(self, node)
            if result is not NotImplemented:
                return result
            if of_tvm is None:
                raise ModelError(f"{name} of this form has no counterpart in TVM.")
            return of_tvm(node)

        return convert

    def _checked(self, converter: Converter) -> Converter:
        def convert(node: Any) -> Any:
            if not isinstance(node.target, torch._ops.OpOverload):
                return converter(node)
            watched = WatchedNode(node)
            promotion = promotion_of(node)
            try:
                with operands_in(self, node, promotion.operands):
                    result = converter(watched)
                if promotion.result is not None:
                    result = self._cast(result, promotion.result)
            except SphinxError:
                raise
            except Exception as error:  # TVM's converters raise many types
                raise ModelError(f"TVM cannot convert {_where(node)}: {cause_of(error)}") from error
            watched.check()
            _check_types(result, node, self)
            return result

        return convert

    def _cast(self, result: Any, dtype: Any) -> Any:
        name = self._convert_data_type(dtype)  # type: ignore[attr-defined]
        if not isinstance(getattr(result, "ty", None), relax.TensorType) or str(result.ty.dtype) == name:
            return result
        return self.block_builder.emit(relax.op.astype(result, name))

    @staticmethod
    def _flatten_output_args(output_args: Any) -> tuple[Any, ...]:
        """Return the tensors of nested outputs in order."""
        found: list[Any] = []

        def visit(value: Any) -> None:
            if isinstance(value, (list, tuple)):
                for item in value:
                    visit(item)
            elif isinstance(value, (bool, int, float)):
                dtype = (
                    "bool"
                    if isinstance(value, bool)
                    else "int64"
                    if isinstance(value, int)
                    else "float32"
                )
                found.append(relax.const(value, dtype))
            elif value is not None:
                found.append(value)

        visit(output_args)
        if not found:
            raise ModelError("Expected a model with one output or more; got one that returns None.")
        return tuple(found)


def _nested(nodes: Sequence[Any]) -> list[Any]:
    """Return the calls of nodes and of the graphs that belong to them."""
    return [
        node
        for graph in {node.graph.owning_module for node in nodes}
        for node in nodes_within(graph)
        if node.op == "call_function"
    ]


def _is_known(target: Any) -> bool:
    """Return whether a function of a graph is torch's own, or one of another library that is known."""
    if not isinstance(target, torch._ops.OpOverload) or target.namespace in _NAMESPACES:
        return True
    return str(target) in _LIBRARIES


def _where(node: Any) -> str:
    return f"{node.target} ({node.name})"


def _check_types(result: Any, node: Any, importer: Any) -> None:
    """Compare what a converter has made with the type that torch recorded for the node."""
    wanted = node.meta.get("val")
    if isinstance(wanted, torch.Tensor):
        _check_type(result, wanted, node, importer)
        return
    ty = getattr(result, "ty", None)
    if not isinstance(wanted, (list, tuple)):
        return
    used = results_read(node)
    if isinstance(ty, relax.TensorType) and max(used, default=0) > 0:  # or it stood for all of them
        raise UnsupportedError(
            f"TVM's importer makes the first result of {_where(node)} alone, and the program reads "
            f"number {max(used) + 1}, too."
        )
    if isinstance(ty, relax.TupleType):
        for number, (field, part) in enumerate(zip(result.ty.fields, wanted, strict=False)):
            if number in used and isinstance(part, torch.Tensor):
                _check_tensor_type(field, part, node, importer)


def _check_type(result: Any, wanted: Any, node: Any, importer: Any) -> None:
    ty = getattr(result, "ty", None)
    if isinstance(ty, relax.TupleType):
        return  # an operator of several outputs of which TVM makes another selection
    if ty is not None:
        _check_tensor_type(ty, wanted, node, importer)


def _check_tensor_type(ty: Any, wanted: Any, node: Any, importer: Any) -> None:
    if not isinstance(ty, relax.TensorType):
        return
    dtype = importer._convert_data_type(wanted.dtype)
    extents = list(ty.shape.values) if isinstance(ty.shape, relax.ShapeExpr) else None
    shape = (
        [int(e) if isinstance(e, tvm.tirx.IntImm) else None for e in extents]
        if extents is not None
        else None
    )
    same = shape is None or (
        len(shape) == wanted.dim()
        and all(
            mine is None or not isinstance(right, int) or mine == right
            for mine, right in zip(shape, wanted.shape, strict=True)
        )
    )
    if str(ty.dtype) != dtype or not same:
        raise UnsupportedError(
            f"TVM's importer makes {ty.dtype}{shape} of {_where(node)}, which is {dtype}"
            f"{list(wanted.shape)} in torch."
        )
