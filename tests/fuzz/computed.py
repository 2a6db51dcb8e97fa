"""Operators whose shapes are computed, so that they are known only when the model runs."""

from __future__ import annotations

from typing import Any

import numpy as np

from .graph import Draw, Graph, RejectedError


def _number(g: Graph, value: int) -> str:
    """Return a number, int64 (1,), that a node computes."""
    total = g.input(np.array([value - 1, 1], np.int64))
    inputs = [total, g.weight([0], "int64")] if g.opset >= 13 else [total]
    attributes = {} if g.opset >= 13 else {"axes": [0]}
    return str(g.add("ReduceSum", inputs, keepdims=1, **attributes)[0])


def _shape(g: Graph, extents: list[int]) -> str:
    """Return a shape, int64 (rank,), that a node computes."""
    given = g.input(np.array(extents, np.int64))
    return str(g.add("Add", [given, g.weight([0] * len(extents), "int64")])[0])


def _source(g: Graph) -> str:
    """Return a tensor with elements behind a node, so that the model has a part of known shapes."""
    name = g.tensor(("float32", "int64", "int32"), 1, 3)
    if not g.of(name).size:
        raise RejectedError("a tensor without elements")
    return str(g.add("Transpose", [name])[0])


def _reshape(g: Graph) -> Any:
    source = _source(g)
    size = g.of(source).size
    first = g.pick([extent for extent in range(1, size + 1) if size % extent == 0])
    wanted = g.pick([[first, size // first], [-1, first], [first, -1], [-1]])
    return g.add("Reshape", [source, _shape(g, wanted)])


def _expand(g: Graph) -> Any:
    source = _source(g)
    extents = [g.number(1, 4) if extent == 1 else extent for extent in g.of(source).shape]
    wanted = [g.number(1, 3)] * g.number(0, 1) + [1 if g.chance(0.3) else e for e in extents]
    return g.add("Expand", [source, _shape(g, wanted)])


def _constant_of_shape(g: Graph) -> Any:
    return g.add("ConstantOfShape", [_shape(g, [g.number(0, 4), g.number(1, 4)])])


def _top_k(g: Graph) -> Any:
    if g.opset < 10:
        raise RejectedError("TopK: a number that is an attribute")
    shape = [g.number(2, 5), g.number(2, 5)]
    source = g.input(g.rng.permutation(shape[0] * shape[1]).reshape(shape).astype(np.float32))
    axis = g.axis(2)
    inputs = [source, _number(g, g.number(1, shape[axis]))]
    return g.add("TopK", inputs, 2, axis=axis, largest=g.number(0, 1) if g.opset >= 11 else None)


def _slice(g: Graph) -> Any:
    if g.opset < 10:
        raise RejectedError("Slice: bounds that are attributes")
    source = _source(g)
    axis = g.number(0, g.of(source).ndim - 1)
    end = _number(g, g.number(1, g.of(source).shape[axis] + 2))
    return g.add("Slice", [source, g.weight([g.number(0, 1)], "int64"), end, g.weight([axis], "int64")])


def _range(g: Graph) -> Any:
    if g.opset < 13:
        raise RejectedError("Range: of scalars that Squeeze makes of axes since 13")
    scalar = g.add("Squeeze", [_number(g, g.number(0, 6))])[0]
    return g.add("Range", [g.weight(0, "int64"), scalar, g.weight(g.pick([1, 2]), "int64")])


def _non_max_suppression(g: Graph) -> Any:
    if g.opset < 10:
        raise RejectedError("NonMaxSuppression: since 10")
    batch, classes, number = g.number(1, 2), g.number(1, 3), g.number(1, 12)
    middle, reach = (g.rng.uniform(low, 2, (batch, number, 2)) for low in (0, -2))
    boxes = np.concatenate([middle - reach, middle + reach], 2).astype(np.float32)
    scores = g.rng.normal(0, 1, (batch, classes, number)).astype(np.float32)
    limits = [
        g.weight([g.number(0, number + 2)], "int64"),
        g.weight([g.pick([0.0, 0.3, 0.7])], "float32"),
        g.weight([g.pick([-1.0, 0.0, 0.4])], "float32"),
    ][: g.number(1, 3)]
    return g.add("NonMaxSuppression", [g.input(boxes), g.input(scores), *limits])


#: By a name of its own for each, since the operators have draws with known shapes, too.
DRAWS: dict[str, Draw] = {
    "computed Reshape": _reshape,
    "computed Expand": _expand,
    "computed ConstantOfShape": _constant_of_shape,
    "computed TopK": _top_k,
    "computed Slice": _slice,
    "computed Range": _range,
    "NonMaxSuppression": _non_max_suppression,
}
