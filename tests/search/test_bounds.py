"""Lower bounds hold: never above the optimum of any problem, and as strong as what they combine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from tests.search import twin_bounds
from tests.strategies import draw_problem, problems
from tvm_sphinx.scheduling.problem import SchedulingProblem
from tvm_sphinx.search import NoRoomError, Stop, search_schedule
from tvm_sphinx.search.bounds import lower_bound_ns
from tvm_sphinx.search.exact_model import ExactModel
from tvm_sphinx.search.native import native_problem


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
    assert native_problem(problem).lower_bound() == max(longest, combined)


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


def exact_ns(problem: SchedulingProblem) -> int | None:
    """Return the optimum as CP-SAT finds it without what is tested here; None if not in time."""
    try:
        found, bound_ns = ExactModel(problem).solve(10, num_workers=1, seed=0)
    except NoRoomError:
        return None
    return found.makespan_ns if found is not None and found.makespan_ns == bound_ns else None


@pytest.mark.parametrize("seed", range(48))
def test_refuted_bounds_do_not_pass_an_optimum_that_knows_nothing_of_them(seed: int) -> None:
    ccr = (0.1, 1.0, 3.0, 10.0)[seed % 4]
    kinds = {"special": seed % 3 == 1, "memory": seed % 6 == 2}
    problem = draw_problem(900 + seed, 4 + seed % 6, 2 + seed % 3, layout=seed, ccr=ccr, **kinds)
    optimum = exact_ns(problem)
    if optimum is None:
        pytest.skip("no optimum in time, or none that fits the memory")
    native = native_problem(problem)
    cheap = native.lower_bound()
    bounds = [native.refute(cheap, work) for work in (0, 1_000, 30_000, 3_000_000)]
    assert cheap <= min(bounds)
    assert max(bounds) <= optimum


@settings(max_examples=60, deadline=None)
@given(problems(max_tasks=25, memory=False))
def test_work_only_raises_bounds(problem: SchedulingProblem) -> None:
    native = native_problem(problem)
    bounds = [native.refute(native.lower_bound(), work) for work in (0, 300, 20_000, 400_000)]
    found = search_schedule(problem, stop=Stop(max_evaluations=3_000)).best
    assert native.lower_bound() <= min(bounds)
    assert max(bounds) <= found.makespan_ns


def test_parts_between_cuts_add_up() -> None:
    # Each fork of two has to share a device, 20 ns, or to pay 50 ns twice: its longest chain says 10 ns.
    forks, edges = 40, []
    for fork in range(forks):
        first = 3 * fork
        edges += [(first, first + 1), (first, first + 2), (first + 1, first + 3), (first + 2, first + 3)]
    count = 3 * forks + 1
    problem = SchedulingProblem(
        name="forks",
        devices=("a", "b"),
        device_cores=((0,), (1,)),
        exec_ns=np.full((count, 2), 10),
        edges=np.array(edges),
        copy_class=np.zeros(len(edges), dtype=np.int64),
        copy_ns=np.array([[[0, 50], [50, 0]]]),
    )
    assert native_problem(problem).lower_bound() <= 10 * (2 * forks + 1)
    assert lower_bound_ns(problem) == 10 * count == search_schedule(problem).best.makespan_ns


def test_equal_tasks_need_whole_rounds() -> None:
    for count, devices in ((80, 70), (10, 4), (5, 2)):
        problem = SchedulingProblem(
            name="rounds",
            devices=tuple(f"d{i}" for i in range(devices)),
            device_cores=tuple((i,) for i in range(devices)),
            exec_ns=np.full((count, devices), 7),
            edges=np.zeros((0, 2), dtype=np.int64),
            copy_class=np.zeros(0, dtype=np.int64),
            copy_ns=np.zeros((0, devices, devices), dtype=np.int64),
        )
        assert lower_bound_ns(problem) == 7 * -(-count // devices)


def test_long_copies_are_bounded_better_than_by_chains() -> None:
    for seed in range(3):
        problem = draw_problem(seed, 40, 3, ccr=10.0)
        found = search_schedule(problem).best
        assert found.lower_bound_ns == lower_bound_ns(problem)
        assert found.lower_bound_ns > 1.15 * native_problem(problem).lower_bound()


def test_bounds_depend_on_the_budget_alone() -> None:
    problem = draw_problem(3, 40, 3, ccr=10.0)
    again = replace(problem, name="again")
    stop = Stop(max_evaluations=50_000)
    assert lower_bound_ns(problem, stop) == lower_bound_ns(again, stop)
    assert lower_bound_ns(problem, Stop(max_evaluations=0)) <= lower_bound_ns(problem, stop)


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
    assert 74 <= native_problem(problem).lower_bound() <= 75
    assert lower_bound_ns(problem) == 80
    assert search_schedule(problem).best.makespan_ns == 80
