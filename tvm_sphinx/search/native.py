"""Between `SchedulingProblem` and the native core: arrays in, schedules out."""

from __future__ import annotations

from itertools import accumulate, chain
from weakref import WeakKeyDictionary

import numpy as np

from ..cpga_ext._cpga import Problem
from ..scheduling.problem import NO_GROUP, Int64Array, SchedulingProblem
from ..scheduling.schedule import Schedule

#: Decode rules: a task starts after all earlier ones of its device, or in the first gap that holds it.
APPEND, INSERT = 0, 1

#: (makespan, order, device, finish) as the core returns them.
NativePlan = tuple[int, bytes, bytes, bytes]


# One native problem per problem, for as long as that lives.
_KNOWN: WeakKeyDictionary[SchedulingProblem, Problem] = WeakKeyDictionary()


def native_problem(problem: SchedulingProblem) -> Problem:
    """Return the problem in the form of the native core, which copies all that it needs, once."""
    known = _KNOWN.get(problem)
    if known is None:
        known = _KNOWN[problem] = _to_native(problem)
    return known


def _to_native(problem: SchedulingProblem) -> Problem:
    groups = problem.core_groups
    set_of_task = colocated_sets(problem)
    return Problem(
        exec_ns=problem.exec_ns,
        release_ns=problem.release_ns,
        delivery_ns=problem.delivery_ns,
        edges=problem.edges,
        copy_class=problem.copy_class,
        copy_ns=problem.copy_ns,
        resource_begin=np.array([0, *accumulate(map(len, groups))], dtype=np.int64),
        resources=np.array(list(chain.from_iterable(groups)), dtype=np.int64),
        set_of_task=set_of_task,
        memory_bytes=problem.memory_bytes,
        weight_bytes=problem.weight_bytes_on,
        output_bytes=problem.output_bytes,
        num_resources=1 + max(chain.from_iterable(groups)),
        num_sets=len(np.unique(set_of_task)),
    )


def colocated_sets(problem: SchedulingProblem) -> Int64Array:
    """Return the set of each task, shape (N,): tasks that must share a device are in one.

    Sets are numbered by their first tasks.
    """
    tasks = np.arange(problem.num_tasks)
    apart = problem.colocation == NO_GROUP
    labels = np.where(apart, tasks, problem.num_tasks + problem.colocation)
    _, first, place = np.unique(labels, return_index=True, return_inverse=True)
    number = np.empty(len(first), dtype=np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    sets: Int64Array = number[place.reshape(-1)]
    return sets


def to_int64(values: bytes) -> Int64Array:
    """Return what the core gave as bytes as an int64 array."""
    return np.frombuffer(values, dtype=np.int64)


def to_schedule(problem: SchedulingProblem, plan: NativePlan, bound_ns: int) -> Schedule:
    """Return the schedule of a native plan."""
    makespan, _, device_bytes, finish_bytes = plan
    device, finish = to_int64(device_bytes), to_int64(finish_bytes)
    return Schedule(
        device=device,
        start_ns=finish - problem.exec_ns[np.arange(problem.num_tasks), device],
        finish_ns=finish,
        makespan_ns=makespan,
        lower_bound_ns=bound_ns,
        problem_fingerprint=problem.fingerprint,
    )
