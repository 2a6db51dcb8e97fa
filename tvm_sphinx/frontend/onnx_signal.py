"""ONNX's Fourier transforms as products with the matrices of their waves, and blocks put together. [TVM]

A product takes n times n steps where the fast transform takes n log n; frames of speech have some
hundred elements, and products are what the kernels are good at.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._tvm import relax, tirx, tvm
from .onnx_node import STANDARD, Array, Converter, Node, const, dtype_of, shape_of
from .waves import waves

_op = relax.op


def _matrix(length: int, used: int, parts: int, *, inverse: bool, one_sided: bool) -> Array:
    """Return the matrix of a discrete Fourier transform, float64 [used x parts, outputs x made].

    Parameters
    ----------
    length
        Elements of a period.
    used
        Elements that are there; behind them are zeros.
    parts
        1 for elements that are real, 2 for a real and an imaginary part of each.
    inverse
        Whether it goes back, over ``length``.
    one_sided
        Whether the half that mirrors the other one is left out: of what comes out, or, going back, of
        what is given, where what comes out is real (``made`` is 1, else 2).
    """
    outputs = length // 2 + 1 if one_sided and not inverse else length
    cos, sin = waves(used, outputs, length)
    sin = sin if inverse else -sin
    matrix = np.empty((used, 2, outputs, 2))
    matrix[:, 0, :, 0], matrix[:, 0, :, 1] = cos, sin
    matrix[:, 1, :, 0], matrix[:, 1, :, 1] = -sin, cos
    if inverse:
        matrix /= length
        if one_sided:
            # Each of the given ones stands for its mirror image too, but those that have none.
            twice = [n for n in range(used) if 0 < n < length - n]
            matrix[twice] *= 2
            return matrix[..., :1].reshape(used * 2, outputs)
    return matrix[:, :parts].reshape(used * parts, outputs * 2)


def _dft(node: Node) -> Any:
    data = node.required(0)
    shape = shape_of(node, data, "input")
    rank, parts = len(shape), shape[-1]
    axis = int(node.attributes.get("axis", 1))
    if node.opset >= 20:
        axis = int(node.number(2, "axis", -2))
    axis %= rank
    inverse, one_sided = (bool(int(node.attributes.get(name, 0))) for name in ("inverse", "onesided"))
    if axis == rank - 1 or parts not in (1, 2) or (one_sided and parts != (2 if inverse else 1)):
        raise node.error(
            f"expected real or complex elements along the last axis, real ones where it is onesided, "
            f"complex ones where it is inverse too, and another axis to transform; got {shape}, "
            f"axis {axis}"
        )
    whole = 2 * (shape[axis] - 1) if one_sided and inverse else shape[axis]
    length = int(node.number(1, "dft_length", whole))
    used = min(shape[axis], length // 2 + 1 if one_sided and inverse else length)
    if used < shape[axis]:
        data = node.emit(_op.strided_slice(data, [axis], [0], [used]))
    order = [*(at for at in range(rank - 1) if at != axis), axis, rank - 1]
    moved = node.emit(_op.permute_dims(data, order))
    outer = [shape[at] for at in order[:-2]]
    matrix = _matrix(length, used, parts, inverse=inverse, one_sided=one_sided)
    made = _transformed(node, moved, outer, matrix, 1 if one_sided and inverse else 2)
    return node.emit(_op.permute_dims(made, [order.index(at) for at in range(rank)]))


def _transformed(node: Node, data: Any, outer: list[int], matrix: Array, made: int) -> Any:
    """Return [*outer, outputs, made] of data [*outer, used, parts]."""
    flat = node.emit(_op.reshape(data, [*outer, matrix.shape[0]]))
    found = node.emit(_op.matmul(flat, const(matrix, dtype_of(data))))
    return node.emit(_op.reshape(found, [*outer, matrix.shape[1] // made, made]))


def _stft(node: Node) -> Any:
    """Transform frames of a signal [batch, length, parts] that a window may weigh."""
    signal, window = node.required(0), node.optional(2)
    batch, total, *rest = shape_of(node, signal, "signal")
    parts = rest[0] if rest else 1
    step = node.number(1, "frame_step", 0)
    weights = shape_of(node, window, "window")[0] if window is not None else total
    length = node.number(3, "frame_length", weights)
    one_sided = bool(int(node.attributes.get("onesided", 1)))
    if step < 1 or not 1 <= length <= total or parts not in (1, 2) or (one_sided and parts == 2):
        raise node.error(
            f"expected a frame_step of 1 or more, frames within the signal, and real elements where it "
            f"is onesided; got a step of {step}, frames of {length} in {total}, {parts} parts"
        )
    if window is not None and weights != length:
        raise node.error(f"expected a window of frame_length {length}; got {weights} elements")
    begins = np.arange((total - length) // step + 1) * step
    places = const(begins[:, None] + np.arange(length), "int64")
    flat = node.emit(_op.reshape(signal, [batch, total, parts]))
    frames = node.emit(_op.take(flat, places, axis=1))
    if window is not None:
        frames = node.emit(_op.multiply(frames, node.emit(_op.reshape(window, [length, 1]))))
    matrix = _matrix(length, length, parts, inverse=False, one_sided=one_sided)
    return _transformed(node, frames, [batch, len(begins)], matrix, 2)


def _col_to_image(node: Node) -> Any:
    """Add up what blocks [batch, channels x block, blocks] say of each element of an image."""
    data, extents, block = node.required(0), node.constant(1), node.constant(2)
    if extents is None or block is None:
        raise node.error("expected image_shape and block_shape that are constant")
    image, kernel = [int(e) for e in extents], [int(e) for e in block]
    axes = len(image)
    strides, dilations = (
        [int(each) for each in node.attributes.get(name, ()) or [1] * axes]
        for name in ("strides", "dilations")
    )
    pads = [int(each) for each in node.attributes.get("pads", ()) or [0] * 2 * axes]
    batch, rows, columns = shape_of(node, data, "input")
    blocks = [
        (image[n] + pads[n] + pads[n + axes] - dilations[n] * (kernel[n] - 1) - 1) // strides[n] + 1
        for n in range(axes)
    ]
    if rows % math.prod(kernel) or math.prod(blocks) != columns:
        raise node.error(
            f"expected [batch, channels x {math.prod(kernel)}, {math.prod(blocks)}] for an image of "
            f"{image} and blocks of {kernel}; got {[batch, rows, columns]}"
        )
    channels = rows // math.prod(kernel)
    split = node.emit(_op.reshape(data, [batch, channels, *kernel, *blocks]))

    def compute(parts: Any) -> Any:
        taps = [tvm.te.reduce_axis((0, extent)) for extent in kernel]

        def at(number: Any, channel: Any, *place: Any) -> Any:
            found, inside = [], []
            for n in range(axes):
                distance = place[n] + pads[n] - taps[n] * dilations[n]
                found.append(tirx.floordiv(distance, strides[n]))
                inside += [distance >= 0, found[n] < blocks[n]]
                if strides[n] > 1:
                    inside.append(tirx.floormod(distance, strides[n]) == 0)
            value = parts[(number, channel, *taps, *found)]
            zero = tirx.const(0, parts.dtype)
            return tvm.te.sum(tirx.if_then_else(tirx.all(*inside), value, zero), axis=taps)

        return tvm.te.compute((batch, channels, *image), at, name="col2im")

    return node.emit(node.builder.call_te(compute, split, primfunc_name_hint="col2im"))


CONVERTERS: dict[tuple[str, str], Converter] = {
    (STANDARD, "DFT"): _dft,
    (STANDARD, "STFT"): _stft,
    (STANDARD, "Col2Im"): _col_to_image,
}
