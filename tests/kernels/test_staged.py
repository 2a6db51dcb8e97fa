"""Kernels of stages: which operands they choose by, and what a schedule counts on."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import te, tirx

from tests.relax_modules import cpu_platform
from tvm_sphinx.cost.choose.default_loops import serial_sum_ns
from tvm_sphinx.cost.measure.kernel_timing import draws_of, kernel_of, slowest
from tvm_sphinx.cost.measure.sampling import Samples
from tvm_sphinx.kernels import condition_operands, is_staged
from tvm_sphinx.kernels.implement import implement_kernel
from tvm_sphinx.kernels.staged import Stage, Stages, branch_kernel
from tvm_sphinx.platform.targets import device_target, runtime_device
from tvm_sphinx.tune.space import workload_module

EXTENT = 24


def _row_sums(factor: float) -> Any:
    x = te.placeholder((EXTENT, EXTENT), "float32", "x")
    k = te.reduce_axis((0, EXTENT), "k")
    return te.create_prim_func([x, te.compute((EXTENT,), lambda i: te.sum(x[i, k] * factor, k), "sum")])


def _buffer(name: str, *shape: int, dtype: str = "float32") -> Any:
    return tirx.decl_buffer(shape, dtype, name, layout=None)


def _chosen(then: Stages, otherwise: Stages, x: Any, y: Any, name: str = "c") -> Any:
    return branch_kernel(_buffer(name, dtype="bool"), [x], [y], then, otherwise)


def _nested() -> Any:
    """Return a kernel of two conditions: one of its branches is another one."""
    x, y = _buffer("x", EXTENT, EXTENT), _buffer("y", EXTENT)
    inner = _chosen(
        Stages([Stage(_row_sums(2), (x, y))]), Stages([Stage(_row_sums(3), (x, y))]), x, y, "d"
    )
    d = _buffer("d", dtype="bool")
    outer = Stages([Stage(inner, (d, x, y))])
    return branch_kernel(
        _buffer("c", dtype="bool"), [x, d], [y], Stages([Stage(_row_sums(5), (x, y))]), outer
    )


def test_each_stage_is_scheduled_and_the_kernel_goes_every_way() -> None:
    target = device_target(cpu_platform(1).devices[0])
    scheduled = implement_kernel(_nested(), target)
    assert is_staged(scheduled)
    assert scheduled.attrs["sphinx.rule"] == "Stages"
    compiled = tirx.build(scheduled.with_attr("global_symbol", "main"), target)
    x = np.random.default_rng(0).normal(size=(EXTENT, EXTENT)).astype(np.float32)
    host = runtime_device("cpu:0")
    for c, d, factor in ((1, 0, 5), (1, 1, 5), (0, 1, 2), (0, 0, 3)):
        kernel = kernel_of(scheduled, "nested")
        operands = draws_of(kernel, host)[2 * c + d]
        assert [bool(operands[at].numpy()) for at in (0, 2)] == [bool(c), bool(d)]
        operands[1].copyfrom(x)
        compiled["main"](*operands)
        np.testing.assert_allclose(operands[3].numpy(), factor * x.sum(1), rtol=1e-4, atol=1e-4)


def test_the_operands_that_decide_are_those_that_are_tested() -> None:
    assert condition_operands(_nested()) == (0, 2)
    assert condition_operands(_row_sums(1)) == ()
    assert condition_operands("an external function") == ()


def test_a_schedule_counts_on_the_slower_way() -> None:
    fast, slow = Samples((10, 11, 12), 0.1, 0.0), Samples((9, 30, 31), 0.1, 0.0)
    assert slowest([fast, slow]) is slow
    assert slowest([slow, fast]) is slow


def test_sums_in_one_branch_take_their_time() -> None:
    x, y = _buffer("x", EXTENT, EXTENT), _buffer("y", EXTENT)
    source = te.placeholder((EXTENT, EXTENT), "float32", "x")
    first = te.create_prim_func([source, te.compute((EXTENT,), lambda i: source[i, 0], "first")])
    cheap, dear = Stages([Stage(first, (x, y))]), Stages([Stage(_row_sums(1), (x, y))])
    assert serial_sum_ns(first) == 0
    for kernel in (_chosen(cheap, dear, x, y), _chosen(dear, cheap, x, y)):
        assert serial_sum_ns(kernel) == serial_sum_ns(_row_sums(1)) > 0


def test_branches_are_not_tuned() -> None:
    assert workload_module(kernel_of(_row_sums(1), "sums")) is not None
    assert workload_module(kernel_of(_nested(), "nested")) is None
