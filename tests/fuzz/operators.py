"""What is drawn of each ONNX operator: its inputs, and attributes that they allow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .graph import FLOATS, INTEGERS, Graph, RejectedError

#: Appends one node, with what it reads, to a graph.
Draw = Callable[[Graph], Any]

_NUMBERS = (*FLOATS, "int32", "int64")
_ALL = (*FLOATS, *INTEGERS, "bool")


def _axis(g: Graph, rank: int) -> int:
    """Return an axis, counted from either end."""
    return g.number(-rank, rank - 1) if rank else 0


def _some_axes(g: Graph, rank: int) -> list[int]:
    axes = [axis for axis in range(rank) if g.chance(0.5)]
    return [axis - rank if g.chance(0.3) else axis for axis in axes]


def _unary(
    op: str, dtypes: tuple[str, ...] = FLOATS, low: float = -4, high: float = 4, **attributes: Any
) -> Draw:
    def draw(g: Graph) -> Any:
        chosen = {key: value(g) for key, value in attributes.items() if g.chance(0.6)}
        bounds = {} if (low, high) == (-4, 4) else {"least": low, "most": high}
        return g.add(op, [g.tensor(dtypes, **bounds)], **chosen)

    return draw


def _uniform(low: float, high: float) -> Callable[[Graph], float]:
    return lambda g: round(float(g.rng.uniform(low, high)), 3)


def _binary(op: str, dtypes: tuple[str, ...] = _NUMBERS, **bounds: float) -> Draw:
    def draw(g: Graph) -> Any:
        left = g.tensor(dtypes)
        value = g.of(left)
        right = g.either(g.array(str(value.dtype), g.broadcastable(value.shape), **bounds))
        pair = [left, right]
        if not bounds and g.chance(0.5):
            pair.reverse()
        return g.add(op, pair)

    return draw


def _nonzero(op: str, **attributes: Any) -> Draw:
    """Draw a division whose divisor is no zero."""

    def draw(g: Graph) -> Any:
        left = g.tensor(_NUMBERS)
        value = g.of(left)
        divisor = g.array(str(value.dtype), g.broadcastable(value.shape))
        divisor = np.where(divisor == 0, np.ones_like(divisor), divisor).astype(value.dtype)
        return g.add(op, [left, g.either(divisor)], **attributes)

    return draw


def _mod(g: Graph) -> Any:
    left = g.tensor(("int32", "int64", "int8", "uint8", "float32", "float16"))
    value = g.of(left)
    divisor = g.array(str(value.dtype), g.broadcastable(value.shape))
    divisor = np.where(divisor == 0, np.ones_like(divisor), divisor).astype(value.dtype)
    fmod = 1 if value.dtype.kind == "f" or g.chance(0.3) else 0
    return g.add("Mod", [left, g.either(divisor)], fmod=fmod)


def _shift(g: Graph) -> Any:
    left = g.tensor(("uint8", "uint32", "uint64"), least=0, most=100)
    value = g.of(left)
    right = g.array(str(value.dtype), g.broadcastable(value.shape), least=0, most=7)
    return g.add("BitShift", [left, g.either(right)], direction=g.pick(["LEFT", "RIGHT"]))


def _several(op: str) -> Draw:
    def draw(g: Graph) -> Any:
        first = g.tensor(_NUMBERS if op in ("Min", "Max") else FLOATS)
        value = g.of(first)
        others = [
            g.either(g.array(str(value.dtype), g.broadcastable(value.shape)))
            for _ in range(g.number(0, 2))
        ]
        return g.add(op, [first, *others])

    return draw


def _where(g: Graph) -> Any:
    left = g.tensor(("float32", "int64", "int32", "uint8", "bool"))
    value = g.of(left)
    right = g.either(g.array(str(value.dtype), g.broadcastable(value.shape)))
    condition = g.either(g.array("bool", g.broadcastable(value.shape)))
    return g.add("Where", [condition, left, right])


def _cast(g: Graph) -> Any:
    import onnx

    source = g.tensor(_ALL)
    value = g.of(source)
    to = g.pick(_ALL)
    if value.dtype.kind == "f" and not to.startswith("float") and to != "bool":
        bounds = np.iinfo(to)
        if not (np.isfinite(value).all() and (value > bounds.min).all() and (value < bounds.max).all()):
            raise RejectedError("Cast: undefined outside of the range")
    if g.chance(0.2) and g.opset >= 17:
        return g.add("CastLike", [source, g.either(np.zeros(1, to))])
    return g.add("Cast", [source], to=onnx.helper.np_dtype_to_tensor_dtype(np.dtype(to)))


def _clip(g: Graph) -> Any:
    source = g.tensor((*FLOATS, "int32", "int64", "uint8", "int8"))
    dtype = str(g.of(source).dtype)
    ends = sorted(g.array(dtype, (2,), -3, 3).tolist())
    if np.isnan(ends).any():
        raise RejectedError("Clip: a bound that is NaN")
    bounds = [g.weight(np.asarray(end, dtype)) if g.chance(0.7) else "" for end in ends]
    return g.add("Clip", [source, *bounds])


def _prelu(g: Graph) -> Any:
    source = g.tensor(("float32", "float16"), 1)
    shape = list(g.of(source).shape)
    slope = g.broadcastable(shape)
    return g.add("PRelu", [source, g.either(g.array(str(g.of(source).dtype), slope))])


def _reduce(op: str, by_input_from: int = 18) -> Draw:
    def draw(g: Graph) -> Any:
        dtypes = (
            ("float32", "float32", "int32", "int64")
            if op not in ("ReduceMean",)
            else ("float32", "float64")
        )
        low = 0.1 if "Log" in op else -2
        source = g.tensor(dtypes, least=low, most=2)
        rank = g.of(source).ndim
        axes = _some_axes(g, rank)
        attributes: dict[str, Any] = {"keepdims": g.number(0, 1)} if g.chance(0.7) else {}
        inputs = [source]
        if axes and g.opset >= by_input_from:
            inputs.append(g.weight(axes, "int64"))
        elif axes:
            attributes["axes"] = axes
        if g.opset >= by_input_from and g.chance(0.2):
            attributes["noop_with_empty_axes"] = 1
        return g.add(op, inputs, **attributes)

    return draw


def _arg(op: str) -> Draw:
    def draw(g: Graph) -> Any:
        source = g.tensor(("float32", "int32", "uint8", "int8"), 1)
        last = {"select_last_index": g.number(0, 1)} if g.opset >= 12 and g.chance(0.4) else {}
        return g.add(op, [source], axis=_axis(g, g.of(source).ndim), keepdims=g.number(0, 1), **last)

    return draw


def _along_axis(op: str, dtypes: tuple[str, ...] = ("float32", "float64")) -> Draw:
    def draw(g: Graph) -> Any:
        source = g.tensor(dtypes, 1)
        axis = {"axis": _axis(g, g.of(source).ndim)} if g.chance(0.8) else {}
        return g.add(op, [source], **axis)

    return draw


def _cumsum(g: Graph) -> Any:
    source = g.tensor(("float32", "float64", "int32", "int64"), 1)
    axis = g.weight(_axis(g, g.of(source).ndim), "int64")
    return g.add("CumSum", [source, axis], exclusive=g.number(0, 1), reverse=g.number(0, 1))


def _topk(g: Graph) -> Any:
    source = g.tensor(("float32", "int64", "int32"), 1)
    value = g.of(source)
    axis = _axis(g, value.ndim)
    k = g.weight([g.number(0 if g.has_empty else 1, max(1, value.shape[axis]))], "int64")
    return g.add("TopK", [source, k], 2, axis=axis, largest=g.number(0, 1))


def _reshape(g: Graph) -> Any:
    source = g.tensor(_ALL)
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
    source = g.tensor(_ALL)
    rank = g.of(source).ndim
    perm = g.rng.permutation(rank).tolist() if g.chance(0.8) and rank else None
    return g.add("Transpose", [source], perm=perm)


def _axes_input(g: Graph, op: str, source: str, axes: list[int]) -> Any:
    if g.opset >= 13:
        return g.add(op, [source, *([g.weight(axes, "int64")] if axes else [])])
    return g.add(op, [source], axes=axes or None)


def _squeeze(g: Graph) -> Any:
    source = g.tensor(_ALL, 1)
    shape = g.of(source).shape
    ones = [at for at, extent in enumerate(shape) if extent == 1 and g.chance(0.7)]
    return _axes_input(g, "Squeeze", source, [at - len(shape) if g.chance(0.4) else at for at in ones])


def _unsqueeze(g: Graph) -> Any:
    source = g.tensor(_ALL, 0, 3)
    rank = g.of(source).ndim + g.number(1, 2)
    axes = g.rng.choice(rank, rank - g.of(source).ndim, replace=False).tolist()
    return _axes_input(g, "Unsqueeze", source, [at - rank if g.chance(0.4) else at for at in axes])


def _expand(g: Graph) -> Any:
    source = g.tensor(_ALL, 0, 4)
    shape = [g.number(1, 4) if e == 1 and g.chance(0.6) else int(e) for e in g.of(source).shape]
    shape = [g.number(1, 3) for _ in range(g.number(0, 2))] + shape
    if g.chance(0.3):
        shape = [1 if g.chance(0.3) else extent for extent in shape]
    return g.add("Expand", [source, g.weight(shape, "int64")])


def _tile(g: Graph) -> Any:
    source = g.tensor(_ALL, 1, 4)
    repeats = [g.number(0 if g.has_empty else 1, 3) for _ in g.of(source).shape]
    return g.add("Tile", [source, g.weight(repeats, "int64")])


def _concat(g: Graph) -> Any:
    source = g.tensor(_ALL, 1, 4)
    value = g.of(source)
    axis = _axis(g, value.ndim)
    others = []
    for _ in range(g.number(0, 3)):
        shape = list(value.shape)
        shape[axis] = g.number(0 if g.has_empty else 1, 4)
        others.append(g.either(g.array(str(value.dtype), shape)))
    return g.add("Concat", [source, *others], axis=axis)


def _split(g: Graph) -> Any:
    source = g.tensor(_ALL, 1, 4)
    value = g.of(source)
    axis = _axis(g, value.ndim)
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
    source = g.tensor(_ALL, 1, 4)
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


def _indices(g: Graph, extent: int, shape: list[int]) -> Any:
    if extent < 1:
        raise RejectedError("Gather: an empty axis")
    return g.rng.integers(-extent, extent, shape).astype(g.pick(["int64", "int32"]))


def _gather(g: Graph) -> Any:
    source = g.tensor(_ALL, 1, 4)
    shape = g.of(source).shape
    axis = _axis(g, len(shape))
    indices = _indices(g, shape[axis], g.shape(0, 2))
    return g.add("Gather", [source, g.either(indices)], axis=axis)


def _gather_elements(g: Graph) -> Any:
    source = g.tensor(("float32", "int64", "int32", "uint8"), 1, 4)
    shape = list(g.of(source).shape)
    axis = _axis(g, len(shape))
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
    axis = _axis(g, value.ndim)
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
    axis = _axis(g, value.ndim)
    return g.add("Compress", [source, g.weight(g.array("bool", [value.shape[axis]]))], axis=axis)


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
    source = g.tensor(_ALL)
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
    (lead,) = _axes_input(g, "Unsqueeze", first, [0])
    (whole,) = g.add("Concat", [lead, g.weight([-1], "int64")], axis=0)
    return g.add("Reshape", [source, whole])


def _constant_of_shape(g: Graph) -> Any:
    import onnx

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


def _one_hot(g: Graph) -> Any:
    depth = g.number(1, 6)
    shape = g.shape(0, 3)
    indices = g.rng.integers(-depth - 1, depth + 1, shape).astype(g.pick(["int64", "int32"]))
    values = g.array(g.pick(("float32", "int64", "int32")), [2])
    axis = {"axis": g.number(-len(shape) - 1, len(shape))} if g.chance(0.7) else {}
    inputs = [g.either(indices), g.weight(g.pick([depth, [depth]]), "int64"), g.weight(values)]
    return g.add("OneHot", inputs, **axis)


def _spatial(g: Graph, rank: int) -> list[int]:
    return [g.number(3, 9) for _ in range(rank)]


def _window(g: Graph, rank: int, extents: list[int], *, dilated: bool) -> dict[str, Any]:
    """Return attributes of a sliding window that fits."""
    kernel = [g.number(1, min(3, extent)) for extent in extents]
    attributes: dict[str, Any] = {"kernel_shape": kernel}
    if g.chance(0.6):
        attributes["strides"] = [g.number(1, 3) for _ in range(rank)]
    how = g.rng.random()
    if how < 0.3:
        attributes["auto_pad"] = g.pick(["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
    elif how < 0.8:
        attributes["pads"] = [g.number(0, k - 1) for k in kernel] + [g.number(0, k - 1) for k in kernel]
    if dilated and g.chance(0.3):
        attributes["dilations"] = [
            g.number(1, 2) if k > 1 and e > 4 else 1 for k, e in zip(kernel, extents)
        ]
    return attributes


def _conv(g: Graph) -> Any:
    rank = g.number(1, 3)
    extents = _spatial(g, rank)
    group = g.pick([1, 1, 1, 2, 3])
    inputs, outputs = group * g.number(1, 4), group * g.number(1, 4)
    if g.chance(0.2):
        group = inputs = outputs
    attributes = _window(g, rank, extents, dilated=True)
    weights = g.array("float32", [outputs, inputs // group, *attributes["kernel_shape"]])
    if g.chance(0.3):
        del attributes["kernel_shape"]
    names = [g.input(g.array("float32", [g.number(1, 2), inputs, *extents])), g.either(weights)]
    if g.chance(0.5):
        names.append(g.weight(g.array("float32", [outputs])))
    return g.add("Conv", names, group=group, **attributes)


def _conv_transpose(g: Graph) -> Any:
    rank = g.number(1, 3)
    extents = [g.number(2, 5) for _ in range(rank)]
    group = g.pick([1, 1, 1, 2])
    inputs, outputs = group * g.number(1, 3), g.number(1, 3)
    attributes = _window(g, rank, [3] * rank, dilated=True)
    if g.chance(0.3) and "strides" in attributes:
        attributes["output_padding"] = [g.number(0, s - 1) for s in attributes["strides"]]
    weights = g.array("float32", [inputs, outputs, *attributes["kernel_shape"]])
    names = [g.input(g.array("float32", [g.number(1, 2), inputs, *extents])), g.either(weights)]
    if g.chance(0.4):
        names.append(g.weight(g.array("float32", [outputs * group])))
    return g.add("ConvTranspose", names, group=group, **attributes)


def _pool(op: str) -> Draw:
    def draw(g: Graph) -> Any:
        rank = g.number(1, 3)
        extents = _spatial(g, rank)
        attributes = _window(g, rank, extents, dilated=op == "MaxPool" or g.opset >= 19)
        if op != "LpPool" and g.chance(0.3):
            attributes["ceil_mode"] = 1
        if op == "AveragePool" and g.chance(0.4):
            attributes["count_include_pad"] = 1
        if op == "LpPool":
            attributes["p"] = g.number(1, 3)
            attributes.pop("dilations", None)
        return g.add(
            op, [g.input(g.array("float32", [g.number(1, 2), g.number(1, 4), *extents]))], **attributes
        )

    return draw


def _global_pool(op: str) -> Draw:
    return lambda g: g.add(
        op, [g.input(g.array("float32", [1, g.number(1, 4), *_spatial(g, g.number(1, 3))]))]
    )


def _batch_norm(g: Graph) -> Any:
    source = g.input(g.array("float32", [g.number(1, 2), g.number(1, 4), *_spatial(g, g.number(0, 3))]))
    channels = g.of(source).shape[1]
    parts = [g.either(g.array("float32", [channels])) for _ in range(3)]
    variance = g.either(np.abs(g.array("float32", [channels])) + np.float32(0.1))
    return g.add("BatchNormalization", [source, *parts, variance], epsilon=g.pick([1e-5, 1e-2]))


def _instance_norm(g: Graph) -> Any:
    source = g.input(g.array("float32", [g.number(1, 2), g.number(1, 4), *_spatial(g, g.number(1, 3))]))
    channels = g.of(source).shape[1]
    return g.add(
        "InstanceNormalization", [source, *(g.either(g.array("float32", [channels])) for _ in range(2))]
    )


def _layer_norm(g: Graph) -> Any:
    if g.opset < 17:
        raise RejectedError("LayerNormalization: since 17")
    source = g.tensor(("float32",), 1, 4)
    shape = g.of(source).shape
    axis = _axis(g, len(shape))
    over = list(shape[axis:])
    parts = [g.either(g.array("float32", over)) for _ in range(g.number(1, 2))]
    return g.add("LayerNormalization", [source, *parts], axis=axis)


def _group_norm(g: Graph) -> Any:
    if g.opset < 18:
        raise RejectedError("GroupNormalization: since 18")
    groups = g.number(1, 3)
    channels = groups * g.number(1, 3)
    source = g.input(g.array("float32", [g.number(1, 2), channels, *_spatial(g, g.number(1, 2))]))
    size = channels if g.opset >= 21 else groups
    parts = [g.either(g.array("float32", [size])) for _ in range(2)]
    return g.add("GroupNormalization", [source, *parts], num_groups=groups)


def _lrn(g: Graph) -> Any:
    source = g.input(g.array("float32", [1, g.number(1, 6), *_spatial(g, 2)]))
    return g.add("LRN", [source], size=g.pick([1, 3, 5]), alpha=0.01, beta=0.6, bias=1.2)


def _mvn(g: Graph) -> Any:
    source = g.input(g.array("float32", [2, g.number(1, 4), *_spatial(g, 2)]))
    return g.add("MeanVarianceNormalization", [source], axes=g.pick([[0, 2, 3], [2, 3], [1], None]))


def _gemm(g: Graph) -> Any:
    m, k, n = (g.number(1, 9) for _ in range(3))
    a, b = g.number(0, 1), g.number(0, 1)
    names = [
        g.input(g.array("float32", [k, m] if a else [m, k])),
        g.either(g.array("float32", [n, k] if b else [k, n])),
    ]
    if g.chance(0.6):
        names.append(g.either(g.array("float32", g.pick([[m, n], [n], [1, n], [m, 1], [1], []]))))
    return g.add("Gemm", names, transA=a, transB=b, alpha=g.pick([1.0, 0.5]), beta=g.pick([1.0, 2.0]))


def _matmul(g: Graph) -> Any:
    left = g.tensor(("float32", "float32", "float64", "int32", "int64"), 1, 4)
    value = g.of(left)
    k = value.shape[-1]
    shape = [k] if g.chance(0.2) else [*g.broadcastable(value.shape[:-2]), k, g.number(1, 9)]
    return g.add("MatMul", [left, g.either(g.array(str(value.dtype), shape))])


def _einsum(g: Graph) -> Any:
    equation, *shapes = g.pick(
        [
            ("ij,jk->ik", [3, 4], [4, 5]), ("bij,bjk->bik", [2, 3, 4], [2, 4, 5]), ("ij->ji", [3, 4]),
            ("ij->i", [3, 4]), ("i,j->ij", [3], [4]), ("bhqd,bhkd->bhqk", [1, 2, 3, 4], [1, 2, 5, 4]),
            ("...ij,...jk->...ik", [2, 3, 4], [2, 4, 2]), ("ij,ij->", [3, 4], [3, 4]), ("ii->i", [3, 3]),
            ("bij,jk", [2, 3, 4], [4, 5]), ("ij , jk -> ik", [3, 4], [4, 2]),
        ]
    )  # fmt: skip
    return g.add("Einsum", [g.either(g.array("float32", shape)) for shape in shapes], equation=equation)


def _resize(g: Graph) -> Any:
    rank = g.pick([1, 2, 2, 2, 3])
    source = g.input(g.array("float32", [1, g.number(1, 3), *_spatial(g, rank)]))
    shape = g.of(source).shape
    mode = g.pick(["nearest", "linear", "linear", "cubic"] if rank == 2 else ["nearest", "linear"])
    attributes: dict[str, Any] = {"mode": mode}
    kinds = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]
    attributes["coordinate_transformation_mode"] = g.pick(kinds)
    if mode == "nearest":
        attributes["nearest_mode"] = g.pick(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
    if mode == "cubic" and g.chance(0.5):
        attributes["cubic_coeff_a"] = g.pick([-0.5, -0.75])
    if g.chance(0.5):
        scales = [1.0, 1.0, *(g.pick([0.5, 0.6, 1.5, 2.0, 2.5, 3.0]) for _ in range(rank))]
        inputs = [source, "", g.weight(scales, "float32")]
    else:
        sizes = [*shape[:2], *(g.number(1, 12) for _ in range(rank))]
        inputs = [source, "", "", g.weight(sizes, "int64")]
    if g.opset < 13:
        inputs[1] = g.weight([], "float32")
        if len(inputs) == 4:
            inputs[2] = g.weight([], "float32")
    return g.add("Resize", inputs, **attributes)


def _grid_sample(g: Graph) -> Any:
    if g.opset < 16:
        raise RejectedError("GridSample: since 16")
    source = g.input(g.array("float32", [2, 2, *_spatial(g, 2)]))
    grid = g.input(g.array("float32", [2, 3, 4, 2], -1.2, 1.2))
    modes = ["linear", "nearest", "cubic"] if g.opset >= 20 else ["bilinear", "nearest", "bicubic"]
    padding = g.pick(["zeros", "border", "reflection"])
    return g.add(
        "GridSample",
        [source, grid],
        mode=g.pick(modes),
        padding_mode=padding,
        align_corners=g.number(0, 1),
    )


def _roi_align(g: Graph) -> Any:
    source = g.input(g.array("float32", [2, 3, 8, 9]))
    corners = (
        np.sort(g.rng.uniform(0, 8, (3, 2, 2)), 1).reshape(3, 4)[:, [0, 1, 2, 3]].astype(np.float32)
    )
    batch = g.either(g.rng.integers(0, 2, 3).astype(np.int64))
    attributes = (
        {"coordinate_transformation_mode": g.pick(["half_pixel", "output_half_pixel"])}
        if g.opset >= 16
        else {}
    )
    return g.add(
        "RoiAlign", [source, g.input(corners), batch], output_height=2, output_width=3,
        sampling_ratio=g.number(1, 2), spatial_scale=g.pick([1.0, 0.5]), mode=g.pick(["avg", "max"]), **attributes,
    )  # fmt: skip


def _recurrent(op: str, gates: int) -> Draw:
    def draw(g: Graph) -> Any:
        direction = g.pick(["forward", "reverse", "bidirectional"])
        count = 2 if direction == "bidirectional" else 1
        steps, batch, features, hidden = g.number(1, 4), g.number(1, 2), g.number(1, 5), g.number(1, 5)
        names = [
            g.input(g.array("float32", [steps, batch, features], -1, 1)),
            g.weight(g.array("float32", [count, gates * hidden, features], -1, 1)),
            g.weight(g.array("float32", [count, gates * hidden, hidden], -1, 1)),
            g.weight(g.array("float32", [count, 2 * gates * hidden], -1, 1)) if g.chance(0.6) else "",
            g.weight(g.rng.integers(1, steps + 1, batch), "int32") if g.chance(0.3) else "",
            g.input(g.array("float32", [count, batch, hidden], -1, 1)) if g.chance(0.5) else "",
        ]
        attributes: dict[str, Any] = {"hidden_size": hidden, "direction": direction}
        if op == "GRU" and g.chance(0.5):
            attributes["linear_before_reset"] = 1
        return g.add(op, names, 3 if op == "LSTM" else 2, **attributes)

    return draw


def _quantize(g: Graph) -> Any:
    source = g.tensor(("float32",), 1, 4)
    shape = g.of(source).shape
    dtype = g.pick(["uint8", "int8"])
    scale, zero = np.float32(g.rng.uniform(0.01, 0.3)), g.array(dtype, (), -9, 9)
    attributes: dict[str, Any] = {}
    if g.opset >= 13 and g.chance(0.4) and shape[axis := _axis(g, len(shape))]:
        attributes["axis"] = axis
        scale = g.rng.uniform(0.01, 0.3, shape[axis]).astype(np.float32)
        zero = g.array(dtype, [shape[axis]], -9, 9)
    parameters = [g.weight(scale), g.weight(zero)]
    (made,) = g.add("QuantizeLinear", [source, *parameters], **attributes)
    return g.add("DequantizeLinear", [made, *parameters], **attributes) if g.chance(0.5) else made


def _dynamic_quantize(g: Graph) -> Any:
    return g.add("DynamicQuantizeLinear", [g.tensor(("float32",), 1, 4)], 3)


def _qlinear_matmul(g: Graph) -> Any:
    m, k, n = (g.number(1, 9) for _ in range(3))
    f32 = np.float32
    names = [
        g.input(g.array("uint8", [m, k], 0, 255)), g.weight(f32(0.02)), g.weight(np.uint8(g.number(0, 255))),
        g.either(g.array("int8", [k, n], -128, 127)), g.weight(f32(0.03)), g.weight(np.int8(0)),
        g.weight(f32(0.4)), g.weight(np.uint8(g.number(0, 255))),
    ]  # fmt: skip
    return g.add("QLinearMatMul", names)


def _qlinear_conv(g: Graph) -> Any:
    f32, channels = np.float32, g.number(1, 4)
    names = [
        g.input(g.array("uint8", [1, channels, 6, 5], 0, 255)), g.weight(f32(0.02)), g.weight(np.uint8(g.number(0, 255))),
        g.weight(g.array("int8", [3, channels, 3, 2], -128, 127)), g.weight(f32(0.03)), g.weight(np.int8(0)),
        g.weight(f32(0.4)), g.weight(np.uint8(g.number(0, 255))),
    ]  # fmt: skip
    return g.add("QLinearConv", names, pads=[1, 0, 1, 1])


def _microsoft(op: str, inputs: int) -> Draw:
    def draw(g: Graph) -> Any:
        source = g.tensor(("float32",), 2, 3)
        width = g.of(source).shape[-1]
        others = [g.weight(g.array("float32", [width])) for _ in range(inputs - 1)]
        return g.add(op, [source, *others], domain="com.microsoft")

    return draw


def _gelu(g: Graph) -> Any:
    if g.opset < 20:
        raise RejectedError("Gelu: since 20")
    return g.add("Gelu", [g.tensor(("float32",))], approximate=g.pick(["none", "tanh"]))


def _dropout(g: Graph) -> Any:
    return g.add("Dropout", [g.tensor(FLOATS)])


def _is_inf(g: Graph) -> Any:
    source = g.input(np.array([1, np.inf, -np.inf, np.nan, 0], np.float32))
    return g.add("IsInf", [source], detect_negative=g.number(0, 1), detect_positive=g.number(0, 1))


_ANY = ("float32", "float64", "int32", "int64", "int8", "uint8")

#: What is drawn, by operator.
DRAWS: dict[str, Draw] = {
    **{op: _unary(op) for op in "Floor Ceil Round Exp Erf Sigmoid Tanh Sin Cos Tan Atan Softplus Softsign Identity HardSwish Mish IsNaN Sinh Cosh Asinh".split()},
    **{op: _unary(op, _ANY) for op in ("Abs", "Neg", "Sign", "Relu")},
    **{op: _unary(op, FLOATS, 0.05, 4) for op in ("Log", "Sqrt", "Reciprocal")},
    **{op: _unary(op, FLOATS, -1, 1) for op in ("Asin", "Acos", "Atanh")},
    "Acosh": _unary("Acosh", FLOATS, 1, 4),
    "Elu": _unary("Elu", FLOATS, alpha=_uniform(0, 2)),
    "Selu": _unary("Selu", FLOATS, alpha=_uniform(0, 2), gamma=_uniform(0, 2)),
    "LeakyRelu": _unary("LeakyRelu", FLOATS, alpha=_uniform(-0.5, 1.5)),
    "ThresholdedRelu": _unary("ThresholdedRelu", FLOATS, alpha=_uniform(-1, 2)),
    "HardSigmoid": _unary("HardSigmoid", FLOATS, alpha=_uniform(0, 1), beta=_uniform(0, 1)),
    "Shrink": _unary("Shrink", FLOATS, lambd=_uniform(0, 2), bias=_uniform(0, 1)),
    "Not": _unary("Not", ("bool",)),
    "BitwiseNot": _unary("BitwiseNot", ("int32", "uint8")),
    "IsInf": _is_inf, "Gelu": _gelu, "Dropout": _dropout, "PRelu": _prelu,
    **{op: _binary(op) for op in ("Add", "Sub", "Mul")},
    "Div": _nonzero("Div"), "Mod": _mod,
    "Pow": _binary("Pow", ("float32", "float64", "int32", "int64"), least=0, most=3),
    **{op: _binary(op, _ANY) for op in ("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual")},
    **{op: _binary(op, ("bool",)) for op in ("And", "Or", "Xor")},
    **{op: _binary(op, ("int32", "uint8", "int64")) for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")},
    "BitShift": _shift,
    **{op: _several(op) for op in ("Min", "Max", "Sum", "Mean")},
    "Where": _where, "Cast": _cast, "Clip": _clip,
    "ReduceSum": _reduce("ReduceSum", 13),
    **{op: _reduce(op) for op in "ReduceMax ReduceMin ReduceMean ReduceProd ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceSumSquare".split()},
    "ArgMax": _arg("ArgMax"), "ArgMin": _arg("ArgMin"),
    **{op: _along_axis(op) for op in ("Softmax", "LogSoftmax", "Hardmax")},
    "Flatten": _along_axis("Flatten", ("float32", "int64")),
    "CumSum": _cumsum, "TopK": _topk, "Reshape": _reshape, "Transpose": _transpose, "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze, "Expand": _expand, "Tile": _tile, "Concat": _concat, "Split": _split,
    "Slice": _slice, "Pad": _pad, "Gather": _gather, "GatherElements": _gather_elements,
    "GatherND": _gather_nd, "ScatterElements": _scatter_elements, "ScatterND": _scatter_nd,
    "Compress": _compress, "DepthToSpace": _blocks("DepthToSpace"), "SpaceToDepth": _blocks("SpaceToDepth"),
    "Shape": _shape, "shape arithmetic": _shape_arithmetic, "ConstantOfShape": _constant_of_shape,
    "Range": _range, "EyeLike": _eye, "Trilu": _trilu, "OneHot": _one_hot, "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    **{op: _pool(op) for op in ("MaxPool", "AveragePool", "LpPool")},
    **{op: _global_pool(op) for op in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")},
    "BatchNormalization": _batch_norm, "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm, "GroupNormalization": _group_norm, "LRN": _lrn,
    "MeanVarianceNormalization": _mvn, "Gemm": _gemm, "MatMul": _matmul, "Einsum": _einsum,
    "Resize": _resize, "GridSample": _grid_sample, "RoiAlign": _roi_align,
    "LSTM": _recurrent("LSTM", 4), "GRU": _recurrent("GRU", 3), "RNN": _recurrent("RNN", 1),
    "QuantizeLinear": _quantize, "DynamicQuantizeLinear": _dynamic_quantize,
    "QLinearMatMul": _qlinear_matmul, "QLinearConv": _qlinear_conv,
    "FastGelu": _microsoft("FastGelu", 2), "BiasGelu": _microsoft("BiasGelu", 2),
}  # fmt: skip

#: Operators that give a NaN, an infinity or a number next to zero as ONNX Runtime does. TVM orders numbers
#: without regard to NaN, begins a maximum at the least finite number, and sums in an order of its own.
KEEP_SPECIAL = frozenset(
    "Abs Neg Add Sub Mul Div Where Cast Equal Less Greater LessOrEqual GreaterOrEqual Identity IsNaN IsInf "
    "Sqrt Reciprocal Floor Ceil Round Exp Log Tanh Sigmoid Erf Dropout PRelu LeakyRelu Reshape Transpose "
    "Squeeze Unsqueeze Expand Tile Concat Split Slice Pad Gather GatherElements GatherND Compress Flatten "
    "DepthToSpace SpaceToDepth Shape Trilu".split()
)
