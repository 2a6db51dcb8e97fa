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
from typing import NamedTuple

from ..scheduling.problem import SchedulingProblem
from ..scheduling.schedule import Schedule
from .native import native_problem, to_int64, to_schedule
from .stop import Stop

#: Partial schedules with one number of tasks that are kept, at most.
_MAX_STATES = 50_000
#: Work at most, in tasks placed in partial schedules: about a second. Comparing two of these
#: counts as half.
_MAX_WORK = 40_000_000
#: Share of a budget that may go into this, and work per second with so many devices.
_SHARE = 0.25
_USUAL_RATE = 12e6
_USUAL_DEVICES = 4


class Segment(NamedTuple):
    """The tasks ``begin`` .. ``end`` - 1, searched for so many devices of the cut before them."""

    begin: int
    end: int
    num_entries: int


@dataclass(frozen=True)
class SeriesPlan:
    """The schedule of a problem that falls into segments.

    Parameters
    ----------
    schedule
        With the best lower bound that is known; if that is its makespan, it is optimal.
    num_segments
        Segments in all.
    distinct
        Those that no earlier one equals, which are all that were searched.
    work
        Tasks placed in partial schedules to find it, and half as much for each two of these compared.
    """

    schedule: Schedule
    num_segments: int
    distinct: tuple[Segment, ...]
    work: int

    @property
    def is_optimal(self) -> bool:
        """Whether no schedule is shorter."""
        return self.schedule.makespan_ns == self.schedule.lower_bound_ns


def solve_series(problem: SchedulingProblem, stop: Stop | None = None) -> SeriesPlan | None:
    """Return a schedule of a problem that is a series of segments of up to 64 tasks, or None.

    None, too, if devices are short of memory or tasks are colocated, since then segments depend on
    each other, and if the budget does not last. A problem of up to 64 tasks without
    any cut is one segment.

    Parameters
    ----------
    problem
        What to schedule.
    stop
        Budgets of the whole search, of which up to a quarter may be spent here. What is found depends
        on the budgets, never on the time.
    """
    return try_series(problem, stop)[0]


def try_series(problem: SchedulingProblem, stop: Stop | None) -> tuple[SeriesPlan | None, int]:
    """Return `solve_series` of a problem, and the evaluations that it took, found or not."""
    native = native_problem(problem)
    allowance = _allowance(problem, stop)
    plan, bound_ns, num_segments, work, content = native.series(_MAX_STATES, allowance)
    # As many whole schedules as these tasks could have been placed in.
    evaluations = -(-work // max(1, problem.num_tasks))
    if plan is None:
        return None, evaluations
    schedule = to_schedule(problem, plan, bound_ns or native.lower_bound())
    distinct = tuple(Segment(*row) for row in to_int64(content).reshape(-1, 3).tolist())
    return SeriesPlan(schedule, num_segments, distinct, work), evaluations


def _allowance(problem: SchedulingProblem, stop: Stop | None) -> int:
    # A partial schedule is written anew for every task that is placed, the more the more devices.
    speed = _USUAL_DEVICES / max(_USUAL_DEVICES, problem.num_devices)
    limits = [_MAX_WORK * speed]
    if stop is not None:
        if stop.max_evaluations is not None:
            limits.append(_SHARE * stop.max_evaluations * problem.num_tasks)
        times_s = (stop.time_limit_s, stop.cpu_limit_s)
        limits += [_SHARE * _USUAL_RATE * speed * time_s for time_s in times_s if time_s is not None]
    return int(min(limits))
