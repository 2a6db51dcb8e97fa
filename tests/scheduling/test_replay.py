"""Replayed schedules: valid by the checker, right by hand, the best orders by trying all of them."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import problems
from tvm_sphinx.errors import ProblemError
from tvm_sphinx.scheduling.problem import CANNOT_RUN, SchedulingProblem
from tvm_sphinx.scheduling.replay import moved_makespans_ns, replay_schedule
from tvm_sphinx.scheduling.schedule import validate
from tvm_sphinx.search import search_schedule


def diamond() -> SchedulingProblem:
    """One task, two that read it, one that reads both; devices 0 and 1 have a core each, 2 has both."""
    return SchedulingProblem(
        name="diamond",
        devices=("a", "b", "ab"),
        device_cores=((0,), (1,), (0, 1)),
        exec_ns=np.array([[10, 20, 6], [30, 30, 20], [40, 40, 25], [10, -1, 6]]),
        edges=np.array([[0, 1], [0, 2], [1, 3], [2, 3]]),
        copy_class=np.zeros(4, dtype=np.int64),
        copy_ns=np.array([[[0, 5, 2], [5, 0, 2], [2, 2, 0]]]),
    )


def test_times_are_those_of_arithmetic() -> None:
    """0..10 on a; its two readers on a and b (copy 5): 10..40 and 15..55; back on a at 60..70."""
    replayed = replay_schedule(diamond(), np.array([0, 0, 1, 0]), [0, 1, 2, 3])
    assert replayed.start_ns.tolist() == [0, 10, 15, 60]
    assert replayed.finish_ns.tolist() == [10, 40, 55, 70]
    validate(diamond(), replayed)
    # On the device of both cores nothing runs beside anything: 6 + 2 + 30, then 25 more.
    shared = replay_schedule(diamond(), np.array([2, 0, 2, 2]), [0, 1, 2, 3])
    assert shared.start_ns.tolist() == [0, 8, 38, 63]


def test_a_move_is_the_schedule_with_that_task_elsewhere() -> None:
    problem = diamond()
    schedule = replay_schedule(problem, np.array([0, 0, 1, 0]), [0, 1, 2, 3])
    moved = moved_makespans_ns(problem, schedule)
    assert moved[3, 1] == CANNOT_RUN
    for task, device in product(range(4), range(3)):
        if problem.exec_ns[task, device] == CANNOT_RUN:
            continue
        place = schedule.device.copy()
        place[task] = device
        assert moved[task, device] == replay_schedule(problem, place, schedule.order).makespan_ns
    # By hand: the long branch after the short one on one core, 10 + 30 + 40 + 10.
    assert moved[2, 0] == 90


@settings(max_examples=40)
@given(problem=problems(max_tasks=8), seed=st.integers(0, 99))
def test_a_found_schedule_replayed_is_valid_and_no_longer(problem: SchedulingProblem, seed: int) -> None:
    found = search_schedule(problem, algorithm="heft", seed=seed).best
    replayed = replay_schedule(problem, found.device, found.order)
    validate(problem, replayed)
    assert replayed.makespan_ns <= found.makespan_ns
    moved = moved_makespans_ns(problem, replayed)
    assert (moved[np.arange(problem.num_tasks), replayed.device] == replayed.makespan_ns).all()


def test_over_all_orders_and_places_it_reaches_the_proven_optimum() -> None:
    problem = diamond()
    best = search_schedule(problem, algorithm="exact").best
    orders = [order for order in permutations(range(4)) if order[0] == 0 and order[-1] == 3]
    tried = [
        replay_schedule(problem, np.array(place), order).makespan_ns
        for place in product(range(3), repeat=4)
        for order in orders
        if (problem.exec_ns[range(4), place] != CANNOT_RUN).all()
    ]
    assert min(tried) == best.makespan_ns == best.lower_bound_ns


@pytest.mark.parametrize(
    ("place", "order", "message"),
    [
        (
            [0, 0, 0, 1],
            [0, 1, 2, 3],
            "Task 3 cannot run on 'b', by its kernel or by a pin; it can on: a, ab",
        ),
        ([0, 0, 0, 0], [1, 0, 2, 3], "Expected task 0 before task 1"),
        ([0, 0, 0, 3], [0, 1, 2, 3], r"Expected devices 0\.\.2; got 3"),
        ([0, 0, 0], [0, 1, 2], "of 4 tasks; got 3 places"),
    ],
)
def test_what_cannot_be_played_is_refused(place: list[int], order: list[int], message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        replay_schedule(diamond(), np.array(place), order)
