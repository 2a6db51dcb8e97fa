"""The largest element of windows, and where it lies. [TVM]"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._tvm import relax

_op = relax.op
Emit = Callable[[Any], Any]


@dataclass(frozen=True)
class Windows:
    """Windows over the last axes of a tensor, one entry for each axis.

    Attributes
    ----------
    size, stride, dilation
        Of the windows, in elements.
    before
        Elements of padding at the begin.
    count
        How many windows there are.
    """

    size: Sequence[int]
    stride: Sequence[int]
    before: Sequence[int]
    dilation: Sequence[int]
    count: Sequence[int]


def first_largest(emit: Emit, parts: list[tuple[Any, Any]]) -> tuple[Any, Any]:
    """Return the largest of values, the first of equal ones, or NaN, and its place, by element."""
    best, place = parts[0]
    for value, at in parts[1:]:
        is_more = emit(_op.greater(value, best))
        if "float" in str(value.ty.dtype):
            is_more = emit(_op.logical_or(is_more, emit(_op.isnan(value))))
            # A NaN stays until another one comes.
            is_kept = emit(_op.logical_and(emit(_op.isnan(best)), emit(_op.equal(value, value))))
            is_more = emit(_op.logical_and(is_more, emit(_op.logical_not(is_kept))))
        best, place = emit(_op.where(is_more, value, best)), emit(_op.where(is_more, at, place))
    return best, place


def largest_of_windows(emit: Emit, x: Any, windows: Windows) -> tuple[Any, Any]:
    """Return the largest element of each window, and its place: int64, within the last axes."""
    dtype, shape = str(x.ty.dtype), [int(extent) for extent in x.ty.shape]
    axes, rank, w = len(windows.size), len(shape), windows
    inner, extents = list(range(rank - axes, rank)), shape[-axes:]
    needed = [(w.count[n] - 1) * w.stride[n] + (w.size[n] - 1) * w.dilation[n] + 1 for n in range(axes)]
    after = [max(0, needed[n] - extents[n] - w.before[n]) for n in range(axes)]
    widths = [0, 0] * (rank - axes) + [e for pair in zip(w.before, after, strict=True) for e in pair]
    padded = emit(_op.nn.pad(x, widths, "constant", _lowest(dtype))) if any(widths) else x
    parts = []
    for offset in np.ndindex(*w.size):
        begins = [offset[n] * w.dilation[n] for n in range(axes)]
        ends = [begins[n] + (w.count[n] - 1) * w.stride[n] + 1 for n in range(axes)]
        value = emit(_op.strided_slice(padded, inner, begins, ends, list(w.stride)))
        along = [np.arange(w.count[n]) * w.stride[n] + begins[n] - w.before[n] for n in range(axes)]
        places = np.meshgrid(*along, indexing="ij")
        # Behind a border nothing is found, but where all else is as low.
        inside = np.all([(p >= 0) & (p < e) for p, e in zip(places, extents, strict=True)], axis=0)
        clipped = [np.clip(p, 0, e - 1) for p, e in zip(places, extents, strict=True)]
        parts.append((value, np.ravel_multi_index(clipped, extents), inside))
    ranks = [np.where(inside, len(parts) - n, 0) for n, (_, _, inside) in enumerate(parts)]
    first = np.max(ranks, axis=0)
    start = np.select(
        [first == len(parts) - n for n in range(len(parts))], [flat for _, flat, _ in parts]
    )
    found = [
        (value, relax.const(np.where(inside, flat, start).astype("int64"), "int64"))
        for value, flat, inside in parts
    ]
    whole = [*shape[:-axes], *w.count]
    found[0] = found[0][0], emit(_op.broadcast_to(found[0][1], whole))
    return first_largest(emit, found)


def _lowest(dtype: str) -> Any:
    if dtype == "bfloat16" or dtype.startswith("float"):
        return -math.inf
    return np.iinfo(dtype).min
