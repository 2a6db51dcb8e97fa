"""``tvm-sphinx tune``: search for faster kernels of a model where its time is."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from ..errors import SphinxError
from ..platform import NAMED_PLATFORMS
from ..report.text import format_ns, format_table
from .durations import optional_duration
from .inputs import add_input_arguments, input_options
from .output import add_json_argument, print_json
from .parser import names_of
from .progress import ProgressLine

if TYPE_CHECKING:
    from ..tune.session import TuneResult

_MOST_ROWS = 12


def add_parser(subparsers: Any, help_line: str) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "tune",
        help=help_line,
        description=(
            "Tune the kernels of a model with TVM's MetaSchedule for each kind of CPU device of a\n"
            "platform. Every result is on disk at once: stop it at any time, and run it again to go\n"
            "on. 'compile' with the same --records then takes, for each kernel, what measures the\n"
            "fastest."
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=(
            "examples:\n"
            "  tvm-sphinx tune model.onnx --time-limit 10m\n"
            "  tvm-sphinx tune model.onnx --tasks conv2d --trials 500 --platform unlike-cpus"
        ),
    )
    parser.add_argument("FILE", help="what 'tvm-sphinx compile' takes")
    parser.add_argument(
        "--platform",
        default="detect",
        help=f"a platform file (TOML), or one of {', '.join(NAMED_PLATFORMS)}; default: detect",
    )
    parser.add_argument(
        "--trials",
        type=int,
        default=1000,
        help="candidates to measure over all kernels; those on record, of this or another model, count. "
        "Default: 1000",
    )
    parser.add_argument("--time-limit", metavar="TIME", help="stop after this long, '90s' or '10m'")
    parser.add_argument(
        "--tasks",
        help="the number of kernels to tune, those with the most time first; or kinds of operators, "
        "'conv2d,matmul'; default: all",
    )
    parser.add_argument(
        "--records",
        default="default",
        help="folder of records.jsonl, with tuning/ beside it, or that file; default: the user's cache",
    )
    add_input_arguments(parser)
    parser.add_argument("--entry", help="Relax function to tune; default: main, or the only one")
    parser.add_argument("--seed", type=int, default=0, help="seed of the search; default: 0")
    parser.add_argument("-q", "--quiet", action="store_true", help="print no progress")
    add_json_argument(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    inputs = input_options(args)
    tasks = parse_tasks(args.tasks)
    time_limit_s = optional_duration(args.time_limit, "--time-limit")
    from ..platform import load_platform
    from ..tune import tune_model
    from ..tune.session import TuneConfig

    platform = load_platform(args.platform)
    config = TuneConfig(args.trials, time_limit_s, args.seed)
    result = tune_model(
        args.FILE,
        platform,
        config,
        **inputs,
        function=args.entry,
        records=args.records,
        tasks=tasks,
        progress=ProgressLine(quiet=args.quiet),
        on_batch=None if args.quiet else _print_progress,
    )
    if not args.quiet and sys.stderr.isatty():
        print(file=sys.stderr)
    if args.json:
        print_json(result_json(result))
    else:
        print(format_result(result))
    return 130 if result.stop_reason == "interrupted" else 0


def parse_tasks(text: str | None) -> list[str] | int | None:
    """Return the number, or the names, that ``--tasks`` gives.

    Raises
    ------
    SphinxError
        If it is empty.
    """
    if text is None:
        return None
    if text.strip().lstrip("-").isdigit():
        return int(text)
    names = list(names_of(text))
    if not names:
        raise SphinxError(f"Expected --tasks as a number or names 'conv2d,matmul'; got {text!r}.")
    return names


def _print_progress(result: TuneResult, seconds_left: float | None) -> None:
    trials = sum(kernel.trials for kernel in result.kernels)
    gain = result.before_ns / max(1, result.now_ns)
    left = "" if seconds_left is None else f", about {seconds_left:.0f} s left"
    line = (
        f"tune: {trials} trials, kernels {format_ns(result.before_ns)} -> {format_ns(result.now_ns)} "
        f"({gain:.2f}x){left}"
    )
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
    else:
        print(line, file=sys.stderr, flush=True)


def result_json(result: TuneResult) -> dict[str, Any]:
    """Return each kernel with its times in ns before and now, for machines."""
    kernels = [
        {
            "kernel": "+".join(kernel.op_kinds),
            "device": kernel.device.name,
            "calls": kernel.calls,
            "rule_ns": kernel.rule_ns,
            "best_ns": kernel.best_ns,
            "trials": kernel.trials,
            "failed": kernel.failed,
        }
        for kernel in result.kernels
    ]
    return {"kernels": kernels, "new_trials": result.new_trials, "stop_reason": result.stop_reason}


def format_result(result: TuneResult) -> str:
    """Return the kernels with the most time, and the gain on each device class, as text."""
    rows = [("kernel", "device", "calls", "rule", "tuned", "trials", "failed")]
    for kernel in sorted(result.kernels, key=lambda kernel: -kernel.before_ns)[:_MOST_ROWS]:
        rows.append(
            (
                "+".join(kernel.op_kinds),
                kernel.device.name,
                str(kernel.calls),
                format_ns(kernel.rule_ns),
                "-" if kernel.best_ns is None else format_ns(kernel.best_ns),
                str(kernel.trials),
                str(kernel.failed),
            )
        )
    lines = [format_table(rows), ""]
    for device in dict.fromkeys(kernel.device.name for kernel in result.kernels):
        own = [kernel for kernel in result.kernels if kernel.device.name == device]
        before, now = sum(k.before_ns for k in own), sum(k.now_ns for k in own)
        faster = sum(k.best_ns is not None and k.best_ns < k.rule_ns for k in own)
        lines.append(
            f"{device:<20} kernel time {format_ns(before)} -> {format_ns(now)} "
            f"({before / max(1, now):.2f}x), {faster} of {len(own)} kernels faster than the rules"
        )
    lines.append(f"{'trials':<20} {result.new_trials} new; stopped by: {result.stop_reason}")
    return "\n".join(lines)
