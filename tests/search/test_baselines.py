"""The peers of the benchmarks find valid schedules within their budgets, from their seeds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from benchmarks.baselines import BASELINES
from tests.strategies import draw_problem, problems
from tvm_sphinx.scheduling.problem import SchedulingProblem
from tvm_sphinx.scheduling.schedule import validate
from tvm_sphinx.search import Stop


@pytest.mark.parametrize("name", sorted(BASELINES))
@settings(max_examples=15, deadline=None)
@given(problem=problems(max_tasks=15))
def test_every_baseline_gives_valid_schedules_within_its_budget(
    name: str, problem: SchedulingProblem
) -> None:
    found = BASELINES[name](problem, stop=Stop(max_evaluations=300))
    assert found.algorithm == name
    assert found.evaluations <= 300
    validate(problem, found.best)


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_every_baseline_improves_on_its_first_schedule_and_keeps_its_seed(name: str) -> None:
    problem, stop = draw_problem(11, 30, ccr=0.5), Stop(max_evaluations=600)
    found, again = (BASELINES[name](problem, seed=5, stop=stop) for _ in range(2))
    assert found.best.makespan_ns < found.history[0].makespan_ns
    assert found.best.makespan_ns == again.best.makespan_ns
