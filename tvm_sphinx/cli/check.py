"""``tvm-sphinx check PROBLEM.json schedule.json``: the independent checker from the shell."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..errors import InvalidScheduleError
from ..problem_file import read_problem
from ..schedule import Schedule, violations
from ..search.bounds import lower_bound_ns


def add_parser(subparsers: Any) -> None:
    """Add the command and its arguments."""
    parser = subparsers.add_parser(
        "check",
        help="check a schedule against its problem",
        description="Check a schedule file against its problem file; exit status 1 if it is not valid.",
    )
    parser.add_argument("problem", metavar="PROBLEM.json")
    parser.add_argument("schedule", metavar="schedule.json")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print "valid" and the makespan, or every rule that is broken."""
    problem = read_problem(args.problem)
    schedule = read_schedule(args.schedule)
    broken = list(violations(problem, schedule))
    for violation in broken:
        print(f"error: {violation}", file=sys.stderr)
    if broken:
        return 1
    bound_ns = max(schedule.lower_bound_ns, lower_bound_ns(problem))
    proven = schedule.with_lower_bound(bound_ns)
    print(f"valid  makespan_ns {proven.makespan_ns}  lower_bound_ns {bound_ns}  gap {proven.gap:.2%}")
    return 0


def read_schedule(path: str | Path) -> Schedule:
    """Read a schedule file.

    Raises
    ------
    InvalidScheduleError
        If it cannot be read, is not JSON, or is not a schedule; one line that names the file.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidScheduleError(
            f"Cannot read schedule file {str(path)!r}: {error.strerror}."
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidScheduleError(f"Schedule file {str(path)!r} is not JSON: {error}.") from error
    try:
        return Schedule.from_json(content)
    except InvalidScheduleError as error:
        raise InvalidScheduleError(f"Schedule file {str(path)!r}: {error}") from error
