"""Write the loops of a torch program out: ``map`` and ``scan``, one iteration for each slice. [TVM]"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .._tvm import relax
from ..errors import ModelError
from .record_origins import torch_operator
from .torch_decompositions import nodes_within

# As for loops of ONNX models: each operator becomes a task, or a part of one.
_MOST_NODES = 4096


def check_loops(program: Any) -> None:
    """Refuse loops that go on for as long as a tensor says.

    Raises
    ------
    ModelError
        With the operator and its line.
    """
    for node in nodes_within(program.graph_module):
        if getattr(node.target, "__name__", "") == "while_loop":
            raise ModelError(
                f"{torch_operator(node).text}: how long it goes on is computed by the network, and "
                f"loops are written out; a loop in Python of a constant number of iterations is."
            )


def convert_map(importer: Any, node: Any) -> tuple[Any, ...]:
    """Return what ``torch._higher_order_ops.map`` gives: a function of each slice, stacked."""
    graph, slices, others = _arguments(importer, node)
    results = [_call(importer, graph, [*row, *others]) for row in _rows(importer, node, graph, slices)]
    return tuple(_stacked(importer, column) for column in zip(*results, strict=True))


def convert_scan(importer: Any, node: Any) -> tuple[Any, ...]:
    """Return what ``torch._higher_order_ops.scan`` gives: the last state, and values, stacked."""
    graph, state, slices, others = _arguments(importer, node)
    count, values = len(state), []
    for row in _rows(importer, node, graph, slices):
        results = _call(importer, graph, [*state, *row, *others])
        state = results[:count]
        values.append(results[count:])
    return (*state, *(_stacked(importer, column) for column in zip(*values, strict=True)))


def _arguments(importer: Any, node: Any) -> list[Any]:
    def read(argument: Any) -> Any:
        if isinstance(argument, (list, tuple)):
            return [read(one) for one in argument]
        return importer.env[argument] if isinstance(argument, torch.fx.Node) else argument

    return [read(argument) for argument in node.args]


def _rows(importer: Any, node: Any, graph: Any, slices: Sequence[Any]) -> list[list[Any]]:
    """Return the slices of each iteration."""
    extents = getattr(slices[0].ty.shape, "values", [None])
    try:
        length = int(extents[0])
    except TypeError:
        what = torch_operator(node).text
        raise ModelError(f"{what}: the extent that it goes along is open.") from None
    made = length * len(graph.graph.nodes)
    if not 0 < made <= _MOST_NODES:
        raise ModelError(
            f"{torch_operator(node).text}: expected 1 to {_MOST_NODES} operators once it is written "
            f"out; got {made}, in {length} iterations."
        )
    emit = importer.block_builder.emit

    def row(tensor: Any, number: int) -> Any:
        part = emit(relax.op.strided_slice(tensor, [0], [number], [number + 1]))
        return emit(relax.op.squeeze(part, [0]))

    return [[row(tensor, number) for tensor in slices] for number in range(length)]


def _call(importer: Any, graph: Any, arguments: Sequence[Any]) -> list[Any]:
    """Return what a graph of its own makes of some values."""
    nodes = list(graph.graph.nodes)
    places = [node for node in nodes if node.op == "placeholder"]
    outer = importer.env
    importer.env = dict(zip(places, arguments, strict=True))
    try:
        return list(importer._translate_fx_graph(graph, nodes, {}))
    finally:
        importer.env = outer


def _stacked(importer: Any, values: Sequence[Any]) -> Any:
    emit = importer.block_builder.emit
    return emit(relax.op.concat([emit(relax.op.expand_dims(value, [0])) for value in values], 0))
