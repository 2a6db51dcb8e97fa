"""Kernels that are timed in turn: each until its own goal, at the distance that a model has."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import tvm

from tvm_sphinx.cost.measure import rotation
from tvm_sphinx.cost.measure.kernel_timing import LocalBench, MeasureConfig, kernel_of
from tvm_sphinx.cost.measure.kernels import measure_kernels
from tvm_sphinx.cost.measure.precision import Demand
from tvm_sphinx.cost.measure.rotation import Turn, sample_in_rotation
from tvm_sphinx.cost.measure.sampling import Goal, half_width
from tvm_sphinx.cost.records.store import RecordStore
from tvm_sphinx.kernels import compute
from tvm_sphinx.kernels.implement import implement_kernel
from tvm_sphinx.platform import Device
from tvm_sphinx.platform.machine import usable_cores
from tvm_sphinx.platform.targets import device_target, host_target

DEVICE = Device("core", host_target(), "cpu:0", usable_cores()[:1])
REUSE = 1 << 20


def _turns(goals: list[Goal], reuse_bytes: int = REUSE) -> list[Turn]:
    bench = LocalBench(DEVICE, MeasureConfig())
    turns = []
    for number, goal in enumerate(goals):
        product = compute.matmul((4,), 64, 32 * (number + 1), "float32", "float32")
        function = implement_kernel(product, device_target(DEVICE))
        module = bench.build({f"product{number}": function})
        kernel = kernel_of(function, f"product{number}", (1,), reuse_bytes)
        turn = bench.turn(module, f"product{number}", kernel, goal)
        assert turn is not None
        turns.append(turn)
    return turns


def _until(max_samples: int) -> Goal:
    return Goal(0.0, 10**15, 10**15, max_wall_s=60.0, max_samples=max_samples)


def test_each_kernel_is_timed_until_its_own_goal() -> None:
    many, few = _until(90), _until(3)
    found = sample_in_rotation(_turns([many, few, many]), switches=lambda: 0)
    counts = [len(samples.ns) for samples in found]
    assert counts[0] >= 90
    assert 3 <= counts[1] < 90
    assert counts[2] >= 90
    for samples in found:
        assert min(samples.ns) > 0
        assert samples.half_width == half_width(samples.ns)


def test_time_is_up_for_each_by_itself() -> None:
    endless, longer = (
        Goal(0.0, 10**15, 10**15, max_wall_s=seconds, max_samples=10**9) for seconds in (0.02, 0.2)
    )
    begin = time.monotonic()
    found = sample_in_rotation(_turns([endless, longer]))
    assert time.monotonic() - begin >= 0.2
    assert all(samples.ns for samples in found)
    assert len(found[0].ns) < len(found[1].ns) or found[0].disturbed or found[1].disturbed
    at_once = sample_in_rotation(_turns([endless, endless]), end_s=0.0)
    assert all(samples.ns for samples in at_once)  # one round in any case


def test_what_another_process_disturbed_is_left_out_as_long_as_there_is_more() -> None:
    switched = iter(range(10**9))
    every = sample_in_rotation(_turns([_until(20)]), switches=lambda: next(switched))
    assert every[0].disturbed == 1.0
    assert len(every[0].ns) >= 20  # there is nothing else
    assert sample_in_rotation(_turns([_until(20)]), switches=lambda: 0)[0].disturbed == pytest.approx(
        0.0
    )


def test_memory_is_gone_through_in_place_of_kernels_that_are_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[rotation.Reuse] = []
    make = rotation._runs_of

    def watched(lacking: rotation.Reuse, device: Device) -> rotation.Runs:
        made.append(lacking)
        return make(lacking, device)

    monkeypatch.setattr(rotation, "_runs_of", watched)
    goals = [_until(3), _until(40)]
    turns = _turns(goals, reuse_bytes=8 << 20)
    sample_in_rotation(turns)
    # Both together are small beside what a model reads between two calls of either.
    assert made[0].bytes in {(8 << 20) - sum(t.bytes for t in turns), (8 << 20) - turns[1].bytes}
    assert 0 <= made[0].ns <= 4 << 20  # one millisecond for each 2 MB, less what the round took
    made.clear()
    rotation._Distance().keep(turns, 1000)
    assert made[0].ns == (4 << 20) - 1000
    made.clear()
    sample_in_rotation(_turns(goals, reuse_bytes=1))
    assert not made


def test_calls_of_one_visit_have_weights_of_their_own() -> None:
    goal = Goal(0.0, 10**7, 10**15, max_samples=1)
    (turn,) = _turns([goal])
    visitor = rotation._Visitor(turn, lambda: 0)
    visitor.visit()
    clean = visitor.collector.clean
    assert len(clean) > 1
    lanes = visitor._runs
    assert len(lanes._tensors) > len(turn.call.operands) + len(clean) - 1


def test_kernels_without_cold_weights_are_timed_by_themselves() -> None:
    bench = LocalBench(DEVICE, MeasureConfig())
    product = implement_kernel(compute.matmul((4,), 8, 16, "float32", "float32"), device_target(DEVICE))
    goal = MeasureConfig().goal
    module = bench.build({"product": product})
    assert bench.turn(module, "product", kernel_of(product, "p"), goal) is None
    assert bench.turn(module, "product", kernel_of(product, "p", (1,)), goal) is None


def test_a_model_is_measured_in_turn_and_comes_out_as_its_kernels_one_by_one() -> None:
    """Both ways give a record for each; their medians are of one size, though a test asks no more."""
    kernels = [
        kernel_of(compute.matmul((16,), 64, 16 * n, "float32", "float32"), f"p{n}", (1,), REUSE)
        for n in range(1, 6)
    ]
    together, apart = RecordStore(None), RecordStore(None)
    quick = MeasureConfig(sample_ms=1.0)
    in_turn = measure_kernels(kernels, DEVICE, together, quick, demand=Demand({}))
    one_by_one = measure_kernels(kernels, DEVICE, apart, quick)
    assert [record.kernel for record in in_turn] == [record.kernel for record in one_by_one]
    ratios = [
        float(np.median(one.samples_ns)) / float(np.median(other.samples_ns))
        for one, other in zip(in_turn, one_by_one, strict=True)
    ]
    assert 0.1 < math.exp(float(np.mean(np.log(ratios)))) < 10
    version = str(tvm.__version__)
    assert all(record.tvm == version and record.samples_ns for record in in_turn)
