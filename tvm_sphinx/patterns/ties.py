"""Which tasks share a device gene because they recur."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ..scheduling.graph import TaskGraph
from .hierarchy import PatternHierarchy
from .series import SERIES_TRIED, Occurrence, Reach


def tie_occurrences(
    graph: TaskGraph, hierarchy: PatternHierarchy, *, parallel: bool = False
) -> list[int]:
    """Return for each task the first task, in canonical order, that shares its gene.

    Tasks at one position of the occurrences of a pattern share a gene, outermost patterns first and
    single kernels last. Of occurrences that could run side by side (two towers, the branches of a
    block) only those that follow each other share genes: side by side they compete for devices, and a
    schedule gains exactly by placing them differently, whereas what comes later finds the devices as
    what came before found them. A series is a list of occurrences of which each reaches the next.

    Parameters
    ----------
    graph
        The task graph.
    hierarchy
        Its patterns.
    parallel
        Also tie occurrences that could run side by side, for comparison.
    """
    ties = _Ties(graph, hierarchy, parallel=parallel)
    for pattern in reversed(hierarchy.patterns):
        ties.tie(pattern.occurrences)
    for tasks in hierarchy.recurring_kernels:
        ties.tie([(task,) for task in tasks])
    return [ties.find(task) for task in range(graph.num_tasks)]


class _Ties:
    """Tasks that share a gene so far, as a union-find forest."""

    def __init__(self, graph: TaskGraph, hierarchy: PatternHierarchy, *, parallel: bool) -> None:
        self.parallel = parallel
        self.parent = list(range(graph.num_tasks))
        self.rank = [0] * graph.num_tasks
        for position, task in enumerate(hierarchy.canonical_order):
            self.rank[task] = position
        self.reach = Reach(graph)

    def find(self, task: int) -> int:
        """Return the first task that shares the gene of this one."""
        while self.parent[task] != task:
            self.parent[task] = self.parent[self.parent[task]]
            task = self.parent[task]
        return task

    def tie(self, occurrences: Sequence[Occurrence]) -> None:
        """Tie occurrences position by position, those that are not tied already series by series."""
        groups: dict[tuple[int, ...], list[Occurrence]] = {}
        for occurrence in occurrences:
            groups.setdefault(tuple(map(self.find, occurrence)), []).append(occurrence)
        series: list[list[Occurrence]] = []
        for genes, group in groups.items():
            for index, members in enumerate(series[:SERIES_TRIED]):
                joined = sorted(members + group, key=lambda row: [self.rank[task] for task in row])
                if set(genes).isdisjoint(map(self.find, members[0])) and self._follow(joined, members):
                    for first, second in zip(members[0], group[0], strict=True):
                        self._union(first, second)
                    series[index] = joined
                    break
            else:
                series.append(group)

    def _follow(self, joined: Sequence[Occurrence], members: Sequence[Occurrence]) -> bool:
        if self.parallel:
            return True
        old = set(members)
        return all(
            (first in old) == (second in old) or self.reach.follows(first, second)
            for first, second in pairwise(joined)
        )

    def _union(self, first: int, second: int) -> None:
        one, other = sorted((self.find(first), self.find(second)), key=self.rank.__getitem__)
        self.parent[other] = one
