"""Write the loops of an ONNX model out: ``Loop`` and ``Scan`` whose number of iterations is constant.

``Scan`` has one for each slice of its inputs. A ``Loop`` goes on while its body says so; where that
depends on counters alone, which start from constants, they are counted here. One that cannot be counted,
or has too many, stays as it is where it collects no values, whose number would be that of a shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..errors import ModelError
from .onnx_inference import typed_graph
from .onnx_values import Array, KnownValues, attributes_of, renamed, subgraphs

_LOOPS = ("Loop", "Scan")
# Of all loops together: each of them becomes a task, or a part of one.
_MOST_NODES = 4096
# Loops in loops, which are written out from without.
_MOST_DEPTH = 16


def holds_loops(graph: Any) -> bool:
    """Return whether a graph, or a branch in it, has a loop."""
    return any(node.op_type in _LOOPS or any(map(holds_loops, subgraphs(node))) for node in graph.node)


def unroll_loops(model: Any) -> Any:
    """Return a model with loops written out; ``model`` is an ``onnx.ModelProto`` that is not changed.

    The copies of a node ``n`` in the body of a loop ``l`` are called ``l/0/n``, ``l/1/n``, and so on.

    Raises
    ------
    ModelError
        If the iterations of a loop that collects values cannot be counted, or are too many; the message
        names its node.
    """
    unrolled = onnx.ModelProto()
    unrolled.CopyFrom(model)
    budget = _Budget()
    for _ in range(_MOST_DEPTH):
        if not _Scope(unrolled, budget).unroll(unrolled.graph, typed_graph(unrolled)):
            return unrolled
    raise ModelError(f"Expected loops in at most {_MOST_DEPTH - 1} others.")


class _UncountedError(ModelError):
    """A loop cannot be written out."""


def _error(node: Any, what: str) -> ModelError:
    name = node.name or node.output[0]
    return _UncountedError(f"{node.op_type} (node {name!r}): {what}.")


class _Budget:
    """How many nodes loops may still become."""

    def __init__(self) -> None:
        self.left = _MOST_NODES

    def spend(self, node: Any, count: int) -> None:
        """Take some nodes for one iteration of a loop."""
        self.left -= count
        if self.left < 0:
            raise _error(
                node, f"loops are written out, and this one makes that more than {_MOST_NODES} nodes"
            )


class _Scope:
    """Where loops stand: what is known there, and how many nodes they may still become."""

    def __init__(self, model: Any, budget: _Budget) -> None:
        self.known = KnownValues(model.opset_import)
        self.budget = budget

    def unroll(self, graph: Any, typed: Any) -> bool:
        """Write out the outermost loops of a graph in place; return whether there was one.

        ``typed`` is the same graph with types.
        """
        self.known.enter(graph, typed)
        nodes: list[Any] = []
        changed = False
        for node, typed_node in zip(graph.node, typed.node, strict=True):
            if (written := self._written_out(node)) is not None:
                nodes += written
                changed = True
                continue
            self.known.note(node)
            for inner, typed_inner in zip(subgraphs(node), subgraphs(typed_node), strict=True):
                changed |= self.unroll(inner, typed_inner)
            nodes.append(node)
        del graph.node[:]
        graph.node.extend(nodes)
        del graph.value_info[:]
        return changed

    def _written_out(self, node: Any) -> list[Any] | None:
        """Return what a loop becomes; None for one that stays, and for what is none."""
        if node.op_type not in _LOOPS or node.domain not in ("", "ai.onnx"):
            return None
        left = self.budget.left
        try:
            return (_LoopUnroller if node.op_type == "Loop" else _ScanUnroller)(self, node).nodes()
        except _UncountedError:
            if node.op_type == "Scan" or len(node.input) - 1 < len(attributes_of(node)["body"].output):
                raise
            self.budget.left = left
            return None


class _Unroller:
    """Copies the body of a loop for each iteration."""

    def __init__(self, scope: _Scope, node: Any) -> None:
        self.scope, self.node = scope, node
        self.attributes = attributes_of(node)
        self.body = self.attributes["body"]
        self.name = node.name or node.output[0]
        self.made: list[Any] = []
        for tensor in self.body.initializer:
            self.constant(f"{self.name}/{tensor.name}", numpy_helper.to_array(tensor))

    def constant(self, name: str, value: Array) -> str:
        """Add a constant, and return its name."""
        tensor = numpy_helper.from_array(np.asarray(value), name)
        self.made.append(helper.make_node("Constant", [], [name], name=name, value=tensor))
        self.scope.known.arrays[name] = np.asarray(value)
        return name

    def iteration(self, number: int, arguments: Sequence[str]) -> list[str]:
        """Add the body once, called with some values; return what its outputs are called."""
        self.scope.budget.spend(self.node, len(self.body.node))
        prefix = f"{self.name}/{number}/"
        names = {tensor.name: f"{self.name}/{tensor.name}" for tensor in self.body.initializer}
        names |= {value.name: arg for value, arg in zip(self.body.input, arguments, strict=True)}
        self.made += [renamed(node, names, prefix) for node in self.body.node]
        return [names.get(output.name, output.name) for output in self.body.output]

    def hand_on(self, source: str, output: str) -> None:
        """Let an output of the loop be a value of the last iteration."""
        if output:
            name = f"{self.name}/{output}"
            self.made.append(helper.make_node("Identity", [source], [output], name=name))

    def stack(self, values: Sequence[str], output: str, axis: int) -> None:
        """Let an output of the loop be the values of all iterations, along a new axis."""
        if not output:
            return
        if not values:
            raise _error(self.node, f"it has no iteration, and so its output {output!r} no elements")
        rows = []
        for number, value in enumerate(values):
            rows.append(f"{self.name}/{output}/{number}")
            self.made.append(self._unsqueeze(value, rows[-1], axis))
        name = f"{self.name}/{output}"
        self.made.append(helper.make_node("Concat", rows, [output], name=name, axis=axis))

    def _unsqueeze(self, value: str, output: str, axis: int) -> Any:
        if self.scope.known.opset < 13:
            return helper.make_node("Unsqueeze", [value], [output], name=output, axes=[axis])
        axes = self.constant(f"{output}/axis", np.array([axis], np.int64))
        return helper.make_node("Unsqueeze", [value, axes], [output], name=output)


class _LoopUnroller(_Unroller):
    """Writes a ``Loop`` out: ``[most iterations, goes on, state...] -> [state..., values...]``."""

    def nodes(self) -> list[Any]:
        """Return what the loop becomes.

        Raises
        ------
        ModelError
            If its iterations cannot be counted.
        """
        node = self.node
        most, goes_on = self._at_most(), self._begins()
        state = list(node.input[2:])
        watched = _deciding(self.body)
        rows: list[list[str]] = [[] for _ in self.body.output[1 + len(state) :]]
        number = 0
        while goes_on and (most is None or number < most):
            first = len(self.made)
            counter = self.constant(f"{self.name}/{number}/iteration", np.array(number, np.int64))
            condition = self.constant(f"{self.name}/{number}/condition", np.array(True))
            results = self.iteration(number, [counter, condition, *state])
            self._evaluate(self.made[first:], watched, number)
            goes_on = self._value(results[0], "whether it goes on is computed by the network")
            state = results[1 : 1 + len(state)]
            for row, result in zip(rows, results[1 + len(state) :], strict=True):
                row.append(result)
            number += 1
        for source, output in zip(state, node.output, strict=False):
            self.hand_on(source, output)
        for row, output in zip(rows, node.output[len(state) :], strict=False):
            self.stack(row, output, 0)
        return self.made

    def _at_most(self) -> int | None:
        if not self.node.input[0]:
            return None
        what = "its number of iterations is computed by the network"
        known = self.scope.known.arrays.get(self.node.input[0])
        if known is None:
            raise _error(self.node, f"{what}, and loops that collect values are written out")
        return int(known.reshape(()))

    def _begins(self) -> bool:
        name = self.node.input[1] if len(self.node.input) > 1 else ""
        return not name or self._value(name, "whether it begins is computed by the network")

    def _value(self, name: str, what: str) -> bool:
        known = self.scope.known.arrays.get(name)
        if known is None:
            raise _error(self.node, f"{what}, and loops that collect values are written out")
        return bool(known.reshape(()))

    def _evaluate(self, nodes: Sequence[Any], watched: set[str], number: int) -> None:
        """Note the values of an iteration that decide how long the loop goes on."""
        prefix = f"{self.name}/{number}/"
        for node in nodes:
            if any(name.removeprefix(prefix) in watched for name in node.output):
                self.scope.known.note(node)


def _deciding(body: Any) -> set[str]:
    """Return the values of a body that its first output, whether it goes on, is made of."""
    found = {body.output[0].name}
    size = 0
    while len(found) > size:
        size = len(found)
        for node in reversed(body.node):
            if found & set(node.output):
                found.update(name for name in node.input if name)
        # What an iteration begins with is what the one before ended with.
        for value, result in zip(body.input[2:], body.output[1:], strict=False):
            if value.name in found:
                found.add(result.name)
    return found


class _ScanUnroller(_Unroller):
    """Writes a ``Scan`` out: ``[state..., tensors...] -> [state..., values...]``."""

    def nodes(self) -> list[Any]:
        """Return what the loop becomes.

        Raises
        ------
        ModelError
            If the extent that it goes along is not known.
        """
        node, count = self.node, int(self.attributes["num_scan_inputs"])
        if self.scope.known.opset < 9:
            raise _error(node, "it is known from version 9 of ONNX's operators on")
        num_state = len(node.input) - count
        state, scanned = list(node.input[:num_state]), list(node.input[num_state:])
        axes, backwards = self._ways("input", count)
        lengths = {self._extent(name, axis) for name, axis in zip(scanned, axes, strict=True)}
        if len(lengths) != 1:
            raise _error(node, f"expected tensors of one length; got {sorted(lengths)}")
        (length,) = lengths
        rows: list[list[str]] = [[] for _ in self.body.output[num_state:]]
        for number in range(length):
            slices = [
                self._slice(scanned[k], axes[k], length - 1 - number if backwards[k] else number, number)
                for k in range(count)
            ]
            results = self.iteration(number, [*state, *slices])
            state = results[:num_state]
            for row, result in zip(rows, results[num_state:], strict=True):
                row.append(result)
        for source, output in zip(state, node.output, strict=False):
            self.hand_on(source, output)
        axes, backwards = self._ways("output", len(rows))
        for place, value in enumerate(self.body.output[num_state:]):
            if axes[place] < 0 and value.type.tensor_type.HasField("shape"):
                # onnx infers no shape of an Unsqueeze at a negative place in its older form.
                axes[place] += len(value.type.tensor_type.shape.dim) + 1
        for row, output, axis, is_back in zip(
            rows, node.output[num_state:], axes, backwards, strict=True
        ):
            self.stack(row[::-1] if is_back else row, output, axis)
        return self.made

    def _ways(self, which: str, count: int) -> tuple[list[int], list[int]]:
        """Return the axis of each scanned tensor, and whether it is gone through from its end."""
        axes = list(self.attributes.get(f"scan_{which}_axes", [0] * count))
        return axes, list(self.attributes.get(f"scan_{which}_directions", [0] * count))

    def _extent(self, name: str, axis: int) -> int:
        shape = self.scope.known.shapes.get(name)
        if shape is None:
            raise _error(self.node, f"the extent of {name!r} that it goes along is not known")
        return shape[axis]

    def _slice(self, source: str, axis: int, place: int, number: int) -> str:
        output = f"{self.name}/{number}/{source}"
        index = self.constant(f"{output}/place", np.array(place, np.int64))
        self.made.append(helper.make_node("Gather", [source, index], [output], name=output, axis=axis))
        return output
