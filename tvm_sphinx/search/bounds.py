"""Lower bounds on the makespan: what no schedule of a problem can beat.

The longest chain, each task on its best device and each copy paid where it must be; and the load of
any set of tasks that start late and end early enough, plus what must come before and after all of it.
The load is spread over the resources with the weights that make it largest: the Lagrangian dual of
assigning the tasks to devices so that no resource is busy for longer than the makespan.
"""

from __future__ import annotations

import numpy as np

from ..scheduling.problem import Int64Array, SchedulingProblem
from .native import native_problem


def lower_bound_ns(problem: SchedulingProblem) -> int:
    """Return the best of the cheap lower bounds; 0 without tasks."""
    return native_problem(problem).lower_bound()


def heads_and_tails_ns(problem: SchedulingProblem) -> tuple[Int64Array, Int64Array]:
    """Return bounds on the start of each task on each device, and on the time from its finish there.

    Both have shape (N, D). A task on device d starts no earlier than each predecessor can finish on
    its own best device and have its data copied to d, with no device ever busy; and likewise for what
    comes after its finish, deliveries included.
    """
    head, tail = (np.frombuffer(times, np.int64) for times in native_problem(problem).heads_and_tails())
    shape = problem.exec_ns.shape
    return head.reshape(shape), tail.reshape(shape)
