"""Convert ONNX operators that read between the elements of a tensor: Resize and GridSample. [TVM]

``Resize`` takes the scale as it is given, not the ratio of the extents.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._tvm import tirx
from .grid_sample import PADDINGS, TAPS, Sampling, grid_sample
from .interpolate import Taps, cubic_taps, linear_taps, nearest_taps, resized
from .onnx_node import Node, cast, dtype_of, extent_of, rank_of
from .onnx_open_shapes import extents_in, numbers_of, same

_FLOATS = ("float32", "float64")
_DEPENDS = (
    "expected {0} that are known before it runs; these depend on data, or on extents that are open"
)


def resize(node: Node) -> Any:
    """Return the resized tensor, by TVM's own kernel where that computes the same."""
    x = node.required(0)
    how = node.text("coordinate_transformation_mode", "half_pixel") if node.opset >= 11 else "asymmetric"
    if (
        node.attributes.get("antialias", 0)
        or node.text("keep_aspect_ratio_policy", "stretch") != "stretch"
    ):
        raise node.error("antialias and keep_aspect_ratio_policy have no counterpart in TVM")
    if how == "tf_crop_and_resize":
        return NotImplemented
    shape = extents_in(node, x)
    axes = [int(axis) % rank_of(x) for axis in node.attributes.get("axes", range(rank_of(x)))]
    mode = node.text("mode", "nearest")
    mode = "linear" if mode == "bilinear" else mode
    scales, sizes = _scales_and_sizes(node, axes, [shape[axis] for axis in axes])
    resized_axes = {
        axis: (size, scale)
        for axis, scale, size in zip(axes, scales, sizes, strict=True)
        if scale != 1 or not same(size, shape[axis])
    }
    if all(isinstance(extent, tirx.IntImm) for extent in shape):
        known = [int(extent) for extent in shape]
        if _is_plain(node, mode, how, known, scales, sizes, axes):
            return NotImplemented
    taps = {
        axis: _axis_taps(node, mode, how, extent_of(node, x, axis, "an input"), size, scale)
        for axis, (size, scale) in resized_axes.items()
    }
    dtype = dtype_of(x)
    if mode != "nearest" and dtype not in _FLOATS:
        return cast(node, resized(node.emit, cast(node, x, "float32"), taps), dtype)
    return resized(node.emit, x, taps)


def sample(node: Node) -> Any:
    """Return a tensor sampled at the places of a grid, see `tvm_sphinx.frontend.grid_sample`."""
    data, grid = node.required(0), node.required(1)
    mode = node.text("mode", "linear").removeprefix("bi")
    padding = node.text("padding_mode", "zeros")
    if mode not in TAPS or padding not in PADDINGS:
        raise node.error(
            f"expected a mode of {', '.join(TAPS)} and a padding_mode of {', '.join(PADDINGS)}; got "
            f"{node.text('mode')!r} and {padding!r}"
        )
    rank = rank_of(data)
    if rank not in (4, 5) or rank_of(grid) != rank or (rank == 5 and mode == "cubic"):
        raise node.error(
            f"expected data and a grid of rank 4, or of rank 5 with a mode other than cubic; got "
            f"{data.ty} and {grid.ty} with {mode}"
        )
    if any(getattr(each.ty.shape, "values", None) is None for each in (data, grid)):
        return NotImplemented
    is_aligned = bool(node.attributes.get("align_corners", 0))
    how = Sampling(mode, padding, is_aligned, rounds_first=True)
    return grid_sample(node.builder, data, grid, how)


def affine_grid(node: Node) -> Any:
    """Refuse a grid of one place between two corners; leave all others to TVM."""
    size = node.constant(1)
    is_aligned = bool(node.attributes.get("align_corners", 0))
    if is_aligned and size is not None and 1 in size.reshape(-1)[2:]:
        raise node.error(
            f"expected extents above 1 with align_corners; got {size.reshape(-1).tolist()}, and "
            f"runtimes do not agree on where one place lies"
        )
    return NotImplemented


def _scales_and_sizes(node: Node, axes: list[int], extents: list[Any]) -> tuple[list[float], list[Any]]:
    """Return the scale and the resulting extent along each axis, which may be open where it stays."""
    if node.opset < 11:
        given = node.attributes.get("scales", node.constant(1))
        sizes = None
    else:
        given, sizes = node.constant(2), numbers_of(node, 3)
    if sizes is None and node.opset >= 11 and node.optional(3) is not None:
        raise node.error(_DEPENDS.format("sizes"))
    if sizes:
        both = list(zip(sizes, extents, strict=True))
        open_ = [pair for pair in both if not all(isinstance(e, tirx.IntImm) for e in pair)]
        if any(not same(*pair) for pair in open_):
            raise node.error(
                f"expected sizes that are known where they are not those of the input; got {sizes} for "
                f"{extents}. Give --input-shapes"
            )
        scales = [1.0 if same(size, extent) else int(size) / int(extent) for size, extent in both]
        return scales, [size if same(size, extent) else int(size) for size, extent in both]
    if given is None or not len(given):
        raise node.error(_DEPENDS.format("scales"))
    scales = [float(scale) for scale in given]
    wanted = [
        extent if scale == 1 else math.floor(extent_of(node, node.required(0), axis, "an input") * scale)
        for axis, extent, scale in zip(axes, extents, scales, strict=True)
    ]
    return scales, wanted


def _axis_taps(node: Node, mode: str, how: str, extent: int, size: int, scale: float) -> Taps:
    """Return the taps of one axis, by the formulas of the operator's definition."""
    out = np.arange(size, dtype="float64")
    if how == "align_corners":
        positions = out * (extent - 1) / (size - 1) if size > 1 else out * 0
    elif how == "asymmetric":
        positions = out / scale
    elif how == "pytorch_half_pixel" and size <= 1:
        positions = out * 0
    elif how == "half_pixel_symmetric":
        positions = extent / 2 * (1 - size / (scale * extent)) + (out + 0.5) / scale - 0.5
    elif how in ("half_pixel", "pytorch_half_pixel"):
        positions = (out + 0.5) / scale - 0.5
    else:
        raise node.error(f"unknown coordinate_transformation_mode {how!r}")
    if mode == "nearest":
        rounding = node.text("nearest_mode", "round_prefer_floor") if node.opset >= 11 else "floor"
        return nearest_taps(_rounded(positions, rounding), extent)
    if mode == "linear":
        return linear_taps(np.clip(positions, 0, extent - 1), extent)
    return cubic_taps(
        positions,
        extent,
        float(node.attributes.get("cubic_coeff_a", -0.75)),
        exclude_outside=bool(node.attributes.get("exclude_outside", 0)),
    )


def _rounded(positions: Any, mode: str) -> Any:
    if mode == "floor":
        return np.floor(positions)
    if mode == "ceil":
        return np.ceil(positions)
    if mode == "round_prefer_ceil":
        return np.floor(positions + 0.5)
    return np.ceil(positions - 0.5)


def _is_plain(
    node: Node,
    mode: str,
    how: str,
    shape: list[int],
    scales: list[float],
    sizes: list[int],
    axes: list[int],
) -> bool:
    """Whether TVM's kernel for images takes the same positions: each extent times a whole number."""
    if node.opset < 11 or axes != [0, 1, 2, 3] or dtype_of(node.required(0)) != "float32":
        return False
    if sizes[:2] != shape[:2] or scales[:2] != [1, 1]:
        return False
    whole = all(scale == int(scale) for scale in scales)
    if mode == "nearest":
        return whole and how == "asymmetric" and node.text("nearest_mode") == "floor"
    return whole and mode == "linear" and how in ("half_pixel", "pytorch_half_pixel")
