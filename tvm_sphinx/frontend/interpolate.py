"""Resizing along one axis after the other, each output a weighted sum of a few inputs. [TVM]

The weights are computed here, as the source framework computes them, in place of TVM's ``resize``
kernels, which take the ratio of the extents for the scale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._tvm import relax

Array = Any
# Bits of a fraction in weights of 16 bits.
_MOST_FRACTION = 21


@dataclass(frozen=True)
class Taps:
    """What each element along an output axis is made of.

    Attributes
    ----------
    indices
        int64 [taps, out], positions along the input axis.
    weights
        float64 [taps, out], or None for a weight of one.
    """

    indices: Array
    weights: Array | None = None


def nearest_taps(positions: Array, extent: int) -> Taps:
    """Return one tap for each position, which is a whole number; those outside take the border."""
    return Taps(np.clip(positions, 0, extent - 1).astype("int64")[None])


def linear_taps(positions: Array, extent: int) -> Taps:
    """Return the two taps beside each position, weighted by how near they are."""
    first = np.floor(positions)
    share = (positions - first).astype("float64")
    indices = np.clip(np.stack([first, first + 1]), 0, extent - 1).astype("int64")
    return Taps(indices, np.stack([1 - share, share]))


def cubic_taps(
    positions: Array, extent: int, a: float = -0.75, *, exclude_outside: bool = False
) -> Taps:
    """Return four taps round each position, weighted by Keys' cubic convolution (1981)."""
    first = np.floor(positions)
    t = (positions - first).astype("float64")

    def near(d: Array) -> Array:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: Array) -> Array:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    weights = np.stack([far(t + 1), near(t), near(1 - t), far(2 - t)])
    places = np.stack([first + offset for offset in (-1, 0, 1, 2)])
    if exclude_outside:
        weights = np.where((places >= 0) & (places < extent), weights, 0)
        weights = weights / weights.sum(0)
    return Taps(np.clip(places, 0, extent - 1).astype("int64"), weights)


def resized(emit: Callable[[Any], Any], tensor: Any, taps: dict[int, Taps]) -> Any:
    """Return a tensor resized along axes, each by its taps.

    Parameters
    ----------
    emit
        Emits an expression and returns its variable.
    tensor
        Of known rank.
    taps
        By axis; weights need a tensor of floats.
    """
    for axis, of_axis in taps.items():
        tensor = _along(emit, tensor, axis, of_axis)
    return tensor


def _along(emit: Callable[[Any], Any], tensor: Any, axis: int, taps: Taps) -> Any:
    op, dtype = relax.op, str(tensor.ty.dtype)
    shape = [-1 if number == axis else 1 for number in range(tensor.ty.ndim)]
    total = None
    for number, indices in enumerate(taps.indices):
        part = emit(op.take(tensor, relax.const(indices, "int64"), axis, mode="clip"))
        if taps.weights is not None:
            weights = taps.weights[number].reshape(shape)
            part = emit(op.multiply(part, relax.const(weights.astype(dtype), dtype)))
        total = part if total is None else emit(op.add(total, part))
    return total


def fixed_point(weights: Array) -> tuple[Array, int]:
    """Return weights as whole numbers of 16 bits, and how many of their bits are a fraction.

    As torch and Pillow take them to resize images of bytes: as many bits as the largest has room for.
    """
    most, bits = float(weights.max(initial=0)), 0
    while bits < _MOST_FRACTION and 0.5 + most * 2.0 ** (bits + 1) < 1 << 15:
        bits += 1
    scaled = weights * 2.0**bits
    return np.trunc(scaled + np.copysign(0.5, scaled)).astype("int32"), bits


def to_bytes(emit: Callable[[Any], Any], total: Any, bits: int) -> Any:
    """Return sums of bytes (int32) that were weighted in fixed point as bytes, rounded half up."""
    op = relax.op
    half = relax.const(1 << bits >> 1, "int32")
    whole = emit(op.right_shift(emit(op.add(total, half)), relax.const(bits, "int32")))
    return emit(op.astype(emit(op.clip(whole, 0, 255)), "uint8"))


def resized_bytes(emit: Callable[[Any], Any], tensor: Any, taps: dict[int, Taps]) -> Any:
    """Return a tensor of uint8 resized along axes, rounded to bytes after each, as torch does it.

    The parameters are those of `resized`; the last axis is the first.
    """
    for axis in sorted(taps, reverse=True):
        indices, weights = taps[axis].indices, np.array(taps[axis].weights)
        for last in range(len(indices) - 1, 0, -1):  # those of one place, at a border, count as one
            first = np.argmax(indices == indices[last], axis=0)
            moved = np.where(first < last, weights[last], 0)
            weights[last] -= moved
            weights[first, np.arange(len(first))] += moved
        whole, bits = fixed_point(weights)
        wide = emit(relax.op.astype(tensor, "int32"))
        tensor = to_bytes(emit, _along(emit, wide, axis, Taps(indices, whole)), bits)
    return tensor
