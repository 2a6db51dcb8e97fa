"""Which occurrences of a pattern follow each other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from ..graph import TaskGraph

Occurrence = tuple[int, ...]

#: Series that an occurrence is tried on before it starts one of its own. Graphs have few towers side by
#: side; a fan has thousands of like branches, and none of them fits any series.
SERIES_TRIED = 8


def cut_tasks(graph: TaskGraph) -> list[int]:
    """Return the tasks that every other task comes before or after, ascending.

    Edges lead to higher tasks. So all lower tasks come before a task if each of them has a successor
    that is not higher, and all higher ones after it if each has a predecessor that is not lower.
    """
    count = graph.num_tasks
    first_reader = [count] * count
    for task, predecessors in enumerate(graph.predecessors):
        for predecessor in predecessors:
            first_reader[predecessor] = min(first_reader[predecessor], task)
    before = list(accumulate(first_reader[:-1], max, initial=0))
    last_source = [max(predecessors, default=-1) for predecessors in graph.predecessors]
    after = list(accumulate(last_source[:0:-1], min, initial=count))[::-1]
    return [task for task in range(count) if before[task] <= task <= after[task]]


class Reach:
    """Which tasks can be reached from which."""

    def __init__(self, graph: TaskGraph) -> None:
        # Bit t of ancestors[u] is set if u is t or can be reached from it.
        self.ancestors: list[int] = []
        for task, predecessors in enumerate(graph.predecessors):
            reached = 1 << task
            for predecessor in predecessors:
                reached |= self.ancestors[predecessor]
            self.ancestors.append(reached)

    def follows(self, first: Occurrence, second: Occurrence) -> bool:
        """Return whether a path leads from the first occurrence to the second."""
        tasks = sum(1 << task for task in first)
        return any(self.ancestors[task] & tasks for task in second)

    def series(self, occurrences: Sequence[Occurrence]) -> list[list[Occurrence]]:
        """Split occurrences, given along the graph, into lists of which each reaches the next."""
        found: list[list[Occurrence]] = []
        for occurrence in occurrences:
            for row in found[:SERIES_TRIED]:
                if self.follows(row[-1], occurrence):
                    row.append(occurrence)
                    break
            else:
                found.append([occurrence])
        return found
