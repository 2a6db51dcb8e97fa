"""Lower bounds hold: never above the optimum of any problem, and as strong as what they combine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from tests.search import twin_bounds
from tests.strategies import draw_problem, problems
from tvm_sphinx.scheduling.problem import SchedulingProblem
from tvm_sphinx.search import Stop, search_schedule
from tvm_sphinx.search.bounds import lower_bound_ns


@settings(max_examples=80, deadline=None)
@given(problems(max_tasks=25))
def test_no_schedule_is_shorter_than_a_bound(problem: SchedulingProblem) -> None:
    found = search_schedule(problem, stop=Stop(max_evaluations=3_000)).best
    assert lower_bound_ns(problem) <= found.makespan_ns


@settings(max_examples=60, deadline=None)
@given(problems(max_tasks=25))
def test_the_core_agrees_with_its_twin(problem: SchedulingProblem) -> None:
    if not problem.num_tasks:
        assert lower_bound_ns(problem) == 0
        return
    longest, load = twin_bounds.critical_path(problem), twin_bounds.core_load(problem)
    combined = twin_bounds.combined(problem)
    assert combined >= load
    assert lower_bound_ns(problem) == max(longest, combined)


def test_times_near_the_limit_do_not_overflow() -> None:
    problem = replace(draw_problem(7, 30, 4), release_ns=None, delivery_ns=None)
    scale = 2**62 // (200 * int(problem.exec_ns.max()))
    huge = replace(problem, exec_ns=np.maximum(problem.exec_ns * scale, -1))
    found = search_schedule(huge, stop=Stop(max_evaluations=2_000)).best
    assert 0.5 * twin_bounds.critical_path(huge) < lower_bound_ns(huge) <= found.makespan_ns


def test_more_devices_than_the_weights_have_steps() -> None:
    count = 3001
    problem = SchedulingProblem(
        name="many",
        devices=tuple(f"d{i}" for i in range(count)),
        device_cores=tuple((i,) for i in range(count)),
        exec_ns=np.full((4, count), 5),
        edges=np.zeros((0, 2), dtype=np.int64),
        copy_class=np.zeros(0, dtype=np.int64),
        copy_ns=np.zeros((0, count, count), dtype=np.int64),
    )
    assert lower_bound_ns(problem) == 5


@pytest.mark.parametrize("seed", range(6))
def test_bounds_do_not_pass_a_proven_optimum(seed: int) -> None:
    problem = draw_problem(200 + seed, 10, 2 + seed % 2, layout=seed, ccr=(0.1, 3.0)[seed % 2])
    proven = search_schedule(problem, algorithm="exact", stop=Stop(time_limit_s=30)).best
    assert proven.gap == 0.0
    assert lower_bound_ns(problem) <= proven.makespan_ns


def test_unlike_devices_are_bounded_better_than_by_the_fastest() -> None:
    # Ten tasks, 10 ns on one device and 30 ns on the other, apart: the fastest alone takes 100 ns;
    # sharing them 7.5 to 2.5 takes 75 ns, and no whole split less than 80 ns.
    problem = SchedulingProblem(
        name="load",
        devices=("a", "b"),
        device_cores=((0,), (1,)),
        exec_ns=np.tile([10, 30], (10, 1)),
        edges=np.zeros((0, 2), dtype=np.int64),
        copy_class=np.zeros(0, dtype=np.int64),
        copy_ns=np.zeros((0, 2, 2), dtype=np.int64),
    )
    assert twin_bounds.core_load(problem) == 50
    assert 74 <= lower_bound_ns(problem) <= 75
    assert search_schedule(problem).best.makespan_ns == 80
