"""CPGA: the critical-path guided search, run by the native core in bounded slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np

from ..cpga_ext._cpga import Search
from ..errors import InvalidScheduleError, SphinxError
from ..scheduling.problem import SchedulingProblem
from ..scheduling.schedule import Schedule
from .budget import Budget
from .native import native_problem, to_schedule

# Evaluations per call of the core: often enough to keep time limits and Ctrl-C prompt.
_SLICE = 4096


@dataclass(frozen=True)
class CpgaParams:
    """Parameters of the search; one default for all problems.

    Shares of accepted changes for the worse are counted in 2**-20.

    Parameters
    ----------
    population
        Members at most, 1 .. 64; one for every three cycles that the budget allows. Individuals beyond
        them are children of crossovers.
    cycles
        Annealings that a budget is cut into, if that leaves each of them enough evaluations; a budget
        for fewer than four goes into one long annealing after two short ones.
    effort
        Evaluations per task that one annealing takes at least; 0 chooses by the problem: 5,000 where
        copies are short, down to 300 where they are long (communication-to-computation ratio 13).
    accept_first, accept_again, accept_last
        Changes for the worse that are accepted at first in a new individual, in a child or an
        annealing that goes on from the best, and at last.
    critical_percent, late_percent
        Changes that start from a task of a critical path: in the hotter half of an annealing, and in
        the colder one, which is a local search. Over the same problems they are worth 0.6 % together,
        0.25 % in the local search alone, and nothing in the hotter half alone.
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

    population: int = 16
    cycles: int = 96
    effort: int = 0
    accept_first: int = 104_858
    accept_again: int = 52_429
    accept_last: int = 1_049
    critical_percent: int = 80
    late_percent: int = 80
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


class UnknownAlgorithmError(SphinxError, ValueError):
    """No search algorithm has this name."""


def run_cpga(
    problem: SchedulingProblem,
    budget: Budget,
    *,
    seed: int,
    params: CpgaParams,
    starts: Sequence[Schedule] = (),
    bound_ns: int = 0,
) -> tuple[Schedule, str]:
    """Search until the budget is used up, or the best is as short as a lower bound.

    Parameters
    ----------
    problem
        What to schedule.
    budget
        Is spent, and told of improvements. Ctrl-C ends the search early.
    seed, params
        Of the search.
    starts
        Up to two schedules to begin from, besides those of the heuristics.
    bound_ns
        A lower bound that is known; the cheap ones are computed.

    Returns
    -------
    The best schedule and why the search ended, as `SearchResult.stop_reason` says it.

    Raises
    ------
    ParamsError
        If a parameter or the seed is out of range.
    NoRoomError
        If nothing that fits the memory of the devices was found.
    """
    native = native_problem(problem)
    bound_ns = max(bound_ns, native.lower_bound())
    try:
        search = Search(native, np.array(astuple(params), dtype=np.int64), seed)
    except (ValueError, OverflowError, TypeError) as error:
        raise ParamsError(
            f"Expected parameters and a seed in range; got seed {seed}, {params}: {error}"
        ) from error
    for start in starts:
        search.start(np.array(start.order, dtype=np.int64), start.device)
    reason = _run(search, budget, bound_ns)
    overflow = search.progress()[3]
    if overflow:
        raise NoRoomError(f"Found no schedule that fits the memory; the best lacks {overflow} bytes.")
    return to_schedule(problem, search.best(), bound_ns), reason


def _run(search: Search, budget: Budget, bound_ns: int) -> str:
    """Run slices of a search, and keep account of them; return why it ended."""
    spent, begin_s, begin_cpu_s = budget.evaluations, budget.elapsed_s, budget.cpu_s
    try:
        while True:
            done, makespan_ns, last, overflow = search.progress()
            budget.evaluations, budget.last_improvement = spent + done, spent + last
            if not overflow:
                budget.note(makespan_ns)
                if makespan_ns <= bound_ns:
                    return "optimal"
            reason = budget.reason()
            if reason is not None:
                return reason
            # Short ones at first, so that the history tells early improvements apart.
            count = min(_SLICE, max(_SLICE // 16, done // 4))
            search.run(count, done + budget.evaluations_left(done, begin_s, begin_cpu_s))
    except KeyboardInterrupt:
        budget.is_interrupted = True
        return "interrupted"
