"""Chains that become one unit: the proofs in `tvm_sphinx.patterns.units`, tried on tiny problems."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from tvm_sphinx.patterns import bounded_units, serial_units
from tvm_sphinx.scheduling.problem import CANNOT_RUN, SchedulingProblem

from .brute_force import optimal_ns


def chain_problem(exec_ns: list[list[int]], copy_ns: int, **fields: object) -> SchedulingProblem:
    count, devices = len(exec_ns), len(exec_ns[0])
    copies = np.full((1, devices, devices), copy_ns) * (1 - np.eye(devices, dtype=np.int64))
    return SchedulingProblem(
        name="chain",
        devices=tuple("abc"[:devices]),
        device_cores=tuple((index,) for index in range(devices)),
        exec_ns=np.array(exec_ns),
        edges=np.array([(i, i + 1) for i in range(count - 1)]).reshape(-1, 2),
        copy_class=np.zeros(count - 1, dtype=np.int64),
        copy_ns=copies,
        **fields,
    )


@st.composite
def tiny_problems(draw: st.DrawFn) -> SchedulingProblem:
    """Up to 5 tasks, mostly in a row, with skips, on 2 or 3 devices that may share cores."""
    r = random.Random(draw(st.integers(0, 2**32 - 1)))
    count, devices = r.randint(2, 5), r.choice((2, 2, 3))
    edges = {(i, i + 1) for i in range(count - 1) if r.random() < 0.9}
    edges |= {(i, j) for i in range(count) for j in range(i + 2, count) if r.random() < 0.3}
    rows = r.randint(1, 3)
    speed = [r.choice((1, 1, 3)) for _ in range(devices)]
    exec_ns = np.array([[r.randint(0, 6) * speed[d] for d in range(devices)] for _ in range(count)])
    for task, device in np.ndindex(count, devices):
        if r.random() < 0.08 and (exec_ns[task] != CANNOT_RUN).sum() > 1:
            exec_ns[task, device] = CANNOT_RUN
    copy_ns = np.array(
        [[[r.randint(0, 8) for _ in range(devices)] for _ in range(devices)] for _ in range(rows)]
    )
    copy_ns[:, range(devices), range(devices)] = 0
    border = np.zeros((2, count, devices), dtype=np.int64)
    border[0, 0] = [r.randint(0, 5) for _ in range(devices)]
    border[1, -1] = [r.randint(0, 5) for _ in range(devices)]
    if r.random() < 0.3:
        border[:, r.randrange(count)] += np.array([r.randint(0, 4) for _ in range(devices)])
    cores = tuple((index,) for index in range(devices))
    listed = sorted(edges)
    return SchedulingProblem(
        name="tiny",
        devices=tuple("abc"[:devices]),
        device_cores=((0, 1), (1, 2), (0,))[:devices] if r.random() < 0.3 else cores,
        exec_ns=exec_ns,
        edges=np.array(listed).reshape(-1, 2),
        copy_class=np.array([r.randrange(rows) for _ in listed], dtype=np.int64),
        copy_ns=copy_ns,
        release_ns=border[0],
        delivery_ns=border[1],
    )


@given(tiny_problems())
@settings(max_examples=600, deadline=None)
def test_some_optimal_schedule_splits_no_serial_unit(problem: SchedulingProblem) -> None:
    units = serial_units(problem)
    event(f"{sum(map(len, units))} tasks in units")
    assume(units)
    assert optimal_ns(problem, units) == optimal_ns(problem)


@given(tiny_problems(), st.integers(0, 100))
@settings(max_examples=300, deadline=None)
def test_no_schedule_below_the_bound_splits_a_bounded_unit(
    problem: SchedulingProblem, percent: int
) -> None:
    optimum = optimal_ns(problem)
    assert optimum is not None
    bound = optimum + optimum * percent // 100 + 1
    units = bounded_units(problem, bound)
    assume(units)
    assert optimal_ns(problem, units) == optimum


@given(tiny_problems())
@settings(max_examples=200, deadline=None)
def test_both_kinds_hold_together(problem: SchedulingProblem) -> None:
    optimum = optimal_ns(problem)
    assert optimum is not None
    units = serial_units(problem) + bounded_units(problem, optimum + 1)
    assume(units)
    assert optimal_ns(problem, units) == optimum


def test_a_chain_with_one_fastest_device_is_one_unit() -> None:
    assert serial_units(chain_problem([[5, 9], [4, 8], [6, 7]], copy_ns=2)) == [[0, 1, 2]]


def test_a_chain_splits_where_another_device_gains_more_than_the_copy_costs() -> None:
    assert serial_units(chain_problem([[5, 9], [4, 8], [50, 7], [50, 6]], copy_ns=2)) == [[0, 1], [2, 3]]


def test_a_copy_that_costs_more_than_it_gains_joins_the_chain() -> None:
    assert serial_units(chain_problem([[5, 6], [6, 5]], copy_ns=2)) == [[0, 1]]
    assert serial_units(chain_problem([[5, 9], [9, 5]], copy_ns=2)) == []


def test_parallel_branches_are_no_serial_units() -> None:
    """Beside another branch a split may fill a gap, so nothing is proven from the chain alone."""
    problem = SchedulingProblem(
        name="two chains",
        devices=("a", "b"),
        device_cores=((0,), (1,)),
        exec_ns=np.ones((4, 2), dtype=np.int64),
        edges=np.array([(0, 1), (2, 3)]),
        copy_class=np.zeros(2, dtype=np.int64),
        copy_ns=np.array([[[0, 1], [1, 0]]]),
    )
    assert serial_units(problem) == []


def test_a_memory_capacity_and_colocation_leave_chains_alone() -> None:
    exec_ns = [[5, 9], [4, 8], [6, 7]]
    assert serial_units(chain_problem(exec_ns, 2, memory_bytes=np.array([10, -1]))) == []
    tied = chain_problem(exec_ns, 2, colocation=np.array([0, 0, -1]))
    assert serial_units(tied) == []


def test_the_whole_graph_is_one_unit_where_no_split_can_beat_the_bound() -> None:
    problem = chain_problem([[5, 6], [5, 6], [5, 6]], copy_ns=100)
    assert bounded_units(problem, 15) == [[0, 1, 2]]
    assert bounded_units(problem, 10_000) == []


def test_a_long_chain_is_decided_in_linear_time() -> None:
    """Each task is looked at once: 20,000 tasks are one unit, in seconds at most."""
    (unit,) = serial_units(chain_problem([[5, 9]] * 20_000, copy_ns=2))
    assert len(unit) == 20_000
