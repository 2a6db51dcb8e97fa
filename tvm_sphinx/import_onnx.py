"""Import an ONNX model through TVM's importer, and check each operator that it converts. [TVM]

TVM's importer ignores some attributes, and some results come out in another type or shape than ONNX
defines. Here the type of each result is compared with what ONNX infers for it. What TVM converts wrongly
has a converter of ours, see `tvm_sphinx.onnx_converters`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from tvm.relax.frontend.onnx.onnx_frontend import ONNXGraphImporter

from ._tvm import relax, tirx
from .errors import ModelError, SphinxError, UnsupportedError, cause_of
from .onnx_converters import CONVERTERS

_DOMAINS = ("", "ai.onnx")
# Operators of ONNX Runtime that TVM's importer knows; it looks at no operator's domain.
_RUNTIME_OPERATORS = frozenset(
    """SkipLayerNormalization EmbedLayerNormalization FastGelu BiasGelu Gelu Attention
    MatMulInteger16""".split()
)


def import_model(model: Any, input_shapes: Mapping[str, Sequence[int]]) -> Any:
    """Return the Relax IRModule of an ``onnx.ModelProto``, which is not changed.

    Parameters
    ----------
    model
        Of IR version 3 or later.
    input_shapes
        Shapes of inputs that the model leaves open.

    Raises
    ------
    ModelError
        If it holds an operator that cannot be converted.
    """
    if model.ir_version < 3:
        raise ModelError(f"Expected ONNX IR version 3 or later; got {model.ir_version}.")
    named = _with_names(model)
    _check_domains(named.graph)
    shapes = {name: list(shape) for name, shape in input_shapes.items()}
    importer = _Importer(_inferred_types(named, shapes), shapes)
    opset = next((each.version for each in named.opset_import if each.domain in _DOMAINS), 1)
    return importer.from_onnx(named.graph, opset)


def _with_names(model: Any) -> Any:
    """Return a copy whose nodes are named by their first output, which is unique in a graph."""
    named = onnx.ModelProto()
    named.CopyFrom(model)
    for node in named.graph.node:
        node.name = next((output for output in node.output if output), node.name)
    return named


def _check_domains(graph: Any) -> None:
    for node in graph.node:
        if node.domain not in _DOMAINS and node.op_type not in _RUNTIME_OPERATORS:
            raise ModelError(
                f"Operator {node.op_type} of domain {node.domain!r} (node {node.name!r}) has no "
                f"counterpart in TVM."
            )


def _inferred_types(model: Any, shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Return the type of each value that ONNX can infer, by its name."""
    sized = onnx.ModelProto()
    sized.CopyFrom(model)
    for value in sized.graph.input:
        for dim, extent in zip(
            value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False
        ):
            dim.dim_value = int(extent)
    try:
        graph = onnx.shape_inference.infer_shapes(sized, data_prop=True).graph
    except Exception as error:  # onnx's errors share no base class
        warnings.warn(f"ONNX cannot infer this model's shapes: {cause_of(error)}", stacklevel=2)
        return {}
    # What a file says of its own values may be stale; what was inferred stands beside the operators.
    return {value.name: value.type.tensor_type for value in (*graph.value_info, *graph.output)}


class _Importer(ONNXGraphImporter):  # type: ignore[misc]
    """TVM's importer with `CONVERTERS` in place of its own, and checks around all of them."""

    def __init__(self, types: Mapping[str, Any], shapes: dict[str, list[int]]) -> None:
        super().__init__(shapes or None, "float32", keep_params_in_input=False, sanitize=True)
        self._types = types
        self._outputs: dict[str, list[str]] = {}

    def from_onnx(self, graph: Any, opset: int) -> Any:
        """Return the module of a graph."""
        self._outputs = {node.name: list(node.output) for node in graph.node}
        return super().from_onnx(graph, opset)

    def _construct_nodes(self, graph: Any) -> None:
        """Convert all nodes; an output that is a shape becomes a tensor."""
        super()._construct_nodes(graph)
        for output in graph.output:
            expr = self._nodes.get(output.name)
            if isinstance(expr, tirx.IntImm):
                self._nodes[output.name] = relax.const(int(expr), "int64")
            elif expr is not None and isinstance(getattr(expr, "ty", None), relax.ShapeType):
                self._nodes[output.name] = self.bb.normalize(relax.op.shape_to_tensor(expr))

    def _convert_operator(self, op_name: str, inputs: Any, attrs: Any, opset: int) -> Any:
        name = attrs["tvm_custom"]["name"]
        where = f"{op_name} (node {name!r})"
        converter = CONVERTERS.get(op_name)
        try:
            result = NotImplemented
            if converter is not None:
                result = converter(self.bb, inputs, attrs, [self._nodes, self._params], opset)
            if result is NotImplemented:
                result = super()._convert_operator(op_name, inputs, attrs, opset)
            elif isinstance(result, relax.Expr):
                result = self.bb.normalize(result)
        except SphinxError as error:
            raise type(error)(f"{where}: {error}") from error
        except Exception as error:  # TVM's converters raise many types
            raise ModelError(f"TVM cannot convert {where}: {cause_of(error)}") from error
        self._check(result, self._outputs.get(name, []), where)
        return result

    def _check(self, result: Any, outputs: Sequence[str], where: str) -> None:
        ty = getattr(result, "ty", None)
        fields = list(ty.fields) if isinstance(ty, relax.TupleType) else [ty]
        for field, output in zip(fields, outputs, strict=False):
            wanted = self._types.get(output)
            if wanted is not None and isinstance(field, relax.TensorType):
                _check_type(field, wanted, where)


def _check_type(ty: Any, wanted: Any, where: str) -> None:
    """Compare a Relax type with an ONNX one, as far as both are known."""
    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(wanted.elem_type)) if wanted.elem_type else None
    shape = (
        [int(e) if isinstance(e, tirx.IntImm) else None for e in ty.shape.values] if ty.shape else None
    )
    right = None
    if wanted.HasField("shape"):
        right = [dim.dim_value if dim.HasField("dim_value") else None for dim in wanted.shape.dim]
    same = (
        shape is None
        or right is None
        or (
            len(shape) == len(right)
            and all(a is None or b is None or a == b for a, b in zip(shape, right, strict=True))
        )
    )
    if (dtype is not None and str(ty.dtype) not in ("", dtype)) or not same:
        raise UnsupportedError(
            f"TVM's importer makes {ty.dtype}{shape} of {where}, which is {dtype}{right} in ONNX."
        )
