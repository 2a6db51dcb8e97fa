"""Operators with indices: gathers, scatters, one-hot."""

from __future__ import annotations

from typing import Any

import numpy as np

from .graph import ALL, Draw, Graph, RejectedError


def _indices(g: Graph, extent: int, shape: list[int]) -> Any:
    if extent < 1:
        raise RejectedError("Gather: an empty axis")
    return g.rng.integers(-extent, extent, shape).astype(g.pick(["int64", "int32"]))


def _gather(g: Graph) -> Any:
    source = g.tensor(ALL, 1, 4)
    shape = g.of(source).shape
    axis = g.axis(len(shape))
    indices = _indices(g, shape[axis], g.shape(0, 2))
    return g.add("Gather", [source, g.either(indices)], axis=axis)


def _gather_elements(g: Graph) -> Any:
    source = g.tensor(("float32", "int64", "int32", "uint8"), 1, 4)
    shape = list(g.of(source).shape)
    axis = g.axis(len(shape))
    wanted = [g.number(1, extent) if extent else 0 for extent in shape]
    wanted[axis] = g.number(1, 4)
    return g.add("GatherElements", [source, g.either(_indices(g, shape[axis], wanted))], axis=axis)


def _gather_nd(g: Graph) -> Any:
    source = g.tensor(("float32", "int64", "int32"), 1, 4)
    shape = list(g.of(source).shape)
    batch = g.number(0, len(shape) - 1) if g.opset >= 12 and g.chance(0.3) else 0
    depth = g.number(1, len(shape) - batch)
    lead = shape[:batch] + g.shape(0, 2)
    if 0 in shape:
        raise RejectedError("GatherND: an empty axis")
    parts = [g.rng.integers(-e, e, [*lead, 1]) for e in shape[batch : batch + depth]]
    indices = np.concatenate(parts, -1).astype(np.int64)
    attributes = {"batch_dims": batch} if g.opset >= 12 else {}
    return g.add("GatherND", [source, g.either(indices)], **attributes)


def _reduction(g: Graph, since: int) -> dict[str, str]:
    kinds = (
        ["none"] + (["add", "mul"] if g.opset >= 16 else []) + (["max", "min"] if g.opset >= 18 else [])
    )
    return {"reduction": g.pick(kinds)} if g.opset >= since and g.chance(0.7) else {}


def _scatter_elements(g: Graph) -> Any:
    source = g.tensor(("float32", "int64", "int32"), 1, 4)
    value = g.of(source)
    axis = g.axis(value.ndim)
    extent = value.shape[axis]
    if 0 in value.shape:
        raise RejectedError("ScatterElements: an empty axis")
    wanted = [g.number(1, e) for e in value.shape]
    reduction = _reduction(g, 16)
    order = np.stack(
        [g.rng.permutation(extent)[: wanted[axis]] for _ in range(int(np.prod(wanted)) // wanted[axis])]
    )
    moved = [e for at, e in enumerate(wanted) if at != axis % value.ndim]
    indices = np.moveaxis(order.reshape([*moved, wanted[axis]]), -1, axis)
    if g.chance(0.4):
        indices = np.where(g.rng.random(indices.shape) < 0.5, indices - extent, indices)
    updates = g.array(str(value.dtype), wanted)
    return g.add(
        "ScatterElements",
        [source, g.either(indices.astype(np.int64)), g.either(updates)],
        axis=axis,
        **reduction,
    )


def _scatter_nd(g: Graph) -> Any:
    source = g.tensor(("float32", "int64", "int32"), 1, 4)
    value = g.of(source)
    if 0 in value.shape:
        raise RejectedError("ScatterND: an empty axis")
    depth = g.number(1, value.ndim)
    total = int(np.prod(value.shape[:depth]))
    count = g.number(1, min(4, total))
    flat = g.rng.permutation(total)[:count]
    indices = np.stack(np.unravel_index(flat, value.shape[:depth]), -1).astype(np.int64)
    updates = g.array(str(value.dtype), [count, *value.shape[depth:]])
    return g.add("ScatterND", [source, g.either(indices), g.either(updates)], **_reduction(g, 16))


def _compress(g: Graph) -> Any:
    source = g.tensor(("float32", "int64"), 1, 3)
    value = g.of(source)
    axis = g.axis(value.ndim)
    return g.add("Compress", [source, g.either(g.array("bool", [value.shape[axis]]))], axis=axis)


def _one_hot(g: Graph) -> Any:
    depth = g.number(1, 6)
    shape = g.shape(0, 3)
    indices = g.rng.integers(-depth - 1, depth + 1, shape).astype(g.pick(["int64", "int32"]))
    values = g.array(g.pick(("float32", "int64", "int32")), [2])
    axis = {"axis": g.number(-len(shape) - 1, len(shape))} if g.chance(0.7) else {}
    inputs = [g.either(indices), g.weight(g.pick([depth, [depth]]), "int64"), g.weight(values)]
    return g.add("OneHot", inputs, **axis)


def _old_scatter(g: Graph) -> Any:
    if g.opset > 10:
        raise RejectedError("Scatter: replaced by ScatterElements since 11")
    extents = [g.number(2, 4), g.number(1, 5)]
    indices = g.rng.permutation(extents[0])[:, None].repeat(extents[1], 1)
    names = [
        g.input(g.array("float32", extents)),
        g.either(indices.astype(np.int64)),
        g.either(g.array("float32", extents)),
    ]
    return g.add("Scatter", names, axis=0)


def _nonzero(g: Graph) -> Any:
    return g.add("NonZero", [g.tensor(("float32", "bool", "int64"), 1, 3, exact=True)])


def _unique(g: Graph) -> Any:
    source = g.input(g.array("int64", [g.number(1, 9)]))
    return g.add("Unique", [source], g.pick([1, 4]), sorted=1)


#: By operator.
DRAWS: dict[str, Draw] = {
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "Compress": _compress,
    "OneHot": _one_hot,
    "Scatter": _old_scatter,
    "NonZero": _nonzero,
    "Unique": _unique,
}
