"""Lower bounds on the makespan: what no schedule of a problem can beat.

Cheap ones first. The longest chain, each task on its best device and each copy paid where it must be;
and the load of any set of tasks that start late and end early enough, plus what must come before and
after all of it. The load is spread over the resources with the weights that make it largest: the
Lagrangian dual of assigning the tasks to devices so that no resource is busy for longer than the
makespan.

Then times are refuted (`cpga_ext/refute.h`). For a supposed makespan, each task has a window on each
device. Of the tasks before another one, those whose data would come too late from elsewhere share its
device, one after the other. What cannot be in time is struck out, then tried out, device by device and
order by order, until nothing is left or the work is used up. Between tasks that every other one comes
before or after, parts are bounded by themselves, and add up.
"""

from __future__ import annotations

from ..scheduling.problem import SchedulingProblem
from .native import native_problem
from .stop import Stop

#: Work for each evaluation of a budget, and for each second: 1 to 5 % of the time of the search.
_WORK_PER_EVALUATION = 14
#: Problems of more tasks get less in proportion: what a bound does first takes longer, and an evaluation
#: of a network of 368 tasks takes 0.2 to 0.3 us, where one of 50 tasks with long copies takes 0.5.
_MOST_TASKS = 250
_WORK_PER_SECOND = 14e6
_FULL_WORK_PER_SECOND = 400e6
#: Work at most: some seconds.
_MAX_WORK = 1_000_000_000


def lower_bound_ns(problem: SchedulingProblem, stop: Stop | None = None) -> int:
    """Return the best lower bound that takes a small share of a search's time; 0 without tasks.

    Parameters
    ----------
    problem
        What to schedule.
    stop
        Budgets of the search, by default those of `Stop.default`. The bound depends on them, never on
        the time that it takes.
    """
    native = native_problem(problem)
    return native.refute(native.lower_bound(), _work(problem, stop or Stop.default(problem.num_tasks)))


def raised_bound_ns(problem: SchedulingProblem, known_ns: int, time_s: float) -> int:
    """Return a bound of at least the one that is known, after work that takes about so much time."""
    work = min(_MAX_WORK, int(_FULL_WORK_PER_SECOND * max(0.0, time_s)))
    return native_problem(problem).refute(known_ns, work)


def _work(problem: SchedulingProblem, stop: Stop) -> int:
    limits = [float(_MAX_WORK)]
    per_evaluation = _WORK_PER_EVALUATION * min(1.0, _MOST_TASKS / max(1, problem.num_tasks))
    counts = (stop.max_evaluations, stop.stagnation)
    limits += [per_evaluation * count for count in counts if count is not None]
    times_s = (stop.time_limit_s, stop.cpu_limit_s)
    limits += [_WORK_PER_SECOND * time_s for time_s in times_s if time_s is not None]
    return int(min(limits))
