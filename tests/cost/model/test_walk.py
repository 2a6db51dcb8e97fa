"""Loops, operations and traffic of scheduled kernels, on kernels whose numbers are plain to see."""

from __future__ import annotations

import hashlib

import pytest
from tvm import te, tirx

from tvm_sphinx.cost.model.features import FEATURE_NAMES, FEATURE_VERSION, kernel_numbers
from tvm_sphinx.cost.model.terms import TERM_NAMES, CoreShape, kernel_terms
from tvm_sphinx.cost.model.walk import read_nest
from tvm_sphinx.kernels.compute import matmul
from tvm_sphinx.kernels.implement import implement_kernel
from tvm_sphinx.platform import unlike_cpus
from tvm_sphinx.platform.targets import device_target

SHAPE = CoreShape(64, 1, (32 << 10, 1 << 20, 32 << 20))


def terms(function: object, weights: tuple[int, ...] = (), shape: CoreShape = SHAPE) -> dict[str, float]:
    """Return the terms of a kernel by name."""
    return dict(zip(TERM_NAMES, kernel_terms(read_nest(function), weights, shape), strict=True))


def scheduled(function: object) -> object:
    return implement_kernel(function, device_target(unlike_cpus().devices[0]))


def test_a_product_counts_its_operations_and_weights() -> None:
    found = terms(scheduled(matmul((48,), 64, 32, "float32", "float32")), (1,))
    assert found["flops"] == pytest.approx(2 * 48 * 64 * 32, rel=0.2)
    assert found["cold_bytes"] == 64 * 32 * 4
    assert found["input_bytes"] == 48 * 64 * 4
    assert found["output_bytes"] == 48 * 32 * 4
    assert found["is_matmul"] == 1
    assert found["reduction_extent"] == 64
    assert found["vector_extent"] == 16


def test_narrow_vectors_take_more_instructions() -> None:
    function = scheduled(matmul((48,), 64, 32, "float32", "float32"))
    narrow = CoreShape(16, 1, SHAPE.cache_bytes)
    assert terms(function, (1,), narrow)["vector_mul"] == 4 * terms(function, (1,))["vector_mul"]


def test_an_unscheduled_transpose_is_scalar_and_strided() -> None:
    source = te.placeholder((24, 40), name="source")
    function = te.create_prim_func([source, te.compute((40, 24), lambda i, j: source[j, i])])
    found = terms(function)
    assert found["scalar_read_strided"] == 24 * 40
    assert found["scalar_write_contiguous"] == 24 * 40
    assert found["vector_read_contiguous"] == 0
    assert found["input_bytes"] == found["output_bytes"] == 24 * 40 * 4


def test_a_lookup_is_a_gather_of_the_rows_that_it_touches() -> None:
    table = te.placeholder((1000, 64), name="table")
    rows = te.placeholder((5,), "int64", name="rows")
    function = te.create_prim_func([table, rows, te.compute((5, 64), lambda i, j: table[rows[i], j])])
    found = terms(function, (0,))
    assert found["scalar_read_gather"] == 5 * 64
    assert found["cold_bytes"] < 1000 * 64 * 4 / 10


def test_what_fits_into_a_cache_moves_no_bytes_into_it() -> None:
    def increment(size: int) -> object:
        a = te.placeholder((size,))
        return te.create_prim_func([a, te.compute((size,), lambda i: a[i] + 1.0)])

    small, large = increment(1 << 10), increment(1 << 18)
    assert terms(small)["l1_bytes"] == 0
    assert terms(large)["l1_bytes"] == 2 * 4 * (1 << 18)
    assert terms(large)["l3_bytes"] == 0


def test_conditions_within_a_vector_make_it_scalar() -> None:
    def padded(size: int) -> object:
        a = te.placeholder((32, size))
        body = te.compute((32, 16), lambda i, j: tirx.if_then_else(j < size, a[i, j], 0.0))
        function = te.create_prim_func([a, body])
        from tvm import s_tir

        sch = s_tir.Schedule(function)
        sch.vectorize(sch.get_loops(sch.get_sblock("compute"))[-1])
        return sch.mod["main"]

    assert terms(padded(9))["scalar_branch"] > 0
    assert terms(padded(9))["vector_branch"] == 0


def test_loops_shared_by_threads_count_once_for_each_core() -> None:
    from tvm import s_tir

    a = te.placeholder((8, 64))
    sch = s_tir.Schedule(te.create_prim_func([a, te.compute((8, 64), lambda i, j: a[i, j] * 2.0)]))
    sch.parallel(sch.get_loops(sch.get_sblock("compute"))[0])
    function = sch.mod["main"]
    one, three = (terms(function, (), CoreShape(64, cores, SHAPE.cache_bytes)) for cores in (1, 3))
    assert one["scalar_mul"] == 8 * 64
    assert three["scalar_mul"] == 3 * 64  # three rows on the busiest of three threads
    assert (one["launches"], three["launches"]) == (0, 1)


def test_quotients_that_cancel_leave_a_vector() -> None:
    from tvm import s_tir

    def fused(rows: int, width: int) -> object:
        a = te.placeholder((rows, width))
        body = te.compute((rows, 8), lambda i, j: a[i, j] + 1.0)
        sch = s_tir.Schedule(te.create_prim_func([a, body]))
        loop = sch.fuse(*sch.get_loops(sch.get_sblock("compute")))
        _, inner = sch.split(loop, [None, 16])
        sch.vectorize(inner)
        return sch.mod["main"]

    whole, part = terms(fused(6, 8)), terms(fused(6, 11))
    assert (whole["vector_lane_index"], whole["vector_read_contiguous"]) == (0, 3)
    assert part["scalar_lane_index"] > 0  # rows of 8 out of 11 lie apart
    assert part["vector_read_contiguous"] == 0


@pytest.mark.parametrize(("shape", "is_scalar"), [((4, 4, 12), True), ((4, 4, 6), False)])
def test_a_row_that_vectors_divide_keeps_its_quotients(shape: tuple[int, ...], is_scalar: bool) -> None:
    """TVM divides what vectors divide first, and then no longer sees that the quotients cancel."""
    from tvm import s_tir

    a = te.placeholder(shape)
    function = te.create_prim_func([a, te.compute(shape, lambda *at: a[at] + 1.0)])
    sch = s_tir.Schedule(function)
    _, inner = sch.split(sch.fuse(*sch.get_loops(sch.get_sblock("compute"))), [None, 16])
    sch.vectorize(inner)
    assert (terms(sch.mod["main"])["scalar_lane_index"] > 0) is is_scalar


def test_what_features_mean_changes_with_their_version_only() -> None:
    """Models on disk are of a version: raise FEATURE_VERSION with whatever changes these numbers."""
    source = te.placeholder((24, 40), name="source")
    turned = te.create_prim_func([source, te.compute((40, 24), lambda i, j: source[j, i])])
    table, rows = te.placeholder((1000, 64), name="table"), te.placeholder((5,), "int64", name="rows")
    taken = te.create_prim_func([table, rows, te.compute((5, 64), lambda i, j: table[rows[i], j])])
    axis = te.reduce_axis((0, 40), name="axis")
    summed = te.create_prim_func(
        [source, te.compute((24,), lambda i: te.sum(te.exp(source[i, axis]) / 3.0, axis))]
    )
    cases = [
        (turned, ()),
        (taken, (0,)),
        (summed, ()),
        (matmul((8,), 16, 32, "float32", "float32"), (1,)),
    ]
    numbers = [[f"{n:.6g}" for n in kernel_numbers(f, weights, 1 << 22, SHAPE)] for f, weights in cases]
    digest = hashlib.sha256(repr((FEATURE_NAMES, numbers)).encode()).hexdigest()[:16]
    assert (FEATURE_VERSION, digest) == (2, "93b5fbf8cdfdb530")
