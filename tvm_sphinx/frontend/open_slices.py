"""Slices of axes whose extent is known only at run time: cut off at both ends, and never less than none.

[TVM]
"""

from __future__ import annotations

from typing import Any

from .._tvm import relax, tirx
from .bounded_indices import Emit


def strided_slice(emit: Emit, call: Any) -> Any:
    """Rewrite a slice of open extents, which TVM gives an extent below 0 where it begins behind its end.

    One that steps back becomes one that steps forth, of what is turned round.
    """
    data, axes, begins, ends, *steps = call.args
    extents = getattr(data.ty.shape, "values", None)
    if extents is None or call.attrs.assume_inbound:
        return None
    numbers = [found for each in (axes, begins, ends, *steps) if (found := _numbers(each)) is not None]
    if len(numbers) != len(call.args) - 1:
        return None
    chosen, starts, stops = numbers[:3]
    strides = numbers[3] if steps else [1] * len(chosen)
    chosen = [axis % len(extents) for axis in chosen]
    if all(isinstance(extents[axis], tirx.IntImm) for axis in chosen):
        return None
    turned = [axis for axis, step in zip(chosen, strides, strict=True) if step < 0]
    for axis in turned:
        data = emit(relax.op.flip(data, axis))
    bounds = [
        _bounds(extents[axis], *part) for axis, *part in zip(chosen, starts, stops, strides, strict=True)
    ]
    firsts, lasts = ([bound[place] for bound in bounds] for place in (0, 1))
    sizes = [abs(step) for step in strides]
    return relax.op.strided_slice(data, chosen, firsts, lasts, sizes, assume_inbound=True)


def _numbers(values: Any) -> list[int] | None:
    fields = values.fields if isinstance(values, relax.Tuple) else values
    if not all(isinstance(field, tirx.IntImm) for field in fields):
        return None
    return [int(field) for field in fields]


def _bounds(extent: Any, start: int, stop: int, step: int) -> tuple[Any, Any]:
    """Return where a slice begins and ends, counted from the end where it steps back."""
    if step > 0:
        first, last = (_clipped(_counted(bound, extent), 0, extent) for bound in (start, stop))
    else:
        places = (_clipped(_counted(bound, extent), -1, extent - 1) for bound in (start, stop))
        first, last = (extent - 1 - place for place in places)
    return first, tirx.max(first, last)


def _counted(bound: int, extent: Any) -> Any:
    """Return a bound counted from the beginning."""
    number = tirx.const(bound, "int64")
    return extent + number if bound < 0 else number


def _clipped(value: Any, low: int, high: Any) -> Any:
    return tirx.max(tirx.min(value, high), tirx.const(low, "int64"))
