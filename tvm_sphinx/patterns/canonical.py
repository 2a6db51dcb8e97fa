"""A task graph in canonical numbering, so that whatever is found in it does not depend on task ids.

Isomorphic graphs get the same canonical form: any deterministic algorithm that works on it alone then
finds isomorphic things in isomorphic graphs. Tasks that only their number tells from another one have no
place in it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..scheduling.graph import FROM_INPUT, TaskGraph

#: Task number, which output of it, and which operand slot of the consumer reads it.
Producer = tuple[int, int]
Consumer = tuple[int, int, int]


@dataclass(frozen=True)
class CanonicalGraph:
    """Tasks renumbered canonically, but for those that are `alike`; still topological.

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
    alike
        Ids in the task graph, ascending, of the tasks that have no canonical number. What reads one of
        them is one of them.
    """

    task_of: tuple[int, ...]
    labels: tuple[int, ...]
    label_names: tuple[str, ...]
    operands: tuple[tuple[Producer, ...], ...]
    consumers: tuple[tuple[Consumer, ...], ...]
    alike: tuple[int, ...]

    @property
    def num_tasks(self) -> int:
        """Number of tasks that have a canonical number."""
        return len(self.task_of)


def canonicalise(graph: TaskGraph, labels: Sequence[str]) -> CanonicalGraph:
    """Renumber a task graph canonically, in O(E log E).

    Tasks are ordered by depth (the longest path from a source), then by colour. Colours come from
    sweeps of hashing along the topological order, down and up again until no more tasks are told apart;
    a sweep sees arbitrarily far, where a round of Weisfeiler-Lehman refinement (Shervashidze et al.,
    2011) sees one edge, so that few are needed.

    A task whose colour no other has is the same one in every numbering, and so are its producers, each
    of which is told apart by the slot in which it is read. All that the graph returns has a colour of
    its own, hence all tasks that anything returned depends on. Tasks of one colour are ends that
    nothing reads or returns, and what only such ends depend on: to choose an order of them by whether
    they are symmetric is graph isomorphism, so they get none.

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
    count = Counter(colours)
    own = [task for task in range(graph.num_tasks) if count[colours[task]] == 1]
    return _renumbered(graph, labels, sorted(own, key=lambda task: (depth[task], colours[task])))


def _renumbered(graph: TaskGraph, labels: Sequence[str], order: Sequence[int]) -> CanonicalGraph:
    rank = {task: position for position, task in enumerate(order)}
    forms = {
        task: (labels[task], len(graph.tasks[task].operands), len(graph.tasks[task].output_bytes))
        for task in order
    }
    distinct = sorted(set(forms.values()))
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
        alike=tuple(task for task in range(graph.num_tasks) if task not in rank),
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
