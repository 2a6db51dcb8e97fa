"""Search with pruning, then refinement."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

from ..scheduling.graph import TaskGraph
from ..scheduling.problem import SchedulingProblem
from ..scheduling.schedule import Schedule
from ..search import HistoryPoint, SearchResult, SearchSpace, Stop, search_schedule
from ..search.coarse import Coarsening, coarsen
from ..search.native import native_problem
from ..search.series import cut_tasks, solve_native_series
from .find import find_patterns, operator_labels
from .fold import Folding, fold_problem
from .hierarchy import PatternHierarchy, check_same_graph
from .prune import best_heuristic_ns, check_problem_of, prune_search_space

#: Shares of the budget that the search of blocks takes: before and after it is known to be worth it.
_PROBE_SHARE, _COARSE_SHARE = 0.03, 0.2
#: It is, if blocks as they are take no more than this many times what the best heuristic takes.
_PROMISING = 1.05
#: Share of the budget that the folded search takes; the refinement gets the rest. An evaluation of the
#: folded problem decides for all that it stands for: on 1,000 to 3,000 tasks in equal blocks, half the
#: budget gives makespans 1 to 3 % shorter than a tenth.
_FOLDED_SHARE = 0.5


@dataclass(frozen=True)
class Pruning:
    """What is known of a problem from the patterns of its graph, before any search.

    ``hierarchy`` has the patterns of equal kernels, if they were given.
    """

    problem: SchedulingProblem
    graph: TaskGraph
    hierarchy: PatternHierarchy | None

    @cached_property
    def folding(self) -> Folding | None:
        """The shortened problem (`fold_problem`), or None where it would not be much shorter.

        Where half of the tasks lie between two tasks that all others come before or after, and no such
        task is among them, they lie side by side with others: no patterns are looked for.
        """
        cuts = [-1, *cut_tasks(self.problem), self.graph.num_tasks]
        if max(after - before for before, after in pairwise(cuts)) * 2 > self.graph.num_tasks:
            return None
        labels = operator_labels(self.graph)
        return fold_problem(self.problem, self.graph, find_patterns(self.graph, labels))

    @cached_property
    def space(self) -> SearchSpace:
        """The space in which what recurs is tied (`prune_search_space`)."""
        return prune_search_space(self.graph, self.hierarchy, self.problem)


def prune_problem(
    problem: SchedulingProblem, graph: TaskGraph, hierarchy: PatternHierarchy | None = None
) -> Pruning:
    """Return both prunings of a problem: recurring layers folded, and recurring tasks tied.

    Tied are only equal kernels; folding, which is no more than a place to start from, goes by patterns
    that look through shapes.

    Raises
    ------
    ProblemError
        If hierarchy or problem were made for another graph.
    """
    check_problem_of(graph, problem)
    if hierarchy is not None:
        check_same_graph(graph, hierarchy)
    return Pruning(problem, graph, hierarchy)


def search_with_pruning(
    problem: SchedulingProblem,
    pruning: Pruning,
    *,
    seed: int = 0,
    params: Any = None,
    stop: Stop | None = None,
    progress: Callable[[HistoryPoint], None] | None = None,
) -> SearchResult:
    """Search what is left of a problem once it is pruned, then refine it in the whole space.

    1. A problem that is a series of small segments is solved segment by segment, equal ones once
       (`solve_series`). If that proves the schedule optimal, as for most networks, it is done.
    2. Blocks of neighbouring tasks are placed as one, where copies are long enough for that (`coarsen`).
    3. The folded problem, if there is one, is searched, and its schedule repeated (`fold_problem`): all
       occurrences that one stands for share its devices.
    4. The best schedule so far is refined with all tasks untied, as one more individual of the whole
       search: an occurrence that wants another device than the rest gets it here, along the critical
       path.

    Where nothing is pruned, this is the search of the whole space and nothing else. The genes that
    recurring tasks share (`Pruning.space`) are not searched: a stage that does so with 5 to 20 % of the
    budget made schedules 0.1 to 0.5 % longer, as a mean over the 15 problems of our five networks that
    are no series. ``search_schedule(problem, space=pruning.space)`` searches them.

    Parameters
    ----------
    problem
        What to schedule.
    pruning
        Of this problem, from `prune_problem`.
    seed, params, stop, progress
        As for `search_schedule`; the budget is for all steps together.

    Returns
    -------
    SearchResult
        Its evaluations and times include those of all steps.
    """
    run = _Run(stop or Stop.default(problem.num_tasks), seed, params, progress)
    series, run.evaluations = solve_native_series(problem, native_problem(problem), None, run.stop)
    starts: list[Schedule] = []
    if series is not None:
        starts.append(series.schedule)
        run.note(series.schedule)
        if series.is_optimal:
            return run.result(series.schedule)
    blocks = coarsen(problem)
    if blocks is not None:
        starts.append(_search_blocks(run, blocks))
        run.note(starts[-1])
    if pruning.folding is not None:
        short = run.search(pruning.folding.folded, _FOLDED_SHARE, counts=False)
        starts.append(pruning.folding.unfold(short.best))
        run.note(starts[-1])
    start = min(starts, key=lambda schedule: schedule.makespan_ns, default=None)
    result = run.search(problem, 1.0, start=start, series=False)
    return replace(
        result, history=tuple(run.history), evaluations=run.evaluations, runtime_s=run.elapsed_s()
    )


def _search_blocks(run: _Run, blocks: Coarsening) -> Schedule:
    """Return a schedule of whole blocks; only a short search's, if that is far from the heuristics."""
    probe = run.search(blocks.coarse, _PROBE_SHARE, counts=False).best
    refined = blocks.refine(probe)
    if refined.makespan_ns > _PROMISING * best_heuristic_ns(blocks.fine):
        return refined
    found = run.search(blocks.coarse, _COARSE_SHARE, counts=False, start=probe).best
    return min(refined, blocks.refine(found), key=lambda schedule: schedule.makespan_ns)


@dataclass
class _Run:
    """Shares one budget and one history between searches."""

    stop: Stop
    seed: int
    params: Any
    progress: Callable[[HistoryPoint], None] | None
    evaluations: int = 0
    history: list[HistoryPoint] = field(default_factory=list)
    begin_s: float = field(default_factory=time.monotonic)
    begin_cpu_s: float = field(default_factory=time.thread_time)

    def elapsed_s(self) -> float:
        """Return the wall time since the first search."""
        return time.monotonic() - self.begin_s

    def note(self, schedule: Schedule) -> None:
        """Add a schedule to the history, if it is the best so far."""
        self._add(HistoryPoint(self.evaluations, self._cpu_s(), schedule.makespan_ns))

    def result(self, optimum: Schedule) -> SearchResult:
        """Return the end of a search that has found the optimum."""
        history = tuple(self.history)
        return SearchResult(
            optimum, "cpga", self.seed, history, self.evaluations, self.elapsed_s(), "optimal"
        )

    def search(
        self, problem: SchedulingProblem, share: float, *, counts: bool = True, **given: Any
    ) -> SearchResult:
        """Search with up to a share of the budget, as far as it is left."""
        evaluations, cpu_s = self.evaluations, self._cpu_s()

        def report(point: HistoryPoint) -> None:
            self._add(
                HistoryPoint(point.evaluations + evaluations, point.cpu_s + cpu_s, point.makespan_ns)
            )

        result = search_schedule(
            problem,
            seed=self.seed,
            params=self.params,
            stop=self._left(share),
            progress=report if counts else None,
            **given,
        )
        self.evaluations += result.evaluations
        return result

    def _cpu_s(self) -> float:
        return time.thread_time() - self.begin_cpu_s

    def _add(self, point: HistoryPoint) -> None:
        if not self.history or point.makespan_ns < self.history[-1].makespan_ns:
            self.history.append(point)
            if self.progress is not None:
                self.progress(point)

    def _left(self, share: float) -> Stop:
        stop = self.stop
        spent = {
            "max_evaluations": self.evaluations,
            "time_limit_s": self.elapsed_s(),
            "cpu_limit_s": self._cpu_s(),
        }
        left = {
            name: min(getattr(stop, name) * share, max(getattr(stop, name) - used, 0))
            for name, used in spent.items()
            if getattr(stop, name) is not None
        }
        if "max_evaluations" in left:
            left["max_evaluations"] = int(left["max_evaluations"])
        return Stop(**left, stagnation=stop.stagnation)
