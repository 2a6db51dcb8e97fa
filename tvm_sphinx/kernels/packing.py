"""Weights in the layout of the packed kernels, computed once, ahead of time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from .target_info import PANEL_LANES

Array = npt.NDArray[np.generic]


def _pad_last(array: Array) -> Array:
    """Pad the last axis with zeros to a multiple of the panel, and split the panels off."""
    columns = array.shape[-1]
    missing = -columns % PANEL_LANES
    widths = [(0, 0)] * (array.ndim - 1) + [(0, missing)]
    padded = np.pad(array, widths) if missing else array
    return padded.reshape(*array.shape[:-1], -1, PANEL_LANES)


def pack_matmul(weight: Array) -> Array:
    """Return [..., inner, columns] as [..., panel, inner, lane]."""
    return np.ascontiguousarray(np.swapaxes(_pad_last(weight), -3, -2))


def pack_pointwise(weight: Array) -> Array:
    """Return OIHW of one pixel as [panel, in, lane]."""
    return pack_matmul(weight[:, :, 0, 0].T)


def pack_conv2d(weight: Array, groups: int = 1) -> Array:
    """Return OIHW as [groups, panel, kh, kw, in / groups, lane]."""
    out_channels, in_group, kh, kw = weight.shape
    grouped = weight.reshape(groups, out_channels // groups, in_group, kh, kw)
    last = _pad_last(grouped.transpose(0, 3, 4, 2, 1))  # g, kh, kw, i, panel, lane
    return np.ascontiguousarray(last.transpose(0, 4, 1, 2, 3, 5))


def pack_depthwise(weight: Array) -> Array:
    """Return OIHW with one input channel as [kh, kw, panel, lane]."""
    return np.ascontiguousarray(_pad_last(weight[:, 0].transpose(1, 2, 0)))


_PACKINGS: dict[str, Callable[..., Array]] = {
    "matmul": pack_matmul,
    "conv2d_1x1": pack_pointwise,
    "conv2d": pack_conv2d,
    "depthwise_conv2d": pack_depthwise,
}


def packing_of(kernel: str, groups: int = 1) -> str:
    """Return the name of what packs the weight of a kernel, of a convolution in so many groups."""
    return f"{kernel} in {groups}" if groups > 1 else kernel


def pack_weight(weight: Array, packing: str) -> Array:
    """Return a weight packed for a kernel.

    Parameters
    ----------
    weight
        As a model has it: [..., inner, columns], or OIHW.
    packing
        As `packing_of` names it.
    """
    kernel, _, groups = packing.partition(" in ")
    pack = _PACKINGS[kernel]
    return pack(weight, int(groups)) if groups else pack(weight)
