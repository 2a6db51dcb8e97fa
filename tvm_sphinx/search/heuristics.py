"""The cheap heuristics, each run natively: HEFT, CPOP, PEFT, fastest device, single device."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from ..cpga_ext._cpga import Problem
from ..errors import ProblemError
from ..scheduling.problem import CANNOT_RUN, UNLIMITED, SchedulingProblem
from .native import NativePlan, native_problem, to_schedule
from .result import HistoryPoint, SearchResult

#: Number of each heuristic in the native core.
KINDS = {"heft": 0, "cpop": 1, "peft": 2, "fastest": 3}
#: Number of all tasks on one device, which is the second argument of the native heuristic.
SINGLE = 4


@dataclass(frozen=True)
class Heuristic:
    """A list-scheduling heuristic by the name that it has in `KINDS`, or ``"single"``.

    HEFT and CPOP: Topcuoglu, Hariri, Wu, IEEE TPDS 13(3), 2002. PEFT: Arabnejad, Barbosa, IEEE TPDS
    25(3), 2014. ``"fastest"`` places every task on its fastest device, by upward rank; ``"single"``
    all tasks on the best single device. All use insertion.
    """

    name: str

    def __call__(self, problem: SchedulingProblem) -> SearchResult:
        """Return the schedule that the heuristic finds.

        Raises
        ------
        ProblemError
            If the heuristic is ``"single"`` and no device can run all tasks.
        """
        begin_s, begin_cpu_s = time.monotonic(), time.thread_time()
        native = native_problem(problem)
        if self.name == "single":
            plan, evaluations = _best_single(native, problem), problem.num_devices
        else:
            plan, evaluations = native.heuristic(KINDS[self.name]), 1
        cpu_s = time.thread_time() - begin_cpu_s
        return SearchResult(
            best=to_schedule(problem, plan, native.lower_bound()),
            algorithm=self.name,
            seed=0,
            history=(HistoryPoint(evaluations, cpu_s, plan[0]),),
            evaluations=evaluations,
            runtime_s=time.monotonic() - begin_s,
            stop_reason="evaluations",
        )


def best_heuristic_ns(problem: SchedulingProblem) -> int:
    """Return the makespan of the best heuristic; 2**62 with a memory capacity, which they may pass."""
    if (problem.memory_bytes != UNLIMITED).any():
        return 2**62
    native = native_problem(problem)
    makespans = [native.heuristic(kind)[0] for kind in KINDS.values()]
    runs_all = (problem.exec_ns != CANNOT_RUN).all(axis=0)
    makespans += [native.heuristic(SINGLE, d)[0] for d in np.flatnonzero(runs_all).tolist()]
    return min(makespans)


def _best_single(native: Problem, problem: SchedulingProblem) -> NativePlan:
    plans = []
    for device in range(problem.num_devices):
        try:
            plans.append(native.heuristic(SINGLE, device))
        except ValueError:  # this device cannot run every task
            continue
    if not plans:
        raise ProblemError("Expected a device that can run every task; there is none.")
    return min(plans, key=lambda plan: plan[0])
