"""What a search says that it decided once: the segments that it solved, and the sizes of the spaces."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.strategies import draw_problem
from tvm_sphinx.scheduling.problem import CANNOT_RUN, UNLIMITED, SchedulingProblem
from tvm_sphinx.search import PruningReport, Stop, search_schedule
from tvm_sphinx.search.pruning import log10_sum


def chain_of_diamonds(count: int) -> SchedulingProblem:
    """Equal diamonds in a row: a task, two beside each other, and the first task of the next one.

    No device is best alone, so that no heuristic knows the optimum.
    """
    edges = [(3 * i, 3 * i + side) for i in range(count) for side in (1, 2)]
    edges += [(3 * i + side, 3 * i + 3) for i in range(count) for side in (1, 2)]
    return SchedulingProblem(
        name="diamonds",
        devices=("a", "b"),
        device_cores=((0,), (1,)),
        exec_ns=np.array([[7, 9], [10, 11], [12, 10]] * count + [[7, 9]]),
        edges=np.array(edges),
        copy_class=np.zeros(len(edges), dtype=np.int64),
        copy_ns=np.array([[[0, 1], [1, 0]]]),
    )


def test_equal_segments_are_counted_once_with_the_devices_that_they_begin_from() -> None:
    found = search_schedule(chain_of_diamonds(20))
    report = found.pruning
    assert report is not None
    assert (found.stop_reason, report.is_exact) == ("optimal", True)
    # The first segment is the first task; the last one has no cut behind it; all between are equal.
    assert (report.tasks, report.segments, report.distinct_segments) == (61, 21, 3)
    assert report.log10_before == pytest.approx(61 * math.log10(2))
    # Once for the first task; from either device at most for the two kinds of three tasks.
    most = 2 + 2 * 8 + 2 * 8
    assert math.log10(2 + 8 + 8) <= report.log10_after <= math.log10(most)
    assert report.describe() == (
        f"10^18.4 placements of 61 tasks; 21 segments, 3 distinct, each searched once: "
        f"10^{report.log10_after:.1f}"
    )
    assert PruningReport.from_json(report.to_json()) == report


def test_devices_that_cannot_run_a_task_are_no_placements() -> None:
    problem = chain_of_diamonds(4)
    exec_ns = np.array(problem.exec_ns)
    exec_ns[::3, 1] = CANNOT_RUN
    report = search_schedule(replace(problem, exec_ns=exec_ns)).pruning
    assert report is not None
    assert report.log10_before == pytest.approx(8 * math.log10(2))
    # One entry device for each of three segments: of 1, 2 x 2 and 2 x 2 placements.
    assert report.log10_after == pytest.approx(math.log10(1 + 4 + 4))


@pytest.mark.parametrize("why", ["no cut in more than 64 tasks", "memory"])
def test_a_problem_that_is_no_series_says_that_nothing_was_decided_once(why: str) -> None:
    problem = draw_problem(3, 90, 3, ccr=3.0)
    if why == "memory":
        problem = replace(chain_of_diamonds(5), memory_bytes=np.array([100, UNLIMITED]))
    found = search_schedule(problem, stop=Stop(max_evaluations=2_000))
    report = found.pruning
    assert report is not None
    assert (report.segments, report.distinct_segments, report.is_exact) == (0, 0, False)
    assert report.log10_after == report.log10_before
    assert report.describe().endswith(
        "no series of segments small enough to solve, so nothing was decided once"
    )


def test_a_schedule_of_a_heuristic_that_is_optimal_is_all_there_is_to_find() -> None:
    """One device is the faster one for all tasks of a wide problem on one core."""
    drawn = draw_problem(3, 90, 2, ccr=3.0)
    exec_ns = np.stack([drawn.exec_ns[:, 0], 2 * drawn.exec_ns[:, 0]], axis=1)
    problem = replace(drawn, exec_ns=exec_ns, device_cores=((0,), (0,)))
    found = search_schedule(problem)
    assert found.best.gap == 0
    assert found.pruning is not None
    assert (found.pruning.segments, found.pruning.is_exact) == (0, True)
    assert found.pruning.describe().endswith(
        "the schedule of a heuristic is optimal, so nothing had to be searched"
    )


def test_colocated_tasks_are_placed_as_one() -> None:
    problem = draw_problem(3, 10, 2)
    tied = replace(problem, colocation=np.array([0, 0, 0, *[-1] * 7]))
    report = search_schedule(tied, stop=Stop(max_evaluations=500)).pruning
    assert report is not None
    assert report.log10_before == pytest.approx(8 * math.log10(2))


def test_segments_that_were_not_searched_to_their_end_rule_nothing_out() -> None:
    problem = draw_problem(5, 60, 3, ccr=1.0, density=0.15)
    found = search_schedule(problem, stop=Stop(max_evaluations=30_000))
    report = found.pruning
    assert report is not None
    assert (found.stop_reason, report.is_exact) == ("evaluations", False)
    assert report.segments > 0
    assert report.log10_after == report.log10_before
    assert "not to its end, and then the whole" in report.describe()


def test_only_a_search_that_looks_for_segments_reports_them() -> None:
    problem, stop = chain_of_diamonds(3), Stop(max_evaluations=500)
    assert search_schedule(problem, prune=False, stop=stop).pruning is None
    assert search_schedule(problem, algorithm="heft").pruning is None


def test_sums_of_sizes_that_fit_no_float() -> None:
    assert log10_sum([400.0, 400.0]) == pytest.approx(400 + math.log10(2))
    assert log10_sum([0.0, math.log10(9)]) == pytest.approx(1.0)
