"""Import an ONNX model: TVM's importer, with converters of our own before its own. [TVM]

TVM's importer looks operators up by name alone. Here a node's domain counts too, so that an operator of
another domain is not taken for ONNX's own, and an error names the node.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from tvm.relax.frontend.onnx import onnx_frontend

from .._tvm import relax, tvm
from ..errors import ModelError, SphinxError, cause_of
from . import (
    onnx_attention,
    onnx_indexing,
    onnx_norms,
    onnx_open_shapes,
    onnx_operators,
    onnx_quantised,
    onnx_recurrent,
    onnx_selection,
    onnx_sequences,
    onnx_signal,
    onnx_steps,
)
from .onnx_branches import BranchImporter
from .onnx_node import MICROSOFT, STANDARD, Converter, Node
from .onnx_types import check_strings, check_type, inferred_types, with_extents
from .onnx_values import STANDARD_DOMAINS, nodes_within, plain_domain
from .record_origins import OriginLog, holds_tensors, onnx_operator, recording

#: Converters by domain and operator; those that are not here are TVM's.
CONVERTERS: dict[tuple[str, str], Converter] = {
    **onnx_operators.CONVERTERS,
    **onnx_norms.CONVERTERS,
    **onnx_attention.CONVERTERS,
    **onnx_indexing.CONVERTERS,
    **onnx_recurrent.CONVERTERS,
    **onnx_quantised.CONVERTERS,
    **onnx_sequences.CONVERTERS,
    **onnx_open_shapes.CONVERTERS,
    **onnx_selection.CONVERTERS,
    **onnx_signal.CONVERTERS,
    **onnx_steps.CONVERTERS,
}

# What TVM's importer knows of ONNX Runtime's operators; it has all others of its map from ONNX itself.
_MICROSOFT_IN_TVM = frozenset(
    "Attention FastGelu BiasGelu Gelu SkipLayerNormalization EmbedLayerNormalization "
    "MatMulInteger16".split()
)
# Of these only ONNX Runtime's form is known to TVM: ONNX's own operator of the name is another one.
_MICROSOFT_ONLY = _MICROSOFT_IN_TVM - {"Gelu"}
# What TVM's importer takes the values of a shape for as they are.
_READ_SHAPES = frozenset(
    "Reshape Resize ConstantOfShape Gather Slice Shape Expand Concat Equal Where Cast CastLike "
    "Squeeze".split()
)
_IN_BRANCH = "It is in a branch of the If"
# Types of fewer bits than a byte are kept in bytes.
_NARROW = {"int4": "int8", "uint4": "uint8", "int2": "int8", "uint2": "uint8"}


def import_onnx(model: Any, shapes: Mapping[str, list[int]] | None = None) -> Any:
    """Return the Relax IRModule of an ``onnx.ModelProto``, whose weights are constants.

    Parameters
    ----------
    model
    shapes
        Shapes of inputs by name, in place of those of the model.

    Raises
    ------
    ModelError
        If the model uses what is not known here; the message names the node.
    """
    # TVM prints the inputs of the node that it fails on.
    with recording() as log, contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        # Open extents are told of where a schedule needs them.
        warnings.filterwarnings("ignore", message="Input .* has unknown")
        check_strings(model)
        importer = _Importer(model, shapes, log)
        module = importer.from_onnx(model.graph, importer.opset_of(STANDARD))
    return log.origins.attach(module, "main")


def unknown_operators(graph: Any) -> list[tuple[str, str]]:
    """Return the operators of an ONNX graph, its branches included, that have no converter, sorted.

    Each is a domain, empty for ONNX's own, and a name.
    """
    found = {(plain_domain(node.domain), node.op_type) for node in nodes_within(graph)}
    return sorted(key for key in found if not _is_known(*key))


def _is_known(domain: str, op: str) -> bool:
    if (domain, op) in CONVERTERS:
        return True
    if domain == MICROSOFT:
        return op in _MICROSOFT_IN_TVM
    if domain != STANDARD or op in _MICROSOFT_ONLY:
        return False
    return op in ("If", "Loop") or op in onnx_frontend._get_convert_map()


def _shown(domain: str, op: str) -> str:
    return f"{domain}.{op}" if domain else op


class _Importer(BranchImporter, onnx_frontend.ONNXGraphImporter):  # type: ignore[misc]
    """Walks the nodes of a graph; see `import_onnx`."""

    def __init__(self, model: Any, shapes: Mapping[str, list[int]] | None, log: OriginLog) -> None:
        super().__init__(dict(shapes or {}), "float32", keep_params_in_input=False, sanitize=False)
        self._log = log
        self._types = inferred_types(model)
        self._opsets = {entry.domain: int(entry.version) for entry in model.opset_import}

    def opset_of(self, domain: str) -> int:
        """Return the version of a domain's operators; 1 where the model does not say."""
        names = STANDARD_DOMAINS if domain == STANDARD else (domain,)
        return max((self._opsets[name] for name in names if name in self._opsets), default=1)

    def _check_for_unsupported_ops(self, graph: Any) -> None:
        if missing := unknown_operators(graph):
            shown = ", ".join(_shown(*key) for key in missing)
            raise ModelError(f"operators that are not known: {shown}.")

    def _construct_nodes(self, graph: Any) -> None:
        for node in graph.node:
            try:
                with self._log.converting(onnx_operator(node)):
                    self._convert_node(node)
                    self._check_outputs(node)
                    self._name_outputs(node)
            except SphinxError:
                raise
            except Exception as error:  # TVM's converters raise TVM's, onnx's and Python's errors alike
                shown = _shown(plain_domain(node.domain), node.op_type)
                raise ModelError(f"{shown} (node {node.name!r}): {cause_of(error)}") from error

    def _convert_node(self, node: Any) -> None:
        key = (plain_domain(node.domain), node.op_type)
        if key == (STANDARD, "If"):
            self._convert_choice(node)
            return
        if key == (STANDARD, "Loop"):
            self._convert_loop(node)
            return
        inputs = [self._nodes[name] if name else None for name in node.input]
        attributes = self._parse_attr(node.attribute)
        outputs = self._apply(key, node.name, inputs, attributes, len(node.output))
        if outputs is None:
            # TVM's way, one node at a time.
            with self._shapes_as_tensors(node):
                super()._construct_nodes(_OneNode(node))
            return
        for name, value in zip(node.output, outputs, strict=False):
            if name and value is None:
                raise ModelError(
                    f"{_shown(*key)} (node {node.name!r}): its output {name!r} is not known."
                )
            if name:
                self._nodes[name] = value

    @contextlib.contextmanager
    def _shapes_as_tensors(self, node: Any) -> Iterator[None]:
        """Let a node that TVM gives no shapes to read tensors in their place."""
        shapes = {
            name: self._nodes[name]
            for name in node.input
            if node.op_type not in _READ_SHAPES and isinstance(self._nodes.get(name), relax.ShapeExpr)
        }
        self._nodes.update({name: self._as_tensor(shape) for name, shape in shapes.items()})
        try:
            yield
        finally:
            self._nodes.update(shapes)

    def _convert_choice(self, node: Any) -> None:
        """Convert an ``If``, both of whose branches have to be convertible."""
        try:
            self._convert_if(node)
        except ModelError as error:
            if _IN_BRANCH in str(error):
                raise
            raise ModelError(
                f"{error} {_IN_BRANCH} {node.name!r}, whose condition {node.input[0]!r} is known at run "
                f"time only; if one input decides it, and always alike, fix that by --fix-input "
                f"NAME=VALUE (fixed_inputs), and the other branch goes."
            ) from error

    def _check_outputs(self, node: Any) -> None:
        """Compare what a node has become with what ONNX says of it."""
        where = f"{_shown(plain_domain(node.domain), node.op_type)} (node {node.name!r})"
        for name in node.output:
            if name:
                check_type(self._nodes.get(name), self._types.get(name), where)

    def _name_outputs(self, node: Any) -> None:
        """Give what a node makes variables of their own, which then carry its name."""
        for name in node.output:
            value = self._nodes.get(name) if name else None
            if isinstance(value, relax.Call) and holds_tensors(value.ty):
                self._nodes[name] = value = self.bb.emit(value)
            if isinstance(value, relax.Var) and isinstance(value.ty, relax.TensorType):
                self._nodes[name] = with_extents(self.bb, value, self._types.get(name))
            if name:
                self._log.note(name, self._nodes.get(name))

    def _convert_operator(self, op_name: str, inputs: Any, attrs: Any, opset: int) -> Any:
        """Convert a node of TVM's walk, which knows no domains; so are those of branches."""
        key = (STANDARD, op_name) if (STANDARD, op_name) in CONVERTERS else (MICROSOFT, op_name)
        custom = attrs["tvm_custom"]
        outputs = self._apply(key, custom["name"], list(inputs), attrs, custom["num_outputs"])
        if outputs is None:
            return super()._convert_operator(op_name, inputs, attrs, opset)
        return outputs[0] if len(outputs) == 1 else relax.Tuple(outputs)

    def _apply(
        self,
        key: tuple[str, str],
        name: str,
        inputs: Sequence[Any],
        attributes: Mapping[str, Any],
        num_outputs: int,
    ) -> tuple[Any, ...] | None:
        """Return the outputs that a converter of ours makes, None where a node is left to TVM's."""
        converter = CONVERTERS.get(key)
        if converter is None:
            return None
        tensors = tuple(self._as_tensor(expr) for expr in inputs)
        shown, opset = _shown(*key), self.opset_of(key[0])
        made = converter(Node(shown, name, self.bb, tensors, attributes, opset, num_outputs))
        if made is NotImplemented:
            return None
        outputs = made if isinstance(made, tuple) else (made,)
        return tuple(
            None if output is None else self.bb.normalize(output) for output in outputs[:num_outputs]
        )

    def _as_tensor(self, expr: Any) -> Any:
        """Return a tensor in the place of a shape or a number."""
        if isinstance(expr, relax.ShapeExpr):
            return self.bb.normalize(relax.op.shape_to_tensor(expr))
        if expr is not None and tvm.ir.is_prim_expr(expr) and hasattr(expr, "value"):
            return relax.const(np.asarray(expr.value, str(expr.ty)), str(expr.ty))
        return expr

    def _parse_attr(self, attr_proto: Any) -> dict[str, Any]:
        """Return attributes by name, lists of no element among them, which TVM refuses."""
        found = {}
        for attribute in attr_proto:
            value = onnx.helper.get_attribute_value(attribute)
            found[attribute.name] = tuple(value) if _is_list(attribute) else value
        return found

    def _parse_array(self, tensor_proto: Any) -> Any:
        array = onnx_frontend.get_numpy(tensor_proto).reshape(tuple(tensor_proto.dims))
        name = str(array.dtype)
        return tvm.runtime.tensor(array.astype(_NARROW[name]) if name in _NARROW else array)


def _is_list(attribute: Any) -> bool:
    return str(onnx.AttributeProto.AttributeType.Name(attribute.type)).endswith("S")


class _OneNode:
    """A graph of one node, as far as TVM's importer looks at it."""

    def __init__(self, node: Any) -> None:
        self.node = [node]
