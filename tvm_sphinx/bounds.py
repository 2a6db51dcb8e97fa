"""Lower bounds on the makespan: what no schedule of a problem can beat."""

from __future__ import annotations

import numpy as np

from .problem import CANNOT_RUN, Int64Array, SchedulingProblem

_NEVER = np.iinfo(np.int64).max // 4


# Steps of the search for resource weights, and what the weights sum to, about.
_WEIGHT_STEPS = 80
_WEIGHT_SCALE = 1024
# Earliest starts that the combined bound tries.
_NUM_HEADS = 64


def lower_bound_ns(problem: SchedulingProblem) -> int:
    """Return the best of `critical_path_bound_ns`, `core_load_bound_ns` and `combined_bound_ns`."""
    if not problem.num_tasks:
        return 0
    head = earliest_start_ns(problem)
    return max(
        _critical_path_ns(problem, head),
        core_load_bound_ns(problem),
        _combined_ns(problem, head, tail_after_finish_ns(problem)),
    )


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


def tail_after_finish_ns(problem: SchedulingProblem) -> Int64Array:
    """Return a lower bound on the time from each task's finish to the end, by device, shape (N, D)."""
    tail = np.array(problem.delivery_ns)
    can_run = problem.exec_ns != CANNOT_RUN
    # Edges are grouped by source, from the last; destinations are final by then, since src < dst.
    by_src = np.argsort(-problem.edges[:, 0], kind="stable")
    for edge in by_src.tolist():
        src, dst = problem.edges[edge]
        rest = np.where(can_run[dst], problem.exec_ns[dst] + tail[dst], _NEVER)
        after = (problem.copy_ns[problem.copy_class[edge]] + rest[None, :]).min(axis=1)
        np.maximum(tail[src], after, out=tail[src])
    return tail


def critical_path_bound_ns(problem: SchedulingProblem) -> int:
    """Return the longest chain, each task on its best device and each copy paid where it must be."""
    return _critical_path_ns(problem, earliest_start_ns(problem))


def _critical_path_ns(problem: SchedulingProblem, head: Int64Array) -> int:
    if not problem.num_tasks:
        return 0
    delivered = head + problem.exec_ns + problem.delivery_ns
    return int(np.where(problem.exec_ns == CANNOT_RUN, _NEVER, delivered).min(axis=1).max())


def core_load_bound_ns(problem: SchedulingProblem) -> int:
    """Return the total work, each task where it takes the least core time, spread over all cores."""
    groups = problem.core_groups
    num_resources = 1 + max(max(group) for group in groups)
    widths = np.array([len(group) for group in groups], dtype=np.int64)
    work = np.where(problem.exec_ns == CANNOT_RUN, _NEVER, problem.exec_ns * widths)
    return -(-int(work.min(axis=1).sum()) // num_resources)


def resource_weights(problem: SchedulingProblem) -> Int64Array:
    """Return non-negative whole weights of the exclusive resources, shape (R,), for a strong load bound.

    For any weights, the sum over tasks of the least weighted time that each takes is at most the sum
    of the weights times the makespan: the Lagrangian dual of assigning the tasks to the devices so
    that no resource is busy for longer than the makespan. The weights come from a subgradient search
    in floating point; they decide how good the bound is, never whether it holds.
    """
    uses = _uses(problem)
    times = np.where(problem.exec_ns == CANNOT_RUN, np.inf, problem.exec_ns.astype(np.float64))
    weights = best = np.full(uses.shape[1], 1.0 / uses.shape[1])
    best_value = -1.0
    for step in range(_WEIGHT_STEPS):
        cost = times * np.maximum(uses @ weights, 1e-12)[None, :]
        chosen = cost.argmin(axis=1)
        load = times[np.arange(len(times)), chosen] @ uses[chosen]
        if weights @ load > best_value:
            best_value, best = float(weights @ load), weights
        if not load.any():
            break
        weights = weights * np.exp(2.0 / (step + 2) * (load / load.max() - 1.0))
        weights = weights / weights.sum()
    rounded: Int64Array = np.maximum(0, np.rint(best * _WEIGHT_SCALE)).astype(np.int64)
    return rounded


def _uses(problem: SchedulingProblem) -> Int64Array:
    """Return which device occupies which resource, as zeros and ones, shape (D, R)."""
    groups = problem.core_groups
    uses = np.zeros((problem.num_devices, 1 + max(max(group) for group in groups)), dtype=np.int64)
    for device, group in enumerate(groups):
        uses[device, list(group)] = 1
    return uses


def combined_bound_ns(problem: SchedulingProblem) -> int:
    """Return the best load bound of a set of tasks plus what must come before and after all of it."""
    if not problem.num_tasks:
        return 0
    return _combined_ns(problem, earliest_start_ns(problem), tail_after_finish_ns(problem))


def _combined_ns(problem: SchedulingProblem, head: Int64Array, tail: Int64Array) -> int:
    can_run = problem.exec_ns != CANNOT_RUN
    heads = np.where(can_run, head, _NEVER).min(axis=1)
    tails = np.where(can_run, tail, _NEVER).min(axis=1)
    uses, best = _uses(problem), 0
    for weights in (np.ones(uses.shape[1], dtype=np.int64), resource_weights(problem)):
        total = int(weights.sum())
        # Whole numbers of any size, so that no sum can overflow.
        cost = problem.exec_ns.astype(object) * (uses @ weights).astype(object)[None, :]
        work = np.where(can_run, cost, _NEVER * _WEIGHT_SCALE).min(axis=1)
        by_tail = np.argsort(-tails, kind="stable")
        for first in np.unique(np.quantile(heads, np.linspace(0, 1, _NUM_HEADS), method="lower")):
            late = by_tail[heads[by_tail] >= first]
            done = np.cumsum(work[late])
            best = max(best, int(first) + int(max(-(-done // total) + tails[late].astype(object))))
    return best
