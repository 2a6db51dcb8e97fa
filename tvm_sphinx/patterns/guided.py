"""Search with pruning, then refinement."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..graph import TaskGraph
from ..problem import SchedulingProblem
from ..search import HistoryPoint, SearchResult, Stop, search_schedule
from .find import find_patterns, operator_labels
from .fold import fold_problem
from .hierarchy import PatternHierarchy
from .prune import prune_search_space

#: Share of the budget that goes into the folded problem.
_FOLDED_SHARE = 0.2


def search_with_patterns(
    problem: SchedulingProblem,
    graph: TaskGraph,
    hierarchy: PatternHierarchy | None = None,
    *,
    seed: int = 0,
    params: Any = None,
    stop: Stop | None = None,
    progress: Callable[[HistoryPoint], None] | None = None,
) -> SearchResult:
    """Search for a short schedule with what recurs, then without.

    1. The network is folded: of layers in a row a few stand for all (`fold_problem`; by patterns that
       look through shapes). The folded problem is searched, and its schedule repeated.
    2. The whole problem is searched from there. At first the tasks that recur move as one
       (`prune_search_space`); then all are untied, so an occurrence that wants another device than
       the rest, or an order that no repetition has, is found as if nothing had been tied.

    Parameters
    ----------
    problem
        What to schedule.
    graph
        The task graph of the problem.
    hierarchy
        Its patterns, found if not given.
    seed, params, stop, progress
        As for `search_schedule`; the budget is for both steps together.

    Returns
    -------
    SearchResult
        Of the whole problem; evaluations and times include those of the folded one.

    Raises
    ------
    ProblemError
        If hierarchy or problem were made for another graph.
    """
    begin_s, begin_cpu_s = time.monotonic(), time.thread_time()
    budget = stop or Stop.default(problem.num_tasks)
    space = prune_search_space(graph, hierarchy, problem)
    folding = fold_problem(problem, graph, find_patterns(graph, operator_labels(graph)))
    start, spent = None, 0
    if folding is not None:
        short = search_schedule(folding.folded, seed=seed, params=params, stop=_scaled(budget, _FOLDED_SHARE))
        start, spent = folding.unfold(short.best), short.evaluations
    before_s, before_cpu_s = time.monotonic() - begin_s, time.thread_time() - begin_cpu_s

    def shifted(point: HistoryPoint) -> HistoryPoint:
        return HistoryPoint(point.evaluations + spent, point.cpu_s + before_cpu_s, point.makespan_ns)

    result = search_schedule(
        problem,
        space=space,
        seed=seed,
        params=params,
        stop=_less(budget, spent, before_s, before_cpu_s),
        progress=None if progress is None else lambda point: progress(shifted(point)),
        start=start,
    )
    return replace(
        result,
        history=tuple(map(shifted, result.history)),
        evaluations=result.evaluations + spent,
        runtime_s=result.runtime_s + before_s,
    )


def _scaled(stop: Stop, share: float) -> Stop:
    return Stop(
        max_evaluations=None if stop.max_evaluations is None else int(stop.max_evaluations * share),
        time_limit_s=None if stop.time_limit_s is None else stop.time_limit_s * share,
        cpu_limit_s=None if stop.cpu_limit_s is None else stop.cpu_limit_s * share,
        stagnation=stop.stagnation,
    )


def _less(stop: Stop, evaluations: int, elapsed_s: float, cpu_s: float) -> Stop:
    return Stop(
        max_evaluations=None if stop.max_evaluations is None else max(0, stop.max_evaluations - evaluations),
        time_limit_s=None if stop.time_limit_s is None else max(0.0, stop.time_limit_s - elapsed_s),
        cpu_limit_s=None if stop.cpu_limit_s is None else max(0.0, stop.cpu_limit_s - cpu_s),
        stagnation=stop.stagnation,
    )
