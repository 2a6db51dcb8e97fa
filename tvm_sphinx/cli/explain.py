"""``tvm-sphinx explain``: what runs where in a compiled model and why, and what recurs in any model."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SphinxError, UnsupportedError
from ..platform import NAMED_PLATFORMS
from ..report.files import check_writable, write_text
from .explain_files import (
    OUTPUTS,
    check_output_forms,
    needs_decision,
    patterns_text,
    timeline_of,
    write_outputs,
)
from .inputs import add_input_arguments, input_options
from .limits import check_of_program
from .output import add_json_argument, print_json

if TYPE_CHECKING:
    from ..program.compiled import CompiledModel
    from ..report.decision import Decision
    from ..runtime.trace import Trace
    from ..scheduling.graph import TaskGraph


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
        epilog=(
            "examples:\n"
            "  tvm-sphinx explain model.sphinx --html report.html   everything, on one page\n"
            "  tvm-sphinx explain model.sphinx --why 'Conv_12'      why there, what else would cost\n"
            "  tvm-sphinx explain model.sphinx --schedule s.json    for compile --fix-schedule\n"
            "  tvm-sphinx explain model.onnx --patterns what.svg    what recurs"
        ),
    )
    parser.add_argument(
        "FILE", help="the program, or a .onnx, .pt2 or .json model file, or the name of a demo model"
    )
    parser.add_argument(
        "--why",
        metavar="TASK",
        action="append",
        help="why a task lies where it lies: its number, its name, or that of an operator of the model",
    )
    parser.add_argument("--run", action="store_true", dest="traced", help="run it once and print when")
    for option, (metavar, told) in OUTPUTS.items():
        parser.add_argument(f"--{option}", metavar=metavar, help=told)
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
    add_input_arguments(parser)
    parser.add_argument("--entry", help="of a model file: its function; default: main, or the only one")
    add_json_argument(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    for option in OUTPUTS:
        check_writable(getattr(args, option), besides=args.FILE)
    check_output_forms(args)
    from ..frontend.model_source import is_model

    return _explain_model(args) if is_model(args.FILE) else _explain_program(args)


def _explain_program(args: argparse.Namespace) -> int:
    from ..program.compiled import CompiledModel

    check_of_program(args)
    compiled = CompiledModel.load(args.FILE)
    decision = compiled.decision
    if decision is None and (args.why or needs_decision(args)):
        note = compiled.note or "Compile it again."
        raise UnsupportedError(f"{args.FILE!r} holds no schedule that could be explained. {note}")
    trace, not_measured = _traced(args, compiled)
    if args.why and decision is not None and compiled.graph is not None:
        _print_reasons(args, decision, compiled.graph)
    elif args.json:
        print_json({"program": args.FILE, **compiled.to_json(), **_grounds(decision, trace)})
    elif not needs_decision(args):
        print(compiled.describe(verbose=True))
        if compiled.graph is not None:
            print(f"\n{patterns_text(args, compiled.graph)}")
    if compiled.graph is None and args.patterns:
        raise UnsupportedError(f"{args.FILE!r} holds no task graph to draw.")
    if trace is not None and (args.traced or args.timeline) and not args.json:
        print(f"\n{timeline_of(trace)}")
    for path in write_outputs(args, compiled, trace, not_measured):
        if not args.json:
            print(f"wrote                {path}")
    return 0


def _traced(args: argparse.Namespace, compiled: CompiledModel) -> tuple[Trace | None, str]:
    """Return the trace of a run, if one is wanted, or why there is none."""
    must = args.traced or args.timeline or args.trace
    if not must and not args.html and not args.plot:
        return None, "It was not run."
    try:
        inputs = compiled.random_inputs()
        compiled.run(inputs)  # the first run touches code and memory for the first time
        traces = [compiled.run_traced(inputs)[1] for _ in range(5)]
    except SphinxError as error:
        if must:
            raise
        return None, f"It cannot be run and traced here: {error}"
    return sorted(traces, key=lambda trace: trace.makespan_ns)[len(traces) // 2], ""


def _grounds(decision: Decision | None, trace: Trace | None) -> dict[str, Any]:
    """Return decision and trace for machines."""
    told: dict[str, Any] = {"decision": None if decision is None else decision.to_json()}
    if trace is not None:
        steps = [vars(step) for step in trace.steps]
        told["trace"] = {"makespan_ns": trace.makespan_ns, "devices": trace.devices, "steps": steps}
    return told


def _print_reasons(args: argparse.Namespace, decision: Decision, graph: TaskGraph) -> None:
    from ..report.why import explain_tasks, format_reasons

    found = [reasons for wanted in args.why for reasons in explain_tasks(decision, graph, wanted)]
    if args.json:
        print_json({"program": args.FILE, "tasks": [reasons.to_json() for reasons in found]})
        return
    print("\n\n".join(format_reasons(reasons, decision) for reasons in found))


def _explain_model(args: argparse.Namespace) -> int:
    if args.traced or args.why or needs_decision(args):
        raise SphinxError(
            f"Expected a program that 'tvm-sphinx compile' wrote, to run or explain it; "
            f"got the model {args.FILE!r}."
        )
    from ..frontend.model_graph import extract_graph
    from ..platform import load_platform

    inputs = input_options(args)
    platform = load_platform(args.platform)
    graph = extract_graph(args.FILE, platform, function=args.entry, **inputs)
    graph = replace(graph, name=Path(args.FILE).stem)
    if args.json:
        print_json(graph.to_json())
    else:
        print(patterns_text(args, graph))
    if args.patterns:
        from .explain_files import draw_patterns

        write_text(args.patterns, draw_patterns(args.patterns, graph, args.look_through_shapes))
        if not args.json:
            print(f"wrote                {args.patterns}")
    return 0
