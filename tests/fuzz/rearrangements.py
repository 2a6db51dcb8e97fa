"""Operators that move elements: shapes, slices, pads, and shape arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from .graph import ALL, Draw, Graph, RejectedError


def _reshape(g: Graph) -> Any:
    source = g.tensor(ALL)
    value = g.of(source)
    shape = list(value.shape)
    while len(shape) > 1 and g.chance(0.6):
        at = g.number(0, len(shape) - 2)
        shape[at : at + 2] = [shape[at] * shape[at + 1]]
    if g.chance(0.4):
        shape.insert(g.number(0, len(shape)), 1)
    for at in range(min(len(shape), value.ndim)):
        if shape[at] == value.shape[at] and g.chance(0.3):
            shape[at] = 0
    if shape and value.size and g.chance(0.5):
        shape[g.number(0, len(shape) - 1)] = -1
    return g.add("Reshape", [source, g.weight(shape, "int64")])


def _transpose(g: Graph) -> Any:
    source = g.tensor(ALL)
    rank = g.of(source).ndim
    perm = g.rng.permutation(rank).tolist() if g.chance(0.8) and rank else None
    return g.add("Transpose", [source], perm=perm)


def with_axes(g: Graph, op: str, source: str, axes: list[int]) -> Any:
    if g.opset >= 13:
        return g.add(op, [source, *([g.weight(axes, "int64")] if axes else [])])
    return g.add(op, [source], axes=axes or None)


def _squeeze(g: Graph) -> Any:
    source = g.tensor(ALL, 1)
    shape = g.of(source).shape
    ones = [at for at, extent in enumerate(shape) if extent == 1 and g.chance(0.7)]
    return with_axes(g, "Squeeze", source, [at - len(shape) if g.chance(0.4) else at for at in ones])


def _unsqueeze(g: Graph) -> Any:
    source = g.tensor(ALL, 0, 3)
    rank = g.of(source).ndim + g.number(1, 2)
    axes = g.rng.choice(rank, rank - g.of(source).ndim, replace=False).tolist()
    return with_axes(g, "Unsqueeze", source, [at - rank if g.chance(0.4) else at for at in axes])


def _expand(g: Graph) -> Any:
    source = g.tensor(ALL, 0, 4)
    shape = [g.number(1, 4) if e == 1 and g.chance(0.6) else int(e) for e in g.of(source).shape]
    shape = [g.number(1, 3) for _ in range(g.number(0, 2))] + shape
    if g.chance(0.3):
        shape = [1 if g.chance(0.3) else extent for extent in shape]
    return g.add("Expand", [source, g.weight(shape, "int64")])


def _tile(g: Graph) -> Any:
    source = g.tensor(ALL, 1, 4)
    repeats = [g.number(0 if g.has_empty else 1, 3) for _ in g.of(source).shape]
    return g.add("Tile", [source, g.weight(repeats, "int64")])


def _concat(g: Graph) -> Any:
    source = g.tensor(ALL, 1, 4)
    value = g.of(source)
    axis = g.axis(value.ndim)
    others = []
    for _ in range(g.number(0, 3)):
        shape = list(value.shape)
        shape[axis] = g.number(0 if g.has_empty else 1, 4)
        others.append(g.either(g.array(str(value.dtype), shape)))
    return g.add("Concat", [source, *others], axis=axis)


def _split(g: Graph) -> Any:
    source = g.tensor(ALL, 1, 4)
    value = g.of(source)
    axis = g.axis(value.ndim)
    extent = value.shape[axis]
    cuts = sorted(g.rng.integers(0, extent + 1, g.number(0, 2)).tolist())
    parts = np.diff([0, *cuts, extent]).tolist()
    if g.opset >= 18 and g.chance(0.4):
        count = g.number(1, max(1, min(3, extent)))
        return g.add("Split", [source], count, axis=axis, num_outputs=count)
    if g.opset < 13:
        return g.add("Split", [source], len(parts), axis=axis, split=parts)
    return g.add("Split", [source, g.weight(parts, "int64")], len(parts), axis=axis)


def _slice(g: Graph) -> Any:
    source = g.tensor(ALL, 1, 4)
    shape = g.of(source).shape
    axes = [at for at in range(len(shape)) if g.chance(0.6)] or [0]
    starts, ends, steps = [], [], []
    for at in axes:
        extent = shape[at]
        step = g.pick([1, 1, 1, 2, 3, -1, -2])
        ends_of = (g.number(-extent - 1, extent + 1), g.number(-extent - 2, extent + 2))
        starts.append(ends_of[0])
        far = 2**31 - 1 if step > 0 else -(2**31)
        ends.append(far if g.chance(0.3) else ends_of[1])
        steps.append(step)
    named = [at - len(shape) if g.chance(0.3) else at for at in axes]
    kind = g.pick(["int64", "int32"])
    inputs = [g.weight(starts, kind), g.weight(ends, kind), g.weight(named, kind), g.weight(steps, kind)]
    return g.add("Slice", [source, *inputs])


def _pad(g: Graph) -> Any:
    source = g.tensor(("float32", "int64", "int32", "uint8", "float64"), 1, 4)
    value = g.of(source)
    mode = g.pick(["constant", "constant", "reflect", "edge"] + (["wrap"] if g.opset >= 19 else []))
    most = [min(3, max(0, extent - 1)) if mode == "reflect" else 2 for extent in value.shape]
    pads = [g.number(0, m) for m in most] + [g.number(0, m) for m in most]
    if mode == "constant" and g.chance(0.2):
        pads = [
            -1 if g.chance(0.3) and value.shape[at % value.ndim] > 2 else p for at, p in enumerate(pads)
        ]
    inputs = [source, g.weight(pads, "int64")]
    if mode == "constant" and g.chance(0.6):
        inputs.append(g.weight(g.array(str(value.dtype), ()), str(value.dtype)))
    return g.add("Pad", inputs, mode=mode)


def _blocks(op: str) -> Draw:
    def draw(g: Graph) -> Any:
        size = g.number(1, 3)
        n, c, h, w = (g.number(1, 3) for _ in range(4))
        if op == "DepthToSpace":
            source = g.input(g.array("float32", [n, c * size * size, h, w]))
            mode = {"mode": g.pick(["DCR", "CRD"])} if g.chance(0.7) else {}
            return g.add(op, [source], blocksize=size, **mode)
        return g.add(op, [g.input(g.array("float32", [n, c, h * size, w * size]))], blocksize=size)

    return draw


def _shape(g: Graph) -> Any:
    source = g.tensor(ALL)
    if g.chance(0.3):
        return g.add("Size", [source])
    rank = g.of(source).ndim
    cut = (
        {"start": g.number(-rank, rank), "end": g.number(-rank, rank)}
        if g.opset >= 17 and g.chance(0.4)
        else {}
    )
    return g.add("Shape", [source], **cut)


def _shape_arithmetic(g: Graph) -> Any:
    """Draw what exporters write to reshape a tensor by its own shape."""
    source = g.tensor(("float32", "int64"), 2, 4)
    (shape,) = g.add("Shape", [source])
    (first,) = g.add("Gather", [shape, g.weight(0, "int64")], axis=0)
    (lead,) = with_axes(g, "Unsqueeze", first, [0])
    (whole,) = g.add("Concat", [lead, g.weight([-1], "int64")], axis=0)
    return g.add("Reshape", [source, whole])


def _constant_of_shape(g: Graph) -> Any:
    value = g.array(g.pick(("float32", "int64", "int32", "bool")), [1])
    shape = g.weight(g.shape(0, 3), "int64")
    given = {"value": onnx.numpy_helper.from_array(value)} if g.chance(0.8) else {}
    (made,) = g.add("ConstantOfShape", [shape], **given)
    if str(g.of(made).dtype) == "bool":
        return made
    return g.add("Add", [made, g.input(g.array(str(g.of(made).dtype), g.of(made).shape))])


def _range(g: Graph) -> Any:
    kind = g.pick(("int64", "int32", "float32"))
    step = g.pick([1, 2, 3, -1, -2])
    start, length = g.number(-3, 5), g.number(0 if g.has_empty else 1, 7)
    ends = [start, start + step * length, step]
    (made,) = g.add("Range", [g.weight(np.asarray(end, kind)) for end in ends])
    return g.add("Mul", [made, g.input(g.array(kind, [1]))])


def _eye(g: Graph) -> Any:
    return g.add(
        "EyeLike", [g.input(g.array("float32", [g.number(1, 5), g.number(1, 5)]))], k=g.number(-2, 2)
    )


def _trilu(g: Graph) -> Any:
    if g.opset < 14:
        raise RejectedError("Trilu: since 14")
    source = g.tensor(("float32", "int64", "bool"), 2, 4)
    k = [g.weight(g.number(-3, 3), "int64")] if g.chance(0.7) else []
    return g.add("Trilu", [source, *k], upper=g.number(0, 1))


#: By operator.
DRAWS: dict[str, Draw] = {
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Expand": _expand,
    "Tile": _tile,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Pad": _pad,
    "DepthToSpace": _blocks("DepthToSpace"),
    "SpaceToDepth": _blocks("SpaceToDepth"),
    "Shape": _shape,
    "shape arithmetic": _shape_arithmetic,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "EyeLike": _eye,
    "Trilu": _trilu,
}
