"""``tvm-sphinx explain``: what runs where in a compiled model, and why."""

from __future__ import annotations

import argparse
from typing import Any

from .files import check_writable, write_text


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "explain",
        help="show what runs where in a compiled model, and what its critical path waits for",
        description="Print the placement that 'tvm-sphinx compile' found; with --run also a run of it.",
    )
    parser.add_argument("FILE", help="the program")
    parser.add_argument("--run", action="store_true", dest="traced", help="run it once and print when")
    parser.add_argument("--timeline", metavar="OUT.html", help="run it and draw when (.html, .svg)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    check_writable(args.timeline)
    from ..compiled import CompiledModel
    from ..report.timeline import timeline_html, timeline_svg, timeline_text

    compiled = CompiledModel.load(args.FILE)
    print(compiled.describe(verbose=True))
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
