"""Patterns for people: a tree with counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..scheduling.graph import TaskGraph
from ..wording import counted
from .hierarchy import PatternHierarchy, check_same_graph

_SHOWN_KINDS = 4


def describe_patterns(graph: TaskGraph, hierarchy: PatternHierarchy) -> str:
    """Return the patterns as a tree with counts, outermost first, each pattern spelt out once.

    Counts on the first level are of the whole graph, below it of one occurrence of what they lie in.
    Kernels that recur alone follow last: below the tasks that lie in no pattern, those of their kernels
    that have other tasks, there or in patterns.

    Raises
    ------
    ProblemError
        If the hierarchy was made for another graph.
    """
    check_same_graph(graph, hierarchy)
    kernels = counted(hierarchy.num_kernels, "kernel")
    found = counted(len(hierarchy.patterns), "pattern")
    lines = [f"{graph.name}: {counted(graph.num_tasks, 'task')} of {kernels}, {found}"]
    counts: dict[int, int] = {}
    for pattern, _ in hierarchy.outermost:
        counts[pattern] = counts.get(pattern, 0) + 1
    spelt: set[int] = set()
    outside = hierarchy.tasks_outside
    for position, (index, count) in enumerate(counts.items()):
        last = not outside and position == len(counts) - 1
        lines += _branch(_pattern_lines(graph, hierarchy, index, count, spelt), last=last)
    if outside:
        lines += _branch(_outside_lines(graph, hierarchy), last=True)
    return "\n".join(lines)


def _outside_lines(graph: TaskGraph, hierarchy: PatternHierarchy) -> list[str]:
    outside = hierarchy.tasks_outside
    lines = [f"{counted(len(outside), 'task')} in no pattern: {_summary(graph, outside)}"]
    alone = set(outside)
    recurring = [tasks for tasks in hierarchy.recurring_kernels if not alone.isdisjoint(tasks)]
    for position, tasks in enumerate(recurring):
        count = sum(task in alone for task in tasks)
        counts = _counts(graph, [(task,) for task in tasks], count, "")
        kind = task_kind(graph, tasks[0])
        lines += _branch([f"{kind} {counts}"], last=position == len(recurring) - 1)
    return lines


def _counts(graph: TaskGraph, occurrences: Sequence[Sequence[int]], count: int, size: str) -> str:
    """Return how often something occurs, here and in all, of what size, and how often in a row."""
    total = f", {len(occurrences)} in all" if len(occurrences) != count else ""
    run = _longest_run(graph, occurrences)
    return f"x {count}{total}{size}" + (f", up to {run} in a row" if run > 1 else "")


def _pattern_lines(
    graph: TaskGraph, hierarchy: PatternHierarchy, index: int, count: int, spelt: set[int]
) -> list[str]:
    pattern = hierarchy.patterns[index]
    size = f": {counted(pattern.num_tasks, 'task')}"
    head = f"P{index} {_counts(graph, pattern.occurrences, count, size)}"
    if index in spelt:
        return [head + " (see above)"]
    spelt.add(index)
    children: dict[int, int] = {}
    plain: list[int] = []
    for part in pattern.parts:
        if part.pattern is None:
            plain.append(pattern.occurrences[0][part.positions[0]])
        else:
            children[part.pattern] = children.get(part.pattern, 0) + 1
    if not children:
        return [f"{head}: {_summary(graph, plain)}"]
    lines = [head]
    for position, (child, times) in enumerate(children.items()):
        last = not plain and position == len(children) - 1
        lines += _branch(_pattern_lines(graph, hierarchy, child, times, spelt), last=last)
    if plain:
        lines += _branch([f"{counted(len(plain), 'task')}: {_summary(graph, plain)}"], last=True)
    return lines


def _branch(lines: Sequence[str], *, last: bool) -> Iterator[str]:
    yield ("└─ " if last else "├─ ") + lines[0]
    for line in lines[1:]:
        yield ("   " if last else "│  ") + line


def task_kind(graph: TaskGraph, task: int) -> str:
    """Return the kinds of operators of a task, the first of many."""
    kinds = graph.tasks[task].op_kinds
    return "+".join(kinds[:_SHOWN_KINDS]) + ("+..." if len(kinds) > _SHOWN_KINDS else "") or "kernel"


def _summary(graph: TaskGraph, tasks: Sequence[int]) -> str:
    counts: dict[str, int] = {}
    for task in tasks:
        counts[task_kind(graph, task)] = counts.get(task_kind(graph, task), 0) + 1
    return ", ".join(kind if count == 1 else f"{count} {kind}" for kind, count in counts.items())


def _longest_run(graph: TaskGraph, occurrences: Sequence[Sequence[int]]) -> int:
    """Return a longest chain of occurrences of which each feeds the next directly.

    Counted along the edges by destination; an occurrence counts as fed by what has fed it so far.
    """
    member = {task: index for index, row in enumerate(occurrences) for task in row}
    run = [1] * len(occurrences)
    for edge in sorted(graph.edges, key=lambda edge: edge.dst):
        before, after = member.get(edge.src), member.get(edge.dst)
        if before is not None and after is not None and before != after:
            run[after] = max(run[after], run[before] + 1)
    return min(max(run), len(occurrences))
