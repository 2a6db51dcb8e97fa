"""Every algorithm through its one interface."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import signal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import draw_problem, problems
from tvm_sphinx.errors import SphinxError
from tvm_sphinx.scheduling.problem import SchedulingProblem
from tvm_sphinx.scheduling.schedule import validate
from tvm_sphinx.search import ALGORITHMS, NoRoomError, ParamsError, SearchSpace, Stop, search_schedule
from tvm_sphinx.search.bounds import lower_bound_ns

SMALL = Stop(max_evaluations=2_000)
HEURISTICS = ("heft", "cpop", "peft", "fastest")
SEARCHES = ("annealing", "ga", "greedy", "random")


@settings(max_examples=60, deadline=None)
@given(problems())
def test_every_heuristic_gives_a_valid_schedule(problem: SchedulingProblem) -> None:
    for name in HEURISTICS:
        validate(problem, search_schedule(problem, algorithm=name).best)


@settings(max_examples=60, deadline=None)
@given(problems(max_tasks=30), st.integers(0, 2**64 - 1))
def test_cpga_is_never_above_any_cheap_heuristic(problem: SchedulingProblem, seed: int) -> None:
    found = search_schedule(problem, seed=seed, stop=SMALL).best
    validate(problem, found)
    rivals = [search_schedule(problem, algorithm=name).best.makespan_ns for name in HEURISTICS]
    if (problem.exec_ns >= 0).all(axis=0).any():
        rivals.append(search_schedule(problem, algorithm="single").best.makespan_ns)
    assert found.lower_bound_ns <= found.makespan_ns <= min(rivals)


def test_same_seed_gives_the_same_schedule_and_another_seed_another() -> None:
    problem = draw_problem(1, 60, ccr=2.0)
    first, again, other = (search_schedule(problem, seed=s, stop=SMALL) for s in (7, 7, 8))
    assert np.array_equal(first.best.device, again.best.device)
    assert np.array_equal(first.best.start_ns, again.best.start_ns)
    assert first.evaluations == again.evaluations
    assert [(p.evaluations, p.makespan_ns) for p in first.history] == [
        (p.evaluations, p.makespan_ns) for p in again.history
    ]
    assert not np.array_equal(first.best.start_ns, other.best.start_ns)


def test_best_so_far_never_rises() -> None:
    points = search_schedule(draw_problem(2, 80), stop=Stop(max_evaluations=50_000)).history
    values = [point.makespan_ns for point in points]
    assert len(values) > 2
    assert values == sorted(values, reverse=True)


@settings(max_examples=30, deadline=None)
@given(problems(max_tasks=25), st.data())
def test_tied_genes_still_give_valid_schedules(problem: SchedulingProblem, data: st.DataObject) -> None:
    labels = data.draw(
        st.lists(st.integers(0, 4), min_size=problem.num_tasks, max_size=problem.num_tasks)
    )
    space = SearchSpace.from_labels(np.array(labels, dtype=np.int64))
    validate(problem, search_schedule(problem, space=space, stop=SMALL).best)


@pytest.mark.parametrize("name", ["exact", *SEARCHES])
@settings(max_examples=10, deadline=None)
@given(problem=problems(max_tasks=10), data=st.data())
def test_every_other_search_places_each_gene_on_one_device(
    name: str, problem: SchedulingProblem, data: st.DataObject
) -> None:
    if name == "exact":
        pytest.importorskip("ortools")
    labels = data.draw(
        st.lists(st.integers(0, 2), min_size=problem.num_tasks, max_size=problem.num_tasks)
    )
    space = SearchSpace.from_labels(np.array(labels, dtype=np.int64))
    stop = Stop(max_evaluations=200, time_limit_s=5)
    found = search_schedule(problem, space=space, algorithm=name, stop=stop).best
    validate(problem, found)
    assert found.lower_bound_ns == lower_bound_ns(problem)
    for tasks in space.respecting(problem).genes:
        assert len(set(found.device[list(tasks)])) == 1


def test_exact_search_of_a_space_finds_the_best_tied_schedule_and_no_bound_beyond_it() -> None:
    """Two tasks that are fast on different devices: 20 apart, 110 on one device."""
    pytest.importorskip("ortools")
    problem = SchedulingProblem(
        name="pair",
        devices=("d0", "d1"),
        device_cores=((0,), (1,)),
        exec_ns=np.array([[10, 100], [100, 20]]),
        edges=np.zeros((0, 2)),
        copy_class=np.zeros(0),
        copy_ns=np.zeros((0, 2, 2)),
    )
    free = search_schedule(problem, algorithm="exact")
    tied = search_schedule(problem, space=SearchSpace(((0, 1),)), algorithm="exact")
    assert (free.best.makespan_ns, tied.best.makespan_ns) == (20, 110)
    assert free.stop_reason == tied.stop_reason == "optimal"
    assert tied.best.lower_bound_ns <= 20


@pytest.mark.parametrize("name", [*HEURISTICS, "single"])
def test_a_heuristic_takes_no_space(name: str) -> None:
    with pytest.raises(SphinxError, match=rf"\(annealing, cpga, exact, ga, .*\); got .* '{name}'"):
        search_schedule(draw_problem(0, 3), space=SearchSpace.untied(3), algorithm=name)


@pytest.mark.parametrize("name", ["cpga", "exact", *SEARCHES])
@pytest.mark.parametrize("tasks", [0, 2, 4])
def test_a_space_of_another_problem_is_refused(name: str, tasks: int) -> None:
    with pytest.raises(SphinxError, match=f"problem's 3 tasks; got one of {tasks}"):
        search_schedule(draw_problem(0, 3), space=SearchSpace.untied(tasks), algorithm=name)


@settings(max_examples=60, deadline=None)
@given(problems(max_tasks=15, memory=True))
def test_a_schedule_that_is_found_fits_the_memory(problem: SchedulingProblem) -> None:
    # search_schedule validates what it returns, so any other error fails this test.
    with contextlib.suppress(NoRoomError):
        validate(problem, search_schedule(problem, stop=SMALL).best)


def test_memory_that_holds_nothing_is_reported() -> None:
    problem = dataclasses.replace(
        draw_problem(3, 10, memory=True), memory_bytes=np.zeros(3, dtype=np.int64)
    )
    with pytest.raises(NoRoomError, match=r"lacks \d+ bytes"):
        search_schedule(problem, stop=SMALL)


def test_tight_memory_moves_tasks_off_the_fastest_device() -> None:
    exec_ns = [[10, 30]] * 6
    problem = SchedulingProblem(
        name="tight",
        devices=("fast", "slow"),
        device_cores=((0,), (1,)),
        exec_ns=np.array(exec_ns),
        edges=np.array([[i, i + 1] for i in range(5)]),
        copy_class=np.zeros(5, dtype=np.int64),
        copy_ns=np.zeros((1, 2, 2), dtype=np.int64),
        memory_bytes=np.array([25, 100]),
        weight_bytes=np.full(6, 10),
        output_bytes=np.full(6, 1),
    )
    assert search_schedule(problem, stop=SMALL).best.makespan_ns == 2 * 10 + 4 * 30


def test_unknown_algorithm_lists_the_known_ones() -> None:
    with pytest.raises(SphinxError, match=r"Unknown algorithm 'cgpa'; known: .*cpga.*heft"):
        search_schedule(draw_problem(0, 3), algorithm="cgpa")


@pytest.mark.parametrize("name", SEARCHES)
@settings(max_examples=15, deadline=None)
@given(problem=problems(max_tasks=15))
def test_every_baseline_gives_valid_schedules_within_its_budget(
    name: str, problem: SchedulingProblem
) -> None:
    found = search_schedule(problem, algorithm=name, stop=Stop(max_evaluations=300))
    assert found.algorithm == name
    assert found.evaluations <= 300
    validate(problem, found.best)


@pytest.mark.parametrize("name", SEARCHES)
def test_every_baseline_improves_on_its_first_schedule_and_keeps_its_seed(name: str) -> None:
    problem, stop = draw_problem(11, 30, ccr=0.5), Stop(max_evaluations=600)
    found, again = (search_schedule(problem, algorithm=name, seed=5, stop=stop) for _ in range(2))
    assert found.best.makespan_ns < found.history[0].makespan_ns
    assert found.best.makespan_ns == again.best.makespan_ns


@pytest.mark.parametrize("name", sorted(set(ALGORITHMS) - {"exact"}))
def test_every_algorithm_says_its_seed_and_refuses_one_out_of_range(name: str) -> None:
    problem = draw_problem(11, 10)
    assert search_schedule(problem, algorithm=name, seed=2**64 - 1, stop=SMALL).seed == 2**64 - 1
    for seed in (-1, 2**64, 0.5, True):
        with pytest.raises(ParamsError, match=re.escape(f"2**64 - 1; got {seed}.")):
            search_schedule(problem, algorithm=name, seed=seed, stop=SMALL)


def test_ctrl_c_after_a_proof_is_a_keyboard_interrupt() -> None:
    """CP-SAT catches SIGINT while it works, and would leave it to kill the process."""
    pytest.importorskip("ortools")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        search_schedule(draw_problem(0, num_tasks=6, num_devices=2), algorithm="exact")
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_algorithms_are_named() -> None:
    heuristics = {"heft", "cpop", "peft", "fastest", "single"}
    assert set(ALGORITHMS) == {"cpga", "exact", *SEARCHES, *heuristics}


@pytest.mark.parametrize("name", ["cpop", "fastest"])
def test_heuristics_that_pass_the_memory_say_so(name: str) -> None:
    """Two tasks whose weights fit one device each; these heuristics want both on the fast one."""
    problem = SchedulingProblem(
        name="weights",
        devices=("fast", "slow"),
        device_cores=((0,), (1,)),
        exec_ns=np.array([[10, 100], [10, 100]]),
        edges=np.array([(0, 1)]),
        copy_class=np.zeros(1, dtype=np.int64),
        copy_ns=np.array([[[0, 50], [50, 0]]]),
        memory_bytes=np.array([10, 10]),
        weight_bytes=np.array([8, 8]),
    )
    with pytest.raises(NoRoomError, match=f"schedule of '{name}' does not fit the memory"):
        search_schedule(problem, algorithm=name)
    assert search_schedule(problem, stop=SMALL).best.makespan_ns == 160
