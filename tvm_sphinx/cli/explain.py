"""``tvm-sphinx explain``: what runs where in a compiled model, and why."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "explain",
        help="show what runs where in a compiled model",
        description="Print the placement that 'tvm-sphinx compile' found.",
    )
    parser.add_argument("FILE", help="the program")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from ..compiled import CompiledModel

    print(CompiledModel.load(args.FILE).describe(verbose=True))
    return 0
