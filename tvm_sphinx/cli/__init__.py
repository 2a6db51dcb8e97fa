"""The command ``tvm-sphinx``, with the option names of TVM's former tvmc.

Exit codes: 0 for success, 1 without a subcommand, 2 for wrong usage, 4 for an error that the message
explains, 5 for a package that is missing or of a wrong version, 70 for a fault of this program, 130
after Ctrl-C, 141 where the reader of the output has gone.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import sys
from collections.abc import Sequence

from ..errors import EnvironmentMismatchError, SphinxError, cause_of
from ..platform.home import HOME_VARIABLE, data_home
from .config_file import expand_config
from .parser import Parser
from .terminal import import_tvm_without_torch, is_debugging, prepared_terminal, silence_stdout

#: Every subcommand, with its line in the help. Its module is imported when it is asked for.
COMMANDS = {
    "compile": "schedule a model and write a program that runs it on all devices",
    "run": "run a compiled model, compare it with a single device, time it",
    "perf": "time a model beside every single device, the stock VM and ONNX Runtime",
    "explain": "show what runs where in a compiled model and why, and what recurs",
    "tune": "search for faster kernels of a model, and keep them for 'compile'",
    "train": "make a cost model of this machine's CPU devices",
    "bench": "measure the kernels of a model beside the machine's peak",
    "search": "schedule a problem file",
    "check": "check a schedule against its problem",
    "records": "list, merge, prune or export measured times",
    "devices": "show the cores and GPUs of this machine, and write its platform file",
    "versions": "print what a report of a fault needs: versions, machine, devices",
}
# Commands that work with TVM, and with torch only for a torch program; the latter need no compiler.
_WITH_TVM = ("tune", "train", "compile", "perf", "devices", "bench", "versions")
_WITH_RUNTIME = ("run", "explain")


def make_parser(command: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of all subcommands; of one, if it is named, the others are names only."""
    parser = Parser(
        prog="tvm-sphinx",
        description="Schedule one neural-network inference over several unlike compute devices.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=(
            "examples:\n"
            "  tvm-sphinx compile model.onnx -o model.sphinx   schedule it over this machine's cores\n"
            "  tvm-sphinx run model.sphinx --print-time        run it, beside the best single device\n"
            "  tvm-sphinx explain model.sphinx --html a.html   see what runs where, and why\n"
            "  tvm-sphinx COMMAND --help                       more examples of each command\n\n"
            f"Measured times and the cost model lie in {data_home()}; set {HOME_VARIABLE}, or\n"
            "XDG_CACHE_HOME, to move them, or name a file with --records. NO_COLOR turns colours off."
        ),
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, help_line in COMMANDS.items():
        if command is None or command == name:
            importlib.import_module(f".{name}", __name__).add_parser(subparsers, help_line)
        else:
            subparsers.add_parser(name, help=help_line)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; errors are one line on stderr."""
    given = list(sys.argv[1:] if argv is None else argv)
    command = next((word for word in given if not word.startswith("-")), "")
    parser = make_parser(command)
    try:
        args = parser.parse_args(expand_config(parser, given))
    except SphinxError as error:  # a file of options that cannot be read
        return _fail(str(error), 4)
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
        command = args.run.__module__.rpartition(".")[2]
        if command in (*_WITH_TVM, *_WITH_RUNTIME) and not _is_torch(args):
            import_tvm_without_torch(only_runtime=command in _WITH_RUNTIME)
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
