"""Blocks of tasks: a valid coarse problem, whose schedules are schedules of the fine one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import draw_problem, problems
from tvm_sphinx.scheduling.problem import CANNOT_RUN, NO_GROUP, UNLIMITED, SchedulingProblem
from tvm_sphinx.scheduling.schedule import validate
from tvm_sphinx.search import Stop, search_schedule
from tvm_sphinx.search.coarse import Coarsening, coarsen
from tvm_sphinx.search.native import native_problem, to_int64


def free(problem: SchedulingProblem) -> SchedulingProblem:
    """Return a problem with neither memory capacity nor colocation."""
    return replace(
        problem,
        memory_bytes=np.full(problem.num_devices, UNLIMITED),
        colocation=np.full(problem.num_tasks, NO_GROUP),
    )


def check(found: Coarsening) -> None:
    fine, coarse = found.original, found.reduced
    assert sorted(set(found.block_of_task.tolist())) == list(range(coarse.num_tasks))
    assert coarse.num_tasks < fine.num_tasks
    for seed in range(2):
        schedule = search_schedule(coarse, seed=seed, stop=Stop(max_evaluations=300)).best
        refined = found.lift(schedule)
        validate(fine, refined)
        assert refined.makespan_ns <= schedule.makespan_ns
        assert refined.device.tolist() == schedule.device[found.block_of_task].tolist()


@settings(max_examples=60, deadline=None)
@given(problems(max_tasks=40).map(free))
def test_schedules_of_blocks_are_schedules_of_their_tasks(problem: SchedulingProblem) -> None:
    found = coarsen(problem)
    if found is not None:
        check(found)


@settings(max_examples=60, deadline=None)
@given(problems(max_tasks=40).map(free), st.integers(0, 20))
def test_blocks_are_numbered_in_topological_order(problem: SchedulingProblem, target: int) -> None:
    count, content = native_problem(problem).coarsen(target)
    block = to_int64(content)
    assert set(block.tolist()) == set(range(count))
    assert (block[problem.edges[:, 0]] <= block[problem.edges[:, 1]]).all()
    assert count >= min(target, problem.num_tasks)
    can_run = problem.exec_ns != CANNOT_RUN
    for members in range(count):
        assert can_run[block == members].all(axis=0).any(), "a block needs a device for all its tasks"


@pytest.mark.parametrize("ccr", [3.0, 10.0])
@pytest.mark.parametrize("seed", range(4))
def test_long_copies_make_blocks(seed: int, ccr: float) -> None:
    found = coarsen(free(draw_problem(seed, 90, 3, ccr=ccr, layout=seed)))
    assert found is not None
    check(found)
    again = coarsen(found.original)
    assert again is not None
    assert np.array_equal(again.block_of_task, found.block_of_task)


def test_without_copies_there_are_no_blocks() -> None:
    problem = free(draw_problem(5, 60, 3))
    assert coarsen(replace(problem, copy_ns=np.zeros_like(problem.copy_ns))) is None


def test_what_blocks_may_not_respect_is_left_to_the_whole_search() -> None:
    problem = free(draw_problem(1, 90, 3, ccr=10.0))
    assert coarsen(replace(problem, memory_bytes=np.full(3, 1 << 40))) is None
    tied = problem.colocation.copy()
    tied[:2] = 0
    assert coarsen(replace(problem, colocation=tied)) is None


def test_two_chains_become_whole_blocks() -> None:
    """Two chains of nine tasks with long copies: three blocks each, none across the chains."""
    chain = [(i, i + 2) for i in range(16)]
    problem = SchedulingProblem(
        name="chains",
        devices=("a", "b"),
        device_cores=((0,), (1,)),
        exec_ns=np.full((18, 2), 10),
        edges=np.array(chain),
        copy_class=np.zeros(16, dtype=np.int64),
        copy_ns=np.array([[[0, 100], [100, 0]]]),
    )
    found = coarsen(problem)
    assert found is not None
    assert found.reduced.num_tasks == 6
    for block in range(6):
        members = np.flatnonzero(found.block_of_task == block)
        assert len(set((members % 2).tolist())) == 1
    assert found.reduced.exec_ns.sum() == problem.exec_ns.sum()
