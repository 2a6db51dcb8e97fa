"""The files that ``tvm-sphinx explain`` writes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SphinxError
from ..report.files import write_text

if TYPE_CHECKING:
    from ..patterns import PatternHierarchy
    from ..program.compiled import CompiledModel
    from ..runtime.trace import Trace
    from ..scheduling.graph import TaskGraph

#: Options that name a file: what stands for it in the help, and what it is.
OUTPUTS = {
    "html": ("OUT.html", "everything on one page: timeline, graph, tasks, alternatives, bounds"),
    "timeline": ("OUT.html", "run it and draw when (.html, .svg)"),
    "trace": ("OUT.json", "run it and write its events, for Perfetto (ui.perfetto.dev)"),
    "graph": ("OUT.svg", "draw the task graph coloured by device (.svg, or .dot for Graphviz)"),
    "patterns": ("OUT.svg", "draw what recurs (.svg, .html, or .dot for Graphviz)"),
    "schedule": ("OUT.json", "write the schedule, for 'compile --fix-schedule' and 'check'"),
    "problem": ("OUT.json", "write the scheduling problem, for 'search' and 'check'"),
    "plot": ("OUT.png", "draw the timeline with matplotlib (.png, .pdf, .svg)"),
}
_FORMS = {
    "html": (".html", ".htm"),
    "timeline": (".html", ".svg"),
    "graph": (".svg", ".dot"),
    "patterns": (".svg", ".html", ".dot"),
    "plot": (".png", ".pdf", ".svg"),
}
# Those that can be had of a program alone.
_OF_PROGRAMS = ("html", "timeline", "trace", "graph", "schedule", "problem", "plot")


def check_output_forms(args: argparse.Namespace) -> None:
    """Check the suffixes of files whose form they give.

    Raises
    ------
    SphinxError
        If one is unknown.
    """
    for option, suffixes in _FORMS.items():
        path = getattr(args, option)
        if path and Path(path).suffix not in suffixes:
            raise SphinxError(
                f"Expected --{option} to end in one of: {', '.join(suffixes)}; got {path!r}."
            )


def needs_decision(args: argparse.Namespace) -> bool:
    """Return whether a file is asked for that only a program has."""
    return any(getattr(args, option) for option in _OF_PROGRAMS)


def timeline_of(trace: Trace) -> str:
    """Return a run as text."""
    from ..report.timeline import timeline_text

    return timeline_text(trace)


def write_outputs(
    args: argparse.Namespace, compiled: CompiledModel, trace: Trace | None, not_measured: str
) -> Iterator[str]:
    """Write each file that was asked for, and yield its name."""
    decision, graph = compiled.decision, compiled.graph
    if args.timeline and trace is not None:
        from ..report.timeline import timeline_html, timeline_svg

        is_svg = args.timeline.endswith(".svg")
        text = timeline_svg(trace) if is_svg else timeline_html(trace, args.FILE)
        write_text(args.timeline, text)
        yield args.timeline
    if args.trace and trace is not None:
        write_text(args.trace, trace.to_chrome())
        yield args.trace
    if graph is not None and args.patterns:
        write_text(args.patterns, draw_patterns(args.patterns, graph, args.look_through_shapes))
        yield args.patterns
    if decision is None or graph is None:
        return
    if args.html:
        write_text(args.html, html_page(args.FILE, compiled, trace, not_measured))
        yield args.html
    if args.graph:
        write_text(args.graph, draw_graph(args.graph, compiled))
        yield args.graph
    if args.schedule:
        told = {**decision.schedule.to_json(), "algorithm": decision.algorithm}
        write_text(args.schedule, json.dumps(told) + "\n")
        yield args.schedule
    if args.problem:
        from ..scheduling.problem_file import write_problem

        write_problem(decision.problem, args.problem)
        yield args.problem
    if args.plot:
        from ..report.plot import plot_schedule

        plot_schedule(decision, args.plot, trace)
        yield args.plot


def html_page(title: str, compiled: CompiledModel, trace: Trace | None, not_measured: str) -> str:
    """Return the page of a compiled model."""
    from ..report.html import report_content, report_page

    assert compiled.decision is not None
    assert compiled.graph is not None
    told = list(compiled.verification.describe()) if compiled.verification is not None else []
    if compiled.pruning is not None:
        told.append(("search space", compiled.pruning.describe()))
    if compiled.note:
        told.append(("note", compiled.note))
    return report_page(
        report_content(
            compiled.decision,
            compiled.graph,
            Path(title).name,
            compiled.summary(),
            trace=trace,
            not_measured=not_measured,
            told=told,
        )
    )


def draw_graph(path: str, compiled: CompiledModel) -> str:
    """Return the task graph with a colour for each device."""
    from ..patterns import find_patterns, patterns_dot, patterns_svg
    from ..patterns.dot import pattern_fill

    assert compiled.decision is not None
    assert compiled.graph is not None
    fills = [pattern_fill(device) for device in compiled.decision.schedule.device.tolist()]
    draw = patterns_dot if path.endswith(".dot") else patterns_svg
    return draw(compiled.graph, find_patterns(compiled.graph), fills)


def patterns_text(args: argparse.Namespace, graph: TaskGraph) -> str:
    """Return the tree of the patterns."""
    from ..patterns import describe_patterns

    return describe_patterns(graph, _patterns(graph, args.look_through_shapes))


def draw_patterns(path: str, graph: TaskGraph, look_through_shapes: bool) -> str:
    """Return the drawing of what recurs, in the form of the file's suffix."""
    from ..patterns import patterns_dot, patterns_html, patterns_svg

    draw = {".svg": patterns_svg, ".html": patterns_html, ".dot": patterns_dot}
    return draw[Path(path).suffix](graph, _patterns(graph, look_through_shapes))


def _patterns(graph: TaskGraph, look_through_shapes: bool) -> PatternHierarchy:
    from ..patterns import find_patterns, operator_labels

    return find_patterns(graph, operator_labels(graph) if look_through_shapes else None)
