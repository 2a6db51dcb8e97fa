"""Finding the recurring subgraphs of a task graph."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ProblemError
from ..scheduling.graph import TaskGraph
from .canonical import CanonicalGraph, canonicalise
from .growth import Grower, Node, Region
from .hierarchy import Part, Pattern, PatternHierarchy


def find_patterns(graph: TaskGraph, labels: Sequence[str] | None = None) -> PatternHierarchy:
    """Find recurring subgraphs at every level: chains in branches, branches in blocks, blocks in towers.

    Works from the inside out, on the canonical form of the graph. All tasks with one label grow into
    regions in lockstep (`Grower.grow`), those with the most occurrences first; what they grow
    into is a pattern, and each of its occurrences becomes one node, with a new label, from which the
    next level grows. Where the nodes of a label have no neighbour in common, those that share the most
    frequent neighbour grow, as the most frequent pair is joined in Re-Pair (Larsson and Moffat, 1999),
    of which this is the form for graphs. It ends when no two neighbours recur together.

    A round looks once at the neighbours of the nodes that may grow, and each contraction takes at
    least two nodes out of the graph, so time is near-linear in the number of edges for a bounded
    depth of nesting.

    Tasks that only their number tells from another one (`PatternHierarchy.alike`) are left out, so that
    numbering never matters. All that something returned depends on takes part.

    Parameters
    ----------
    graph
        The task graph.
    labels
        For each task what must be equal for two tasks to match, length N; the kernel ids by default.
        `operator_labels` gives patterns that look through shapes.

    Raises
    ------
    ProblemError
        If ``labels`` does not have one entry per task.
    """
    names = tuple(task.kernel for task in graph.tasks) if labels is None else tuple(labels)
    if len(names) != graph.num_tasks:
        raise ProblemError(f"Expected {graph.num_tasks} labels, one per task; got {len(names)}.")
    canonical = canonicalise(graph, names)
    finder = _Finder(canonical)
    finder.run()
    return PatternHierarchy(
        graph_fingerprint=graph.fingerprint,
        labels=names,
        canonical_order=canonical.task_of + canonical.alike,
        patterns=_named(canonical, finder.patterns),
        alike=canonical.alike,
    )


def operator_labels(graph: TaskGraph) -> tuple[str, ...]:
    """Return labels that look through shapes and attributes: the kinds of the fused operators.

    Patterns by these are for people (a block that recurs with other widths): kernels that match in
    nothing but their kind have no reason to want the same device.
    """
    return tuple("+".join(task.op_kinds) or task.kernel for task in graph.tasks)


class _Finder:
    """The state of the search: nodes by label, and the patterns so far."""

    def __init__(self, graph: CanonicalGraph) -> None:
        self.grower = Grower(graph)
        self.graph = graph
        self.nodes: dict[int, list[Node]] = {}
        for node in self.grower.node_of:
            self.nodes.setdefault(node.label, []).append(node)
        # For each pattern: its label, and the nodes of each occurrence.
        self.patterns: list[tuple[int, list[Node], Region]] = []
        self.next_label = len(graph.label_names)
        # For each label whose nodes may grow: how many would, at most; and which would together, largest
        # group first, where it is known that not all of them do.
        self.waiting: dict[int, int] = {label: len(nodes) for label, nodes in self.nodes.items()}
        self.groups: dict[int, list[list[Node]]] = {}

    def run(self) -> None:
        """Grow until nothing grows, in rounds: what recurs most goes first, to within a factor of 2.

        What becomes able to grow in a round waits for the next one, so that a label is looked at once
        per round and not once per contraction beside one of its nodes.
        """
        while self.waiting:
            floor = max(2, (max(self.waiting.values()) + 1) // 2)
            batch = [label for label, count in self.waiting.items() if count >= floor]
            if not batch:
                break
            work: list[tuple[int, int, list[Node]]] = []
            for label in batch:
                work.append((-self.waiting.pop(label), label, []))
                if label in self.groups:
                    groups = self.groups.pop(label)
                    work[-1:] = [(-len(group), label, group) for group in groups if len(group) >= floor]
            for _, label, group in sorted(work, key=lambda item: item[:2]):
                if group:
                    self._grow([node for node in group if self._is_alive(node)])
                else:
                    self._visit(label, floor)

    def _visit(self, label: int, floor: int) -> None:
        """Grow all nodes of a label; failing that, group them for later."""
        nodes = self.nodes[label] = [node for node in self.nodes[label] if self._is_alive(node)]
        if len(nodes) < floor:
            self.waiting[label] = len(nodes)
        elif not self._grow(nodes):
            groups = self._with_common_neighbours(nodes)
            if groups:
                self.groups[label] = groups
                self.waiting[label] = len(groups[0])

    def _grow(self, nodes: Sequence[Node]) -> bool:
        region = self.grower.grow(nodes) if len(nodes) > 1 else None
        if region is None:
            return False
        for label in self._contract(region):
            self.waiting[label] = len(self.nodes[label])
            self.groups.pop(label, None)
        return True

    def _is_alive(self, node: Node) -> bool:
        return self.grower.node_of[node.tasks[0]] is node

    def _contract(self, region: Region) -> list[int]:
        """Make a pattern of a region; return the labels of its nodes' neighbours, which may now grow."""
        label = self.next_label
        self.next_label += 1
        first = [task for node in region.occurrences[0] for task in node.tasks]
        order = sorted(range(len(first)), key=first.__getitem__)
        contracted: list[Node] = []
        touched = [label]
        for parts in region.occurrences:
            tasks = [task for node in parts for task in node.tasks]
            contracted.append(Node(label, tuple(tasks[position] for position in order)))
        for parts, node in zip(region.occurrences, contracted, strict=True):
            touched += [part.label for part in parts]
            self.grower.contract(node)
        for node in contracted:
            touched += self._neighbour_labels(node)
        self.nodes[label] = contracted
        self.patterns.append((label, contracted, region))
        return touched

    def _neighbour_labels(self, node: Node) -> list[int]:
        node_of = self.grower.node_of
        labels: dict[int, None] = {}
        for task in node.tasks:
            for producer, _ in self.graph.operands[task]:
                if producer >= 0:
                    labels[node_of[producer].label] = None
            for _, _, reader in self.graph.consumers[task]:
                labels[node_of[reader].label] = None
        return list(labels)

    def _with_common_neighbours(self, nodes: Sequence[Node]) -> list[list[Node]]:
        """Return disjoint groups of nodes that have a neighbour in common, most frequent ones first.

        Each node has a neighbour of its own: one that several of the nodes have in the same way
        belongs to none of them, for what feeds many alike ends before them.
        """
        found: dict[tuple[int, ...], dict[tuple[int, ...], list[Node]]] = {}
        for node in nodes:
            for key, other in self._neighbours(node):
                if other.label != node.label:
                    found.setdefault(key, {}).setdefault(other.tasks, []).append(node)
        # A node has at most one neighbour per key, so the nodes of a candidate are distinct.
        candidates = []
        for key, sharing in found.items():
            own = [members[0] for members in sharing.values() if len(members) == 1]
            if len(own) > 1:
                candidates.append((-len(own), key, own))
        taken: set[tuple[int, ...]] = set()
        groups: list[list[Node]] = []
        for _, _, own in sorted(candidates, key=lambda item: item[:2]):
            group = [node for node in own if node.tasks not in taken]
            if len(group) > 1:
                groups.append(group)
                taken.update(node.tasks for node in group)
        return sorted(groups, key=len, reverse=True)

    def _neighbours(self, node: Node) -> list[tuple[tuple[int, ...], Node]]:
        """Return the neighbours of a node, each with how it is wired to it; unique ones only."""
        node_of, offset = self.grower.node_of, self.grower.offset
        found: dict[tuple[int, ...], list[Node]] = {}
        for own, task in enumerate(node.tasks):
            for slot, (producer, output) in enumerate(self.graph.operands[task]):
                if producer >= 0 and node_of[producer] is not node:
                    key = (0, own, slot, output, node_of[producer].label, offset[producer])
                    found.setdefault(key, []).append(node_of[producer])
            for output, slot, reader in self.graph.consumers[task]:
                if node_of[reader] is not node:
                    key = (1, own, slot, output, node_of[reader].label, offset[reader])
                    found.setdefault(key, []).append(node_of[reader])
        return [(key, others[0]) for key, others in found.items() if len(others) == 1]


def _named(
    graph: CanonicalGraph, found: Sequence[tuple[int, list[Node], Region]]
) -> tuple[Pattern, ...]:
    """Turn the findings into patterns over task ids, inner ones first."""
    level_of: dict[int, int] = {}
    for label, _, region in found:
        level_of[label] = 1 + max(level_of.get(node.label, 0) for node in region.occurrences[0])
    ordered = sorted(found, key=lambda item: (level_of[item[0]], item[1][0].tasks))
    index_of = {label: index for index, (label, _, _) in enumerate(ordered)}
    patterns: list[Pattern] = []
    for label, nodes, region in ordered:
        place = {task: position for position, task in enumerate(nodes[0].tasks)}
        parts = [
            Part(index_of.get(node.label), tuple(place[task] for task in node.tasks))
            for node in region.occurrences[0]
        ]
        patterns.append(
            Pattern(
                labels=tuple(graph.label_names[graph.labels[task]] for task in nodes[0].tasks),
                occurrences=tuple(
                    tuple(graph.task_of[task] for task in node.tasks)
                    for node in sorted(nodes, key=lambda node: node.tasks)
                ),
                parts=tuple(sorted(parts, key=lambda part: part.positions)),
                level=level_of[label],
            )
        )
    return tuple(patterns)
