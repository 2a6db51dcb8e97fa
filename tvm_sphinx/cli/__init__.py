"""The command ``tvm-sphinx``, with the option names of TVM's former tvmc.

Exit codes: 0 for success, 1 without a subcommand, 2 for wrong usage, 4 for an error that the message
explains, 5 for a package that is missing or of a wrong version, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ..errors import EnvironmentMismatchError, SphinxError
from . import bench, check, compile, explain, records, run, search, train, tune

_COMMANDS = (tune, train, compile, run, explain, bench, search, check, records)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all subcommands."""
    parser = argparse.ArgumentParser(
        prog="tvm-sphinx",
        description="Schedule one neural-network inference over several unlike compute devices.",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in _COMMANDS:
        command.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; errors are one line on stderr."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.version:
        from .. import __version__

        print(__version__)
        return 0
    if not hasattr(args, "run"):
        parser.print_help()
        return 1
    try:
        return int(args.run(args))
    except EnvironmentMismatchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 5
    except SphinxError as error:
        print(f"error: {error}", file=sys.stderr)
        return 4
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
