"""The command ``tvm-sphinx``, with the option names of TVM's former tvmc.

Exit codes: 0 for success, 1 without a subcommand, 2 for wrong usage, 4 for an error that the message
explains, 5 for a package that is missing or of a wrong version, 70 for a fault of this program, 130
after Ctrl-C, 141 where the reader of the output has gone.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence

from ..errors import EnvironmentMismatchError, SphinxError, cause_of
from . import bench, check, compile, explain, records, run, search, train, tune
from .terminal import import_tvm_without_torch, is_debugging, prepared_terminal, silence_stdout

# Commands that work with TVM, and with torch only for a torch program.
_WITH_TVM = ("tune", "train", "compile", "run", "explain", "bench")
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
    with prepared_terminal(quiet=getattr(args, "quiet", False)):
        return _guarded(args)


def _guarded(args: argparse.Namespace) -> int:
    """Run a subcommand; whatever goes wrong is one line."""
    try:
        if args.run.__module__.rpartition(".")[2] in _WITH_TVM and not _is_torch(args):
            import_tvm_without_torch()
        code = int(args.run(args))
        sys.stdout.flush()
        return code
    except EnvironmentMismatchError as error:
        return _fail(str(error), 5)
    except SphinxError as error:
        return _fail(str(error), 4)
    except KeyboardInterrupt:
        return _fail("interrupted", 130, kind="")
    except BrokenPipeError:
        silence_stdout()
        return 141
    except OSError as error:
        silence_stdout()
        where = f" {error.filename!r}" if error.filename else ""
        return _fail(f"Cannot read or write{where or ' the output'}: {error.strerror or error}.", 4)
    except Exception as error:  # anything else is our fault, and a traceback helps few
        if is_debugging():
            raise
        told = f"{type(error).__name__}: {cause_of(error)}"
        return _fail(f"A fault of tvm-sphinx, or of TVM under it: {told}", 70)


def _is_torch(args: argparse.Namespace) -> bool:
    return str(getattr(args, "FILE", "")).endswith(".pt2")


def _fail(message: str, code: int, kind: str = "error: ") -> int:
    """Print a message in one line and return the exit code."""
    clear = "\r\033[K" if sys.stderr.isatty() else ""
    with contextlib.suppress(OSError):  # where nobody is there to be told
        print(f"{clear}{kind}{' '.join(message.split())}", file=sys.stderr, flush=True)
    return code
