"""A short problem in place of a long one: repeated layers are scheduled once and written out."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise

import numpy as np

from ..scheduling.graph import TaskGraph
from ..scheduling.problem import CANNOT_RUN, UNLIMITED, Int64Array, SchedulingProblem
from ..scheduling.schedule import Schedule
from ..search.heuristics import KINDS
from ..search.native import APPEND, INSERT, native_problem, to_schedule
from .hierarchy import PatternHierarchy
from .series import Occurrence, Reach

#: Occurrences of a tile, at most: enough for a schedule that overlaps or alternates neighbours.
_LARGEST_TILE = 4
#: A tile has at most one in so many of the occurrences of its series.
_TILE_SHARE = 5


@dataclass(frozen=True)
class Tiling:
    """Occurrences that follow each other, of which a few neighbours, the tile, stand for most.

    The occurrences are a head, the tile, its repetitions, and a tail, each a run of neighbours. Head and
    tail are kept because the first and last occurrences may want another placement than the rest.

    Parameters
    ----------
    occurrences
        The tasks of each occurrence, matched by position, in order.
    head, tile, tail
        How many occurrences each of them has; what is left is a multiple of ``tile``.
    """

    occurrences: tuple[Occurrence, ...]
    head: int
    tile: int
    tail: int

    @classmethod
    def of(cls, occurrences: Sequence[Occurrence]) -> Tiling:
        """Return the tiling of three or more occurrences."""
        count = len(occurrences)
        tile = max(1, min(_LARGEST_TILE, count // _TILE_SHARE))
        tail = 1 if count > 3 else 0
        return cls(tuple(occurrences), 1 + (count - 1 - tail) % tile, tile, tail)

    def stand_in(self, index: int) -> int:
        """Return the number of the kept occurrence that stands for another."""
        if index < self.head or index >= len(self.occurrences) - self.tail:
            return index
        return self.head + (index - self.head) % self.tile

    def repetition(self, index: int) -> int:
        """Return how many repetitions of the tile end before an occurrence."""
        last = len(self.occurrences) - self.tail - 1
        return max(0, (min(index, last) - self.head) // self.tile)


@dataclass(frozen=True)
class Folding:
    """A folded problem, and how its schedules are written out.

    Parameters
    ----------
    original, folded
        The problem, and the one in which tiles stand for their repetitions.
    stands_for : (N,) int64
        For each task of the original the task of the folded problem that stands for it.
    tilings
        The series that are folded, as tasks of the original.
    """

    original: SchedulingProblem
    folded: SchedulingProblem
    stands_for: Int64Array
    tilings: tuple[Tiling, ...]

    def unfold(self, schedule: Schedule) -> Schedule:
        """Return a valid schedule of the original problem that repeats one of the folded problem.

        Each task goes to the device of the task that stands for it. The order is by time, where each
        repetition of a tile comes one period, the time from tile to tail, after the one before, as in
        modulo scheduling of loops (Rau, MICRO 1994); decoded with and without insertion, or by upward
        rank, whichever is shortest. No lower bound is computed: it is 0.
        """
        device = schedule.device[self.stands_for]
        order = self._order(self._starts(schedule))
        native = native_problem(self.original)
        plans = [native.decode(order, device, rule) for rule in (APPEND, INSERT)]
        exec_ns = np.full_like(self.original.exec_ns, CANNOT_RUN)
        tasks = np.arange(len(device))
        exec_ns[tasks, device] = self.original.exec_ns[tasks, device]
        placed = native_problem(replace(self.original, exec_ns=exec_ns))
        plans.append(placed.heuristic(KINDS["fastest"]))
        return to_schedule(self.original, min(plans, key=lambda plan: plan[0]), bound_ns=0)

    def _starts(self, schedule: Schedule) -> list[float]:
        """Return when each task would start if every repetition took one period of its tile."""
        kept = schedule.start_ns[self.stands_for].tolist()
        delay = [0.0] * len(kept)
        place: dict[int, tuple[int, int]] = {}
        for number, tiling in enumerate(self.tilings):
            for index, occurrence in enumerate(tiling.occurrences):
                place.update((task, (number, index)) for task in occurrence)
        periods = [self._period(tiling, schedule) for tiling in self.tilings]
        feeders: list[list[int]] = [[] for _ in kept]
        for src, dst in self.original.edges.tolist():
            feeders[dst].append(src)
        # A series begins late where what feeds it does: after another series, that is.
        base: dict[int, float] = {}
        for task, sources in enumerate(feeders):
            if task not in place:
                delay[task] = max((delay[source] for source in sources), default=0.0)
                continue
            number, index = place[task]
            if number not in base:
                base[number] = max((delay[source] for source in sources), default=0.0)
            delay[task] = base[number] + self.tilings[number].repetition(index) * periods[number]
        return [start + late for start, late in zip(kept, delay, strict=True)]

    def _period(self, tiling: Tiling, schedule: Schedule) -> float:
        """Return the time from the first start of the tile to that of the tail, or to its last end."""

        def kept(index: int) -> Int64Array:
            tasks: Int64Array = self.stands_for[list(tiling.occurrences[index])]
            return tasks

        begin = int(schedule.start_ns[kept(tiling.head)].min())
        if tiling.tail:
            return max(1.0, float(schedule.start_ns[kept(-tiling.tail)].min() - begin))
        return max(1.0, float(schedule.finish_ns[kept(-1)].max() - begin))

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

    Where at least three occurrences of a pattern follow each other, outermost patterns first, a few
    neighbours stand for those that follow (`Tiling`); what read the last repetition reads the tile. A
    schedule of the folded problem is found in a fraction of the time, and repeated it is a good schedule
    to start from. It is a guess and no bound: edges that would run backwards are dropped, and kernels
    that differ in shape (where the patterns look through shapes) take the time of the one that is kept.

    Series that run side by side (two towers, the directions of a bidirectional network) share devices
    in a way that a part of them does not tell: their repetitions drift apart, and the repeated schedule
    is 10 to 30 % longer than what a heuristic finds. Graphs that have such series are not folded.

    Returns
    -------
    Folding or None
        None if less than half of the tasks would go, if series run side by side, or with a memory
        capacity, which a part of the network does not tell anything about.
    """
    if (problem.memory_bytes != UNLIMITED).any():
        return None
    keeper = list(range(problem.num_tasks))
    reach = Reach(graph)
    tilings = _tilings(reach, hierarchy)
    if _any_side_by_side(reach, tilings):
        return None
    for tiling in tilings:
        for index, occurrence in enumerate(tiling.occurrences):
            stand_in = tiling.occurrences[tiling.stand_in(index)]
            for task, kept_task in zip(occurrence, stand_in, strict=True):
                keeper[task] = kept_task
    kept = [task for task, other in enumerate(keeper) if task == other]
    if len(kept) * 2 > problem.num_tasks:
        return None
    place = {task: index for index, task in enumerate(kept)}
    return Folding(
        original=problem,
        folded=_restricted(problem, kept, keeper),
        stands_for=np.array([place[task] for task in keeper], dtype=np.int64),
        tilings=tuple(tilings),
    )


def _any_side_by_side(reach: Reach, tilings: Sequence[Tiling]) -> bool:
    """Return whether data go back from an occurrence to the one before, or two series overlap."""
    for tiling in tilings:
        if any(reach.follows(second, first) for first, second in pairwise(tiling.occurrences)):
            return True
    return not all(
        reach.follows(one.occurrences[-1], other.occurrences[0])
        or reach.follows(other.occurrences[-1], one.occurrences[0])
        for one, other in combinations(tilings, 2)
    )


def _tilings(reach: Reach, hierarchy: PatternHierarchy) -> list[Tiling]:
    covered: set[int] = set()
    tilings: list[Tiling] = []
    for pattern in reversed(hierarchy.patterns):
        free = [row for row in pattern.occurrences if covered.isdisjoint(row)]
        for series in reach.series(free):
            if len(series) > 2:
                tilings.append(Tiling.of(series))
                covered.update(task for occurrence in series for task in occurrence)
    return tilings


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
