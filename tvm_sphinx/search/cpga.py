"""CPGA: the critical-path guided search, run by the native core in bounded slices."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass

import numpy as np

from ..cpga_ext._cpga import Search
from ..errors import ArtifactError, InvalidScheduleError, SphinxError
from ..scheduling.problem import SchedulingProblem
from ..scheduling.schedule import Schedule
from .native import native_problem, to_schedule
from .result import HistoryPoint, SearchResult
from .series import solve_native_series
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
    tied_percent
        Share of a new individual's annealing in which tied genes move as one.
    keep_critical
        1 if crossover leaves the critical path of the better parent alone. Off: over 10 problems and
        10 seeds at equal evaluations it made schedules 0.2 % longer, whereas crossover itself is worth
        1.4 % where cycles are short.
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
    tied_percent: int = 20
    keep_critical: int = 0
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


def cpga(
    problem: SchedulingProblem,
    *,
    space: SearchSpace | None = None,
    seed: int = 0,
    params: CpgaParams | None = None,
    stop: Stop | None = None,
    progress: Progress | None = None,
    start: Schedule | None = None,
    series: bool = True,
) -> SearchResult:
    """Search for a short schedule; see `tvm_sphinx.search.search_schedule`.

    With ``series``, a problem that is a series of small ones is solved by `solve_series` first: for
    most networks that ends the search with a proof, and otherwise it is one more start.

    Raises
    ------
    ParamsError
        If a parameter or the seed is out of range.
    NoRoomError
        If nothing that fits the memory of the devices was found.
    """
    search = CpgaSearch(problem, space=space, seed=seed, params=params, start=start, series=series)
    return search.run(stop, progress)


class CpgaSearch:
    """A search that can be run on, saved and restored; one search is for one thread at a time.

    With ``series``, its first run begins with `solve_series`.

    Raises
    ------
    ParamsError
        If a parameter or the seed is out of range.
    """

    def __init__(
        self,
        problem: SchedulingProblem,
        *,
        space: SearchSpace | None = None,
        seed: int = 0,
        params: CpgaParams | None = None,
        start: Schedule | None = None,
        series: bool = False,
    ) -> None:
        self._begin_s, self._begin_cpu_s = time.monotonic(), time.thread_time()
        self.problem, self.seed, self.params = problem, seed, params or CpgaParams()
        self._tries_series, self._has_run, self._spent = series, False, 0
        tied = None if space is None else space.respecting(problem)
        self._genes = None if tied is None or not problem.num_tasks else tied.gene_of_task()
        values = np.array(astuple(self.params), dtype=np.int64)
        num_genes = 0 if tied is None else tied.num_genes
        try:
            self._core = native_problem(problem)
            self.bound_ns = self._core.lower_bound()
            self._native = Search(self._core, self._genes, num_genes, values, seed)
        except (ValueError, OverflowError, TypeError) as error:
            raise ParamsError(
                f"Expected parameters and a seed in range; got seed {seed}, {self.params}: {error}"
            ) from error
        if start is not None:
            self._native.start(np.array(start.order, dtype=np.int64), start.device)
        self.history: list[HistoryPoint] = []

    def run(self, stop: Stop | None = None, progress: Progress | None = None) -> SearchResult:
        """Search until a budget is used up; Ctrl-C ends it early.

        The time of the first run counts since the search was made, heuristics and bounds included.

        Raises
        ------
        NoRoomError
            If nothing that fits the memory of the devices was found.
        """
        budget = stop or Stop.default(self.problem.num_tasks)
        if self._has_run:
            self._begin_s, self._begin_cpu_s = time.monotonic(), time.thread_time()
        self._has_run, reason = True, None
        try:
            if self._tries_series:
                self._solve_series(budget)
            while reason is None:
                reason = self._slice(budget, progress)
        except KeyboardInterrupt:
            reason = "interrupted"
        evaluations, _, _, overflow = self._progress()
        if overflow:
            raise NoRoomError(
                f"Found no schedule that fits the memory; the best lacks {overflow} bytes."
            )
        return SearchResult(
            best=to_schedule(self.problem, self._native.best(), self.bound_ns),
            algorithm="cpga",
            seed=self.seed,
            history=tuple(self.history),
            evaluations=evaluations,
            runtime_s=time.monotonic() - self._begin_s,
            stop_reason=reason,
        )

    def _solve_series(self, budget: Stop) -> None:
        """Take the schedule of `solve_series`, and its bound, if the problem is a series."""
        self._tries_series = False
        if self._progress()[1] <= self.bound_ns:
            return
        found, self._spent = solve_native_series(self.problem, self._core, self.bound_ns, budget)
        if found is not None:
            self.bound_ns = max(self.bound_ns, found.schedule.lower_bound_ns)
            if found.schedule.makespan_ns < self._progress()[1]:
                order = np.array(found.schedule.order, dtype=np.int64)
                self._native.start(order, found.schedule.device)

    def _progress(self) -> tuple[int, int, int, int]:
        """Return the evaluations, the best makespan, when that was found, and the bytes it lacks."""
        evaluations, makespan_ns, last, overflow = self._native.progress()
        return evaluations + self._spent, makespan_ns, last + self._spent, overflow

    def _slice(self, budget: Stop, progress: Progress | None) -> str | None:
        """Report an improvement, then run one slice; return why the search ends, or None."""
        evaluations, makespan_ns, last, overflow = self._progress()
        elapsed_s, cpu_s = time.monotonic() - self._begin_s, time.thread_time() - self._begin_cpu_s
        if not overflow and (not self.history or makespan_ns < self.history[-1].makespan_ns):
            self.history.append(HistoryPoint(evaluations, cpu_s, makespan_ns))
            if progress is not None:
                progress(self.history[-1])
        if makespan_ns <= self.bound_ns and not overflow:
            return "optimal"
        reason = budget.reason(evaluations, evaluations - last, elapsed_s, cpu_s)
        if reason is None:
            horizon = _horizon(budget, evaluations, elapsed_s, cpu_s)
            # Short ones at first, so that the history tells early improvements apart.
            count = min(_SLICE, max(_SLICE // 16, evaluations // 4))
            self._native.run(count, horizon - self._spent)
        return reason

    def save(self) -> bytes:
        """Return the state, for `restore` in a search of the same problem, space and parameters."""
        own = (self._spent, self.bound_ns, int(self._tries_series))
        content = np.array(own, dtype=np.int64).tobytes() + self._native.save()
        return self._identity() + hashlib.sha256(content).digest() + content

    def restore(self, state: bytes) -> None:
        """Go on from a saved state, exactly as the saved search would have.

        Raises
        ------
        ArtifactError
            If the state is of another problem, space or parameters, truncated or altered.
        """
        identity = self._identity()
        digest, content = state[len(identity) : len(identity) + 32], state[len(identity) + 32 :]
        if not state.startswith(identity):
            raise ArtifactError("Expected a saved state of this problem, space and parameters.")
        if hashlib.sha256(content).digest() != digest:
            raise ArtifactError("Expected a saved state as it was saved; got one truncated or altered.")
        values = np.frombuffer(content, dtype=np.int64)
        self._native.restore(values[3:])
        self._spent, self.bound_ns, tries_series = values[:3].tolist()
        self._tries_series = bool(tries_series)

    def _identity(self) -> bytes:
        genes = b"" if self._genes is None else self._genes.tobytes()
        content = repr((self.problem.fingerprint, astuple(self.params))).encode() + genes
        return hashlib.sha256(content).digest()


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
