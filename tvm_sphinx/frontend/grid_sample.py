"""Sampling a tensor at computed places: first where taps lie and what they weigh, then their sum. [TVM]

TVM's kernel computes both anew for each channel and each of up to 16 taps, in one expression that takes
the compiler 14 s.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from .._tvm import relax, tirx, tvm
from ..kernels.compute import OUT_EWISE_FUSABLE
from .half_functions import HALVES

_te = tvm.te
#: Taps along an axis, by how what lies between elements is made.
TAPS = {"nearest": 1, "linear": 2, "cubic": 4}
#: What lies outside the tensor.
PADDINGS = ("zeros", "border", "reflection")
# Of Keys' cubic convolution (1981), as torch and ONNX have it.
_CUBIC = -0.75
# Beyond this places are not told apart: whole numbers of 32 bits hold it, and so do floats.
_FAR = float(2**30)


@dataclass(frozen=True)
class Sampling:
    """How a tensor is sampled.

    Parameters
    ----------
    mode, padding
        One of `TAPS`, and one of `PADDINGS`.
    align_corners
        Whether -1 and 1 are the centres of the outermost elements, in place of their outer edges.
    rounds_first
        Whether the nearest element is looked for before what is outside is reflected, as ONNX Runtime
        does, and not after that, as torch does.
    in_elements
        Whether places are given as those of elements, from 0 on, in place of -1 to 1.
    """

    mode: str
    padding: str
    align_corners: bool
    rounds_first: bool = False
    in_elements: bool = False

    @property
    def reflects_taps(self) -> bool:
        """Whether whole places are reflected, in place of what lies between them."""
        by_taps = self.mode == "cubic" or (self.mode == "nearest" and self.rounds_first)
        return self.padding == "reflection" and by_taps


def grid_sample(builder: Any, data: Any, grid: Any, how: Sampling) -> Any:
    """Return [batch, channels, *places], a tensor sampled at the places of a grid.

    Parameters
    ----------
    builder
        ``relax.BlockBuilder``, inside a function.
    data
        [batch, channels, *extents], of two or three extents; of floats where not the nearest is taken.
    grid
        Floats [batch, *places, axes]: along the last axis of ``data`` first; from -1 to 1, or see
        ``Sampling.in_elements``.
    """
    wide = "float64" if str(grid.ty.dtype) == "float64" else "float32"
    if str(grid.ty.dtype) != wide:
        grid = builder.emit(relax.op.astype(grid, wide))
    dtype = str(data.ty.dtype)
    is_half = dtype in HALVES and how.mode != "nearest"
    if is_half:
        data = builder.emit(relax.op.astype(data, "float32"))
    operands = []
    for axis, extent in enumerate(data.ty.shape.values[2:]):
        along = _Axis(how, extent, wide)
        operands.append(_taps(builder, grid, axis, along.place, "int32", how))
        if how.mode != "nearest":
            weights = _taps(builder, grid, axis, along.weight, wide, how)
            if wide != str(data.ty.dtype):
                weights = builder.emit(relax.op.astype(weights, str(data.ty.dtype)))
            operands.append(weights)
    made = builder.emit(
        builder.call_te(
            lambda *tensors: _sampled(*tensors, how=how),
            data,
            *operands,
            primfunc_name_hint="grid_sample",
            # What makes the places stays a kernel of its own.
            primfunc_attrs={"op_pattern": OUT_EWISE_FUSABLE},
        )
    )
    return builder.emit(relax.op.astype(made, dtype)) if is_half else made


@dataclass(frozen=True)
class _Axis:
    """Where the taps of an axis lie, and what they weigh, by the number of the grid and of the tap."""

    how: Sampling
    extent: Any
    dtype: str

    def place(self, number: Any, tap: int) -> Any:
        """Return the place of a tap, int32 in range, or -1 where there is nothing but a zero."""
        first = self._position(number)
        first = (_te.nearbyint if self.how.mode == "nearest" else _te.floor)(first)
        found = first.astype("int32") + tirx.const(tap - (self.how.mode == "cubic"), "int32")
        last = self._whole(self.extent - 1)
        if self.how.padding == "zeros":
            inside = tirx.all(found >= 0, found <= last)
            return tirx.Select(inside, found, tirx.const(-1, "int32"))
        if self.how.reflects_taps:
            found = self._reflected_place(found)
        return _te.min(_te.max(found, tirx.const(0, "int32")), last)

    def weight(self, number: Any, tap: int) -> Any:
        """Return the weight of a tap."""
        position = self._position(number)
        t = position - _te.floor(position)
        if self.how.mode == "linear":
            return t if tap else 1 - t
        distance = (t + 1, t, 1 - t, 2 - t)[tap]
        if tap in (1, 2):
            return ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance * distance + 1
        return ((_CUBIC * distance - 5 * _CUBIC) * distance + 8 * _CUBIC) * distance - 4 * _CUBIC

    def _position(self, number: Any) -> Any:
        """Return the position along the axis, within bounds that a whole number holds, also of a NaN."""
        extent = self._float(self.extent)
        if self.how.in_elements:
            x = number
        elif self.how.align_corners:
            x = (number + 1) / 2 * (extent - 1)
        else:
            x = ((number + 1) * extent - 1) / 2
        low, high = self._float(0), extent - 1
        if self.how.reflects_taps:
            low, high = self._float(-_FAR), self._float(_FAR)
        elif self.how.padding == "reflection":
            x = self._reflected(x)
        elif self.how.padding == "zeros" or self.how.mode == "cubic":
            # From here on all taps are outside.
            low, high = self._float(-3), extent + 2
        return _te.min(_te.max(x, low), high)

    def _reflected(self, x: Any) -> Any:
        """Return a position reflected at both ends until it is between them."""
        edge = self._float(0 if self.how.align_corners else -0.5)
        length = self._float(self.extent - 1 if self.how.align_corners else self.extent)
        turn = _te.max(2 * length, self._float(1))
        away = _te.abs(x - edge)
        away = away - _te.floor(away / turn) * turn
        return edge + _te.min(away, turn - away)

    def _reflected_place(self, place: Any) -> Any:
        """Return a whole place reflected at both ends."""
        aligned = int(self.how.align_corners)
        turn = _te.max(self._whole(2 * (self.extent - aligned)), tirx.const(1, "int32"))
        away = tirx.floormod(place, turn)
        return _te.min(away, turn - away - tirx.const(1 - aligned, "int32"))

    def _float(self, value: Any) -> Any:
        return (
            tirx.Cast(self.dtype, value) if tvm.ir.is_prim_expr(value) else tirx.const(value, self.dtype)
        )

    def _whole(self, value: Any) -> Any:
        return tirx.Cast("int32", value) if tvm.ir.is_prim_expr(value) else tirx.const(value, "int32")


def _taps(builder: Any, grid: Any, axis: int, value: Any, dtype: str, how: Sampling) -> Any:
    """Return a value of each tap along an axis, [batch, taps, *places]."""
    count = TAPS[how.mode]

    def compute(numbers: Any) -> Any:
        batch, *places, axes = numbers.shape

        def at(image: Any, tap: Any, *place: Any) -> Any:
            number = numbers[(image, *place, axes - 1 - axis)]
            found = value(number, count - 1)
            for other in reversed(range(count - 1)):
                found = tirx.Select(tap == other, value(number, other), found)
            return found.astype(dtype)

        return _te.compute((batch, count, *places), at, name="taps")

    return builder.emit(builder.call_te(compute, grid, primfunc_name_hint="grid_taps"))


def _sampled(data: Any, *operands: Any, how: Sampling) -> Any:
    """Return the weighted sum of all taps; ``operands`` are places, and weights, of each axis."""
    each = 1 if how.mode == "nearest" else 2
    places, weights = operands[::each], operands[1::each] if each == 2 else []
    zero = tirx.const(0, data.dtype)

    def at(image: Any, channel: Any, *place: Any) -> Any:
        total = None
        for taps in itertools.product(range(TAPS[how.mode]), repeat=len(places)):
            found = [p[(image, tap, *place)] for p, tap in zip(places, taps, strict=True)]
            if how.padding == "zeros":
                inside = tirx.all(*(one >= 0 for one in found))
                found = [_te.max(one, tirx.const(0, "int32")) for one in found]
                value = tirx.Select(inside, data[(image, channel, *found)], zero)
            else:
                value = data[(image, channel, *found)]
            for weight, tap in zip(weights, taps, strict=False):
                value = value * weight[(image, tap, *place)]
            total = value if total is None else total + value
        return total

    batch, channels = data.shape[:2]
    return _te.compute((batch, channels, *operands[0].shape[2:]), at, name="grid_sample")
