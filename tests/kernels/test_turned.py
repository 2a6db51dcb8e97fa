"""Kernels over images with channels last give the numbers of those that a model has."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tvm import relax, te, topi

from tests.kernels.reference import TARGET, compare, draw, run
from tests.kernels.test_repack import CONVOLUTIONS, kernel_beside_a_gpu
from tvm_sphinx.kernels import (
    ImageRole,
    image_role,
    is_turn,
    pack_weight,
    packed_weights,
    permuted,
    turn,
    turned,
)
from tvm_sphinx.kernels.channels_last import NHWC
from tvm_sphinx.kernels.implement import for_target, implement_kernel
from tvm_sphinx.kernels.schedule import rule_of

_NN = relax.op.nn
_IMAGE = (1, 20, 9, 7)
Build = Callable[[Any, Callable[..., Any]], Any]


def check_turned(function: Any, packable: tuple[int, ...], images: list[int], rule: str) -> None:
    """Compare each choice of images that stand channels last with the function as it is."""
    rng = np.random.default_rng(6)
    shapes = [tuple(int(extent) for extent in param.shape) for param in function.params]
    inputs = [
        draw(shape, str(param.dtype), rng)
        for shape, param in zip(shapes[:-1], function.params, strict=False)
    ]
    result = len(inputs)
    (expected,) = run(function.with_attr("global_symbol", "main"), inputs)
    for count in range(1, len(images) + 1):
        for positions in itertools.combinations(images, count):
            made = turned(function, positions)
            given = [
                array.transpose(NHWC).copy() if at in positions else array
                for at, array in enumerate(inputs)
            ]
            want = expected.transpose(NHWC) if result in positions else expected
            for form in (made, for_target(made, packable, TARGET)):
                packed = list(given)
                for at, packing in packed_weights(form).items():
                    packed[at] = pack_weight(inputs[at], packing)
                scheduled = implement_kernel(form.with_attr("global_symbol", "main"), TARGET)
                assert rule_of(scheduled) == rule
                compare(*run(scheduled, packed), want)


@pytest.mark.parametrize(("data", "weight", "options", "_form"), CONVOLUTIONS)
def test_convolutions_keep_their_numbers(
    data: tuple[int, ...], weight: tuple[int, ...], options: dict[str, Any], _form: str
) -> None:
    def build(x: Any, constant: Callable[..., Any]) -> Any:
        return _NN.relu(
            relax.op.add(_NN.conv2d(x, constant(*weight), **options), constant(weight[0], 1, 1))
        )

    kernel = kernel_beside_a_gpu(build, data)
    assert image_role(kernel.function, kernel.packable) is ImageRole.CONVOLVES
    check_turned(kernel.function, kernel.packable, [0, len(kernel.argument_types) - 1], "PackedKernel")


def test_a_convolution_with_an_image_added_keeps_its_numbers() -> None:
    kernel = kernel_beside_a_gpu(
        lambda x, constant: _NN.relu(
            relax.op.add(_NN.conv2d(x, constant(20, 20, 3, 3), padding=1), constant(*_IMAGE))
        ),
        _IMAGE,
    )
    places = [at for at, ty in enumerate(kernel.argument_types) if int(ty.shape[2]) == 9]
    assert len(places) == 3
    assert image_role(kernel.function, (1,)) is ImageRole.CONVOLVES
    check_turned(kernel.function, (1,), places, "PackedKernel")


def _max_pool(x: Any, _: Callable[..., Any]) -> Any:
    return _NN.max_pool2d(x, (3, 3), (2, 2), padding=1)


def _average(x: Any, _: Callable[..., Any]) -> Any:
    return _NN.avg_pool2d(x, (3, 2), (1, 1), padding=(1, 0))


def _affine(x: Any, constant: Callable[..., Any]) -> Any:
    return _NN.relu(relax.op.add(relax.op.multiply(x, constant(20, 1, 1)), constant(1)))


def _gated(x: Any, constant: Callable[..., Any]) -> Any:
    return relax.op.multiply(x, constant(1, 20, 1, 1))


def _joined(x: Any, constant: Callable[..., Any]) -> Any:
    return relax.op.concat([x, constant(1, 5, 9, 7)], 1)


def _kept(x: Any, _: Callable[..., Any]) -> Any:
    return relax.op.mean(x, [2, 3], keepdims=True)


def _shuffle(x: Any, groups: int) -> Any:
    """Return what follows: the channels of an image, those of each group spread over all."""
    batch, channels, *area = (int(extent) for extent in x.ty.shape.values)
    builder = relax.BlockBuilder.current()
    parts = builder.emit(relax.op.reshape(x, (batch, groups, channels // groups, *area)))
    mixed = builder.emit(relax.op.permute_dims(parts, [0, 2, 1, 3, 4]))
    return relax.op.reshape(mixed, (batch, channels, *area))


def _shuffled(x: Any, _: Callable[..., Any]) -> Any:
    return _shuffle(x, 5)


def _joined_and_shuffled(x: Any, constant: Callable[..., Any]) -> Any:
    builder = relax.BlockBuilder.current()
    joined = builder.emit(_joined(builder.emit(_NN.relu(x)), constant))
    return _NN.relu(builder.emit(_shuffle(joined, 5)))


def _flipped(x: Any, _: Callable[..., Any]) -> Any:
    return relax.op.flip(x, 1)  # an axis read at that axis


_FOLLOWING = [
    _max_pool,
    _average,
    _affine,
    _gated,
    _joined,
    _shuffled,
    _joined_and_shuffled,
    _flipped,
]


@pytest.mark.parametrize("build", _FOLLOWING)
def test_what_follows_keeps_its_numbers(build: Build) -> None:
    kernel = kernel_beside_a_gpu(build, _IMAGE)
    assert image_role(kernel.function, ()) is ImageRole.FOLLOWS
    rule = "Reduction" if build in (_max_pool, _average) else "Injective"
    check_turned(kernel.function, (), [0, len(kernel.argument_types) - 1], rule)


def _mean(axes: list[int], keepdims: bool) -> Build:
    return lambda x, _: relax.op.mean(x, axes, keepdims=keepdims)


@pytest.mark.parametrize("build", [_mean([2, 3], True), _mean([2, 3], False)])
def test_means_of_images_keep_their_numbers(build: Build) -> None:
    kernel = kernel_beside_a_gpu(build, _IMAGE)
    assert image_role(kernel.function, ()) is ImageRole.FOLLOWS
    check_turned(kernel.function, (), [0], "Reduction")


def _transposed(x: Any, _: Callable[..., Any]) -> Any:
    return relax.op.permute_dims(x, [0, 1, 3, 2])


def _softmax(x: Any, _: Callable[..., Any]) -> Any:
    return _NN.softmax(x, 1)


def _in_narrow_groups(x: Any, constant: Callable[..., Any]) -> Any:
    return _NN.conv2d(x, constant(20, 2, 3, 3), groups=10)


def _rows_shuffled(x: Any, _: Callable[..., Any]) -> Any:
    """Return an image whose rows and channels have changed places, in two groups."""
    builder = relax.BlockBuilder.current()
    parts = builder.emit(relax.op.reshape(x, (1, 2, 10, 9, 7)))
    mixed = builder.emit(relax.op.permute_dims(parts, [0, 1, 3, 2, 4]))
    return relax.op.reshape(mixed, _IMAGE)


_KEEPING = [_transposed, _softmax, _mean([1], False), _in_narrow_groups, _rows_shuffled]


@pytest.mark.parametrize("build", _KEEPING)
def test_others_keep_images_as_the_model_has_them(build: Build) -> None:
    kernel = kernel_beside_a_gpu(build, _IMAGE)
    assert image_role(kernel.function, kernel.packable) is ImageRole.KEEPS


def test_a_convolution_whose_weight_is_no_constant_keeps_its_images() -> None:
    data, weight = te.placeholder(_IMAGE, name="data"), te.placeholder((8, 20, 3, 3), name="weight")
    function = te.create_prim_func([data, weight, topi.nn.conv2d_nchw(data, weight, 1, 0, 1)])
    assert image_role(function, ()) is ImageRole.KEEPS
    assert image_role(function, (1,)) is ImageRole.CONVOLVES
    assert image_role("extern.function", ()) is ImageRole.KEEPS


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_an_image_is_turned_there_and_back(dtype: str) -> None:
    image = draw((2, 3, 4, 5), dtype, np.random.default_rng(0))
    there, back = turn(image.shape, dtype), turn(image.shape, dtype, is_back=True)
    assert is_turn(there)
    assert is_turn(back)
    assert not is_turn("extern.function")
    (last,) = run(there.with_attr("global_symbol", "main"), [image])
    np.testing.assert_array_equal(last, image.transpose(0, 2, 3, 1))
    (first,) = run(back.with_attr("global_symbol", "main"), [last])
    np.testing.assert_array_equal(first, image)
    assert permuted(permuted(image.shape), is_back=True) == list(image.shape)
