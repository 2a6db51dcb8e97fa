"""The one way to a schedule: `search_schedule`, for every command, pipeline and benchmark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from ..errors import InvalidScheduleError, known_choices
from ..scheduling.integers import is_whole
from ..scheduling.problem import UNLIMITED, SchedulingProblem
from ..scheduling.schedule import Schedule, validate
from .bounds import lower_bound_ns
from .budget import Budget, Progress
from .coarse import coarsen
from .cpga import CpgaParams, NoRoomError, ParamsError, UnknownAlgorithmError, run_cpga
from .exact import ExactParams, limit_s, prove_in_time_left, solve_exactly
from .heuristics import KINDS, Heuristic, best_heuristic_ns
from .native import native_problem
from .pruning import PruningReport, report_pruning
from .result import SearchResult
from .series import SeriesPlan, try_series
from .stop import Stop, StopError

#: Those that place tasks by a fixed rule.
HEURISTICS = (*KINDS, "single")
#: Every algorithm by its name.
ALGORITHMS = ("annealing", "cpga", "exact", *HEURISTICS)
_SEEDS = 2**64

#: Shares of the budget that the search of a reduced problem takes: before and after it is known to be
#: worth it.
_PROBE_SHARE, _REDUCED_SHARE = 0.03, 0.2
#: It is, if its first schedule takes no more than this many times what the best heuristic takes.
_PROMISING = 1.05
#: Evaluations that a series is worth, a quarter of them, if all that is left to find is what recurs.
_GLANCE = 200


class Reduction(Protocol):
    """A smaller problem that can be searched in place of another one."""

    @property
    def original(self) -> SchedulingProblem:
        """The problem that it stands for."""

    @property
    def reduced(self) -> SchedulingProblem:
        """The smaller problem."""

    def lift(self, schedule: Schedule) -> Schedule:
        """Return the schedule of the original that one of the reduced problem stands for."""


#: Each returns a reduction of a problem, or None where it would bring nothing.
REDUCTIONS: tuple[Callable[[SchedulingProblem], Reduction | None], ...] = (coarsen,)


def check_search(algorithm: str = "cpga", seed: int = 0, stop: Stop | None = None) -> None:
    """Check what a search is to be called with, before any work is done for it.

    Raises
    ------
    UnknownAlgorithmError
        If no algorithm has that name; the message lists the known ones.
    ParamsError
        If the seed is no integer of 0..2**64 - 1.
    StopError
        If the budget is no `Stop`.
    """
    if algorithm not in ALGORITHMS:
        raise UnknownAlgorithmError(known_choices("algorithm", algorithm, sorted(ALGORITHMS)))
    if not is_whole(seed) or not 0 <= seed < _SEEDS:
        raise ParamsError(f"Expected seed as an integer of 0..2**64 - 1; got {seed!r:.40}.")
    if stop is not None and not isinstance(stop, Stop):
        raise StopError(f"Expected stop as a Stop or None; got {stop!r:.40}.")


def search_schedule(
    problem: SchedulingProblem,
    *,
    algorithm: str = "cpga",
    seed: int = 0,
    params: Any = None,
    stop: Stop | None = None,
    progress: Progress | None = None,
    prune: bool = True,
) -> SearchResult:
    """Search for a short schedule of a problem.

    ``"cpga"`` goes through these steps, which share the budget:

    1. A problem that is a series of small segments is solved segment by segment, equal ones once
       (`solve_series`). If that proves the schedule optimal, as for most networks, it is done.
    2. Smaller problems are searched in place of the whole one (`REDUCTIONS`): blocks of neighbouring
       tasks, placed as one, where copies are long enough for that.
    3. CPGA searches the whole problem, from the schedules of the steps before and of the heuristics.
    4. If another budget ends that before a time limit, what is left of the time goes into proving the
       schedule: by refuting shorter ones, and by CP-SAT where OR-Tools is installed.

    Parameters
    ----------
    problem
        What to schedule.
    algorithm
        A name in `ALGORITHMS`. ``"annealing"`` is step 3 with one plan and no critical paths;
        ``"exact"`` goes on from ``"cpga"`` with CP-SAT.
    seed
        0 .. 2**64 - 1; the same problem, seed and budget in evaluations give the same schedule.
    params
        Parameters of the algorithm, `CpgaParams` or `ExactParams`, or None for its defaults.
    stop
        Budgets; by default a number of evaluations that depends on the number of tasks.
    progress
        Called with a `HistoryPoint` at every improvement.
    prune
        Whether ``"cpga"`` goes through steps 1 and 2; without, for comparison, it searches the whole
        problem from the start.

    Returns
    -------
    SearchResult
        With a schedule that is valid, and for ``"cpga"`` never longer than that of any heuristic.

    Raises
    ------
    UnknownAlgorithmError
        If no algorithm has that name; the message lists the known ones.
    ParamsError
        If the seed or a parameter is out of range.
    StopError
        If the budget is no `Stop`.
    NoRoomError
        If nothing that fits the memory of the devices was found.
    """
    check_search(algorithm, seed, stop)
    if algorithm in HEURISTICS:
        result = replace(Heuristic(algorithm)(problem), seed=seed)
    elif algorithm == "exact":
        result = _exact(problem, seed, params, stop, progress)
    elif algorithm == "annealing":
        result = _annealing(problem, seed, params, stop, progress)
    else:
        result = _cpga(problem, seed, params, stop, progress, prune=prune)
        if stop is not None and result.stop_reason in ("evaluations", "stagnation"):
            result = prove_in_time_left(problem, result, stop, seed)
    _check_result(problem, result)
    return result


def _check_result(problem: SchedulingProblem, result: SearchResult) -> None:
    try:
        validate(problem, result.best)
    except InvalidScheduleError as error:
        if result.algorithm not in HEURISTICS or (problem.memory_bytes == UNLIMITED).all():
            raise
        searches = ", ".join(name for name in sorted(ALGORITHMS) if name not in HEURISTICS)
        raise NoRoomError(
            f"The schedule of {result.algorithm!r} does not fit the memory: {error} "
            f"Searches that go on looking for one that does: {searches}."
        ) from error


def _cpga(
    problem: SchedulingProblem,
    seed: int,
    params: CpgaParams | None,
    stop: Stop | None,
    progress: Progress | None,
    *,
    prune: bool = True,
) -> SearchResult:
    budget = Budget(stop or Stop.default(problem.num_tasks), progress)
    reductions = REDUCTIONS if prune else ()
    best, reason, plan = _solve(
        problem, budget, seed, params or CpgaParams(), series=prune, reductions=reductions, bound=True
    )
    return SearchResult(
        best=best,
        algorithm="cpga",
        seed=seed,
        history=tuple(budget.history),
        evaluations=budget.evaluations,
        runtime_s=budget.elapsed_s,
        stop_reason=reason,
        pruning=_report(problem, plan) if prune else None,
    )


def _solve(
    problem: SchedulingProblem,
    budget: Budget,
    seed: int,
    params: CpgaParams,
    *,
    series: bool = True,
    reductions: Sequence[Callable[[SchedulingProblem], Reduction | None]] = (),
    starts: Sequence[Schedule] = (),
    bound: bool = False,
) -> tuple[Schedule, str, SeriesPlan | None]:
    """Search segments, reduced problems, then the whole; with a strong lower bound on request.

    Returns
    -------
    The best schedule, why its search ended, and what was found of the series, if anything.
    """
    found, bound_ns, plan = list(starts), 0, None
    try:
        if series:
            plan, evaluations = try_series(problem, _series_stop(problem, budget.stop))
            budget.evaluations += evaluations
            if plan is not None:
                budget.note(plan.schedule.makespan_ns)
                if plan.is_optimal:
                    return plan.schedule, "optimal", plan
                bound_ns = plan.schedule.lower_bound_ns
                found.append(plan.schedule)
        if bound:
            bound_ns = max(bound_ns, lower_bound_ns(problem, budget.stop))
        for reduce in reductions:
            reduction = reduce(problem)
            if reduction is not None:
                found.append(_search_reduced(reduction, budget, seed, params))
                budget.note(found[-1].makespan_ns)
    except KeyboardInterrupt:
        budget.is_interrupted = True
    best, reason = run_cpga(problem, budget, seed=seed, params=params, starts=found, bound_ns=bound_ns)
    return best, reason, plan


def _report(problem: SchedulingProblem, plan: SeriesPlan | None) -> PruningReport:
    return report_pruning(
        problem, plan, heuristic_is_optimal=plan is None and _heuristic_is_optimal(problem)
    )


def _heuristic_is_optimal(problem: SchedulingProblem) -> bool:
    return best_heuristic_ns(problem) <= native_problem(problem).lower_bound()


def _series_stop(problem: SchedulingProblem, stop: Stop) -> Stop:
    """Return the budget to solve a series: next to none where a heuristic has an optimum already."""
    if not _heuristic_is_optimal(problem):
        return stop
    most = _GLANCE if stop.max_evaluations is None else min(_GLANCE, stop.max_evaluations)
    return replace(stop, max_evaluations=most)


def _search_reduced(reduction: Reduction, budget: Budget, seed: int, params: CpgaParams) -> Schedule:
    """Return a schedule of a reduced problem, lifted; a short search's, if that is not promising."""

    def search(share: float, starts: Sequence[Schedule] = ()) -> Schedule:
        part = budget.part(share)
        best, _, _ = _solve(reduction.reduced, part, seed, params, starts=starts)
        budget.evaluations += part.evaluations
        budget.is_interrupted |= part.is_interrupted
        return best

    probe = search(_PROBE_SHARE)
    lifted = reduction.lift(probe)
    is_promising = lifted.makespan_ns <= _PROMISING * best_heuristic_ns(reduction.original)
    if not is_promising or budget.is_interrupted:
        return lifted
    found = reduction.lift(search(_REDUCED_SHARE, [probe]))
    return min(lifted, found, key=lambda schedule: schedule.makespan_ns)


def _annealing(
    problem: SchedulingProblem,
    seed: int,
    params: CpgaParams | None,
    stop: Stop | None,
    progress: Progress | None,
) -> SearchResult:
    """Anneal one plan, without critical paths and without a population.

    Kirkpatrick, Gelatt, Vecchi: "Optimization by simulated annealing", Science 220, 1983.
    """
    plain = replace(
        params or CpgaParams(), critical_percent=0, late_percent=0, population=1, effort=1_000_000
    )
    found = _cpga(problem, seed, plain, stop, progress, prune=False)
    return replace(found, algorithm="annealing")


def _exact(
    problem: SchedulingProblem,
    seed: int,
    params: ExactParams | None,
    stop: Stop | None,
    progress: Progress | None,
) -> SearchResult:
    """Find a schedule with CPGA in at most half of the time, and give it to CP-SAT.

    Where nothing that CPGA finds fits the memory, CP-SAT, which can also let tasks wait for memory to
    become free, starts without one.
    """
    chosen, first = params or ExactParams(), None
    limit = Stop(time_limit_s=limit_s(stop))
    budget = Budget(limit)
    if chosen.warm_start:
        half = replace(Stop.default(problem.num_tasks), time_limit_s=limit_s(stop) / 2)
        with suppress(NoRoomError):
            first = _cpga(problem, seed, None, half, progress)
    if first is not None and first.stop_reason in ("optimal", "interrupted"):
        return first
    return solve_exactly(problem, first, budget, chosen, seed)
