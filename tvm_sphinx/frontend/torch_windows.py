"""Converters for torch's pools that say where they found what, filters and convolutions. [TVM]"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .._tvm import relax
from .deformable import deformable_convolution
from .interpolate import fixed_point, to_bytes
from .largest import Windows, first_largest, largest_of_windows
from .transposed import flipped_convolution, forward_convolution, is_known_to_tvm

_op = relax.op


def max_pool_with_indices(axes: int) -> Callable[[Any, Any], Any]:
    """Convert ``max_pool``, by TVM's pool where its values are read alone; a stride may be left out."""

    def convert(importer: Any, node: Any) -> Any:
        args = importer.retrieve_args(node)
        given = [args[at] if len(args) > at else [] for at in range(1, 5)]
        kernel, stride, padding, dilation = (
            _of_axes(value or default, axes)
            for value, default in zip(given, (None, given[0], [0], [1]), strict=True)
        )
        ceil_mode = args[5] if len(args) > 5 else False
        x, emit = args[0], importer.block_builder.emit
        if 1 not in results_read(node):
            pool = importer._max_pool2d_impl if axes == 2 else importer._max_pool3d_impl
            largest = pool(x, kernel, stride, padding, dilation, ceil_mode)
            return emit(relax.Tuple([largest, largest]))
        wanted = [int(extent) for extent in node.meta["val"][0].shape[-axes:]]
        windows = Windows(kernel, stride, padding, dilation, wanted)
        return emit(relax.Tuple(largest_of_windows(emit, x, windows)))

    return convert


def adaptive_max_pool(axes: int) -> Callable[[Any, Any], Any]:
    """Convert ``adaptive_max_pool``, axis by axis from the last, with places."""

    def convert(importer: Any, node: Any) -> Any:
        x, _ = importer.retrieve_args(node)
        emit = importer.block_builder.emit
        wanted = [int(extent) for extent in node.meta["val"][0].shape[-axes:]]
        shape = [int(extent) for extent in x.ty.shape]
        rank = len(shape)
        extents = shape[-axes:]
        if 1 not in results_read(node) and not any(e % w for e, w in zip(extents, wanted, strict=True)):
            # Windows of one size, whose places nobody asks for.
            split = [n for e, w in zip(extents, wanted, strict=True) for n in (w, e // w)]
            windows = emit(_op.reshape(x, [*shape[:-axes], *split]))
            inner = [rank - axes + 2 * axis + 1 for axis in range(axes)]
            return emit(relax.Tuple([_largest(emit, windows, inner)]))
        flat = np.arange(math.prod(extents)).reshape(extents)
        place = emit(_op.broadcast_to(relax.const(flat, "int64"), shape))
        for axis in range(rank - 1, rank - axes - 1, -1):
            count, extent = wanted[axis - rank], shape[axis]
            made = []
            for number in range(count):
                begin, end = number * extent // count, -(-(number + 1) * extent // count)
                parts = [
                    tuple(emit(_op.strided_slice(each, [axis], [at], [at + 1])) for each in (x, place))
                    for at in range(begin, end)
                ]
                made.append(first_largest(emit, parts))
            x, place = (emit(_op.concat([pair[n] for pair in made], axis)) for n in (0, 1))
        return emit(relax.Tuple([x, place]))

    return convert


def _largest(emit: Callable[[Any], Any], x: Any, axes: list[int]) -> Any:
    """Return the maximum along axes, NaN where there is one, which TVM's maximum passes over."""
    found, dtype = emit(_op.max(x, axes)), str(x.ty.dtype)
    if "float" not in dtype:
        return found
    known = emit(_op.astype(x, "float32")) if dtype == "bfloat16" else x
    odd = emit(_op.max(emit(_op.astype(emit(_op.isnan(known)), "int8")), axes))
    is_odd = emit(_op.greater(odd, relax.const(0, "int8")))
    return emit(_op.where(is_odd, relax.const(math.nan, dtype), found))


def results_read(node: Any) -> set[int]:
    """Return which results of a node are read."""
    return {user.args[1] for user in node.users if getattr(user.target, "__name__", "") == "getitem"}


def _of_axes(value: Any, axes: int) -> list[int]:
    values = [int(each) for each in (value if isinstance(value, (list, tuple)) else [value])]
    return values * axes if len(values) == 1 else values


def antialiased(kind: str) -> Callable[[Any, Any], Any]:
    """Convert resizing with a filter that widens as the image shrinks, as products with matrices."""

    def convert(importer: Any, node: Any) -> Any:
        args = importer.retrieve_args(node)
        x, aligned = args[0], args[2]
        scales: Any = args[3] if len(args) == 4 else args[3:5] or None
        scales = scales or node.kwargs.get("scale_factors")
        emit, dtype = importer.block_builder.emit, str(x.ty.dtype)
        shapes = (node.args[0].meta["val"].shape, node.meta["val"].shape)
        before, after = ([int(extent) for extent in shape[2:]] for shape in shapes)
        for axis in (1, 0):
            scale = scales[axis] if scales else None
            weights = _filter(kind, before[axis], after[axis], scale, aligned)
            bits = 0
            if dtype == "uint8":
                if before[axis] == after[axis]:
                    continue
                x, (weights, bits) = emit(_op.astype(x, "int32")), fixed_point(weights)
            matrix = relax.const(weights.astype(str(x.ty.dtype)), str(x.ty.dtype))
            if axis == 1:
                matrix = emit(_op.permute_dims(matrix, [1, 0]))
            x = emit(_op.matmul(*((x, matrix) if axis == 1 else (matrix, x)), out_dtype=str(x.ty.dtype)))
            x = to_bytes(emit, x, bits) if dtype == "uint8" else x
        return x

    return convert


def _filter(kind: str, before: int, after: int, given: float | None, aligned: bool) -> Any:
    """Return torch's weights [after, before]: a triangle, or Keys' cubic with a = -0.5."""
    if aligned:
        scale = (before - 1) / (after - 1) if after > 1 else 0.0
    else:
        scale = 1 / given if given else before / after
    width = 2 if kind == "linear" else 4
    support = width / 2 * max(scale, 1.0)
    inverse = 1 / scale if scale >= 1 else 1.0
    found = np.zeros((after, before))
    for row in range(after):
        center = scale * (row + 0.5)
        begin = max(int(center - support + 0.5), 0)
        end = min(int(center + support + 0.5), before)
        at = np.abs((np.arange(begin, end) - center + 0.5) * inverse)
        if kind == "linear":
            weights = np.maximum(1 - at, 0)
        else:
            a = -0.5
            near = ((a + 2) * at - (a + 3)) * at * at + 1
            far = (((at - 5) * at + 8) * at - 4) * a
            weights = np.where(at < 1, near, np.where(at < 2, far, 0))
        found[row, begin:end] = weights / weights.sum()
    return found


def convolution(importer: Any, node: Any) -> Any:
    """Convert convolutions of float64, and transposed ones of forms that TVM has no kernel for."""
    args = importer.retrieve_args(node)
    x, weight, bias, stride, padding, dilation, transposed, output_padding, groups = args
    axes = weight.ty.ndim - 2
    stride, padding, dilation, output_padding = (
        _of_axes(each, axes) for each in (stride, padding, dilation, output_padding)
    )
    is_double = str(x.ty.dtype) == "float64"
    if not is_double and (not transposed or is_known_to_tvm(axes, stride, dilation, output_padding)):
        return NotImplemented
    emit = importer.block_builder.emit
    pads = [(each, each) for each in padding]
    if transposed:
        found = flipped_convolution(emit, x, weight, stride, pads, dilation, output_padding, groups)
    else:
        found = forward_convolution(emit, x, weight, stride, padding, dilation, groups)
    if bias is not None:
        found = emit(_op.add(found, emit(_op.reshape(bias, [1, -1, *[1] * axes]))))
    return found


def deform_conv(importer: Any, node: Any) -> Any:
    """Convert torchvision's deformable convolution."""
    x, weight, offset, mask, bias, *numbers = importer.retrieve_args(node)
    *numbers, uses_mask = numbers
    sizes = [int(number) for number in numbers]
    return deformable_convolution(
        importer.block_builder,
        x,
        weight,
        offset,
        bias,
        mask if uses_mask else None,
        strides=sizes[0:2],
        pads=sizes[2:4],
        dilations=sizes[4:6],
        groups=sizes[6],
        offset_groups=sizes[7],
    )
