"""Drawn pieces of convolution networks: a few layers on one feature map. [TVM]"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..._tvm import relax
from .draw import MOST_ELEMENTS, MOST_MACS, Draw, Sketch, shape_of

_KERNELS = ((1, 1), (3, 3), (5, 5), (7, 7), (1, 3), (3, 1), (1, 7), (7, 1), (2, 2))
_KERNEL_SHARES = (8, 8, 2, 0.5, 0.7, 0.7, 0.7, 0.7, 0.2)


def draw_image_network(draw: Draw) -> Sketch:
    """Return a module of one to five layers of a convolution network on one feature map."""
    sketch = Sketch(draw)
    if draw.chance(0.08):  # the stem of a network
        side = draw.pick((96, 128, 160, 192, 224, 256, 299))
        value = sketch.input((1, 3, side, side))
    else:
        value = sketch.input(draw.image())
    with sketch.builder.function("main"):
        with sketch.builder.dataflow():
            value = _convolution(sketch, value)
            for _ in range(draw.between(1, 4)):
                layer = draw.pick(_LAYERS, _LAYER_SHARES)
                value = layer(sketch, value)
            output = sketch.builder.emit_output(value)
        sketch.builder.emit_func_output(output, sketch.inputs)
    return sketch


def _convolution(sketch: Sketch, value: Any, *, depthwise: bool = False) -> Any:
    draw = sketch.draw
    _, depth, height, width = shape_of(value)
    if depthwise:
        side = int(draw.pick((3, 5, 7), (6, 3, 1)))
        kernel, groups, out = (side, side), depth, depth
    else:
        kernel, groups = draw.pick(_KERNELS, _KERNEL_SHARES), 1
        if depth % 8 == 0 and draw.chance(0.06):
            groups = int(draw.pick((2, 4, 8)))
        out = groups * draw.channels(max(1, 8 // groups), max(1, 1536 // groups))
    stride = 2 if draw.chance(0.15) else 1
    same = draw.chance(0.9)
    padding = [(kernel[0] - 1) // 2, (kernel[1] - 1) // 2] if same else [0, 0]
    if height + 2 * padding[0] < kernel[0] or width + 2 * padding[1] < kernel[1]:
        return _activation(sketch, value)
    pixels = (height // stride) * (width // stride)
    most = MOST_MACS * groups // max(1, pixels * depth * math.prod(kernel))
    out = max(groups, min(out, most // groups * groups, MOST_ELEMENTS // pixels // groups * groups))
    if depthwise:
        out = depth
    weight = sketch.weight(out, depth // groups, *kernel)
    made = sketch.emit(relax.op.nn.conv2d(value, weight, [stride, stride], padding, [1, 1], groups))
    if draw.chance(0.9):
        made = sketch.emit(relax.op.add(made, sketch.weight(1, out, 1, 1)))
    if draw.chance(0.2):
        made = sketch.emit(relax.op.add(made, sketch.input(shape_of(made))))
    return _activation(sketch, made) if draw.chance(0.75) else made


def _depthwise(sketch: Sketch, value: Any) -> Any:
    return _convolution(sketch, value, depthwise=True)


def _activation(sketch: Sketch, value: Any) -> Any:
    name = sketch.draw.pick(("relu", "relu6", "silu", "hard_swish", "sigmoid"), (10, 2, 2, 1.5, 0.5))
    op = relax.op
    if name == "relu":
        return sketch.emit(op.nn.relu(value))
    if name == "relu6":
        return sketch.emit(op.clip(value, 0, 6))
    if name == "silu":
        return sketch.emit(op.nn.silu(value))
    if name == "sigmoid":
        return sketch.emit(op.sigmoid(value))
    gate = sketch.emit(op.clip(sketch.emit(op.add(value, relax.const(3.0, "float32"))), 0, 6))
    scaled = sketch.emit(op.divide(gate, relax.const(6.0, "float32")))
    return sketch.emit(op.multiply(value, scaled))


def _pool(sketch: Sketch, value: Any) -> Any:
    draw = sketch.draw
    height = shape_of(value)[2]
    size, stride = int(draw.pick((1, 2, 3, 5), (0.4, 1, 6, 0.5))), int(draw.pick((1, 2)))
    if size == 1:
        stride = 2
    if height < size:
        return value
    pad = (size - 1) // 2 if draw.chance(0.8) else 0
    strides, padding = [stride, stride], [pad, pad, pad, pad]
    if draw.chance(0.65):
        ceil = draw.chance(0.3)
        pooled = relax.op.nn.max_pool2d(value, [size, size], strides, padding, [1, 1], ceil)
    else:
        include = draw.chance(0.5)
        pooled = relax.op.nn.avg_pool2d(
            value, [size, size], strides, padding, [1, 1], count_include_pad=include
        )
    return sketch.emit(pooled)


def _head(sketch: Sketch, value: Any) -> Any:
    """Global pooling, and squeeze and excitation or a classifier on it."""
    draw = sketch.draw
    depth = shape_of(value)[1]
    if draw.chance(0.5):
        pooled = sketch.emit(relax.op.nn.adaptive_avg_pool2d(value, [1, 1]))
    else:
        pooled = sketch.emit(relax.op.mean(value, [2, 3], True))
    if draw.chance(0.7):
        inner = max(4, depth // int(draw.pick((4, 8, 16, 24))))
        squeezed = _pointwise(sketch, pooled, inner)
        squeezed = sketch.emit(relax.op.nn.relu(squeezed))
        gate = sketch.emit(relax.op.sigmoid(_pointwise(sketch, squeezed, depth)))
        return sketch.emit(relax.op.multiply(value, gate))
    flat = sketch.emit(relax.op.reshape(pooled, (1, depth)))
    classes = int(draw.pick((10, 100, 1000)))
    score = sketch.emit(relax.op.matmul(flat, sketch.weight(depth, classes)))
    return sketch.emit(relax.op.add(score, sketch.weight(classes)))


def _pointwise(sketch: Sketch, value: Any, out: int) -> Any:
    weight = sketch.weight(out, shape_of(value)[1], 1, 1)
    made = sketch.emit(relax.op.nn.conv2d(value, weight))
    return sketch.emit(relax.op.add(made, sketch.weight(1, out, 1, 1)))


def _branches(sketch: Sketch, value: Any) -> Any:
    """Two to four branches that are concatenated, as in Inception or DenseNet."""
    draw = sketch.draw
    _, depth, height, width = shape_of(value)
    parts = [value] if draw.chance(0.4) else []
    while len(parts) < 2 or (len(parts) < 4 and draw.chance(0.5)):
        out = draw.channels(8, 384)
        out = max(1, min(out, MOST_MACS // (height * width * depth)))
        made = _pointwise(sketch, value, out)
        parts.append(_activation(sketch, made) if draw.chance(0.8) else made)
    return sketch.emit(relax.op.concat(parts, 1))


def _shuffle(sketch: Sketch, value: Any) -> Any:
    _, depth, height, width = shape_of(value)
    groups = 2 if depth % 2 == 0 else 1
    apart = (1, groups, depth // groups, height, width)
    return sketch.rearrange(value, apart, (0, 2, 1, 3, 4), (1, depth, height, width))


def _slice(sketch: Sketch, value: Any) -> Any:
    depth = shape_of(value)[1]
    if depth % 2:
        return _activation(sketch, value)
    halves = sketch.emit(relax.op.split(value, 2, 1))
    first = sketch.emit(relax.TupleGetItem(halves, 0))
    second = sketch.emit(relax.TupleGetItem(halves, 1))
    return sketch.emit(relax.op.concat([_pointwise(sketch, first, depth // 2), second], 1))


def _normalise(sketch: Sketch, value: Any) -> Any:
    """A batch normalisation that no convolution takes in, as scale and shift, and its activation."""
    depth = shape_of(value)[1]
    scaled = sketch.emit(relax.op.multiply(value, sketch.weight(1, depth, 1, 1)))
    return _activation(sketch, sketch.emit(relax.op.add(scaled, sketch.weight(1, depth, 1, 1))))


def _residual(sketch: Sketch, value: Any) -> Any:
    added = sketch.emit(relax.op.add(value, sketch.input(shape_of(value))))
    return _activation(sketch, added) if sketch.draw.chance(0.6) else added


def _resize(sketch: Sketch, value: Any) -> Any:
    _, depth, height, width = shape_of(value)
    scale = int(sketch.draw.pick((2, 4)))
    if depth * height * width * scale * scale > 1_000_000:
        return _residual(sketch, value)
    size = (height * scale, width * scale)
    grown = relax.op.image.resize2d(
        value, relax.ShapeExpr(size), layout="NCHW", method="nearest_neighbor"
    )
    return sketch.emit(grown)


def _local_norm(sketch: Sketch, value: Any) -> Any:
    """Local response normalisation, as ONNX importers write it: a mean of squares over channels."""
    _, depth, height, width = shape_of(value)
    square = sketch.emit(relax.op.multiply(value, value))
    side = sketch.emit(relax.op.reshape(square, (1, 1, depth, height, width)))
    padded = sketch.emit(relax.op.nn.pad(side, [0, 0, 0, 0, 2, 2, 0, 0, 0, 0]))
    pooled = sketch.emit(relax.op.nn.avg_pool3d(padded, [5, 1, 1], [1, 1, 1], [0] * 6))
    mean = sketch.emit(relax.op.reshape(pooled, (1, depth, height, width)))
    scaled = sketch.emit(
        relax.op.add(
            sketch.emit(relax.op.multiply(mean, relax.const(np.float32(1e-4)))),
            relax.const(np.float32(1.0)),
        )
    )
    power = sketch.emit(relax.op.power(scaled, relax.const(np.float32(0.75))))
    return sketch.emit(relax.op.divide(value, power))


_Layer = Callable[[Sketch, Any], Any]


def _guarded(layer: _Layer) -> _Layer:
    """Return a layer that leaves what is no feature map, or too large a one, as it is."""

    def apply(sketch: Sketch, value: Any) -> Any:
        shape = shape_of(value)
        if len(shape) != 4 or math.prod(shape) > MOST_ELEMENTS:
            return value
        return layer(sketch, value)

    return apply


_SHARES: dict[_Layer, float] = {
    _convolution: 9,
    _depthwise: 4,
    _pool: 3,
    _head: 1.5,
    _branches: 2,
    _shuffle: 0.7,
    _slice: 0.7,
    _normalise: 1.2,
    _residual: 1.2,
    _resize: 0.4,
    _local_norm: 0.2,
}
_LAYERS = [_guarded(layer) for layer in _SHARES]
_LAYER_SHARES = list(_SHARES.values())
