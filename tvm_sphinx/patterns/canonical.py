"""A task graph in canonical numbering, so that whatever is found in it does not depend on task ids.

Isomorphic graphs get the same canonical form: any deterministic algorithm that works on it alone then
finds isomorphic things in isomorphic graphs, and ties need no further thought.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from ..graph import FROM_INPUT, TaskGraph

#: Task number, which output of it, and which operand slot of the consumer reads it.
Producer = tuple[int, int]
Consumer = tuple[int, int, int]


@dataclass(frozen=True)
class CanonicalGraph:
    """Tasks renumbered canonically; still topological.

    Parameters
    ----------
    task_of
        For each canonical number the id in the task graph.
    labels
        For each canonical number its label, as an int. Tasks with the same label string but another
        number of operands or outputs get different ints.
    label_names
        The string of each label.
    operands
        For each task (producer, output) per operand slot; the producer is a canonical number, or
        negative for model inputs and constants.
    consumers
        For each task (output, slot, consumer) sorted.
    """

    task_of: tuple[int, ...]
    labels: tuple[int, ...]
    label_names: tuple[str, ...]
    operands: tuple[tuple[Producer, ...], ...]
    consumers: tuple[tuple[Consumer, ...], ...]

    @property
    def num_tasks(self) -> int:
        """Number of tasks."""
        return len(self.task_of)


def canonicalise(graph: TaskGraph, labels: Sequence[str]) -> CanonicalGraph:
    """Renumber a task graph canonically, in O(E log E).

    Tasks are ordered by depth (the longest path from a source), then by colour, then by the canonical
    numbers of their producers. Colours come from sweeps of hashing along the topological order, down
    and up again until no more tasks are told apart; a sweep sees arbitrarily far, where a round of
    Weisfeiler-Lehman refinement (Shervashidze et al., 2011) sees one edge, so that few are needed.
    Tasks that still tie have the same producers and look alike from everywhere; they are symmetric in
    every graph that is not built to deceive refinement, and there either order gives the same patterns.

    Parameters
    ----------
    graph
        The task graph.
    labels
        For each task what must be equal for two tasks to match, such as the kernel id; length N.
    """
    depth = [0] * graph.num_tasks
    for task, predecessors in enumerate(graph.predecessors):
        depth[task] = max((depth[p] + 1 for p in predecessors), default=0)
    colours = _colours(graph, labels)
    levels: list[list[int]] = [[] for _ in range(max(depth, default=-1) + 1)]
    for task, level in enumerate(depth):
        levels[level].append(task)
    rank = [0] * graph.num_tasks
    order: list[int] = []
    for level_tasks in levels:
        keyed = [
            (
                colours[task],
                [rank[o.producer] if o.producer >= 0 else -1 for o in graph.tasks[task].operands],
            )
            for task in level_tasks
        ]
        for position in sorted(range(len(level_tasks)), key=keyed.__getitem__):
            rank[level_tasks[position]] = len(order)
            order.append(level_tasks[position])
    return _renumbered(graph, labels, order, rank)


def _renumbered(
    graph: TaskGraph, labels: Sequence[str], order: Sequence[int], rank: Sequence[int]
) -> CanonicalGraph:
    forms = [
        (label, len(task.operands), len(task.output_bytes))
        for label, task in zip(labels, graph.tasks, strict=True)
    ]
    distinct = sorted(set(forms))
    number = {form: index for index, form in enumerate(distinct)}
    operands: list[tuple[Producer, ...]] = []
    consumers: list[list[Consumer]] = [[] for _ in order]
    for position, task in enumerate(order):
        row = tuple(
            (rank[operand.producer] if operand.producer >= 0 else operand.producer, operand.output)
            for operand in graph.tasks[task].operands
        )
        for slot, (producer, output) in enumerate(row):
            if producer >= 0:
                consumers[producer].append((output, slot, position))
        operands.append(row)
    return CanonicalGraph(
        task_of=tuple(order),
        labels=tuple(number[forms[task]] for task in order),
        label_names=tuple(label for label, _, _ in distinct),
        operands=tuple(operands),
        consumers=tuple(tuple(sorted(row)) for row in consumers),
    )


def digest(*content: object) -> bytes:
    """Return 8 bytes that depend on the content only, on every machine and in every process."""
    return hashlib.blake2b(repr(content).encode(), digest_size=8).digest()


def _colours(graph: TaskGraph, labels: Sequence[str]) -> list[bytes]:
    returned: dict[int, list[tuple[int, int]]] = {}
    for position, (producer, output) in enumerate(graph.outputs):
        returned.setdefault(producer, []).append((position, output))
    colours = [digest(label) for label in labels]
    told_apart = -1
    while len(set(colours)) > told_apart:
        told_apart = len(set(colours))
        colours = _hash_up(graph, _hash_down(graph, colours), returned)
    return colours


def _hash_up(
    graph: TaskGraph, seeds: Sequence[bytes], returned: dict[int, list[tuple[int, int]]]
) -> list[bytes]:
    """Hash each task's seed with the hashes of its readers, and with where the graph returns it."""
    hashes: list[bytes] = [b""] * graph.num_tasks
    readers: list[list[tuple[int, int, bytes]]] = [[] for _ in range(graph.num_tasks)]
    for task in range(graph.num_tasks - 1, -1, -1):
        hashes[task] = digest(seeds[task], sorted(readers[task]), returned.get(task))
        for slot, operand in enumerate(graph.tasks[task].operands):
            if operand.producer >= 0:
                readers[operand.producer].append((operand.output, slot, hashes[task]))
    return hashes


def _hash_down(graph: TaskGraph, seeds: Sequence[bytes]) -> list[bytes]:
    """Hash each task's seed with the hashes of its operands, in order."""
    hashes: list[bytes] = []
    for task, seed in zip(graph.tasks, seeds, strict=True):
        sources = [
            (hashes[producer], output)
            if producer >= 0
            else (producer, output if producer == FROM_INPUT else 0)
            for producer, output in task.operands
        ]
        hashes.append(digest(seed, sources))
    return hashes
