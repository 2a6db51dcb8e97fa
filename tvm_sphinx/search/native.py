"""Between `SchedulingProblem` and the native core: arrays in, schedules out."""

from __future__ import annotations

from itertools import accumulate, chain

import numpy as np

from ..cpga_ext._cpga import Problem
from ..scheduling.problem import NO_GROUP, Int64Array, SchedulingProblem
from ..scheduling.schedule import Schedule
from .space import SearchSpace

#: Decode rules: a task starts after all earlier ones of its device, or in the first gap that holds it.
APPEND, INSERT = 0, 1

#: (makespan, order, device, finish) as the core returns them.
NativePlan = tuple[int, bytes, bytes, bytes]


def native_problem(problem: SchedulingProblem) -> Problem:
    """Return the problem in the form of the native core, which copies all that it needs."""
    groups = problem.core_groups
    unit = np.arange(problem.num_tasks)
    if (problem.colocation != NO_GROUP).any():
        unit = SearchSpace.untied(problem.num_tasks).respecting(problem).gene_of_task()
    return Problem(
        exec_ns=problem.exec_ns,
        release_ns=problem.release_ns,
        delivery_ns=problem.delivery_ns,
        edges=problem.edges,
        copy_class=problem.copy_class,
        copy_ns=problem.copy_ns,
        resource_begin=np.array([0, *accumulate(map(len, groups))], dtype=np.int64),
        resources=np.array(list(chain.from_iterable(groups)), dtype=np.int64),
        unit=unit,
        memory_bytes=problem.memory_bytes,
        weight_bytes=problem.weight_bytes,
        output_bytes=problem.output_bytes,
        num_resources=1 + max(chain.from_iterable(groups)),
        num_units=len(np.unique(unit)),
    )


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
