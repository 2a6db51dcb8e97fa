"""Patterns drawn as SVG or HTML: tasks from top to bottom, with a box round each occurrence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from ..scheduling.graph import TaskGraph
from .describe import describe_patterns, task_kind
from .dot import pattern_fill
from .hierarchy import PatternHierarchy, check_same_graph

# Sizes in pixels.
_LETTER, _NODE_HEIGHT, _GAP, _PAD, _TITLE = 6.2, 18.0, 10.0, 7.0, 14.0


@dataclass
class _Box:
    """A task, or an occurrence with boxes inside it; ``x`` and ``y`` are relative to the box around."""

    tasks: tuple[int, ...]
    pattern: int | None
    inner: list[_Box]
    width: float = 0.0
    height: float = 0.0
    x: float = 0.0
    y: float = 0.0


def patterns_svg(
    graph: TaskGraph, hierarchy: PatternHierarchy, fills: Sequence[str] | None = None
) -> str:
    """Return the task graph as SVG, with a box round each occurrence of each pattern.

    Boxes of one pattern have one colour and nest as the patterns do. Each box is laid out by itself, in
    layers by the longest path from its first tasks (Sugiyama, Tagawa and Toda, 1981, with one sweep of
    barycentres), so that like occurrences look alike. Hovering over a task gives its name. ``fills``
    are colours of the tasks, such as those of their devices; the boxes are then grey.

    Raises
    ------
    ProblemError
        If the hierarchy was made for another graph.
    """
    check_same_graph(graph, hierarchy)
    root = _nested(graph, hierarchy)
    shapes: list[str] = []
    places: dict[int, tuple[float, float]] = {}
    for box in root.inner:
        _draw(graph, box, 0.0, 0.0, shapes, places, fills)
    lines = [
        f'<path d="M{x:.1f} {y + _NODE_HEIGHT:.1f}L{u:.1f} {v:.1f}"/>'
        for (x, y), (u, v) in ((places[edge.src], places[edge.dst]) for edge in graph.edges)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{root.width:.0f}" height="{root.height:.0f}" '
        f'viewBox="0 0 {root.width:.0f} {root.height:.0f}" font-family="sans-serif" font-size="10">\n'
        f"<title>{escape(graph.name)}</title>\n"
        + "\n".join([*shapes, '<g stroke="#0006" fill="none">', *lines, "</g>", "</svg>", ""])
    )


def patterns_html(graph: TaskGraph, hierarchy: PatternHierarchy) -> str:
    """Return a page, complete in itself, with the tree of the patterns and their drawing.

    Raises
    ------
    ProblemError
        If the hierarchy was made for another graph.
    """
    tree = escape(describe_patterns(graph, hierarchy))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>Patterns of {escape(graph.name)}</title></head>\n"
        f'<body style="font-family:sans-serif"><h1>Patterns of {escape(graph.name)}</h1>\n'
        f"<pre>{tree}</pre>\n{patterns_svg(graph, hierarchy)}</body></html>\n"
    )


def _nested(graph: TaskGraph, hierarchy: PatternHierarchy) -> _Box:
    """Return the box of the whole graph, laid out."""
    rank = {task: position for position, task in enumerate(hierarchy.canonical_order)}
    inner = [
        _occurrence(graph, hierarchy, index, hierarchy.patterns[index].occurrences[number], rank)
        for index, number in hierarchy.outermost
    ]
    inner += [_leaf(graph, task) for task in hierarchy.tasks_outside]
    return _laid_out(graph, _Box(tuple(range(graph.num_tasks)), None, inner), rank)


def _leaf(graph: TaskGraph, task: int) -> _Box:
    return _Box((task,), None, [], 12 + _LETTER * len(task_kind(graph, task)), _NODE_HEIGHT)


def _occurrence(
    graph: TaskGraph,
    hierarchy: PatternHierarchy,
    index: int,
    tasks: Sequence[int],
    rank: Mapping[int, int],
) -> _Box:
    inner = []
    for part in hierarchy.patterns[index].parts:
        members = [tasks[position] for position in part.positions]
        if part.pattern is None:
            inner.append(_leaf(graph, members[0]))
        else:
            inner.append(_occurrence(graph, hierarchy, part.pattern, members, rank))
    return _laid_out(graph, _Box(tuple(tasks), index, inner), rank)


def _laid_out(graph: TaskGraph, box: _Box, rank: Mapping[int, int]) -> _Box:
    """Place the inner boxes in layers, and set the size of the box.

    An occurrence may leave its box and come back; edges that would run upwards are left out here.
    """
    box.inner.sort(key=lambda inner: min(rank[task] for task in inner.tasks))
    box_of = {task: number for number, inner in enumerate(box.inner) for task in inner.tasks}
    layers: list[list[int]] = []
    layer_of: list[int] = []
    feeders: list[list[int]] = []
    for number, inner in enumerate(box.inner):
        sources = {
            box_of[source]
            for task in inner.tasks
            for source in graph.predecessors[task]
            if source in box_of
        }
        feeders.append([source for source in sources if source < number])
        layer_of.append(max((layer_of[source] + 1 for source in feeders[-1]), default=0))
        if layer_of[-1] == len(layers):
            layers.append([])
        layers[layer_of[-1]].append(number)
    widths = [sum(box.inner[n].width for n in row) + _GAP * (len(row) - 1) for row in layers]
    title = 0.0 if box.pattern is None else _TITLE
    box.width = max([*widths, 4 * _LETTER]) + 2 * _PAD
    top = _PAD + title
    centre: dict[int, float] = {}
    for row, width in zip(layers, widths, strict=True):
        row.sort(key=lambda n: sum(centre[f] for f in feeders[n]) / max(1, len(feeders[n])))
        left = (box.width - width) / 2
        for number in row:
            inner = box.inner[number]
            inner.x, inner.y = left, top
            centre[number] = left + inner.width / 2
            left += inner.width + _GAP
        top += max(box.inner[number].height for number in row) + _GAP
    box.height = (top - _GAP if layers else top) + _PAD
    return box


def _draw(
    graph: TaskGraph,
    box: _Box,
    left: float,
    top: float,
    shapes: list[str],
    places: dict[int, tuple[float, float]],
    fills: Sequence[str] | None,
) -> None:
    """Append the shapes of a box, outer ones first; note the top centre of each task."""
    x, y = left + box.x, top + box.y
    if box.pattern is None:
        fill = "#fff" if fills is None else fills[box.tasks[0]]
    else:
        fill = pattern_fill(box.pattern) if fills is None else "#f2f2f2"
    rectangle = (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" rx="4" '
        f'fill="{fill}" stroke="#888"/>'
    )
    if not box.inner:
        (task,) = box.tasks
        middle = x + box.width / 2
        places[task] = (middle, y)
        shapes.append(
            f'<g class="task"><title>{escape(graph.tasks[task].name)}</title>{rectangle}'
            f'<text x="{middle:.1f}" y="{y + 12.5:.1f}" text-anchor="middle">'
            f"{escape(task_kind(graph, task))}</text></g>"
        )
        return
    shapes.append(
        f'<g class="occurrence">{rectangle}'
        f'<text x="{x + 4:.1f}" y="{y + 11:.1f}">P{box.pattern}</text></g>'
    )
    for inner in box.inner:
        _draw(graph, inner, x, y, shapes, places, fills)
