"""Optimal makespans of tiny problems, by trying everything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from tvm_sphinx.scheduling.problem import CANNOT_RUN, SchedulingProblem


def optimal_ns(problem: SchedulingProblem, together: Sequence[Sequence[int]] = ()) -> int | None:
    """Return the shortest makespan with each of the given sets on one device; None if there is none.

    An optimal schedule starts each task, in the order of starts, as early as the ones before allow.
    """
    orders = list(_orders(problem))
    best: int | None = None
    devices = [np.flatnonzero(row != CANNOT_RUN).tolist() for row in problem.exec_ns]
    for device in product(*devices):
        if any(len({device[task] for task in tasks}) > 1 for tasks in together):
            continue
        groups = {g: device[t] for t, g in enumerate(problem.colocation.tolist()) if g >= 0}
        if any(g >= 0 and groups[g] != device[t] for t, g in enumerate(problem.colocation.tolist())):
            continue
        for order in orders:
            makespan = _decoded_ns(problem, order, device)
            best = makespan if best is None else min(best, makespan)
    return best


def _orders(problem: SchedulingProblem) -> Iterator[list[int]]:
    before = [set() for _ in range(problem.num_tasks)]
    for src, dst in problem.edges.tolist():
        before[dst].add(src)

    def extend(order: list[int]) -> Iterator[list[int]]:
        if len(order) == problem.num_tasks:
            yield order
        for task in range(problem.num_tasks):
            if task not in order and before[task] <= set(order):
                yield from extend([*order, task])

    return extend([])


def _decoded_ns(problem: SchedulingProblem, order: Sequence[int], device: Sequence[int]) -> int:
    free: dict[int, int] = {}
    finish = [0] * problem.num_tasks
    makespan = 0
    into: list[list[tuple[int, int]]] = [[] for _ in finish]
    for (src, dst), row in zip(problem.edges.tolist(), problem.copy_class.tolist(), strict=True):
        into[dst].append((src, row))
    for task in order:
        on = device[task]
        start = int(problem.release_ns[task, on])
        for core in problem.device_cores[on]:
            start = max(start, free.get(core, 0))
        for src, row in into[task]:
            start = max(start, finish[src] + int(problem.copy_ns[row, device[src], on]))
        finish[task] = start + int(problem.exec_ns[task, on])
        for core in problem.device_cores[on]:
            free[core] = finish[task]
        makespan = max(makespan, finish[task] + int(problem.delivery_ns[task, on]))
    return makespan
