"""One interface to every search: `search_schedule`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..errors import InvalidScheduleError, SphinxError, known_choices
from ..scheduling.integers import is_whole
from ..scheduling.problem import UNLIMITED, SchedulingProblem
from ..scheduling.schedule import Schedule, validate
from .baselines import annealing, greedy_correction, plain_ga, random_search
from .bounds import lower_bound_ns
from .cpga import NoRoomError, ParamsError, Progress, cpga
from .exact import can_prove, exact
from .heuristics import KINDS, Heuristic
from .result import SearchResult
from .space import SearchSpace
from .stop import Stop


class UnknownAlgorithmError(SphinxError, ValueError):
    """No search algorithm has this name."""


def _heuristic(name: str) -> Callable[..., SearchResult]:
    def run(problem: SchedulingProblem, *, seed: int = 0, **_: object) -> SearchResult:
        # Nothing in a heuristic is random; the result says what it was called with.
        return replace(Heuristic(name)(problem), seed=seed)

    return run


#: Those that place tasks by a fixed rule, and so take no search space.
HEURISTICS = (*KINDS, "single")
_SEEDS = 2**64

#: Every algorithm by its name.
ALGORITHMS: dict[str, Callable[..., SearchResult]] = {
    "cpga": cpga,
    "annealing": annealing,
    "ga": plain_ga,
    "random": random_search,
    "greedy": greedy_correction,
    "exact": exact,
    **{name: _heuristic(name) for name in HEURISTICS},
}


def _searches() -> list[str]:
    """Return the names of all algorithms but the heuristics."""
    return sorted(ALGORITHMS.keys() - set(HEURISTICS))


def choose_algorithm(problem: SchedulingProblem, stop: Stop | None) -> str:
    """Return the algorithm for somebody who names none.

    ``"exact"``, which starts from CPGA, for a problem of up to 40 tasks where OR-Tools is installed and
    no budget asks for less; ``"cpga"`` otherwise.
    """
    return "exact" if stop is None and can_prove(problem) else "cpga"


def check_algorithm(algorithm: str) -> None:
    """Raise `UnknownAlgorithmError`, with the known names, unless an algorithm of that name is there."""
    if algorithm not in ALGORITHMS:
        raise UnknownAlgorithmError(known_choices("algorithm", algorithm, sorted(ALGORITHMS)))


def check_seed(seed: int) -> None:
    """Raise `ParamsError` unless a seed is an integer that the random numbers of every search take."""
    if not is_whole(seed) or not 0 <= seed < _SEEDS:
        raise ParamsError(f"Expected seed as an integer of 0..2**64 - 1; got {seed!r:.40}.")


def search_schedule(
    problem: SchedulingProblem,
    *,
    space: SearchSpace | None = None,
    algorithm: str = "cpga",
    seed: int = 0,
    params: Any = None,
    stop: Stop | None = None,
    progress: Progress | None = None,
    start: Schedule | None = None,
    series: bool = True,
) -> SearchResult:
    """Search for a short schedule of a problem.

    Parameters
    ----------
    problem
        What to schedule.
    space
        Tasks that belong together. ``"cpga"`` moves them as one while it is young, and unties all of
        them later; other searches place the tasks of a gene on one device. Heuristics take none.
    algorithm
        A name in `ALGORITHMS`.
    seed
        0 .. 2**64 - 1; the same inputs, seed and budget in evaluations give the same schedule.
    params
        Parameters of the algorithm, or None for its defaults.
    stop
        Budgets; by default a number of evaluations that depends on the number of tasks.
    progress
        Called with a `HistoryPoint` at every improvement.
    start
        A schedule of the problem for ``"cpga"`` to improve on; the others start from nothing.
    series
        Whether ``"cpga"`` first solves exactly what falls into a series of small problems.

    Returns
    -------
    SearchResult
        With a schedule that is valid, and for ``"cpga"`` never longer than that of any heuristic.

    Raises
    ------
    UnknownAlgorithmError
        If no algorithm has that name; the message lists the known ones.
    ParamsError
        If the seed or a parameter is out of range, or if the algorithm is a heuristic and a space is
        given.
    ProblemError
        If the space has another number of tasks than the problem.
    NoRoomError
        If nothing that fits the memory of the devices was found.
    InvalidScheduleError
        If ``start`` is not valid for the problem.
    """
    if start is not None:
        validate(problem, start)
    check_algorithm(algorithm)
    check_seed(seed)
    if space is not None and algorithm in HEURISTICS:
        raise ParamsError(
            f"Expected an algorithm that takes a search space ({', '.join(_searches())}); "
            f"got the heuristic {algorithm!r}."
        )
    given: dict[str, Any] = {"seed": seed, "params": params, "stop": stop, "progress": progress}
    if algorithm == "cpga":
        result = cpga(problem, space=space, start=start, series=series, **given)
    elif space is not None:
        result = _search_tied(problem, space, algorithm, given)
    else:
        result = ALGORITHMS[algorithm](problem, **given)
    try:
        validate(problem, result.best)
    except InvalidScheduleError as error:
        if algorithm not in HEURISTICS or (problem.memory_bytes == UNLIMITED).all():
            raise
        raise NoRoomError(
            f"The schedule of {algorithm!r} does not fit the memory: {error} "
            f"Searches that go on looking for one that does: {', '.join(_searches())}."
        ) from error
    return result


def _search_tied(
    problem: SchedulingProblem, space: SearchSpace, algorithm: str, given: dict[str, Any]
) -> SearchResult:
    """Search the schedules that have each gene on one device; bounds on these alone are dropped."""
    result = ALGORITHMS[algorithm](space.tied(problem), **given)
    best = replace(
        result.best,
        lower_bound_ns=lower_bound_ns(problem),
        problem_fingerprint=problem.fingerprint,
    )
    return replace(result, best=best)
