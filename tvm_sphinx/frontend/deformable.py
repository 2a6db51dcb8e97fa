"""Deformable convolutions: samples at computed places, then a product. [TVM]

Dai et al., Deformable Convolutional Networks (2017); with masks: Zhu et al., Deformable ConvNets v2
(2018).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._tvm import relax
from .grid_sample import Sampling, grid_sample

_op = relax.op
_BETWEEN = Sampling("linear", "zeros", align_corners=False, in_elements=True)


def deformable_convolution(
    builder: Any,
    data: Any,
    weight: Any,
    offset: Any,
    bias: Any,
    mask: Any,
    *,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    groups: int,
    offset_groups: int,
) -> Any:
    """Return [batch, out, *places] of images [batch, in, height, width].

    Parameters
    ----------
    builder
        ``relax.BlockBuilder``, inside a function.
    weight
        [out, in / groups, *kernel].
    offset
        [batch, offset_groups x taps x 2, *places], by rows and then by columns, in elements.
    bias, mask
        [out], and [batch, offset_groups x taps, *places] that weighs each tap; None leaves them out.
    strides, pads, dilations
        A number for each axis; ``pads`` are those before.
    """
    emit = builder.emit
    batch, ins, *extents = _extents(data)
    outs, _, *kernel = _extents(weight)
    places, taps = _extents(offset)[2:], math.prod(kernel)
    images = batch * offset_groups
    shifts = emit(_op.reshape(offset, [images, taps, 2, *places]))
    steps = [np.arange(places[n]) * strides[n] - pads[n] for n in (0, 1)]
    inner = [np.arange(kernel[n]) * dilations[n] for n in (0, 1)]
    first = np.empty((taps, 2, *places))
    for tap, at in enumerate(np.ndindex(*kernel)):
        first[tap, 0] = (steps[0] + inner[0][at[0]])[:, None]
        first[tap, 1] = steps[1] + inner[1][at[1]]
    dtype = str(offset.ty.dtype)
    where = emit(_op.add(shifts, relax.const(first.astype(dtype), dtype)))
    # A grid holds the place along the last axis first.
    grid = emit(_op.flip(emit(_op.permute_dims(where, [0, 1, 3, 4, 2])), 4))
    parts = emit(_op.reshape(data, [images, ins // offset_groups, *extents]))
    found = grid_sample(builder, parts, grid, _BETWEEN)
    if mask is not None:
        found = emit(_op.multiply(found, emit(_op.reshape(mask, [images, 1, taps, *places]))))
    return _product(emit, found, weight, bias, groups, [batch, ins, taps, outs, *places])


def _product(
    emit: Callable[[Any], Any], found: Any, weight: Any, bias: Any, groups: int, sizes: list[int]
) -> Any:
    """Return the product of weights and sampled taps [images, in, taps, *places], plus a bias."""
    batch, ins, taps, outs, *places = sizes
    columns = emit(_op.reshape(found, [batch, groups, ins // groups * taps, math.prod(places)]))
    rows = emit(_op.reshape(weight, [1, groups, outs // groups, ins // groups * taps]))
    made = emit(_op.reshape(emit(_op.matmul(rows, columns)), [batch, outs, *places]))
    return made if bias is None else emit(_op.add(made, emit(_op.reshape(bias, [1, outs, 1, 1]))))


def _extents(tensor: Any) -> list[int]:
    return [int(extent) for extent in tensor.ty.shape]
