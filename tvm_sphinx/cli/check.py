"""``tvm-sphinx check PROBLEM.json schedule.json``: the independent checker from the shell."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import Any

from ..scheduling.problem_file import read_problem
from ..scheduling.schedule import violations
from ..scheduling.schedule_file import read_schedule
from ..search.bounds import lower_bound_ns
from .output import add_json_argument, print_json


def add_parser(subparsers: Any, help_line: str) -> None:
    """Add the command and its arguments."""
    parser = subparsers.add_parser(
        "check",
        help=help_line,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Check a schedule file against its problem file; exit status 1 if it is not valid.\n"
        "The gap is that to the bound which check computes itself.",
        epilog=("examples:\n  tvm-sphinx check problem.json schedule.json"),
    )
    parser.add_argument(
        "problem", metavar="PROBLEM.json", help="form: see tvm_sphinx.scheduling.problem_file"
    )
    parser.add_argument(
        "schedule",
        metavar="schedule.json",
        help="an object of device, start_ns, finish_ns (one entry per task) and makespan_ns; the whole "
        "form: see tvm_sphinx.scheduling.schedule_file",
    )
    add_json_argument(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print "valid", the makespan and its gap to a bound computed here, or every rule that is broken."""
    problem = read_problem(args.problem)
    schedule = read_schedule(args.schedule, problem)
    bound_ns = lower_bound_ns(problem)
    broken = list(violations(problem, schedule))
    if not broken and schedule.makespan_ns < bound_ns:
        broken = [f"Makespan {schedule.makespan_ns} ns is below the lower bound {bound_ns} ns."]
    if args.json:
        print_json(
            {
                "valid": not broken,
                "violations": broken,
                "makespan_ns": schedule.makespan_ns,
                "lower_bound_ns": bound_ns,
            }
        )
        return 1 if broken else 0
    for violation in broken:
        print(f"error: {violation}", file=sys.stderr)
    if broken:
        return 1
    verified = replace(schedule, lower_bound_ns=bound_ns)
    print(
        f"valid  makespan_ns {verified.makespan_ns}  lower_bound_ns {bound_ns}  gap {verified.gap:.2%}"
    )
    if schedule.lower_bound_ns > bound_ns:
        print(
            f"note: the file claims lower_bound_ns {schedule.lower_bound_ns}, gap {schedule.gap:.2%}; a "
            "search may have proved that, but check cannot verify it"
        )
    return 0
