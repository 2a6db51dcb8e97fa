"""Convert ONNX ``Resize``, which takes the scale as it is given, not the ratio of the extents. [TVM]"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from tvm.relax.frontend.onnx.onnx_frontend import get_constant

from ._tvm import relax, tvm
from .errors import ModelError
from .interpolate import Taps, cubic_taps, linear_taps, nearest_taps, resized

_FLOATS = ("float32", "float64")


def resize(builder: Any, inputs: Any, attrs: Any, params: Any, opset: int) -> Any:
    """Return the resized tensor, by TVM's own kernel where that computes the same."""
    x = inputs[0]
    if x.ty.shape is None or not hasattr(x.ty.shape, "values"):
        return NotImplemented
    rank = x.ty.ndim
    axes = [int(axis) % rank for axis in attrs.get("axes", range(rank))]
    mode = _text(attrs, "mode", "nearest")
    how = _text(attrs, "coordinate_transformation_mode", "half_pixel" if opset >= 11 else "asymmetric")
    if opset < 11:
        how = "asymmetric"
    if attrs.get("antialias", 0) or _text(attrs, "keep_aspect_ratio_policy", "stretch") != "stretch":
        raise ModelError(
            "Expected neither antialias nor keep_aspect_ratio_policy: TVM has no such kernel."
        )
    scales, sizes = _scales_and_sizes(x, inputs, attrs, params, opset, axes)
    if how == "tf_crop_and_resize":
        return NotImplemented
    mode = "linear" if mode == "bilinear" else mode
    taps = {}
    for axis, scale, size in zip(axes, scales, sizes, strict=True):
        extent = _extent(x, axis)
        if size == extent and scale == 1:
            continue
        taps[axis] = _axis_taps(mode, how, extent, size, scale, attrs, opset)
    if _is_plain(x, mode, how, scales, sizes, axes, attrs, opset):
        return NotImplemented
    dtype = str(x.ty.dtype)
    emit = builder.emit
    if mode != "nearest" and dtype not in _FLOATS:
        wide = resized(emit, emit(relax.op.astype(x, "float32")), taps)
        return relax.op.astype(wide, dtype)
    return resized(emit, x, taps)


def _scales_and_sizes(
    x: Any, inputs: Any, attrs: Any, params: Any, opset: int, axes: list[int]
) -> tuple[list[float], list[int]]:
    """Return the scale and the resulting extent along each axis."""
    if opset < 11:
        scales = attrs["scales"] if "scales" in attrs else _value(inputs, 1, params)
        sizes = None
    else:
        scales, sizes = _value(inputs, 2, params), _value(inputs, 3, params)
    extents = [_extent(x, axis) for axis in axes]
    if sizes is not None and len(sizes):
        wanted = [int(size) for size in sizes]
        return [size / extent for size, extent in zip(wanted, extents, strict=True)], wanted
    if scales is None or not len(scales):
        raise ModelError("Expected scales or sizes that are constant.")
    factors = [float(scale) for scale in scales]
    sizes = [math.floor(extent * scale) for extent, scale in zip(extents, factors, strict=True)]
    return factors, sizes


def _axis_taps(
    mode: str, how: str, extent: int, size: int, scale: float, attrs: Any, opset: int
) -> Taps:
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
        raise ModelError(f"Unknown coordinate_transformation_mode {how!r}.")
    if mode == "nearest":
        rounding = _text(attrs, "nearest_mode", "round_prefer_floor") if opset >= 11 else "floor"
        return nearest_taps(_rounded(positions, rounding), extent)
    if mode == "linear":
        return linear_taps(np.clip(positions, 0, extent - 1), extent)
    return cubic_taps(
        positions,
        extent,
        float(attrs.get("cubic_coeff_a", -0.75)),
        exclude_outside=bool(attrs.get("exclude_outside", 0)),
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
    x: Any,
    mode: str,
    how: str,
    scales: list[float],
    sizes: list[int],
    axes: list[int],
    attrs: Any,
    opset: int,
) -> bool:
    """Whether TVM's kernel for images takes the same positions: each extent times a whole number."""
    if opset < 11 or x.ty.ndim != 4 or axes != [0, 1, 2, 3] or str(x.ty.dtype) != "float32":
        return False
    if sizes[:2] != [_extent(x, 0), _extent(x, 1)] or scales[:2] != [1, 1]:
        return False
    whole = all(scale == int(scale) for scale in scales)
    if mode == "nearest":
        return whole and how == "asymmetric" and _text(attrs, "nearest_mode", "") == "floor"
    return whole and mode == "linear" and how in ("half_pixel", "pytorch_half_pixel")


def _value(inputs: Any, place: int, params: Any) -> Any:
    if len(inputs) <= place or inputs[place] is None:
        return None
    expr = get_constant(inputs[place], params)
    if isinstance(expr, relax.ShapeExpr):
        return [int(extent) for extent in expr.values]
    return expr.value.numpy() if isinstance(expr, tvm.ir.GenericConst) else None


def _extent(x: Any, axis: int) -> int:
    extent = x.ty.shape.values[axis]
    if not isinstance(extent, tvm.tirx.IntImm):
        raise ModelError(f"Expected a known extent along axis {axis}; got {extent}.")
    return int(extent)


def _text(attrs: Any, name: str, default: str) -> str:
    value = attrs.get(name, default)
    return value.decode() if isinstance(value, bytes) else str(value)
