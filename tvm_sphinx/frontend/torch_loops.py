"""Convert the loops of a torch program. [TVM]

``map`` and ``scan`` are written out, one iteration for each slice; ``while_loop`` stays a loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .._tvm import relax
from ..errors import ModelError
from .record_origins import torch_operator
from .while_loops import emit_loop

# As for loops of ONNX models: each operator becomes a task, or a part of one.
_MOST_NODES = 4096


def convert_while(importer: Any, node: Any) -> tuple[Any, ...]:
    """Return what ``torch.while_loop`` gives: the tensors of its last step."""
    condition, body, state, others = _arguments(importer, node)
    what = torch_operator(node).text
    if not all(isinstance(getattr(one, "ty", None), relax.TensorType) for one in (*state, *others)):
        raise ModelError(f"{what}: expected tensors in a loop; it hands on a number.")

    def goes_on(values: Sequence[Any]) -> Any:
        (result,) = _call(importer, condition, [*values, *others])
        return importer.block_builder.emit(relax.op.reshape(result, [])) if result.ty.ndim else result

    def step(values: Sequence[Any]) -> tuple[Any, list[Any]]:
        after = _call(importer, body, [*values, *others])
        return goes_on(after), after

    return tuple(emit_loop(importer.block_builder, what, goes_on(state), state, step))


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
