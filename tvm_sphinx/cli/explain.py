"""``tvm-sphinx explain``: what runs where in a compiled model and why, and what recurs in any model."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SphinxError, UnsupportedError
from ..platform import NAMED_PLATFORMS
from ..report.files import check_writable, write_text
from .compile import parse_input_shapes

if TYPE_CHECKING:
    from ..scheduling.graph import TaskGraph

_DRAWINGS = (".svg", ".html", ".dot")


def add_parser(subparsers: Any, help_line: str) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "explain",
        help=help_line,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=(
            "Print the placement that 'tvm-sphinx compile' found, and the subgraphs that recur as a\n"
            "tree with counts; with --run also a run of it. Of a model file, which is not compiled,\n"
            "print what recurs."
        ),
    )
    parser.add_argument(
        "FILE", help="the program, or a .onnx, .pt2 or .json model file, or the name of a demo model"
    )
    parser.add_argument("--run", action="store_true", dest="traced", help="run it once and print when")
    parser.add_argument("--timeline", metavar="OUT.html", help="run it and draw when (.html, .svg)")
    parser.add_argument(
        "--patterns", metavar="OUT.svg", help="draw what recurs (.svg, .html, or .dot for Graphviz)"
    )
    parser.add_argument(
        "--look-through-shapes",
        action="store_true",
        help="patterns of operators: blocks also match where they have other widths",
    )
    parser.add_argument(
        "--platform",
        default="detect",
        help=f"of a model file, for its layouts: a platform file (TOML), or one of "
        f"{', '.join(NAMED_PLATFORMS)}; default: detect",
    )
    parser.add_argument("--input-shapes", help="of an ONNX file, as for compile: 'x:[1,3],y:[1]'")
    parser.add_argument("--entry", help="of a model file: its function; default: main, or the only one")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    check_writable(args.timeline)
    check_writable(args.patterns)
    if args.patterns and Path(args.patterns).suffix not in _DRAWINGS:
        raise SphinxError(
            f"Expected --patterns to end in one of: {', '.join(_DRAWINGS)}; got {args.patterns!r}."
        )
    from ..frontend.load import is_model

    return _explain_model(args) if is_model(args.FILE) else _explain_program(args)


def _explain_program(args: argparse.Namespace) -> int:
    from ..program.compiled import CompiledModel
    from ..report.timeline import timeline_html, timeline_svg, timeline_text

    compiled = CompiledModel.load(args.FILE)
    print(compiled.describe(verbose=True))
    if compiled.graph is not None:
        print()
        print(_patterns(args, compiled.graph))
    elif args.patterns:
        raise UnsupportedError(f"{args.FILE!r} holds no task graph to draw.")
    if not args.traced and not args.timeline:
        return 0
    inputs = compiled.random_inputs()
    compiled.run(inputs)  # the first run touches code and memory for the first time
    _, trace = compiled.run_traced(inputs)
    print()
    print(timeline_text(trace))
    if args.timeline:
        is_svg = args.timeline.endswith(".svg")
        write_text(args.timeline, timeline_svg(trace) if is_svg else timeline_html(trace, args.FILE))
        print(f"wrote                {args.timeline}")
    return 0


def _explain_model(args: argparse.Namespace) -> int:
    if args.traced or args.timeline:
        raise SphinxError(
            f"Expected a program that 'tvm-sphinx compile' wrote, to run it; "
            f"got the model {args.FILE!r}."
        )
    from ..frontend.model_graph import extract_graph
    from ..platform import load_platform

    platform = load_platform(args.platform)
    shapes = parse_input_shapes(args.input_shapes)
    graph = extract_graph(args.FILE, platform, input_shapes=shapes, function=args.entry)
    graph = replace(graph, name=Path(args.FILE).stem)
    print(_patterns(args, graph))
    return 0


def _patterns(args: argparse.Namespace, graph: TaskGraph) -> str:
    """Return the tree of the patterns; write their drawing, if one is asked for."""
    from ..patterns import (
        describe_patterns,
        find_patterns,
        operator_labels,
        patterns_dot,
        patterns_html,
        patterns_svg,
    )

    labels = operator_labels(graph) if args.look_through_shapes else None
    hierarchy = find_patterns(graph, labels)
    tree = describe_patterns(graph, hierarchy)
    if not args.patterns:
        return tree
    draw = {".svg": patterns_svg, ".html": patterns_html, ".dot": patterns_dot}
    write_text(args.patterns, draw[Path(args.patterns).suffix](graph, hierarchy))
    return f"{tree}\nwrote                {args.patterns}"
