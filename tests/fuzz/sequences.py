"""Operators of sequences of tensors and of what may be missing, between tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper

from .graph import Draw, Graph, RejectedError

_DTYPES = ("float32", "int64")


def _chain(g: Graph, steps: list[tuple[str, list[str], dict[str, Any]]]) -> list[str]:
    """Append nodes of which each reads "-", the result of the one before."""
    nodes, last = [], ""
    for number, (op, inputs, attributes) in enumerate(steps):
        read = [last if name == "-" else name for name in inputs]
        last = g.fresh_name(op, number)
        name = f"{op}_{len(g.nodes) + number}"
        nodes.append(helper.make_node(op, read, [last], name=name, **attributes))
    return g.append(nodes, [last])


def _construct(g: Graph) -> Any:
    first = g.tensor(_DTYPES, 1, 3)
    value = g.of(first)
    tensors = [
        first,
        *(g.either(g.array(str(value.dtype), value.shape)) for _ in range(g.number(0, 2))),
    ]
    steps: list[tuple[str, list[str], dict[str, Any]]] = [("SequenceConstruct", tensors, {})]
    count = len(tensors)
    if g.chance(0.4):
        added = g.either(g.array(str(value.dtype), value.shape))
        place = [g.weight(g.number(-count, count), "int64")] if g.chance(0.6) else []
        steps.append(("SequenceInsert", ["-", added, *place], {}))
        count += 1
    if count > 1 and g.chance(0.4):
        place = [g.weight(g.number(-count, count - 1), "int64")] if g.chance(0.6) else []
        steps.append(("SequenceErase", ["-", *place], {}))
        count -= 1
    steps.append(_last_step(g, count, value.ndim))
    return _chain(g, steps)


def _last_step(g: Graph, count: int, rank: int) -> tuple[str, list[str], dict[str, Any]]:
    how = g.rng.random()
    if how < 0.5:
        return "SequenceAt", ["-", g.weight(g.number(-count, count - 1), "int64")], {}
    if how < 0.9:
        return "ConcatFromSequence", ["-"], {"axis": g.axis(rank), "new_axis": 0}
    return "SequenceLength", ["-"], {}


def _split(g: Graph) -> Any:
    source = g.tensor(_DTYPES, 1, 3)
    value = g.of(source)
    axis = g.axis(value.ndim)
    extent = value.shape[axis]
    if not extent:
        raise RejectedError("SplitToSequence: nothing to split")
    inputs, attributes, count = [source], {"axis": axis}, extent
    if g.chance(0.5):
        size = g.number(1, extent)
        inputs.append(g.weight(np.asarray(size, np.int64)))
        count = -(-extent // size)
    elif g.chance(0.5):
        attributes["keepdims"] = 1
    return _chain(g, [("SplitToSequence", inputs, attributes), _last_step(g, count, value.ndim)])


def _optional(g: Graph) -> Any:
    if g.opset < 15:
        raise RejectedError("Optional: since 15")
    last = g.pick(["OptionalGetElement", "OptionalHasElement"])
    return _chain(g, [("Optional", [g.tensor(_DTYPES)], {}), (last, ["-"], {})])


#: By operator.
DRAWS: dict[str, Draw] = {
    "SequenceConstruct": _construct,
    "SplitToSequence": _split,
    "Optional": _optional,
}
