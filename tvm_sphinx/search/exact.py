"""Exact search with OR-Tools CP-SAT (the ``exact`` extra): optima, bounds, and a polish by windows."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec

import numpy as np

from ..scheduling.problem import SchedulingProblem
from ..scheduling.schedule import Schedule
from .cpga import NoRoomError, Progress, cpga
from .exact_model import ExactModel
from .result import HistoryPoint, SearchResult
from .stop import Stop

_DEFAULT_LIMIT_S = 60.0

#: Problems of up to so many tasks are within reach of a proof in seconds.
PROVABLE_TASKS = 40


@dataclass(frozen=True)
class ExactParams:
    """Parameters of the exact search.

    Parameters
    ----------
    num_workers
        Threads of CP-SAT. With one, a proof that ends in time ends the same way every time.
    warm_start
        Whether CPGA gives it a first schedule.
    window
        0 solves the whole problem. Otherwise so many tasks that follow each other in time are
        re-optimised at once, all others keeping their devices and their order: a polish for problems
        that are too large to be solved whole.
    """

    num_workers: int = 1
    warm_start: bool = True
    window: int = 0


def exact(
    problem: SchedulingProblem,
    *,
    seed: int = 0,
    params: ExactParams | None = None,
    stop: Stop | None = None,
    progress: Progress | None = None,
) -> SearchResult:
    """Search with CP-SAT; the lower bound of the result is the best of CP-SAT's and the cheap ones.

    Budgets in evaluations do not apply; without a time limit it takes up to 60 s. CPGA, which finds it a
    first schedule, takes at most half of that; where nothing that CPGA finds fits the memory, CP-SAT,
    which can also let tasks wait for memory to become free, starts without one. Ctrl-C ends CP-SAT with
    the best so far, as its time limit does.

    Raises
    ------
    EnvironmentMismatchError
        If OR-Tools is not installed.
    NoRoomError
        If nothing that fits the memory of the devices was found in time, or nothing does.
    """
    chosen = params or ExactParams()
    begin_s, begin_cpu_s = time.monotonic(), time.thread_time()
    first = None
    if chosen.warm_start:
        budget = replace(Stop.default(problem.num_tasks), time_limit_s=_limit_s(stop) / 2)
        with suppress(NoRoomError):
            first = cpga(problem, seed=seed, stop=budget, progress=progress)
    if first is not None and first.stop_reason in ("optimal", "interrupted"):
        return first
    limit_s = max(0.0, _limit_s(stop) - (time.monotonic() - begin_s))
    if chosen.window and first is not None:
        polished = polish_windows(problem, first.best, chosen, limit_s, seed)
        return _finished(first, polished, seed, begin_s, begin_cpu_s)
    model = ExactModel(problem, first.best.makespan_ns if first else None)
    if first is not None:
        model.hint(first.best)
    best, bound_ns = model.solve(limit_s, chosen.num_workers, seed)
    if best is None or (first is not None and first.best.makespan_ns <= best.makespan_ns):
        best = first.best if first else None
    if best is None:
        raise NoRoomError(f"CP-SAT found no schedule that fits the memory in {limit_s:.3g} s.")
    best = best.with_lower_bound(min(bound_ns, best.makespan_ns))
    return _finished(first, best, seed, begin_s, begin_cpu_s)


def _finished(
    first: SearchResult | None, best: Schedule, seed: int, begin_s: float, begin_cpu_s: float
) -> SearchResult:
    evaluations = first.evaluations if first else 0
    point = HistoryPoint(evaluations, time.thread_time() - begin_cpu_s, best.makespan_ns)
    return SearchResult(
        best=best,
        algorithm="exact",
        seed=seed,
        history=(*(first.history if first else ()), point),
        evaluations=evaluations,
        runtime_s=time.monotonic() - begin_s,
        stop_reason="optimal" if best.makespan_ns == best.lower_bound_ns else "time",
    )


def can_prove(problem: SchedulingProblem) -> bool:
    """Whether OR-Tools is at hand and the problem small enough for a proof in seconds."""
    return 0 < problem.num_tasks <= PROVABLE_TASKS and find_spec("ortools") is not None


def polish_windows(
    problem: SchedulingProblem, schedule: Schedule, params: ExactParams, limit_s: float, seed: int
) -> Schedule:
    """Re-optimise windows of a schedule exactly, one after the other, until none of them improves it.

    Large-neighbourhood search with an exact solver (Shaw, CP 1998). The result is never longer than
    ``schedule``.
    """
    end_s = time.monotonic() + limit_s
    improved = True
    while improved:
        improved = False
        for begin in range(0, problem.num_tasks, max(1, params.window // 2)):
            left_s = end_s - time.monotonic()
            if left_s <= 0 or schedule.makespan_ns == schedule.lower_bound_ns:
                return schedule
            free = np.zeros(problem.num_tasks, dtype=np.bool_)
            free[list(schedule.order[begin : begin + params.window])] = True
            model = ExactModel(problem, schedule.makespan_ns, schedule.device, free)
            model.keep_order(schedule, free)
            model.hint(schedule)
            found, _ = model.solve(min(left_s, limit_s / 8), params.num_workers, seed)
            if found is not None and found.makespan_ns < schedule.makespan_ns:
                schedule, improved = found.with_lower_bound(schedule.lower_bound_ns), True
    return schedule


def _limit_s(stop: Stop | None) -> float:
    if stop is None:
        return _DEFAULT_LIMIT_S
    limits = [limit for limit in (stop.time_limit_s, stop.cpu_limit_s) if limit is not None]
    return min(limits) if limits else _DEFAULT_LIMIT_S
