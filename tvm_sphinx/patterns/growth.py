"""Growing a recurring region: all its occurrences take the same step at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from .canonical import CanonicalGraph, digest


@dataclass(frozen=True)
class Node:
    """What growth takes in one step: a task, or an occurrence of a pattern found before.

    Nodes with the same ``label`` have equal tasks at equal offsets, wired equally.
    """

    label: int
    tasks: tuple[int, ...]


@dataclass(frozen=True)
class Region:
    """A grown region: for each occurrence its nodes, matched by their place in the list."""

    occurrences: tuple[tuple[Node, ...], ...]
    num_tasks: int
    boundary: int

    def preferred_to(self, other: Region) -> bool:
        """Return whether this region is larger or, if equally large, has fewer tensors crossing it."""
        return (-self.num_tasks, self.boundary) < (-other.num_tasks, other.boundary)


class Grower:
    """The graph in its current contraction, and the growth of regions in it.

    ``node_of`` gives for each task the node that it is in now, ``offset`` its place in that node.
    """

    def __init__(self, graph: CanonicalGraph) -> None:
        self.graph = graph
        self.node_of = [Node(label, (task,)) for task, label in enumerate(graph.labels)]
        self.offset = [0] * graph.num_tasks
        # While a region grows: the occurrence that a task belongs to (-1: none), and its position there.
        self._owner = [-1] * graph.num_tasks
        self._position = [0] * graph.num_tasks
        self._surroundings: list[tuple[bytes, ...]] = []

    def contract(self, node: Node) -> None:
        """Make a node of tasks that were in other nodes so far."""
        for offset, task in enumerate(node.tasks):
            self.node_of[task] = node
            self.offset[task] = offset

    def grow(self, nodes: Sequence[Node]) -> Region | None:
        """Grow a region from each of the nodes in lockstep; None if they have no common neighbour.

        A neighbour joins if every occurrence has it, at the same operand slot or output, with the same
        label and the same edges to what is in the region already; if no other occurrence claims it;
        and hence if the grown regions are isomorphic, edge by edge. The graphs around them may
        differ. Where layers follow each other, a task between two of them could end the one or begin
        the other: growth is tried towards the outputs first and towards the inputs first, and of two
        equally large regions the one with fewer tensors on its boundary is taken, the single-entry,
        single-exit one where there is such.
        """
        forward = self._grow_in(nodes, forward_first=True)
        if forward is None:
            return None
        backward = self._grow_in(nodes, forward_first=False)
        return backward if backward is not None and backward.preferred_to(forward) else forward

    def _grow_in(self, nodes: Sequence[Node], *, forward_first: bool) -> Region | None:
        growth = _Growth(self, nodes)
        growth.run(forward_first=forward_first)
        region = None
        if len(growth.occurrences[0]) > len(nodes[0].tasks):
            region = Region(
                occurrences=tuple(tuple(parts) for parts in growth.parts),
                num_tasks=len(growth.occurrences[0]),
                boundary=growth.boundary(),
            )
        growth.release()
        return region

    def surroundings(self, task: int) -> tuple[bytes, ...]:
        """Return hashes of what lies near a task: they tell like siblings apart.

        First what lies 1, 2 and 3 edges below it, then in any direction. Siblings in a block differ,
        if at all, before their ways lead out of it; and what lies outside may differ from one
        occurrence to the next, so it must not have a say before that.
        """
        if not self._surroundings:
            below = around = [digest(label) for label in self.graph.labels]
            rounds = [below := self._refined(below, upwards=False) for _ in range(3)]
            rounds += [around := self._refined(around, upwards=True) for _ in range(3)]
            self._surroundings = list(zip(*rounds, strict=True))
        return self._surroundings[task]

    def _refined(self, hashes: Sequence[bytes], *, upwards: bool) -> list[bytes]:
        """One round of Weisfeiler-Lehman refinement, down the edges or along them both ways."""
        return [
            digest(
                hashes[task],
                sorted((output, slot, hashes[reader]) for output, slot, reader in readers),
                [(hashes[producer] if producer >= 0 else b"", output) for producer, output in operands]
                if upwards
                else None,
            )
            for task, (operands, readers) in enumerate(
                zip(self.graph.operands, self.graph.consumers, strict=True)
            )
        ]


class _Growth:
    """One region while it grows."""

    def __init__(self, grower: Grower, nodes: Sequence[Node]) -> None:
        self.grower = grower
        self.graph = grower.graph
        self.owner = grower._owner
        self.position = grower._position
        self.parts: list[list[Node]] = [[] for _ in nodes]
        self.occurrences: list[list[int]] = [[] for _ in nodes]
        self.forward: deque[int] = deque()
        self.backward: deque[int] = deque()
        # Readers of one port with one label: which matches which is clearer when all else is taken.
        self.alike: deque[tuple[int, tuple[int, ...]]] = deque()
        # Neighbours of the first occurrence that the others lack; asking again would give the same.
        self.rejected: set[int] = set()
        self._take(nodes)

    def run(self, *, forward_first: bool) -> None:
        """Take neighbours until none is common to all occurrences."""
        while self.forward or self.backward or self.alike:
            if self.forward and (forward_first or not self.backward):
                self._look_forward(self.forward.popleft())
            elif self.backward:
                self._look_backward(self.backward.popleft())
            else:
                self._look_alike(*self.alike.popleft())

    def boundary(self) -> int:
        """Return the number of tensors that cross the boundary, summed over the occurrences."""
        crossing = 0
        for index, tasks in enumerate(self.occurrences):
            entering = set()
            for task in tasks:
                for producer, output in self.graph.operands[task]:
                    if producer >= 0 and self.owner[producer] != index:
                        entering.add((producer, output))
            leaving = {
                (task, output)
                for task in tasks
                for output, _, reader in self.graph.consumers[task]
                if self.owner[reader] != index
            }
            crossing += len(entering) + len(leaving)
        return crossing

    def release(self) -> None:
        """Free the tasks for the next growth."""
        for tasks in self.occurrences:
            for task in tasks:
                self.owner[task] = -1

    def _take(self, nodes: Sequence[Node]) -> None:
        begin = len(self.occurrences[0])
        for index, node in enumerate(nodes):
            self.parts[index].append(node)
            for task in node.tasks:
                self.owner[task] = index
                self.position[task] = len(self.occurrences[index])
                self.occurrences[index].append(task)
        added = range(begin, len(self.occurrences[0]))
        self.forward.extend(added)
        self.backward.extend(added)

    def _look_backward(self, position: int) -> None:
        task = self.occurrences[0][position]
        for slot, (producer, output) in enumerate(self.graph.operands[task]):
            if producer < 0 or self.owner[producer] != -1:
                continue
            candidates = [producer]
            for tasks in self.occurrences[1:]:
                other, other_output = self.graph.operands[tasks[position]][slot]
                if other < 0 or other_output != output:
                    break
                candidates.append(other)
            if len(candidates) == len(self.occurrences):
                self._offer(candidates)

    def _look_forward(self, position: int) -> None:
        groups = self._readers(self.occurrences[0][position])
        if not groups:
            return
        others: list[dict[tuple[int, ...], list[int]]] = []
        for tasks in self.occurrences[1:]:
            others.append(self._readers(tasks[position]))
            if groups.keys().isdisjoint(others[-1]):
                return
        for key in sorted(groups):
            rows = [groups[key], *(other.get(key, []) for other in others)]
            if len({len(row) for row in rows}) == 1:
                if len(rows[0]) > 1:
                    self.alike.append((position, key))
                else:
                    self._offer([row[0] for row in rows])

    def _look_alike(self, position: int, key: tuple[int, ...]) -> None:
        """Match like readers by their edges to the region, then by what lies around them."""
        node_of = self.grower.node_of
        rows = []
        for index, tasks in enumerate(self.occurrences):
            keyed = [
                (self._wiring(index, node_of[reader]), self.grower.surroundings(reader), reader)
                for reader in self._readers(tasks[position]).get(key, ())
            ]
            rows.append([reader for _, _, reader in sorted(keyed)])
        if len({len(row) for row in rows}) == 1:
            for candidates in zip(*rows, strict=True):
                self._offer(candidates)

    def _readers(self, task: int) -> dict[tuple[int, ...], list[int]]:
        """Return the free readers of a task, by output, slot, label and offset of the reader."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for output, slot, reader in self.graph.consumers[task]:
            if self.owner[reader] == -1:
                key = (output, slot, self.grower.node_of[reader].label, self.grower.offset[reader])
                groups.setdefault(key, []).append(reader)
        return groups

    def _offer(self, candidates: Sequence[int]) -> None:
        """Take the nodes of the candidate tasks, one per occurrence, if they all match and are free."""
        first = candidates[0]
        if self.owner[first] != -1 or first in self.rejected:
            return
        node_of, offset = self.grower.node_of, self.grower.offset
        label = node_of[first].label
        wiring = self._wiring(0, node_of[first])
        nodes: dict[tuple[int, ...], Node] = {}
        for index, task in enumerate(candidates):
            node = node_of[task]
            fits = node.label == label and offset[task] == offset[first] and self.owner[task] == -1
            if not fits or node.tasks in nodes or (index and self._wiring(index, node) != wiring):
                self.rejected.add(first)
                return
            nodes[node.tasks] = node
        self._take(list(nodes.values()))

    def _wiring(self, index: int, node: Node) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
        """Return the edges between a node and an occurrence, in terms of offsets and positions."""
        entering: list[tuple[int, ...]] = [
            (offset, slot, output, self.position[producer])
            for offset, task in enumerate(node.tasks)
            for slot, (producer, output) in enumerate(self.graph.operands[task])
            if producer >= 0 and self.owner[producer] == index
        ]
        leaving: list[tuple[int, ...]] = [
            (offset, output, slot, self.position[reader])
            for offset, task in enumerate(node.tasks)
            for output, slot, reader in self.graph.consumers[task]
            if self.owner[reader] == index
        ]
        return entering, sorted(leaving)
