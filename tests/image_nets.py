"""Random networks over images: convolutions, pools, joins, gates, and what looks at images otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tvm import relax

_CHANNELS = (3, 8, 16, 20)
# Of a grouped convolution's result, for networks of small images to stay small.
_MOST_GROUPED = 48
_NN = relax.op.nn


class _Drawn:
    """A network in the making."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.builder = relax.BlockBuilder()
        self.images: list[Any] = []

    def weight(self, *extents: int) -> Any:
        scale = float(np.prod(extents[1:])) ** -0.5
        return relax.const((self.rng.standard_normal(extents) * scale).astype(np.float32))

    def pick(self) -> Any:
        """Return an image, more often one of the last."""
        recent = self.images[-4:]
        return recent[int(self.rng.integers(len(recent)))]

    def pick_like(self, image: Any) -> Any:
        alike = [other for other in self.images if extents(other) == extents(image)]
        return alike[int(self.rng.integers(len(alike)))]

    def add(self, made: Any) -> None:
        self.images.append(self.builder.emit(made))


def extents(image: Any) -> tuple[int, ...]:
    return tuple(int(extent) for extent in image.ty.shape.values)


def _conv(net: _Drawn) -> Any:
    image = net.pick()
    size = int(net.rng.choice((1, 3)))
    channels = int(net.rng.choice(_CHANNELS))
    strides = int(net.rng.integers(1, 3)) if extents(image)[2] > 4 else 1
    weight = net.weight(channels, extents(image)[1], size, size)
    return _NN.conv2d(image, weight, strides=strides, padding=size // 2)


def _conv_and_more(net: _Drawn) -> Any:
    """Return a convolution with bias, a residual, and a function of it, which fusion joins."""
    image = net.pick()
    channels = extents(image)[1]
    made = _NN.conv2d(image, net.weight(channels, channels, 3, 3), padding=1)
    made = net.builder.emit(relax.op.add(made, net.weight(1, channels, 1, 1)))
    if net.rng.integers(2):
        made = net.builder.emit(relax.op.add(made, net.pick_like(image)))
    return _NN.relu(made)


def _depthwise(net: _Drawn) -> Any:
    image = net.pick()
    channels = extents(image)[1]
    return _NN.conv2d(image, net.weight(channels, 1, 3, 3), padding=1, groups=channels)


def _groups(net: _Drawn, channels: int) -> int:
    """Return in how many groups, more than one if that can be, so many channels are taken."""
    return int(net.rng.choice([n for n in range(2, channels + 1) if channels % n == 0] or [1]))


def _grouped(net: _Drawn) -> Any:
    image = net.pick()
    channels, size = extents(image)[1], int(net.rng.choice((1, 3)))
    groups = _groups(net, channels)
    of_group = int(net.rng.choice([n for n in (1, 2, 4, 5, 8) if groups * n <= _MOST_GROUPED] or [1]))
    weight = net.weight(groups * of_group, channels // groups, size, size)
    return _NN.conv2d(image, weight, padding=size // 2, groups=groups)


def _shuffled(net: _Drawn) -> Any:
    image = net.pick()
    return _shuffle(net, image, _groups(net, extents(image)[1]))


def _shuffle(net: _Drawn, image: Any, groups: int) -> Any:
    batch, channels, height, width = extents(image)
    parts = relax.op.reshape(image, (batch, groups, channels // groups, height, width))
    mixed = relax.op.permute_dims(net.builder.emit(parts), [0, 2, 1, 3, 4])
    return relax.op.reshape(net.builder.emit(mixed), (batch, channels, height, width))


def _unit(net: _Drawn) -> Any:
    """Return an image one half of whose channels a grouped convolution made, shuffled with the other."""
    image = net.pick()
    channels = extents(image)[1]
    if channels % 2:
        return _NN.relu(image)
    emit, half = net.builder.emit, channels // 2
    parts = emit(relax.op.split(image, 2, 1))
    groups = 2 if half % 2 == 0 else 1
    weight = net.weight(half, half // groups, 3, 3)
    made = emit(_NN.relu(emit(_NN.conv2d(emit(parts[1]), weight, padding=1, groups=groups))))
    joined = emit(relax.op.concat([emit(parts[0]), made], 1))
    return _shuffle(net, joined, _groups(net, channels))


def _split(net: _Drawn) -> Any:
    """Return a part of an image's channels; the others are an image too."""
    image = net.pick()
    channels = extents(image)[1]
    if channels == 1:
        return _NN.relu(image)
    parts = net.builder.emit(relax.op.split(image, [int(net.rng.integers(1, channels))], 1))
    net.add(parts[0])
    return parts[1]


def _pool(net: _Drawn) -> Any:
    pool = _NN.max_pool2d if net.rng.integers(2) else _NN.avg_pool2d
    return pool(net.pick(), (3, 3), (1, 1), padding=1)


def _join(net: _Drawn) -> Any:
    image = net.pick()
    return relax.op.concat([image, net.pick_like(image)], 1)


def _sum(net: _Drawn) -> Any:
    image = net.pick()
    return relax.op.add(image, net.pick_like(image))


def _gate(net: _Drawn) -> Any:
    image = net.pick()
    mean = net.builder.emit(relax.op.mean(image, [2, 3], keepdims=True))
    channels = extents(image)[1]
    gate = net.builder.emit(_NN.conv2d(mean, net.weight(channels, channels, 1, 1)))
    return relax.op.multiply(image, net.builder.emit(relax.op.sigmoid(gate)))


def _softmax(net: _Drawn) -> Any:
    return _NN.softmax(net.pick(), axis=1)


def _looked_at(net: _Drawn) -> Any:
    """Return an image whose channels were mixed by a product of matrices, and which was reshaped."""
    image = net.pick()
    batch, channels, height, width = extents(image)
    flat = net.builder.emit(relax.op.reshape(image, (batch, channels, height * width)))
    mixed = net.builder.emit(relax.op.matmul(net.weight(channels, channels), flat))
    return relax.op.reshape(mixed, (batch, channels, height, width))


def _swapped(net: _Drawn) -> Any:
    return relax.op.permute_dims(net.pick(), [0, 1, 3, 2])


_OPERATORS: Sequence[Callable[[_Drawn], Any]] = (
    *[_conv] * 4,
    *[_conv_and_more] * 4,
    *[_depthwise] * 2,
    *[_pool] * 2,
    *[_join] * 2,
    *[_grouped] * 2,
    *[_unit] * 4,
    _shuffled,
    _split,
    _sum,
    _gate,
    _softmax,
    _looked_at,
    _swapped,
)


def random_image_module(seed: int, num_ops: int = 10) -> Any:
    """Return a module over an image of 6 channels, 8 x 8; some of its images are results too."""
    net = _Drawn(seed)
    x = relax.Var("x", relax.TensorType([1, 6, 8, 8], "float32"))
    with net.builder.function("main", [x]):
        with net.builder.dataflow():
            net.images.append(x)
            for _ in range(num_ops):
                made = _OPERATORS[int(net.rng.integers(len(_OPERATORS)))](net)
                net.add(made)
            mean = net.builder.emit(relax.op.mean(net.images[-1], [2, 3]))
            first = net.images[int(net.rng.integers(1, num_ops))]
            output = net.builder.emit_output(relax.Tuple([mean, first]))
        net.builder.emit_func_output(output)
    return net.builder.finalize()
