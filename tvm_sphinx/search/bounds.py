"""Lower bounds on the makespan: what no schedule of a problem can beat.

The longest chain, each task on its best device and each copy paid where it must be; and the load of
any set of tasks that start late and end early enough, plus what must come before and after all of it.
The load is spread over the resources with the weights that make it largest: the Lagrangian dual of
assigning the tasks to devices so that no resource is busy for longer than the makespan.
"""

from __future__ import annotations

from ..scheduling.problem import SchedulingProblem
from .native import native_problem


def lower_bound_ns(problem: SchedulingProblem) -> int:
    """Return the best of the cheap lower bounds; 0 without tasks."""
    return native_problem(problem).lower_bound()
