"""``tvm-sphinx perf``: a model beside every single device, the stock VM and ONNX Runtime, in turn."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SphinxError
from ..report.text import format_table
from .compile import add_model_arguments, chosen_platform
from .durations import parse_duration
from .inputs import input_options
from .limits import add_limit_arguments, check_count, check_of_program, limit_options
from .output import add_json_argument, print_json, style
from .progress import ProgressLine

if TYPE_CHECKING:
    from ..program.compiled import CompiledModel
    from ..program.perf import Timing


def add_parser(subparsers: Any, help_line: str) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "perf",
        help=help_line,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=(
            "Run a model's schedule, its builds for every single device, its schedule on TVM's virtual\n"
            "machine, and ONNX Runtime where it is installed, in turn on the same inputs. FILE is a\n"
            "model, or a program that 'tvm-sphinx compile -o' wrote, with --variants for all of these."
        ),
        epilog=(
            "examples:\n"
            "  tvm-sphinx perf model.onnx\n"
            "  tvm-sphinx perf model.onnx --platform unlike-cpus --json > perf.json\n"
            "  tvm-sphinx perf model.sphinx --model model.onnx"
        ),
    )
    add_model_arguments(parser)
    add_limit_arguments(parser)
    parser.add_argument("--model", metavar="FILE.onnx", help="of a program: its model, for ONNX Runtime")
    parser.add_argument("--repeat", type=int, default=20, help="rounds; default: 20")
    parser.add_argument("--number", type=int, help="runs of each in a round; default: by their time")
    parser.add_argument(
        "--time-limit", default="30s", metavar="TIME", help="begin no round later; default: 30s"
    )
    parser.add_argument("--threads", type=int, help="of ONNX Runtime; default: the platform's cores")
    parser.add_argument("--seed", type=int, default=0, help="seed of the inputs; default: 0")
    parser.add_argument("-q", "--quiet", action="store_true", help="print no progress")
    add_json_argument(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    for name in ("repeat", "number", "threads"):
        check_count(getattr(args, name), f"--{name}")
    limit_s = parse_duration(args.time_limit, "--time-limit")
    from ..frontend.model_source import is_model
    from ..program.perf import model_inputs, open_contenders, time_in_turn, verdict

    progress = ProgressLine(quiet=args.quiet)
    if is_model(args.FILE):
        if args.model is not None:
            raise SphinxError(f"Expected --model with a program alone; {args.FILE!r} is a model itself.")
        compiled, source = _compiled(args, progress)
    else:
        from ..program.compiled import CompiledModel

        check_of_program(args)
        if args.model is not None and not Path(args.model).is_file():
            raise SphinxError(f"No such model file {args.model!r}; --model is the program's ONNX file.")
        compiled, source = CompiledModel.load(args.FILE), args.model and Path(args.model)
    cores = {core for device in compiled.platform.devices for core in device.cores}
    runners, missing = open_contenders(compiled, source, args.threads or max(1, len(cores)))
    timings = time_in_turn(
        runners,
        model_inputs(compiled, args.seed),
        rounds=args.repeat,
        number=args.number,
        limit_s=limit_s,
        progress=progress,
    )
    told = verdict(timings)
    if args.json:
        rows = [timing.to_json() for timing in timings]
        content = {"contenders": rows, "verdict": told, "missing": missing, "note": compiled.note}
        print_json({"model": args.FILE, "summary": compiled.summary(), **content})
        return 0
    print(format_timings(timings))
    for text in missing:
        print(style(f"not timed: {text}", "dim"))
    if compiled.note:
        print(compiled.note)
    print(style(told, "bold"))
    return 0


def _compiled(args: argparse.Namespace, progress: ProgressLine) -> tuple[CompiledModel, Any]:
    """Compile a model with all that it is to be compared with; return it, and its ONNX model."""
    from ..frontend.load import read_source
    from ..pipeline import compile

    inputs = input_options(args)
    source = read_source(args.FILE)
    compiled = compile(
        source,
        chosen_platform(args),
        **inputs,
        function=args.entry,
        records=args.records,
        variants=True,
        verify=False,
        progress=progress,
        **limit_options(args),
    )
    if source.kind != "onnx":
        return compiled, None
    return compiled, source.path or source.model


def format_timings(timings: list[Timing]) -> str:
    """Return a table of times in ms, runs a second, and the difference from our outputs."""
    head = ("", "p50 ms", "p90", "p95", "p99", "min", "spread", "first", "runs/s", "difference")
    rows: list[tuple[str, ...]] = [head]
    for timing in timings:
        told = timing.to_json()
        times = [f"{told[f'p{q}_ms']:.3f}" for q in (50, 90, 95, 99)]
        rows.append(
            (
                timing.name,
                *times,
                f"{told['min_ms']:.3f}",
                f"{told['spread']:.1%}",
                f"{told['first_ms']:.1f}",
                f"{told['runs_per_s']:.0f}",
                f"{timing.difference:.1g}",
            )
        )
    return format_table(rows)
