"""Exact schedules of problems that are a series of small ones.

A task that every other task comes before or after cuts a problem in two: when it ends, all devices are
idle, and what follows depends on nothing but the device and the time, unless the data of an earlier task
may still be on its way, which the least time between the two tells. Layers and blocks of networks end
in such cuts. The segments between them are solved one by one, for every pair of devices of the cuts at
their ends, and equal segments once; a shortest path over the devices of the cuts joins them.

A segment is solved by dynamic programming over its sets of tasks that are closed under predecessors
(Ramamoorthy, Chandy, Gonzalez: "Optimal scheduling strategies in a multiprocessor system", IEEE Trans.
Computers C-21(2), 1972), here with unlike devices that may share cores, with copies, and with dominance
and lower bounds. Where that takes too much work, beams of the most promising partial schedules are kept,
and nothing is proven.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..cpga_ext._cpga import Problem
from ..problem import SchedulingProblem
from ..schedule import Schedule
from .native import native_problem, to_schedule
from .stop import Stop

#: Partial schedules with one number of tasks that are kept, at most.
_MAX_STATES = 50_000
#: Tasks that are placed in partial schedules, at most: about a second.
_MAX_PLACEMENTS = 3_000_000
#: Share of a budget that may go into this, and placements per second.
_SHARE = 0.25
_USUAL_RATE = 8e6


@dataclass(frozen=True)
class SeriesPlan:
    """The schedule of a problem that falls into segments.

    Parameters
    ----------
    schedule
        With the best lower bound that is known; if that is its makespan, it is optimal.
    num_segments, num_distinct, largest
        Segments, those of them that no earlier one equals, and the tasks of the largest.
    placements
        Tasks placed in partial schedules to find it.
    """

    schedule: Schedule
    num_segments: int
    num_distinct: int
    largest: int
    placements: int

    @property
    def is_optimal(self) -> bool:
        """Whether no schedule is shorter."""
        return self.schedule.makespan_ns == self.schedule.lower_bound_ns


def solve_series(problem: SchedulingProblem, stop: Stop | None = None) -> SeriesPlan | None:
    """Return a schedule of a problem that is a series of segments of up to 64 tasks, or None.

    None, too, if devices are short of memory or tasks are colocated, since then segments depend on
    each other. A problem of up to 64 tasks without any cut is one segment.

    Parameters
    ----------
    problem
        What to schedule.
    stop
        Budgets of the whole search, of which up to a quarter may be spent here. What is found depends
        on the budgets, never on the time.
    """
    return solve_native_series(problem, native_problem(problem), None, stop)


def solve_native_series(
    problem: SchedulingProblem, native: Problem, cheap_bound_ns: int | None, stop: Stop | None
) -> SeriesPlan | None:
    """Return `solve_series` of a problem in the form of the core, with its `lower_bound_ns` if known."""
    found = native.series(_MAX_STATES, _allowance(problem.num_tasks, stop))
    if found is None:
        return None
    plan, bound_ns, num_segments, num_distinct, largest, placements = found
    schedule = to_schedule(problem, plan, bound_ns or cheap_bound_ns)
    return SeriesPlan(schedule, num_segments, num_distinct, largest, placements)


def evaluations_of(placements: int, num_tasks: int) -> int:
    """Return how many whole schedules as many tasks could have been placed in."""
    return -(-placements // max(1, num_tasks))


def _allowance(num_tasks: int, stop: Stop | None) -> int:
    limits = [float(_MAX_PLACEMENTS)]
    if stop is not None:
        if stop.max_evaluations is not None:
            limits.append(_SHARE * stop.max_evaluations * num_tasks)
        times_s = (stop.time_limit_s, stop.cpu_limit_s)
        limits += [_SHARE * _USUAL_RATE * time_s for time_s in times_s if time_s is not None]
    return int(min(limits))
