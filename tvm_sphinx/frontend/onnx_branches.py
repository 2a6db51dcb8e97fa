"""Convert ONNX's ``If`` and ``Loop`` so that what is computed in them stays in them. [TVM]

TVM's importer adds some of what is in a branch to the code around it, where it always runs, and knows no
loops. Those that can be counted have been written out before (`unroll_loops`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .._tvm import relax
from ..errors import ModelError
from .onnx_node import constant_value
from .while_loops import emit_loop


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
            outputs = self._graph_outputs(taken, {})
            self._nodes.update(zip(node.output, outputs, strict=True))
            return
        then, otherwise = (self._branch(branches[name]) for name in ("then_branch", "else_branch"))
        made = self.bb.emit(relax.If(self._scalar(condition, node), then, otherwise))
        if len(node.output) == 1:
            self._nodes[node.output[0]] = made
            return
        for number, name in enumerate(node.output):
            self._nodes[name] = self.bb.emit(relax.TupleGetItem(made, number))

    def _convert_loop(self, node: Any) -> None:
        """Bind the outputs of a ``Loop`` that hands a state on from step to step."""
        (body,) = [attribute.g for attribute in node.attribute if attribute.name == "body"]
        most, goes_on, *state = map(self._operand, node.input)
        emit, true = self.bb.emit, relax.const(True)
        count = relax.const(0, "int64")
        more = true if goes_on is None else self._scalar(goes_on, node)
        if most is not None:
            most = self._scalar(most, node)
            more = emit(relax.op.logical_and(more, emit(relax.op.less(count, most))))
        names = [value.name for value in body.input]
        axes = [len(value.type.tensor_type.shape.dim) for value in body.input[:2]]

        def step(values: Sequence[Any]) -> tuple[Any, list[Any]]:
            number, *current = values
            given = [
                emit(relax.op.reshape(one, [1] * rank))
                for one, rank in zip((number, true), axes, strict=True)
            ]
            again, *after = self._graph_outputs(body, dict(zip(names, [*given, *current], strict=True)))
            again = self._scalar(again, node)
            following = emit(relax.op.add(number, relax.const(1, "int64")))
            if most is not None:
                again = emit(relax.op.logical_and(again, emit(relax.op.less(following, most))))
            return again, [following, *after]

        label = f"Loop (node {node.name!r})"
        _, *last = emit_loop(self.bb, label, more, [emit(count), *state], step)
        self._nodes.update((name, value) for name, value in zip(node.output, last, strict=True) if name)

    def _operand(self, name: str) -> Any:
        return self._as_tensor(self._nodes[name]) if name else None

    def _scalar(self, condition: Any, node: Any) -> Any:
        """Return a condition or a count without axes: ONNX takes any tensor of one element."""
        if condition.ty.ndim == 0:
            return condition
        extents = getattr(condition.ty.shape, "values", None)
        if extents is None or math.prod(int(extent) for extent in extents) != 1:
            raise ModelError(
                f"{node.op_type} (node {node.name!r}): expected a condition of one element; got "
                f"{condition.ty}."
            )
        return self.bb.emit(relax.op.reshape(condition, []))

    def _branch(self, graph: Any) -> Any:
        """Return a branch as an expression with bindings of its own."""
        self.bb._begin_binding_block()
        try:
            outputs = self._graph_outputs(graph, {})
            result = outputs[0] if len(outputs) == 1 else self.bb.emit(relax.Tuple(outputs))
        finally:
            block = self.bb._end_block()
        return relax.SeqExpr([block], result)

    def _graph_outputs(self, graph: Any, inputs: Mapping[str, Any]) -> list[Any]:
        """Convert the nodes of a graph, whose values nobody else sees; return its outputs."""
        outer = dict(self._nodes)
        try:
            self._nodes.update(inputs)
            for tensor in graph.initializer:
                self._nodes[tensor.name] = relax.const(self._parse_array(tensor))
            self._construct_nodes(graph)
            return [self._as_tensor(self._nodes[output.name]) for output in graph.output]
        finally:
            self._nodes = outer
