"""CPGA: the critical-path guided search, run by the native core in bounded slices."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import astuple, dataclass

import numpy as np

from ..bounds import lower_bound_ns
from ..cpga_ext._cpga import Problem, Search
from ..errors import InvalidScheduleError, SphinxError
from ..problem import SchedulingProblem
from .native import native_problem, to_schedule
from .result import HistoryPoint, SearchResult
from .space import SearchSpace
from .stop import Stop

#: Called with every improvement.
Progress = Callable[[HistoryPoint], None]

# Evaluations per call of the core: often enough to keep time limits and Ctrl-C prompt.
_SLICE = 4096
# Evaluations per second.
_USUAL_RATE = 1e6


@dataclass(frozen=True)
class CpgaParams:
    """Parameters of the search; one default for all problems.

    Shares of accepted changes for the worse are counted in 2**-20.

    Parameters
    ----------
    population
        Members, 1 .. 64. Individuals beyond them are children of crossovers.
    effort
        Evaluations per task that one individual's annealing takes, where the budget allows several.
    accept_first, accept_again, accept_last
        Changes for the worse that are accepted at first in a new individual, in a child, and at last.
    tied_percent
        Share of a new individual's annealing in which tied genes move as one.
    keep_critical
        1 if crossover leaves the critical path of the better parent alone, or 0.
    critical_percent
        Changes that start from a task of a critical path.
    focus, visit, sort_every
        Places of the order that are changed in a row, evaluations there, and visits between sorts of
        the order by start time.
    block_percent, swap_percent
        Changes that move a connected block of tasks, and that exchange two devices.
    gather_percent
        Blocks that are gathered from all devices instead of from one.
    max_block_bits, max_span_bits
        Blocks have at most about 2**bits tasks; tasks move at most 2**bits places.
    """

    population: int = 8
    effort: int = 1500
    accept_first: int = 104_858
    accept_again: int = 52_429
    accept_last: int = 1_049
    tied_percent: int = 20
    keep_critical: int = 1
    critical_percent: int = 50
    focus: int = 64
    visit: int = 128
    sort_every: int = 8
    block_percent: int = 25
    swap_percent: int = 35
    gather_percent: int = 50
    max_block_bits: int = 4
    max_span_bits: int = 6


class NoRoomError(InvalidScheduleError):
    """No schedule was found that fits the memory of the devices."""


class ParamsError(SphinxError, ValueError):
    """A parameter of a search is out of range."""


def cpga(
    problem: SchedulingProblem,
    *,
    space: SearchSpace | None = None,
    seed: int = 0,
    params: CpgaParams | None = None,
    stop: Stop | None = None,
    progress: Progress | None = None,
) -> SearchResult:
    """Search for a short schedule; see `tvm_sphinx.search.search_schedule`.

    Raises
    ------
    ParamsError
        If a parameter or the seed is out of range.
    NoRoomError
        If nothing that fits the memory of the devices was found.
    """
    budget = stop or Stop.default(problem.num_tasks)
    bound_ns = lower_bound_ns(problem)
    begin_cpu_s, begin_s = time.thread_time(), time.monotonic()
    search = _start(native_problem(problem), problem, space, params or CpgaParams(), seed)
    history: list[HistoryPoint] = []
    reason = None
    try:
        while reason is None:
            evaluations, makespan_ns, last, overflow = search.progress()
            elapsed_s, cpu_s = time.monotonic() - begin_s, time.thread_time() - begin_cpu_s
            if not overflow and (not history or makespan_ns < history[-1].makespan_ns):
                history.append(HistoryPoint(evaluations, cpu_s, makespan_ns))
                if progress is not None:
                    progress(history[-1])
            reason = budget.reason(evaluations, evaluations - last, elapsed_s, cpu_s)
            if makespan_ns <= bound_ns and not overflow:
                reason = "optimal"
            if reason is None:
                horizon = _horizon(budget, evaluations, elapsed_s, cpu_s)
                left = (budget.max_evaluations or horizon) - evaluations
                search.run(max(1, min(_SLICE, left)), horizon)
    except KeyboardInterrupt:
        reason = "interrupted"
    overflow = search.progress()[3]
    if overflow:
        raise NoRoomError(f"Found no schedule that fits the memory; the best lacks {overflow} bytes.")
    return SearchResult(
        best=to_schedule(problem, search.best(), bound_ns),
        algorithm="cpga",
        seed=seed,
        history=tuple(history),
        evaluations=search.progress()[0],
        runtime_s=time.monotonic() - begin_s,
        stop_reason=reason or "interrupted",
    )


def _start(
    native: Problem, problem: SchedulingProblem, space: SearchSpace | None, params: CpgaParams, seed: int
) -> Search:
    tied = None if space is None else space.respecting(problem)
    values = np.array(astuple(params), dtype=np.int64)
    try:
        if tied is None:
            return Search(native, None, 0, values, seed)
        return Search(native, tied.gene_of_task(), tied.num_genes, values, seed)
    except (ValueError, OverflowError) as error:
        raise ParamsError(
            f"Expected parameters and a seed in their ranges; got {params}: {error}"
        ) from error


def _horizon(stop: Stop, evaluations: int, elapsed_s: float, cpu_s: float) -> int:
    """Return the evaluations that the budget is expected to allow in all."""
    horizons = [1 << 44]
    if stop.max_evaluations is not None:
        horizons.append(stop.max_evaluations)
    for limit_s, used_s in ((stop.time_limit_s, elapsed_s), (stop.cpu_limit_s, cpu_s)):
        if limit_s is not None:
            # Until there is something to go by, suppose a rate that is usual.
            rate = evaluations / used_s if evaluations > _SLICE else _USUAL_RATE
            horizons.append(int(rate * limit_s) + 1)
    return max(evaluations + 1, min(horizons))
