"""Lower bounds hold: never above the optimum of any problem, and as strong as what they combine."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from tests.strategies import draw_problem, problems
from tvm_sphinx.bounds import (
    combined_bound_ns,
    core_load_bound_ns,
    critical_path_bound_ns,
    lower_bound_ns,
)
from tvm_sphinx.problem import SchedulingProblem
from tvm_sphinx.search import Stop, search_schedule


@settings(max_examples=80, deadline=None)
@given(problems(max_tasks=25))
def test_no_schedule_is_shorter_than_a_bound(problem: SchedulingProblem) -> None:
    bounds = (critical_path_bound_ns(problem), core_load_bound_ns(problem), combined_bound_ns(problem))
    found = search_schedule(problem, stop=Stop(max_evaluations=3_000)).best
    assert lower_bound_ns(problem) == max(bounds) if problem.num_tasks else lower_bound_ns(problem) == 0
    assert max(bounds) <= found.makespan_ns


@pytest.mark.parametrize("seed", range(6))
def test_bounds_do_not_pass_a_proven_optimum(seed: int) -> None:
    problem = draw_problem(200 + seed, 10, 2 + seed % 2, layout=seed, ccr=(0.1, 3.0)[seed % 2])
    proven = search_schedule(problem, algorithm="exact", stop=Stop(time_limit_s=30)).best
    assert proven.gap == 0.0
    assert combined_bound_ns(problem) <= proven.makespan_ns


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
    assert core_load_bound_ns(problem) == 50
    assert 74 <= combined_bound_ns(problem) <= 75
    assert search_schedule(problem).best.makespan_ns == 80
