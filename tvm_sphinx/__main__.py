"""The command ``tvm-sphinx`` and ``python -m tvm_sphinx``: Ctrl-C is a line from the first import on."""

import gc
import signal
import sys


def main() -> int:
    """Run the command line and return its exit code."""
    try:
        from .cli import main as command

        code = command()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    # All is done and said; what is left is to leave, without looking for garbage in what TVM holds.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()
    return code


if __name__ == "__main__":
    sys.exit(main())
