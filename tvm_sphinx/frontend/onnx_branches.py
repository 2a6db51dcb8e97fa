"""Convert ONNX's ``If`` so that what its branches compute stays in them. [TVM]

TVM's importer adds some of what is in a branch to the code around it, where it always runs.
"""

from __future__ import annotations

import math
from typing import Any

from .._tvm import relax
from ..errors import ModelError
from .onnx_node import constant_value


class BranchImporter:
    """The part of an importer of ONNX graphs that converts branches; the rest is TVM's."""

    bb: Any
    _nodes: dict[str, Any]
    _construct_nodes: Any
    _as_tensor: Any
    _parse_array: Any

    def _convert_if(self, node: Any) -> None:
        """Bind the outputs of an ``If``; where its condition is constant, to those of one branch."""
        branches = {attribute.name: attribute.g for attribute in node.attribute}
        condition = self._nodes[node.input[0]]
        known = constant_value(condition)
        if known is not None:
            taken = branches["then_branch" if known.reshape(()) else "else_branch"]
            outputs = self._branch_outputs(taken)
            self._nodes.update(zip(node.output, outputs, strict=True))
            return
        then, otherwise = (self._branch(branches[name]) for name in ("then_branch", "else_branch"))
        made = self.bb.emit(relax.If(self._scalar(condition, node), then, otherwise))
        if len(node.output) == 1:
            self._nodes[node.output[0]] = made
            return
        for number, name in enumerate(node.output):
            self._nodes[name] = self.bb.emit(relax.TupleGetItem(made, number))

    def _scalar(self, condition: Any, node: Any) -> Any:
        """Return a condition without axes: ONNX takes any tensor of one element."""
        if condition.ty.ndim == 0:
            return condition
        extents = getattr(condition.ty.shape, "values", None)
        if extents is None or math.prod(int(extent) for extent in extents) != 1:
            raise ModelError(
                f"If (node {node.name!r}): expected a condition of one element; got {condition.ty}."
            )
        return self.bb.emit(relax.op.reshape(condition, []))

    def _branch(self, graph: Any) -> Any:
        """Return a branch as an expression with bindings of its own."""
        self.bb._begin_binding_block()
        try:
            outputs = self._branch_outputs(graph)
            result = outputs[0] if len(outputs) == 1 else self.bb.emit(relax.Tuple(outputs))
        finally:
            block = self.bb._end_block()
        return relax.SeqExpr([block], result)

    def _branch_outputs(self, graph: Any) -> list[Any]:
        """Convert the nodes of a branch, whose values nobody else sees; return its outputs."""
        outer = dict(self._nodes)
        try:
            for tensor in graph.initializer:
                self._nodes[tensor.name] = relax.const(self._parse_array(tensor))
            self._construct_nodes(graph)
            return [self._as_tensor(self._nodes[output.name]) for output in graph.output]
        finally:
            self._nodes = outer
