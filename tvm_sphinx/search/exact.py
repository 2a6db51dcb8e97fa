"""Exact search with OR-Tools CP-SAT (the ``exact`` extra): optima, bounds, and a polish by windows."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from importlib.util import find_spec

import numpy as np

from ..scheduling.problem import SchedulingProblem
from ..scheduling.schedule import Schedule
from .bounds import lower_bound_ns, raised_bound_ns
from .budget import Budget
from .cpga import NoRoomError
from .exact_model import ExactModel
from .result import HistoryPoint, SearchResult
from .stop import Stop

_DEFAULT_LIMIT_S = 60.0
# Share of the time that is left which first goes into bounds without CP-SAT.
_REFUTE_SHARE = 0.2
# Less time than this is not worth a proof, and models of more copies, one for each edge and pair of
# devices, are not begun unless they are asked for.
_LEAST_S = 0.2
_MOST_COPIES = 200_000


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


def solve_exactly(
    problem: SchedulingProblem,
    first: SearchResult | None,
    budget: Budget,
    params: ExactParams,
    seed: int,
) -> SearchResult:
    """Search with CP-SAT; the lower bound of the result is the best of CP-SAT's and the cheap ones.

    Budgets in evaluations do not apply; without a time limit it takes up to 60 s (`limit_s`). Ctrl-C
    ends CP-SAT with the best so far, as its time limit does.

    Parameters
    ----------
    problem
        What to schedule.
    first
        A result to begin from, or None.
    budget
        Its wall time is used up to the limit.
    params, seed
        Of the search.

    Raises
    ------
    EnvironmentMismatchError
        If OR-Tools is not installed.
    NoRoomError
        If nothing that fits the memory of the devices was found in time, or nothing does.
    """
    left_s = max(0.0, limit_s(budget.stop) - budget.elapsed_s)
    if params.window and first is not None:
        polished = polish_windows(problem, first.best, params, left_s, seed)
        return _finished(first, polished, seed, budget)
    known_ns = first.best.lower_bound_ns if first else lower_bound_ns(problem, budget.stop)
    known_ns = raised_bound_ns(problem, known_ns, _REFUTE_SHARE * left_s)
    if first is not None and first.best.makespan_ns == known_ns:
        return _finished(first, first.best.with_lower_bound(known_ns), seed, budget)
    model = ExactModel(problem, first.best.makespan_ns if first else None, bound_ns=known_ns)
    if first is not None:
        model.hint(first.best)
    left_s = max(0.0, limit_s(budget.stop) - budget.elapsed_s)
    best, bound_ns = model.solve(left_s, params.num_workers, seed)
    if best is None or (first is not None and first.best.makespan_ns <= best.makespan_ns):
        best = first.best if first else None
    if best is None:
        raise NoRoomError(f"CP-SAT found no schedule that fits the memory in {left_s:.3g} s.")
    best = best.with_lower_bound(min(bound_ns, best.makespan_ns))
    return _finished(first, best, seed, budget)


def prove_in_time_left(
    problem: SchedulingProblem, found: SearchResult, stop: Stop, seed: int
) -> SearchResult:
    """Spend what is left of a time limit on proving a schedule, and on a shorter one, if there is one.

    First by what needs no OR-Tools; then, where that is installed, by CP-SAT. Without a time limit,
    or with one of CPU time, nothing is spent.

    Returns
    -------
    SearchResult
        Of the same algorithm, and never worse; its ``stop_reason`` is ``"optimal"`` if it was proven.
    """
    if stop.time_limit_s is None or stop.cpu_limit_s is not None:
        return found
    left_s = stop.time_limit_s - found.runtime_s
    if left_s < _LEAST_S:
        return found
    rest = Budget(Stop(time_limit_s=left_s))
    if find_spec("ortools") is None or problem.num_edges * problem.num_devices**2 > _MOST_COPIES:
        bound_ns = raised_bound_ns(problem, found.best.lower_bound_ns, left_s)
        proven = _finished(found, found.best.with_lower_bound(bound_ns), seed, rest)
    else:
        proven = solve_exactly(problem, found, rest, ExactParams(), seed)
    is_better = proven.best.makespan_ns < found.best.makespan_ns
    return replace(
        proven,
        algorithm=found.algorithm,
        history=proven.history if is_better else found.history,
        runtime_s=found.runtime_s + rest.elapsed_s,
        stop_reason="optimal" if proven.stop_reason == "optimal" else found.stop_reason,
        pruning=found.pruning,
    )


def _finished(first: SearchResult | None, best: Schedule, seed: int, budget: Budget) -> SearchResult:
    evaluations = first.evaluations if first else 0
    point = HistoryPoint(evaluations, budget.cpu_s, best.makespan_ns)
    return SearchResult(
        best=best,
        algorithm="exact",
        seed=seed,
        history=(*(first.history if first else ()), point),
        evaluations=evaluations,
        runtime_s=budget.elapsed_s,
        stop_reason="optimal" if best.makespan_ns == best.lower_bound_ns else "time",
    )


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


def limit_s(stop: Stop | None) -> float:
    """Return the wall time that a budget leaves exact search: its least time, or 60 s."""
    if stop is None:
        return _DEFAULT_LIMIT_S
    limits = [limit for limit in (stop.time_limit_s, stop.cpu_limit_s) if limit is not None]
    return min(limits) if limits else _DEFAULT_LIMIT_S
