"""A short problem in place of a long one: repeated layers are scheduled once and written out."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from ..graph import TaskGraph
from ..problem import CANNOT_RUN, UNLIMITED, Int64Array, SchedulingProblem
from ..schedule import Schedule
from ..search.heuristics import Heuristic
from ..search.native import native_problem, to_schedule
from .hierarchy import PatternHierarchy
from .series import Occurrence, Reach

#: Of a series of k occurrences, k * _KEPT are kept, but no fewer than _FEWEST: the first, which may want
#: another placement than the rest, and one that stands for the rest.
_KEPT = 0.3
_FEWEST = 2


@dataclass(frozen=True)
class Folding:
    """A folded problem, and how its schedules are written out.

    Parameters
    ----------
    original, folded
        The problem, and the one in which one occurrence stands for several that follow it.
    stands_for : (N,) int64
        For each task of the original the task of the folded problem that stands for it.
    repeats
        For each occurrence that stands for others: it and they, in order, as tasks of the original.
    """

    original: SchedulingProblem
    folded: SchedulingProblem
    stands_for: Int64Array
    repeats: tuple[tuple[Occurrence, ...], ...]

    def unfold(self, schedule: Schedule) -> Schedule:
        """Return a valid schedule of the original problem that repeats one of the folded problem.

        Each task goes to the device of the task that stands for it. Of three orders the one with the
        shortest schedule is taken: by time, where the time that a repeated occurrence takes is
        stretched to hold its repetitions (decoded with and without insertion), and by upward rank.
        """
        device = schedule.device[self.stands_for]
        order = self._order(self._stretched(schedule))
        native = native_problem(self.original)
        plans = [to_schedule(self.original, native.decode(order, device, rule)) for rule in (0, 1)]
        return min([*plans, self._by_rank(device)], key=lambda plan: plan.makespan_ns)

    def _by_rank(self, device: Int64Array) -> Schedule:
        exec_ns = np.full_like(self.original.exec_ns, CANNOT_RUN)
        tasks = np.arange(len(device))
        exec_ns[tasks, device] = self.original.exec_ns[tasks, device]
        found = Heuristic("fastest")(replace(self.original, exec_ns=exec_ns)).best
        return replace(found, problem_fingerprint=self.original.fingerprint)

    def _stretched(self, schedule: Schedule) -> list[float]:
        """Return when each task would start if a repetition took the time of the first."""
        spans: list[tuple[int, int, int]] = []
        for occurrences in self.repeats:
            kept = self.stands_for[list(occurrences[0])]
            begin, end = int(schedule.start_ns[kept].min()), int(schedule.finish_ns[kept].max())
            spans.append((begin, end, len(occurrences)))
        marks = sorted({0, schedule.makespan_ns, *(t for begin, end, _ in spans for t in (begin, end))})
        stretched = [0.0]
        for begin, end in pairwise(marks):
            times = max((n for first, last, n in spans if first <= begin and end <= last), default=1)
            stretched.append(stretched[-1] + times * (end - begin))
        starts: list[float] = np.interp(schedule.start_ns, marks, stretched)[self.stands_for].tolist()
        for occurrences, (begin, end, count) in zip(self.repeats, spans, strict=True):
            first, last = np.interp([begin, end], marks, stretched).tolist()
            for index, occurrence in enumerate(occurrences):
                for task in occurrence:
                    since = int(schedule.start_ns[self.stands_for[task]]) - begin
                    share = (index + since / max(1, end - begin)) / count
                    starts[task] = first + (last - first) * share
        return starts

    def _order(self, starts: list[float]) -> Int64Array:
        """Return the topological order that is closest to the given starts."""
        waiting = [0] * self.original.num_tasks
        readers: list[list[int]] = [[] for _ in waiting]
        for src, dst in self.original.edges.tolist():
            waiting[dst] += 1
            readers[src].append(dst)
        ready = [(starts[task], task) for task, count in enumerate(waiting) if not count]
        heapq.heapify(ready)
        order: list[int] = []
        while ready:
            order.append(heapq.heappop(ready)[1])
            for reader in readers[order[-1]]:
                waiting[reader] -= 1
                if not waiting[reader]:
                    heapq.heappush(ready, (starts[reader], reader))
        return np.array(order, dtype=np.int64)


def fold_problem(
    problem: SchedulingProblem, graph: TaskGraph, hierarchy: PatternHierarchy
) -> Folding | None:
    """Return a shorter problem in which one occurrence of a pattern stands for several, if there is one.

    Where at least three occurrences of a pattern follow each other, outermost patterns first, groups of
    neighbours are replaced by their first; what read the last of a group reads the first. A schedule of
    the folded problem is found in a fraction of the time, and repeated it is a good schedule to start
    from. It is a guess and no bound: edges that would run backwards are dropped, and kernels that
    differ in shape (where the patterns look through shapes) take the time of the one that is kept.

    Returns
    -------
    Folding or None
        None if less than a third of the tasks would go, or with a memory capacity, which a part of the
        network does not tell anything about.
    """
    if (problem.memory_bytes != UNLIMITED).any():
        return None
    keeper = list(range(problem.num_tasks))
    repeats = _repeats(graph, hierarchy)
    for occurrences in repeats:
        for occurrence in occurrences:
            for task, first in zip(occurrence, occurrences[0], strict=True):
                keeper[task] = first
    kept = [task for task, other in enumerate(keeper) if task == other]
    if len(kept) * 3 > problem.num_tasks * 2:
        return None
    place = {task: index for index, task in enumerate(kept)}
    return Folding(
        original=problem,
        folded=_restricted(problem, kept, keeper),
        stands_for=np.array([place[task] for task in keeper], dtype=np.int64),
        repeats=tuple(repeats),
    )


def _repeats(graph: TaskGraph, hierarchy: PatternHierarchy) -> list[tuple[Occurrence, ...]]:
    reach = Reach(graph)
    covered: set[int] = set()
    repeats: list[tuple[Occurrence, ...]] = []
    for pattern in reversed(hierarchy.patterns):
        free = [row for row in pattern.occurrences if covered.isdisjoint(row)]
        for series in reach.series(free):
            count = len(series)
            if count < 3:
                continue
            kept = max(_FEWEST, round(count * _KEPT))
            groups: dict[int, list[Occurrence]] = {}
            for index, occurrence in enumerate(series):
                groups.setdefault(index * kept // count, []).append(occurrence)
                covered.update(occurrence)
            repeats += [tuple(group) for group in groups.values()]
    return repeats


def _restricted(problem: SchedulingProblem, kept: list[int], keeper: list[int]) -> SchedulingProblem:
    place = {task: index for index, task in enumerate(kept)}
    copy_class: dict[tuple[int, int], int] = {}
    for (src, dst), row in zip(problem.edges.tolist(), problem.copy_class.tolist(), strict=True):
        if dst in place and keeper[src] < dst:
            copy_class.setdefault((place[keeper[src]], place[dst]), row)
    edges = sorted(copy_class)
    return SchedulingProblem(
        name=f"{problem.name}, folded",
        devices=problem.devices,
        device_cores=problem.device_cores,
        exec_ns=problem.exec_ns[kept],
        edges=np.array(edges, dtype=np.int64).reshape(-1, 2),
        copy_class=np.array([copy_class[edge] for edge in edges], dtype=np.int64),
        copy_ns=problem.copy_ns,
        release_ns=problem.release_ns[kept],
        delivery_ns=problem.delivery_ns[kept],
        colocation=problem.colocation[kept],
    )
