"""What surrounds a command: Ctrl-C, warnings in one line each, and what others print kept away."""

from __future__ import annotations

import importlib
import io
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from .. import interrupt

# TVM's C++ log: "[12:30:05] /project/src/relax/ir/block_builder.cc:67: Warning: ...".
_TVM_LOG = re.compile(rb"^\[\d\d:\d\d:\d\d\] \S+:\d+: ")
# Set to see that log, and the traceback of a fault of ours.
_DEBUG = "TVM_SPHINX_DEBUG"
# Warnings that are meant for those who write programs, not for those who run them.
_FOR_DEVELOPERS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ResourceWarning)


def is_debugging() -> bool:
    """Return whether the user asked for what is otherwise kept away."""
    return bool(os.environ.get(_DEBUG))


@contextmanager
def prepared_terminal(*, quiet: bool = False) -> Iterator[None]:
    """Run a command in this context; it leaves everything as it was."""
    with ExitStack() as stack:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                # A name that a terminal has no letters for is shown, and is no reason to fail.
                stack.callback(stream.reconfigure, errors=stream.errors)
                stream.reconfigure(errors="backslashreplace")
        stack.enter_context(_noted_interrupts())
        stack.enter_context(_warnings_in_a_line(quiet))
        if not is_debugging():
            stack.enter_context(_without_tvm_log())
        yield


@contextmanager
def _noted_interrupts() -> Iterator[None]:
    """Remember Ctrl-C beside raising it: a library may swallow what is raised inside of it.

    A second one ends the process at once. A kernel that has begun cannot be stopped, and its loop may
    never end; files are whole or not there at any moment.
    """
    interrupt.start()
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: Any) -> None:
        if interrupt.note():
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.default_int_handler(number, frame)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _warnings_in_a_line(quiet: bool) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, category, *_: _show(message, category, quiet)
        yield


def _show(message: Warning | str, category: type[Warning], quiet: bool) -> None:
    if quiet or issubclass(category, _FOR_DEVELOPERS):
        return
    clear = "\r\033[K" if sys.stderr.isatty() else ""
    print(f"{clear}warning: {' '.join(str(message).split())}", file=sys.stderr, flush=True)


@contextmanager
def _without_tvm_log() -> Iterator[None]:
    """Drop the lines of TVM's log from file descriptor 2, which its C++ code writes to."""
    stream = sys.stderr
    try:
        is_real = stream.fileno() == 2
    except (AttributeError, OSError, ValueError):
        is_real = False  # somebody else holds standard error, such as a test
    if not is_real:
        yield
        return
    stream.flush()
    kept = os.dup(2)
    reader, writer = os.pipe()
    os.dup2(writer, 2)
    os.close(writer)
    thread = threading.Thread(target=_filter, args=(reader, kept), daemon=True)
    thread.start()
    sys.stderr = io.TextIOWrapper(
        io.FileIO(kept, "w", closefd=False),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=True,  # whole lines, or the other thread's would come in between
    )
    try:
        yield
    finally:
        sys.stderr = stream
        os.dup2(kept, 2)
        # A process that was started here may hold its end of the pipe for longer.
        thread.join(timeout=1.0)


def _filter(reader: int, kept: int) -> None:
    with open(reader, "rb", buffering=0) as pipe:
        rest = b""
        while chunk := pipe.read(1 << 16):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if not _TVM_LOG.match(line):
                    os.write(kept, line + b"\n")
        if rest and not _TVM_LOG.match(rest):
            os.write(kept, rest)


def silence_stdout() -> None:
    """Let nothing more be written to a standard output that is closed or full, at exit either."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (AttributeError, OSError, ValueError):  # it has no descriptor
        pass


def import_tvm_without_torch(*, only_runtime: bool = False) -> None:
    """Import TVM, and not torch with it: TVM's FFI imports torch where it is installed, for seconds.

    Where torch is imported already, or TVM's FFI is, nothing is done.

    Parameters
    ----------
    only_runtime
        Whether the compiler, which takes a second, is left to whoever asks for it.
    """
    if "torch" in sys.modules or "tvm_ffi" in sys.modules:
        return
    os.environ.setdefault("TVM_FFI_DISABLE_TORCH_C_DLPACK", "1")
    modules: dict[str, Any] = sys.modules
    modules["torch"] = None  # which makes the import of it fail
    try:
        importlib.import_module(".._tvm_runtime" if only_runtime else ".._tvm", __package__)
    finally:
        del modules["torch"]
