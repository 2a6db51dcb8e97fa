"""Lower bounds on the makespan: what no schedule of a problem can beat."""

from __future__ import annotations

import numpy as np

from .problem import CANNOT_RUN, Int64Array, SchedulingProblem

_NEVER = np.iinfo(np.int64).max // 4


def lower_bound_ns(problem: SchedulingProblem) -> int:
    """Return the best of `critical_path_bound_ns` and `core_load_bound_ns`."""
    if not problem.num_tasks:
        return 0
    return max(critical_path_bound_ns(problem), core_load_bound_ns(problem))


def earliest_start_ns(problem: SchedulingProblem) -> Int64Array:
    """Return a lower bound on the start of each task on each device, shape (N, D).

    A task on device d starts no earlier than each predecessor can finish on its own best device and
    have its data copied to d, with no device ever busy.
    """
    start = np.array(problem.release_ns)
    can_run = problem.exec_ns != CANNOT_RUN
    # Edges are grouped by destination; sources are final by then, since src < dst.
    by_dst = np.argsort(problem.edges[:, 1], kind="stable")
    for edge in by_dst.tolist():
        src, dst = problem.edges[edge]
        finish = np.where(can_run[src], start[src] + problem.exec_ns[src], _NEVER)
        arrival = (finish[:, None] + problem.copy_ns[problem.copy_class[edge]]).min(axis=0)
        np.maximum(start[dst], arrival, out=start[dst])
    return start


def critical_path_bound_ns(problem: SchedulingProblem) -> int:
    """Return the longest chain, each task on its best device and each copy paid where it must be."""
    if not problem.num_tasks:
        return 0
    delivered = earliest_start_ns(problem) + problem.exec_ns + problem.delivery_ns
    return int(np.where(problem.exec_ns == CANNOT_RUN, _NEVER, delivered).min(axis=1).max())


def core_load_bound_ns(problem: SchedulingProblem) -> int:
    """Return the total work, each task where it takes the least core time, spread over all cores."""
    groups = problem.core_groups
    num_resources = 1 + max(max(group) for group in groups)
    widths = np.array([len(group) for group in groups], dtype=np.int64)
    work = np.where(problem.exec_ns == CANNOT_RUN, _NEVER, problem.exec_ns * widths)
    return -(-int(work.min(axis=1).sum()) // num_resources)
