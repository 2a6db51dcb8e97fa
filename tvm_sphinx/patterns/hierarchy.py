"""Patterns that recur in a task graph, and how they nest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..errors import ProblemError
from ..scheduling.graph import TaskGraph


@dataclass(frozen=True)
class Part:
    """A piece of a pattern: another pattern inside it, or (``pattern`` is None) one task.

    ``positions`` are positions in the pattern that it is a part of, in the order of the positions of
    the inner pattern.
    """

    pattern: int | None
    positions: tuple[int, ...]


@dataclass(frozen=True)
class Pattern:
    """A connected subgraph that occurs at least twice.

    Parameters
    ----------
    labels
        For each position what the task there is (its kernel id); positions are in topological order.
    occurrences
        For each occurrence its task at each position; ordered along the graph.
    parts
        What it consists of; together they cover each position once.
    level
        1 for a pattern of plain tasks, else one more than the deepest pattern inside.
    """

    labels: tuple[str, ...]
    occurrences: tuple[tuple[int, ...], ...]
    parts: tuple[Part, ...]
    level: int

    @property
    def num_tasks(self) -> int:
        """Tasks in one occurrence."""
        return len(self.labels)

    @property
    def count(self) -> int:
        """Number of occurrences."""
        return len(self.occurrences)


@dataclass(frozen=True)
class PatternHierarchy:
    """All patterns of a graph; those of one level never overlap, those of different levels nest.

    Parameters
    ----------
    graph_fingerprint
        `TaskGraph.fingerprint` of the graph that the patterns were found in.
    labels
        For each task what had to be equal for two tasks to match, length N.
    canonical_order
        Task ids in an order that does not depend on how the tasks were numbered, with those that are
        alike at its end.
    patterns
        Inner patterns come before those that contain them.
    alike
        Tasks that only their number tells from another one, ascending: several equal ends that nothing
        reads or returns, and what only these depend on. They lie in no pattern and recur nowhere.

    Raises
    ------
    ProblemError
        If occurrences of one level overlap, labels do not match, or the parts of a pattern do not
        cover it.
    """

    graph_fingerprint: str
    labels: tuple[str, ...]
    canonical_order: tuple[int, ...]
    patterns: tuple[Pattern, ...]
    alike: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        claimed: dict[int, set[int]] = {}
        for index, pattern in enumerate(self.patterns):
            level = claimed.setdefault(pattern.level, set())
            for occurrence in pattern.occurrences:
                if tuple(self.labels[task] for task in occurrence) != pattern.labels:
                    raise ProblemError(
                        f"Expected occurrences of pattern {index} to match; got {occurrence}."
                    )
                if len(set(occurrence)) < len(occurrence) or not level.isdisjoint(occurrence):
                    raise ProblemError(f"Expected disjoint occurrences on level {pattern.level}.")
                level.update(occurrence)
            covered = sorted(position for part in pattern.parts for position in part.positions)
            if covered != list(range(pattern.num_tasks)) or pattern.count < 2:
                raise ProblemError(f"Expected parts that cover pattern {index}, and 2 occurrences.")
            inner = [part.pattern for part in pattern.parts if part.pattern is not None]
            if any(other >= index for other in inner):
                raise ProblemError(f"Expected inner patterns before pattern {index}; got {inner}.")

    @property
    def num_tasks(self) -> int:
        """Number of tasks of the graph, N."""
        return len(self.labels)

    @property
    def num_kernels(self) -> int:
        """Number of distinct labels."""
        return len(set(self.labels))

    @cached_property
    def outermost(self) -> tuple[tuple[int, int], ...]:
        """(pattern, occurrence) of every occurrence that lies in no other, along the graph."""
        rank = {task: position for position, task in enumerate(self.canonical_order)}
        covered: set[int] = set()
        found: list[tuple[int, int, int]] = []
        for index in range(len(self.patterns) - 1, -1, -1):
            for number, occurrence in enumerate(self.patterns[index].occurrences):
                if occurrence[0] not in covered:
                    found.append((rank[occurrence[0]], index, number))
                    covered.update(occurrence)
        return tuple((index, number) for _, index, number in sorted(found))

    @cached_property
    def tasks_outside(self) -> tuple[int, ...]:
        """Tasks that lie in no pattern, in canonical order."""
        inside = {task for pattern in self.patterns for row in pattern.occurrences for task in row}
        return tuple(task for task in self.canonical_order if task not in inside)

    @cached_property
    def recurring_kernels(self) -> tuple[tuple[int, ...], ...]:
        """Tasks of each label that occurs at least twice, in canonical order: level 0."""
        members: dict[str, list[int]] = {}
        for task in self.canonical_order[: self.num_tasks - len(self.alike)]:
            members.setdefault(self.labels[task], []).append(task)
        return tuple(tuple(tasks) for tasks in members.values() if len(tasks) > 1)


def check_same_graph(graph: TaskGraph, hierarchy: PatternHierarchy) -> None:
    """Check that a hierarchy belongs to a graph.

    Raises
    ------
    ProblemError
        If it was made for another one.
    """
    if hierarchy.graph_fingerprint != graph.fingerprint:
        raise ProblemError(f"Expected patterns of graph {graph.fingerprint}; got those of another.")
