"""Packed convolutions and matrix products give the numbers of NumPy-packed, unscheduled kernels."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
import tvm_ffi
from tvm import te, tirx

from tests.kernels.reference import TARGET, check, draw
from tvm_sphinx.kernels import compute, packing, schedule_kernel

CONVOLUTIONS = [
    # data NHWC, out channels, kernel, strides, padding, dilation, groups
    ((1, 14, 14, 32), 64, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    ((1, 13, 11, 7), 18, (3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 1),
    ((1, 9, 9, 3), 5, (5, 3), (1, 2), (2, 1, 0, 1), (1, 1), 1),
    ((2, 8, 7, 16), 17, (1, 1), (2, 2), (0, 0, 0, 0), (1, 1), 1),
    ((1, 12, 12, 8), 24, (3, 3), (1, 1), (2, 2, 2, 2), (2, 2), 1),
    ((1, 6, 6, 12), 28, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 4),
    ((1, 5, 5, 64), 64, (1, 1), (1, 1), (1, 1, 1, 1), (1, 1), 2),
    ((1, 3, 3, 1), 1, (3, 3), (1, 1), (0, 0, 0, 0), (1, 1), 1),
]
DEPTHWISE = [
    ((1, 14, 14, 32), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    ((1, 13, 7, 18), (5, 5), (2, 2), (2, 2, 2, 2), (1, 1)),
    ((1, 8, 8, 5), (3, 3), (1, 1), (0, 0, 0, 0), (1, 1)),
    ((2, 7, 7, 48), (3, 3), (1, 1), (2, 2, 2, 2), (2, 2)),
]
MATRICES = [
    ((49,), 64, 96),
    ((1,), 37, 1),
    ((2, 3, 7), 5, 17),
    ((1, 128), 48, 33),
    ((197,), 31, 64),
]
BATCHES = [
    ((12,), (12,), 49, 32, 49),
    ((2, 3), (2, 3), 5, 7, 11),
    ((4,), (1,), 9, 16, 16),
    ((), (3,), 1, 13, 1),
]


def conv_shape(case: tuple) -> compute.ConvShape:
    return compute.ConvShape(*case)


@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.parametrize("cores", [1, 2])
def test_convolution_keeps_its_numbers(case: tuple, cores: int) -> None:
    shape, rng = conv_shape(case), np.random.default_rng(7)
    oihw = (shape.out_channels, shape.data[3] // shape.groups, *shape.kernel)
    weight = packing.pack_conv2d(draw(oihw, "float32", rng), shape.groups)
    func = compute.conv2d(shape, "float32", "float32")
    check(func, [draw(shape.data, "float32", rng), weight], cores)


@pytest.mark.parametrize("case", DEPTHWISE)
def test_depthwise_convolution_keeps_its_numbers(case: tuple) -> None:
    data, *rest = case
    shape, rng = conv_shape((data, data[3], *rest, data[3])), np.random.default_rng(8)
    weight = packing.pack_depthwise(draw((data[3], 1, *shape.kernel), "float32", rng))
    func = compute.depthwise_conv2d(shape, "float32", "float32")
    check(func, [draw(data, "float32", rng), weight])


@pytest.mark.parametrize(("lead", "inner", "columns"), MATRICES)
@pytest.mark.parametrize("cores", [1, 2])
def test_matrix_product_equals_numpy(
    lead: tuple[int, ...], inner: int, columns: int, cores: int
) -> None:
    rng = np.random.default_rng(9)
    data, weight = draw((*lead, inner), "float32", rng), draw((inner, columns), "float32", rng)
    func = compute.matmul(lead, inner, columns, "float32", "float32")
    scheduled = check(func, [data, packing.pack_matmul(weight)], cores)
    from tests.kernels.reference import compare, run

    (got,) = run(scheduled, [data, packing.pack_matmul(weight)])
    compare(got, (data.astype("float64") @ weight).astype("float32"))


@pytest.mark.parametrize("case", BATCHES)
def test_batched_product_equals_numpy(case: tuple) -> None:
    left_batch, right_batch, rows, inner, columns = case
    rng = np.random.default_rng(10)
    left = draw((*left_batch, rows, inner), "float32", rng)
    right = draw((*right_batch, inner, columns), "float32", rng)
    shape = compute.BatchMatmulShape(left_batch, right_batch, rows, inner, columns)
    scheduled = check(compute.batch_matmul(shape, "float32", "float32"), [left, right])
    from tests.kernels.reference import compare, run

    (got,) = run(scheduled, [left, right])
    compare(got, np.matmul(left.astype("float64"), right).astype("float32"))


@pytest.mark.parametrize(("dtype", "out"), [("float16", "float16"), ("int8", "int32")])
def test_other_types_keep_their_numbers(dtype: str, out: str) -> None:
    shape, rng = conv_shape(CONVOLUTIONS[1]), np.random.default_rng(11)
    oihw = (shape.out_channels, shape.data[3], *shape.kernel)
    weight = packing.pack_conv2d(draw(oihw, dtype, rng), 1)
    check(compute.conv2d(shape, dtype, out), [draw(shape.data, dtype, rng), weight])


def with_epilogue(rows: int, columns: int, inner: int) -> tirx.PrimFunc:
    """A product, a bias, a residual and GELU, as fusion would leave them."""
    data = te.placeholder((rows, inner), name="data")
    weight = te.placeholder((compute.panels(columns), inner, 16), name="weight")
    bias, other = te.placeholder((columns,), name="bias"), te.placeholder((rows, columns), name="r")
    k = te.reduce_axis((0, inner), name="k")
    acc = te.compute(
        (rows, compute.panels(columns), 16),
        lambda m, o, i: te.sum(data[m, k] * weight[o, k, i], axis=k),
        name="matmul",
        attrs={compute.ROLE: "matmul"},
    )
    total = te.compute(
        (rows, columns), lambda m, c: acc[m, c // 16, c % 16] + bias[c] + other[m, c], name="sum"
    )
    half = tirx.const(0.7071067811865476, "float32")
    gelu = te.compute(
        (rows, columns),
        lambda m, c: total[m, c] * (tirx.erf(total[m, c] * half) + 1.0),
        name="gelu",
    )
    return te.create_prim_func([data, weight, bias, other, gelu])


@pytest.mark.parametrize(("rows", "columns"), [(23, 40), (16, 18), (1, 7)])
def test_an_epilogue_is_merged_and_keeps_its_numbers(rows: int, columns: int) -> None:
    rng = np.random.default_rng(12)
    weight = packing.pack_matmul(draw((9, columns), "float32", rng))
    inputs = [draw((rows, 9), "float32", rng), weight, draw((columns,), "float32", rng)]
    func = with_epilogue(rows, columns, 9)
    check(func, [*inputs, draw((rows, columns), "float32", rng)])


def test_rows_of_several_axes_stay_in_a_tile_where_the_last_panel_is_partial() -> None:
    """Else the tile's accumulators would be the whole product, in memory."""
    func = compute.matmul((1, 13, 13), 64, 1000, "float32", "float32")
    scheduled = schedule_kernel(func, TARGET, 1)
    assert scheduled is not None
    transform = tvm.s_tir.transform
    passes = [transform.PlanAndUpdateBufferAllocationLocation(), transform.ConvertBlocksToOpaque()]
    passes.append(transform.CompactBufferAllocation())
    lowered = tvm.transform.Sequential(passes)(tvm.IRModule({"main": scheduled}))
    sizes: list[int] = []

    def visit(block: tvm.s_tir.SBlock) -> None:
        for buffer in block.alloc_buffers:
            sizes.append(int(np.prod([int(extent) for extent in buffer.shape])))

    tvm_ffi.structural_walk(lowered["main"].body, (tvm.s_tir.SBlock, visit))
    (size,) = sizes
    assert size <= 256, f"accumulators of {size} elements"


@pytest.mark.parametrize(
    ("lead", "inner", "columns", "shared"),
    [((1,), 64, 64, False), ((49,), 16, 32, False), ((1,), 512, 512, True), ((128,), 64, 96, True)],
)
def test_threads_are_started_only_for_work_that_is_worth_them(
    lead: tuple[int, ...], inner: int, columns: int, shared: bool
) -> None:
    func = compute.matmul(lead, inner, columns, "float32", "float32")
    scheduled = schedule_kernel(func, TARGET, 2)
    assert scheduled is not None
    assert ("T.parallel" in scheduled.script()) == shared
    many = schedule_kernel(func, TARGET, 64)
    assert many is not None
    assert "T.parallel" not in many.script()


@pytest.mark.parametrize("cores", [1, 2])
@pytest.mark.parametrize(
    ("dtype", "out"), [("float16", "float16"), ("int8", "int32"), ("uint8", "int32")]
)
def test_products_of_other_types_keep_their_numbers(dtype: str, out: str, cores: int) -> None:
    rng = np.random.default_rng(13)
    low = 0 if dtype == "uint8" else None

    def values(*shape: int) -> np.ndarray:
        return rng.integers(0, 8, shape).astype(dtype) if low == 0 else draw(shape, dtype, rng)

    flat = compute.matmul((3, 11), 24, 37, dtype, out)
    check(flat, [values(3, 11, 24), packing.pack_matmul(values(24, 37))], cores)
    shape = compute.BatchMatmulShape((3,), (1,), 7, 19, 33)
    check(compute.batch_matmul(shape, dtype, out), [values(3, 7, 19), values(1, 19, 33)], cores)
    data, *rest = DEPTHWISE[1]
    deep = conv_shape((data, data[3], *rest, data[3]))
    weight = packing.pack_depthwise(values(data[3], 1, *deep.kernel))
    check(compute.depthwise_conv2d(deep, dtype, out), [values(*data), weight], cores)
