"""Which occurrences of a pattern follow each other."""

from __future__ import annotations

from collections.abc import Sequence

from ..scheduling.graph import TaskGraph

Occurrence = tuple[int, ...]

#: Series that an occurrence is tried on before it starts one of its own. Graphs have few towers side by
#: side; a fan has thousands of like branches, and none of them fits any series.
SERIES_TRIED = 8


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
