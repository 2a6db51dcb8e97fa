"""Problems whose answers are known: a published example, brute force, CP-SAT's proofs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.search.twin import Twin
from tests.strategies import draw_problem
from tvm_sphinx.scheduling.problem import CANNOT_RUN, NO_GROUP, SchedulingProblem
from tvm_sphinx.scheduling.schedule import validate
from tvm_sphinx.search import CpgaParams, NoRoomError, Stop, search_schedule
from tvm_sphinx.search.exact import ExactParams, polish_windows


def topcuoglu() -> SchedulingProblem:
    """Return the ten-task example of Topcuoglu, Hariri, Wu, IEEE TPDS 13(3), 2002, Fig. 2."""
    exec_ns = [
        (14, 16, 9), (13, 19, 18), (11, 13, 19), (13, 8, 17), (12, 13, 10),
        (13, 16, 9), (7, 15, 11), (5, 11, 14), (18, 12, 20), (21, 7, 16),
    ]  # fmt: skip
    edges = {
        (0, 1): 18, (0, 2): 12, (0, 3): 9, (0, 4): 11, (0, 5): 14, (1, 7): 19, (1, 8): 16, (2, 6): 23,
        (3, 7): 27, (3, 8): 23, (4, 8): 13, (5, 7): 15, (6, 9): 17, (7, 9): 11, (8, 9): 13,
    }  # fmt: skip
    apart = 1 - np.eye(3, dtype=np.int64)
    return SchedulingProblem(
        name="topcuoglu",
        devices=("p1", "p2", "p3"),
        device_cores=((0,), (1,), (2,)),
        exec_ns=np.array(exec_ns),
        edges=np.array(list(edges)),
        copy_class=np.arange(len(edges)),
        copy_ns=np.array([cost * apart for cost in edges.values()]),
    )


@pytest.mark.parametrize(("algorithm", "makespan_ns"), [("heft", 80), ("cpop", 86), ("cpga", 73)])
def test_topcuoglu_example(algorithm: str, makespan_ns: int) -> None:
    found = search_schedule(topcuoglu(), algorithm=algorithm)
    validate(topcuoglu(), found.best)
    assert found.best.makespan_ns == makespan_ns


def test_cp_sat_proves_the_topcuoglu_optimum() -> None:
    found = search_schedule(topcuoglu(), algorithm="exact", stop=Stop(time_limit_s=30))
    assert (found.best.makespan_ns, found.best.lower_bound_ns, found.stop_reason) == (73, 73, "optimal")


def brute_force_ns(problem: SchedulingProblem) -> int:
    """Return the optimum: every topological order with every assignment, appended one by one."""
    n, best = problem.num_tasks, None
    decoder = Twin(problem, CpgaParams(), 0)
    edges = {tuple(edge) for edge in problem.edges.tolist()}
    orders = [
        order
        for order in itertools.permutations(range(n))
        if all(order.index(src) < order.index(dst) for src, dst in edges)
    ]
    groups = problem.colocation
    for device in itertools.product(range(problem.num_devices), repeat=n):
        if any(problem.exec_ns[t, d] == CANNOT_RUN for t, d in enumerate(device)):
            continue
        tied = [(g, d) for g, d in zip(groups.tolist(), device, strict=True) if g != NO_GROUP]
        if len(set(tied)) != len({g for g, _ in tied}):
            continue
        for order in orders:
            makespan = decoder.decode(list(order), list(device))[1]
            best = makespan if best is None else min(best, makespan)
    assert best is not None
    return best


@pytest.mark.parametrize("seed", range(24))
def test_search_finds_what_brute_force_finds(seed: int) -> None:
    num_devices = 2 + seed % 2
    problem = draw_problem(
        seed,
        6 - num_devices + 2 * (seed % 2) + seed % 3 // 2,
        num_devices,
        ccr=(0.1, 1.0, 5.0)[seed % 3],
        density=0.5,
        layout=seed // 2,
        special=seed % 4 == 3,
    )
    found = search_schedule(problem, stop=Stop(max_evaluations=20_000)).best
    validate(problem, found)
    optimum = brute_force_ns(problem)
    assert found.lower_bound_ns <= optimum
    assert found.makespan_ns == optimum


def test_brute_force_agrees_on_seven_tasks() -> None:
    problem = draw_problem(40, 7, 2, density=0.6)
    found = search_schedule(problem, stop=Stop(max_evaluations=20_000)).best
    assert found.makespan_ns == brute_force_ns(problem)


@pytest.mark.parametrize("seed", range(4))
def test_cp_sat_agrees_on_small_problems_of_every_kind(seed: int) -> None:
    problem = draw_problem(
        100 + seed, 9, 2 + seed % 2, layout=seed, special=seed % 2 == 1, memory=seed == 2
    )
    found = search_schedule(problem, stop=Stop(max_evaluations=50_000)).best
    proven = search_schedule(problem, algorithm="exact", stop=Stop(time_limit_s=30)).best
    assert proven.lower_bound_ns == proven.makespan_ns == found.makespan_ns


def waiting_for_memory(capacity: int) -> SchedulingProblem:
    """Task 3 reads tasks 1 and 2, whose output cannot be copied to d0 before task 1 has ended."""
    return SchedulingProblem(
        name="waiting",
        devices=("d0", "d1"),
        device_cores=((0,), (1,)),
        exec_ns=np.array([[50, -1], [50, -1], [-1, 10], [10, -1]]),
        edges=np.array([[0, 1], [1, 3], [2, 3]]),
        copy_class=np.zeros(3, dtype=np.int64),
        copy_ns=np.array([[[0, 1], [1, 0]]]),
        memory_bytes=np.array([capacity, -1]),
        output_bytes=np.array([10, 0, 10, 0]),
    )


def test_exact_search_lets_tasks_wait_for_memory_where_cpga_does_not() -> None:
    problem = waiting_for_memory(10)
    with pytest.raises(NoRoomError):
        search_schedule(problem, stop=Stop(max_evaluations=1_000))
    found = search_schedule(problem, algorithm="exact")
    assert (found.best.makespan_ns, found.stop_reason) == (111, "optimal")


def test_exact_search_proves_that_nothing_fits() -> None:
    with pytest.raises(NoRoomError, match="proved that no schedule fits"):
        search_schedule(waiting_for_memory(9), algorithm="exact")


def test_windows_polish_what_the_heuristic_left() -> None:
    problem = draw_problem(300, 40, 3, ccr=3.0)
    weak = search_schedule(problem, algorithm="heft").best
    polished = polish_windows(problem, weak, ExactParams(window=12), 8.0, 0)
    validate(problem, polished)
    assert polished.makespan_ns < weak.makespan_ns


def test_windows_are_never_worse_than_what_they_start_from() -> None:
    problem = draw_problem(301, 30, 3, layout=1, special=True)
    found = search_schedule(
        problem, algorithm="exact", params=ExactParams(window=10), stop=Stop(time_limit_s=4)
    )
    validate(problem, found.best)
    assert found.best.makespan_ns <= search_schedule(problem).best.makespan_ns


def test_two_proofs_end_with_the_same_schedule() -> None:
    problem = draw_problem(303, 16, 3, ccr=3.0)
    first, again = (search_schedule(problem, algorithm="exact") for _ in range(2))
    assert first.stop_reason == "optimal"
    assert np.array_equal(first.best.device, again.best.device)
    assert np.array_equal(first.best.start_ns, again.best.start_ns)
