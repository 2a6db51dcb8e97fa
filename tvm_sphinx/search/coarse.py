"""A coarse problem in place of a fine one: blocks of neighbouring tasks are scheduled as one.

Where copies are long, what counts is which large pieces of a network share a device; changes of single
tasks find that only slowly. Multilevel search finds it on a coarse problem and refines the result, as
in graph partitioning (Karypis, Kumar, SIAM J. Sci. Comput. 20(1), 1998). Every schedule of the coarse
problem is one of the fine problem, and no longer there: a block waits for all that any of its tasks
reads, and gives nothing away before it ends, which its tasks by themselves need not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..scheduling.problem import CANNOT_RUN, NO_GROUP, UNLIMITED, Int64Array, SchedulingProblem
from ..scheduling.schedule import Schedule
from .native import APPEND, INSERT, native_problem, to_int64, to_schedule

#: Tasks for each block, in the mean.
_TASKS_PER_BLOCK = 3
#: A coarse problem that is hardly smaller is not worth it.
_LARGEST_SHARE = 0.6


@dataclass(frozen=True)
class Coarsening:
    """A problem, and the smaller one of its blocks.

    Parameters
    ----------
    original, reduced
        The problems; blocks are numbered in a topological order.
    block_of_task : (N,) int64
        The block of each task.
    """

    original: SchedulingProblem
    reduced: SchedulingProblem
    block_of_task: Int64Array

    def lift(self, schedule: Schedule) -> Schedule:
        """Return the schedule of the original that places and orders tasks by their blocks.

        It is no longer than the given one. No lower bound is computed: it is 0.
        """
        place = np.empty(self.reduced.num_tasks, dtype=np.int64)
        place[list(schedule.order)] = np.arange(self.reduced.num_tasks)
        order = np.argsort(place[self.block_of_task], kind="stable")
        device = schedule.device[self.block_of_task]
        native = native_problem(self.original)
        plans = [native.decode(order, device, rule) for rule in (APPEND, INSERT)]
        return to_schedule(self.original, min(plans, key=lambda plan: plan[0]), bound_ns=0)


def coarsen(problem: SchedulingProblem) -> Coarsening | None:
    """Return a problem of a third as many blocks, or as few as are worth it; None if that is most.

    None, too, with a memory capacity or colocated tasks, for which a block may be too much.
    """
    if (problem.memory_bytes != UNLIMITED).any() or (problem.colocation != NO_GROUP).any():
        return None
    num_blocks, content = native_problem(problem).coarsen(problem.num_tasks // _TASKS_PER_BLOCK)
    if num_blocks >= problem.num_tasks * _LARGEST_SHARE:
        return None
    block = to_int64(content)
    return Coarsening(problem, _coarse_problem(problem, block, num_blocks), block)


def _coarse_problem(problem: SchedulingProblem, block: Int64Array, count: int) -> SchedulingProblem:
    shape = (count, problem.num_devices)
    exec_ns, release_ns, delivery_ns = (np.zeros(shape, dtype=np.int64) for _ in range(3))
    can_run = np.ones(shape, dtype=np.bool_)
    np.add.at(exec_ns, block, problem.exec_ns)
    np.logical_and.at(can_run, block, problem.exec_ns != CANNOT_RUN)
    exec_ns[~can_run] = CANNOT_RUN
    np.maximum.at(release_ns, block, problem.release_ns)
    np.maximum.at(delivery_ns, block, problem.delivery_ns)
    between = block[problem.edges]
    crosses = between[:, 0] != between[:, 1]
    edges, place = np.unique(between[crosses], axis=0, return_inverse=True)
    copy_ns = np.zeros((len(edges), problem.num_devices, problem.num_devices), dtype=np.int64)
    np.maximum.at(copy_ns, place.reshape(-1), problem.copy_ns[problem.copy_class[crosses]])
    return SchedulingProblem(
        name=f"{problem.name}, coarse",
        devices=problem.devices,
        device_cores=problem.device_cores,
        exec_ns=exec_ns,
        edges=edges.reshape(-1, 2),
        copy_class=np.arange(len(edges)),
        copy_ns=copy_ns,
        release_ns=release_ns,
        delivery_ns=delivery_ns,
    )
