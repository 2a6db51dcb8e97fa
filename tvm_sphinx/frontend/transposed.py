"""Transposed convolutions as convolutions of data with zeros between. [TVM]"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .._tvm import relax

_op = relax.op
_LAYOUTS = {1: ("NCW", "OIW"), 2: ("NCHW", "OIHW"), 3: ("NCDHW", "OIDHW")}


def is_known_to_tvm(
    axes: int, strides: Sequence[int], dilations: Sequence[int], output_padding: Sequence[int]
) -> bool:
    """Return whether TVM has a right kernel for a form: of one or two axes, not dilated."""
    return (
        axes < 3
        and all(each == 1 for each in dilations)
        and all(extra < stride for extra, stride in zip(output_padding, strides, strict=True))
    )


def flipped_convolution(
    emit: Callable[[Any], Any],
    data: Any,
    weight: Any,
    strides: Sequence[int],
    pads: Sequence[tuple[int, int]],
    dilations: Sequence[int],
    output_padding: Sequence[int],
    groups: int,
) -> Any:
    """Return a transposed convolution: data with zeros between, convolved with the mirrored weights.

    Parameters
    ----------
    emit
        Emits an expression and returns its variable.
    data
        [batch, in, ...], of known shape.
    weight
        [in, out / groups, ...].
    strides, dilations, output_padding
        One number for each axis.
    pads
        What is cut off before and after, for each axis.
    """
    shape = [int(extent) for extent in data.ty.shape]
    ins, outs, *kernel = (int(extent) for extent in weight.ty.shape)
    axes = len(kernel)
    for axis, stride in enumerate(strides, 2):
        if stride > 1:
            data, shape = _spread(emit, data, shape, axis, stride)
    widths, begins, ends = [0, 0, 0, 0], [], []
    for axis in range(axes):
        reach = dilations[axis] * (kernel[axis] - 1)
        before = reach - pads[axis][0]
        after = reach - pads[axis][1] + output_padding[axis]
        widths += [max(before, 0), max(after, 0)]
        begins.append(max(-before, 0))
        ends.append(shape[axis + 2] + max(before, 0) + max(after, 0) - max(-after, 0))
    if any(widths):
        data = emit(_op.nn.pad(data, widths))
    inner = list(range(2, 2 + axes))
    if any(begins) or ends != [int(data.ty.shape[axis]) for axis in inner]:
        data = emit(_op.strided_slice(data, inner, begins, ends))
    # [in, out / groups, ...] to [out, in / groups, ...], from the last tap to the first.
    for axis in inner:
        weight = emit(_op.flip(weight, axis))
    if groups > 1:
        weight = emit(_op.reshape(weight, [groups, ins // groups, outs, *kernel]))
        weight = emit(_op.permute_dims(weight, [0, 2, 1, *(axis + 1 for axis in inner)]))
        weight = emit(_op.reshape(weight, [groups * outs, ins // groups, *kernel]))
    else:
        weight = emit(_op.permute_dims(weight, [1, 0, *inner]))
    return forward_convolution(emit, data, weight, [1] * axes, [0] * axes, dilations, groups)


def forward_convolution(
    emit: Callable[[Any], Any],
    data: Any,
    weight: Any,
    strides: Sequence[int],
    padding: Sequence[int],
    dilations: Sequence[int],
    groups: int,
) -> Any:
    """Return a convolution in the type of its data; a weight is [out, in / groups, ...]."""
    axes = len(strides)
    layout, kernel_layout = _LAYOUTS[axes]
    return emit(
        getattr(_op.nn, f"conv{axes}d")(
            data,
            weight,
            strides=list(strides),
            padding=list(padding),
            dilation=list(dilations),
            groups=groups,
            data_layout=layout,
            kernel_layout=kernel_layout,
        )
    )


def _spread(
    emit: Callable[[Any], Any], data: Any, shape: list[int], axis: int, stride: int
) -> tuple[Any, list[int]]:
    """Put zeros between the elements along an axis; return the data and their shape."""
    extent = shape[axis]
    split = [*shape[: axis + 1], 1, *shape[axis + 1 :]]
    data = emit(_op.reshape(data, split))
    widths = [0, 0] * len(split)
    widths[2 * axis + 3] = stride - 1
    data = emit(_op.nn.pad(data, widths))
    joined = [*shape[:axis], extent * stride, *shape[axis + 1 :]]
    data = emit(_op.reshape(data, joined))
    data = emit(_op.strided_slice(data, [axis], [0], [(extent - 1) * stride + 1]))
    return data, [*shape[:axis], (extent - 1) * stride + 1, *shape[axis + 1 :]]
