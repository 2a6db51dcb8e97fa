"""Kernels over plain operands that pack them themselves give the numbers of TVM's own loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tvm import relax, te, topi

from tests.kernels.reference import TARGET, check, compare, draw, run
from tvm_sphinx.frontend.extract import Kernel, extract_task_graph
from tvm_sphinx.frontend.lower import lower_to_kernels
from tvm_sphinx.kernels import pack_ahead, pack_weight, packed_weights
from tvm_sphinx.kernels.implement import for_target, implement_kernel
from tvm_sphinx.kernels.repack import repack
from tvm_sphinx.kernels.schedule import rule_of, schedule_kernel
from tvm_sphinx.platform.targets import make_target

GPU = make_target('{"kind": "cuda", "arch": "sm_90", "max_num_threads": 1024}')
# data NCHW, weight OIHW, how they meet, and what becomes of the weight
CONVOLUTIONS: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any], str]] = [
    ((1, 32, 14, 14), (48, 32, 3, 3), {"padding": 1}, "conv2d"),
    ((1, 7, 13, 11), (18, 7, 3, 3), {"padding": 1, "strides": 2}, "conv2d"),
    ((2, 3, 9, 12), (5, 3, 5, 3), {"padding": (2, 1), "dilation": (1, 2)}, "conv2d"),
    ((1, 20, 9, 9), (20, 1, 3, 3), {"padding": 1, "groups": 20}, "depthwise_conv2d"),
    ((1, 24, 7, 7), (17, 24, 1, 1), {}, "conv2d_1x1"),
    ((2, 8, 4, 4), (32, 8, 1, 1), {}, "pixels"),
    ((1, 24, 13, 11), (17, 24, 1, 1), {}, "pixels"),
    ((2, 5, 27, 6), (40, 5, 1, 1), {}, "pixels"),
    ((1, 8, 6, 6), (16, 8, 1, 1), {"strides": 2}, "conv2d"),
    ((1, 24, 9, 7), (60, 8, 3, 3), {"padding": 1, "groups": 3}, "conv2d in 3"),
    ((2, 32, 5, 6), (32, 16, 1, 1), {"groups": 2}, "conv2d in 2"),
    ((1, 6, 7, 7), (24, 1, 3, 3), {"padding": 1, "strides": 2, "groups": 6}, "conv2d in 6"),
]
MATRICES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((5, 37), (37, 18)),
    ((1, 33), (33, 64)),
    ((1, 1, 33), (33, 32)),
    ((3, 7, 12), (12, 20)),
    ((2, 3, 7, 12), (3, 12, 9)),
    ((1, 6, 4), (5, 4, 16)),
]


def kernel_beside_a_gpu(
    build: Callable[[Any, Callable[..., Any]], Any], shape: tuple[int, ...]
) -> Kernel:
    """Return the one kernel that operators become where a platform has a GPU."""
    rng = np.random.default_rng(5)
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType(list(shape), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            made = build(x, lambda *extents: relax.const(draw(extents, "float32", rng)))
            output = builder.emit_output(made)
        builder.emit_func_output(output)
    lowered = lower_to_kernels(builder.get(), TARGET, targets=[TARGET, GPU])
    (kernel,) = extract_task_graph(lowered).kernels.values()
    return kernel


def check_repacked(kernel: Kernel, cores: int) -> list[str]:
    """Check both forms of a kernel, and return how the second takes its weights packed."""
    made = repack(kernel.function)
    assert made is not None
    rng = np.random.default_rng(6)
    inputs = [
        draw(tuple(int(extent) for extent in ty.shape.values), str(ty.dtype), rng)
        for ty in kernel.argument_types[:-1]
    ]
    scheduled = check(made, inputs, cores)
    assert rule_of(scheduled) == "PackedKernel"
    expected = run(kernel.function.with_attr("global_symbol", "main"), inputs)
    compare(*run(scheduled, inputs), *expected)
    made = pack_ahead(kernel.function, kernel.packable)
    assert made is not None
    packed = list(inputs)
    for position, packing in packed_weights(made).items():
        packed[position] = pack_weight(inputs[position], packing)
    ahead = schedule_kernel(made.with_attr("global_symbol", "main"), TARGET, cores)
    assert ahead is not None
    assert rule_of(ahead) == "PackedKernel"
    assert packed_weights(ahead) == packed_weights(made)
    types = kernel.as_implemented(ahead).argument_types
    shapes = [tuple(int(extent) for extent in ty.shape.values) for ty in types]
    assert shapes[:-1] == [array.shape for array in packed]
    compare(*run(ahead, packed), *expected)
    return list(packed_weights(made).values())


@pytest.mark.parametrize(("data", "weight", "options", "form"), CONVOLUTIONS)
@pytest.mark.parametrize("cores", [1, 2])
def test_convolutions_keep_their_numbers(
    data: tuple[int, ...], weight: tuple[int, ...], options: dict[str, Any], form: str, cores: int
) -> None:
    def build(x: Any, draw_constant: Callable[..., Any]) -> Any:
        product = relax.op.nn.conv2d(x, draw_constant(*weight), **options)
        return relax.op.nn.relu(relax.op.add(product, draw_constant(1, weight[0], 1, 1)))

    packings = check_repacked(kernel_beside_a_gpu(build, data), cores)
    assert packings == ([] if form == "pixels" else [form])


@pytest.mark.parametrize(("left", "right"), MATRICES)
@pytest.mark.parametrize("cores", [1, 2])
def test_products_keep_their_numbers(left: tuple[int, ...], right: tuple[int, ...], cores: int) -> None:
    def build(x: Any, draw_constant: Callable[..., Any]) -> Any:
        product = relax.op.matmul(x, draw_constant(*right))
        return relax.op.nn.gelu(relax.op.add(product, draw_constant(right[-1])))

    assert check_repacked(kernel_beside_a_gpu(build, left), cores) == ["matmul"]


def test_a_kernel_beside_a_gpu_takes_the_packed_rule() -> None:
    data, weight, options, _ = CONVOLUTIONS[0]
    kernel = kernel_beside_a_gpu(lambda x, c: relax.op.nn.conv2d(x, c(*weight), **options), data)
    assert rule_of(implement_kernel(kernel.function, TARGET)) == "PackedKernel"


def _narrow_groups() -> Any:
    data, weight = te.placeholder((1, 8, 6, 6), name="data"), te.placeholder((8, 2, 3, 3), name="w")
    return te.create_prim_func([data, weight, topi.nn.group_conv2d_nchw(data, weight, 1, 0, 1, 4)])


def _crossed() -> Any:
    """Return a convolution whose channels are each made of two, four apart."""
    data, weight = te.placeholder((1, 8, 6, 6), name="data"), te.placeholder((4, 2, 3, 3), name="w")
    c, y, x = (te.reduce_axis((0, extent)) for extent in (2, 3, 3))
    return te.create_prim_func(
        [
            data,
            weight,
            te.compute(
                (1, 4, 4, 4),
                lambda n, f, h, w: te.sum(
                    data[n, c * 4 + f, h + y, w + x] * weight[f, c, y, x], axis=[c, y, x]
                ),
            ),
        ]
    )


def _transposed() -> Any:
    a, b = te.placeholder((4, 8), name="a"), te.placeholder((6, 8), name="b")
    return te.create_prim_func([a, b, topi.nn.dense(a, b)])


def _twice() -> Any:
    a, b = te.placeholder((4, 4), name="a"), te.placeholder((4, 4), name="b")
    return te.create_prim_func([a, b, topi.nn.matmul(topi.nn.matmul(a, b), b)])


def _summed() -> Any:
    a = te.placeholder((4, 4), name="a")
    return te.create_prim_func([a, topi.sum(a, axis=1)])


@pytest.mark.parametrize("make", [_narrow_groups, _crossed, _transposed, _twice, _summed])
def test_other_sums_stay_as_they_are(make: Callable[[], Any]) -> None:
    assert repack(make()) is None
    assert pack_ahead(make(), [0, 1]) is None


def _squared() -> Any:
    a = te.placeholder((16, 16), name="a")
    return te.create_prim_func([a, topi.nn.matmul(a, a)])


def _read_twice() -> Any:
    a, b = te.placeholder((4, 16), name="a"), te.placeholder((16, 16), name="b")
    return te.create_prim_func([a, b, topi.nn.matmul(a, b), topi.nn.relu(b)])


@pytest.mark.parametrize(
    ("make", "constants"), [(_squared, [0]), (_read_twice, [1]), (_read_twice, [0])]
)
def test_a_weight_that_is_read_elsewhere_too_is_not_packed_ahead(
    make: Callable[[], Any], constants: list[int]
) -> None:
    assert repack(make()) is not None
    assert pack_ahead(make(), constants) is None


def test_only_a_cpu_takes_weights_packed_and_only_constants() -> None:
    data, weight, options, _ = CONVOLUTIONS[0]
    kernel = kernel_beside_a_gpu(lambda x, c: relax.op.nn.conv2d(x, c(*weight), **options), data)
    assert kernel.packable == (1,)
    assert packed_weights(for_target(kernel.function, kernel.packable, TARGET)) == {1: "conv2d"}
    for constants, target in (((), TARGET), ((0,), TARGET), ((1,), GPU)):
        assert for_target(kernel.function, constants, target) is kernel.function
