"""``tvm-sphinx search PROBLEM.json``: schedule any problem from the shell."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from ..report.files import check_writable, write_text
from ..report.timeline import schedule_svg
from ..scheduling.problem_file import read_problem
from ..search import ALGORITHMS, ParamsError, SearchResult, Stop, check_search, search_schedule
from ..search.exact import ExactParams
from ..wording import counted
from .durations import optional_duration
from .output import add_json_argument, print_json


def add_parser(subparsers: Any, help_line: str) -> None:
    """Add the command and its arguments."""
    parser = subparsers.add_parser(
        "search",
        help=help_line,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Search for a short schedule of a problem file.",
        epilog=(
            "examples:\n"
            "  tvm-sphinx search problem.json -o schedule.json --timeline schedule.svg\n"
            "  tvm-sphinx search problem.json --algorithm exact --time-limit 60s\n"
            "  tvm-sphinx explain model.sphinx --problem problem.json     writes one of a model"
        ),
    )
    parser.add_argument(
        "problem", metavar="PROBLEM.json", help="form: see tvm_sphinx.scheduling.problem_file"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument("--time-limit", metavar="TIME", help="wall time, '90s' or '10m'")
    parser.add_argument(
        "--max-evaluations",
        type=int,
        metavar="N",
        help="schedules valued; gives the same result everywhere (the default, by number of tasks)",
    )
    parser.add_argument(
        "--algorithm",
        metavar="NAME",
        help=f"one of {', '.join(sorted(ALGORITHMS))}; default: cpga; exact goes on from that until the "
        f"optimum is proven, and needs OR-Tools",
    )
    parser.add_argument(
        "--window",
        type=int,
        metavar="N",
        help="with exact: let CPGA schedule the whole, then re-optimise windows of N tasks exactly, as "
        "long as that helps; for problems that are too large to be solved whole",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="schedule.json",
        help="'-' writes to stdout; form: see tvm_sphinx.scheduling.schedule_file",
    )
    parser.add_argument("--timeline", metavar="OUT.svg", help="draw when what runs where")
    add_json_argument(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Search, print a summary, and write the schedule file."""
    if args.output != "-":
        check_writable(args.output, besides=args.problem)
    check_writable(args.timeline, besides=args.problem)
    stop = None
    time_limit_s = optional_duration(args.time_limit, "--time-limit")
    if time_limit_s is not None or args.max_evaluations is not None:
        stop = Stop(max_evaluations=args.max_evaluations, time_limit_s=time_limit_s)
    algorithm = args.algorithm or ("cpga" if args.window is None else "exact")
    check_search(algorithm, args.seed, stop)
    params = None
    if args.window is not None:
        if algorithm != "exact" or args.window < 2:
            raise ParamsError(
                f"Expected --window of 2 tasks or more, with --algorithm exact; got --window "
                f"{args.window}, --algorithm {algorithm}."
            )
        params = ExactParams(window=args.window)
    problem = read_problem(args.problem)
    result = search_schedule(problem, algorithm=algorithm, seed=args.seed, params=params, stop=stop)
    best = result.best
    if args.timeline:
        write_text(args.timeline, schedule_svg(problem, best))
    if args.json:
        if args.output is not None and args.output != "-":
            write_text(args.output, json.dumps(schedule_file(result)) + "\n")
        print_json({**schedule_file(result), **_how(result), "gap": best.gap})
        return 0
    summary = (
        f"{problem.name}: {counted(problem.num_tasks, 'task')}, {counted(problem.num_edges, 'edge')}, "
        f"{counted(problem.num_devices, 'device')}\n"
        f"makespan_ns {best.makespan_ns}  lower_bound_ns {best.lower_bound_ns}  gap {best.gap:.2%}"
        f"{', proven optimal' if result.stop_reason == 'optimal' else ''}\n"
        f"{result.algorithm}: {result.evaluations} evaluations in {result.runtime_s:.2f} s, "
        f"stopped by {result.stop_reason}"
    )
    if result.pruning is not None:
        summary += f"\n{result.pruning.describe()}"
    if args.output == "-":
        print(summary, file=sys.stderr)
        print(json.dumps(schedule_file(result)))
        return 0
    print(summary)
    if args.output is not None:
        write_text(args.output, json.dumps(schedule_file(result)) + "\n")
    return 0


def _how(result: SearchResult) -> dict[str, Any]:
    """Return how a schedule was found, for machines."""
    return {
        "evaluations": result.evaluations,
        "runtime_s": result.runtime_s,
        "stop_reason": result.stop_reason,
        "pruning": None if result.pruning is None else result.pruning.to_json(),
    }


def schedule_file(result: SearchResult) -> dict[str, Any]:
    """Return what a schedule file holds: the schedule, and how it was found."""
    return {**result.best.to_json(), "algorithm": result.algorithm, "seed": result.seed}
