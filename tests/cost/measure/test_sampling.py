"""Repeats end when the median is known well enough, or a budget ends; disturbed samples are left out."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest

from tvm_sphinx.cost.measure.sampling import (
    CpuTime,
    Goal,
    collect_samples,
    cores_of_others,
    cpu_time,
    half_width,
    stolen_share,
    worked_ticks,
)
from tvm_sphinx.errors import SphinxError
from tvm_sphinx.platform.machine import usable_cores


def test_the_interval_holds_the_median_as_often_as_it_says() -> None:
    """Of 400 draws of 60 from a skewed distribution, about 95 % of the intervals hold its median."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        ordered = np.sort(rng.exponential(1e6, 60))
        width = half_width(ordered.tolist()) * ordered[30]
        rank = math.floor((60 - 1.96 * math.sqrt(60)) / 2)
        assert 2 * width == pytest.approx(ordered[59 - rank] - ordered[rank])
        held += ordered[rank] <= 1e6 * math.log(2) <= ordered[59 - rank]
    assert 0.92 <= held / 400 <= 0.99


def test_few_samples_have_no_interval() -> None:
    assert half_width([]) == half_width([5.0] * 5) == math.inf
    assert half_width([5.0] * 6) == 0.0


def test_quiet_samples_end_at_the_least_and_noisy_ones_at_the_budget() -> None:
    goal = Goal(0.02, min_ns=1000, max_ns=10_000)
    assert sum(collect_samples(lambda: [100], goal, lambda: 0).ns) == 1000
    turn = iter(range(10**6))
    noisy = collect_samples(lambda: [100 if next(turn) % 2 else 300], goal, lambda: 0)
    assert sum(noisy.ns) >= 10_000
    assert noisy.half_width > 0.02


def test_kernels_below_the_clock_s_resolution_end_soon() -> None:
    turn = iter(range(10**6))
    found = collect_samples(
        lambda: [30 + 10 * (next(turn) % 2)] * 16, Goal(0.0, 10**4, 10**9), lambda: 0
    )
    assert 10**4 <= sum(found.ns) < 2 * 10**4
    fast = collect_samples(lambda: [next(turn) % 2] * 16, Goal(0.0, 10**4, 10**9), lambda: 0)
    assert len(fast.ns) == 2000


def test_no_more_than_two_samples_are_waited_for() -> None:
    goal = Goal(0.0, 10**4, 10**9, max_wall_s=0.0)
    assert collect_samples(lambda: [5, 6, 7], goal, lambda: 0).ns == (5, 6, 7)
    assert collect_samples(lambda: [5], goal, lambda: 0).ns == (5, 5)


def test_samples_beside_another_load_are_left_out() -> None:
    def switching() -> Iterator[int]:
        count = 0
        while True:
            count += 1
            yield count // 4  # every other batch is disturbed: the count is read before and after it

    counts = switching()
    values = iter([100, 900] * 1000)
    found = collect_samples(lambda: [next(values)], Goal(0.02, 1000, 100_000), lambda: next(counts))
    assert set(found.ns) == {100}
    assert found.disturbed == pytest.approx(0.5, abs=0.1)


def test_if_all_are_disturbed_all_are_kept() -> None:
    turn = iter(range(10**6))
    found = collect_samples(lambda: [100], Goal(0.02, 1000, 2000), lambda: next(turn))
    assert sum(found.ns) == 2000
    assert found.disturbed == 1.0


def test_a_goal_that_cannot_be_met_is_refused() -> None:
    with pytest.raises(SphinxError, match="Expected half_width >= 0 and 0 < min_ns <= max_ns"):
        Goal(0.02, 10, 5)
    with pytest.raises(SphinxError, match="Expected half_width >= 0"):
        Goal(float("nan"))


def test_time_that_a_hypervisor_took() -> None:
    assert stolen_share((10, 0, 0, 80, 0, 0, 0, 0), (50, 0, 0, 130, 0, 0, 0, 10)) == 0.1
    assert stolen_share((), ()) == 0.0


def test_what_cores_worked_is_told_by_their_lines() -> None:
    text = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 1 2 3 400 50 6 7 8 0 0\ncpu1 10 0 0 7 0 0 0 0 0 0\nintr 5\n"
    assert worked_ticks(text, {0}) == 1 + 2 + 3 + 6 + 7 + 8
    assert worked_ticks(text, {0, 1}) == 27 + 10
    assert worked_ticks(text, {5}) == worked_ticks("", {0}) == 0


def test_cores_that_others_took() -> None:
    assert cores_of_others(CpuTime(10.0, 100.0, 5.0), CpuTime(12.0, 103.0, 7.0)) == 0.5
    assert cores_of_others(CpuTime(10.0, 0.0, 5.0), CpuTime(12.0, 0.0, 7.0)) == 0.0


def test_another_process_is_seen_on_its_core() -> None:
    core = usable_cores()[-1]
    program = f"import os; os.sched_setaffinity(0, [{core}])\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", program]) as other:
        time.sleep(0.3)
        begin = cpu_time([core])
        time.sleep(1.0)
        taken = cores_of_others(begin, cpu_time([core]))
        other.kill()
    assert 0.8 < taken < 1.1
