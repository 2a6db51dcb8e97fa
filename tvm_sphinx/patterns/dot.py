"""Patterns drawn in Graphviz's DOT language."""

from __future__ import annotations

from collections.abc import Sequence

from ..scheduling.graph import TaskGraph
from .describe import task_kind
from .hierarchy import PatternHierarchy, check_same_graph

#: Pattern fills of the drawing, in turn; readable under black text (ColorBrewer Pastel1).
_FILLS = ("#fbb4ae", "#b3cde3", "#ccebc5", "#decbe4", "#fed9a6", "#ffffcc", "#e5d8bd", "#fddaec")


def patterns_dot(
    graph: TaskGraph, hierarchy: PatternHierarchy, fills: Sequence[str] | None = None
) -> str:
    """Return a drawing in Graphviz's DOT language: tasks, with a box round each occurrence.

    Boxes of one pattern have one colour; boxes nest as the patterns do. ``fills`` are colours of the
    tasks, such as those of their devices.

    Raises
    ------
    ProblemError
        If the hierarchy was made for another graph.
    """
    check_same_graph(graph, hierarchy)
    lines = [
        f"digraph {_quoted(graph.name)} {{",
        '  node [shape=box, style="rounded,filled", fillcolor=white];',
    ]
    for index, number in hierarchy.outermost:
        lines += _box(graph, hierarchy, index, hierarchy.patterns[index].occurrences[number], 1)
    lines += [_node(graph, task, 1) for task in hierarchy.tasks_outside]
    lines += [f"  t{edge.src} -> t{edge.dst};" for edge in graph.edges]
    lines += [f'  t{task} [fillcolor="{fill}"];' for task, fill in enumerate(fills or ())]
    return "\n".join([*lines, "}", ""])


def _box(
    graph: TaskGraph, hierarchy: PatternHierarchy, index: int, tasks: Sequence[int], depth: int
) -> list[str]:
    pad = "  " * depth
    fill = pattern_fill(index)
    # A task is in one occurrence of a pattern only, so these names are unique.
    lines = [f"{pad}subgraph cluster_{index}_{tasks[0]} {{"]
    lines.append(f'{pad}  label="P{index}"; style=filled; fillcolor="{fill}";')
    for part in hierarchy.patterns[index].parts:
        inner = [tasks[position] for position in part.positions]
        if part.pattern is None:
            lines.append(_node(graph, inner[0], depth + 1))
        else:
            lines += _box(graph, hierarchy, part.pattern, inner, depth + 1)
    return [*lines, f"{pad}}}"]


def _node(graph: TaskGraph, task: int, depth: int) -> str:
    return f"{'  ' * depth}t{task} [label={_quoted(task_kind(graph, task))}];"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def pattern_fill(index: int) -> str:
    """Return the colour of a pattern in drawings."""
    return _FILLS[index % len(_FILLS)]
