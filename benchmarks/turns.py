"""Processes that make ready side by side, and then measure in turn, alone on the machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_POLL_S = 0.1
# Environment variable with the file that is there once a process is ready.
_READY = "TVM_SPHINX_BENCH_READY"


def wait_for_turn() -> None:
    """Say that this process is ready, and wait until it is to measure; at once if nobody gives turns."""
    if _READY in os.environ:
        Path(os.environ[_READY]).touch()
        sys.stdin.readline()


class Child:
    """A process that calls `wait_for_turn` once it is ready to measure."""

    def __init__(self, name: str, command: Sequence[str], folder: Path) -> None:
        self.name = name
        self._ready = folder / f"{name}.ready"
        self._ready.unlink(missing_ok=True)
        with open(folder / f"{name}.txt", "w") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                env={**os.environ, _READY: str(self._ready)},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )

    @property
    def may_go(self) -> bool:
        """Whether it is ready, or has ended."""
        return self._ready.exists() or self.process.poll() is not None

    def take_turn(self, end: float) -> int | str:
        """Let it measure until it is done or time is up; return its status, or why it was ended."""
        assert self.process.stdin is not None
        status: int | str
        try:
            self.process.stdin.write(b"go\n")
            self.process.stdin.close()
            status = self.process.wait(max(1.0, end - time.monotonic()))
        except BrokenPipeError:
            status = self.process.wait()
        except subprocess.TimeoutExpired:
            status = self.end()
        return status

    def end(self) -> str:
        """End it."""
        self.process.kill()
        self.process.wait()
        return "out of time"


def wait_until_ready(children: Sequence[Child], seconds: float) -> None:
    """Wait until all are ready, for so many seconds at most.

    What still makes ready would disturb what is measured, and most of the time is for the turns.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until and not all(child.may_go for child in children):
        time.sleep(_POLL_S)


def take_turns(
    children: Sequence[Child],
    turn_s: float,
    end: float,
    ended: Callable[[Child, int | str], None],
) -> None:
    """Let processes measure one after another, each for so many seconds at most; all end at ``end``.

    They go in order, but one that is not ready when its turn comes goes later. ``ended`` is told how
    each has ended: its status, or "out of time".
    """
    left = list(children)
    while left:
        child = next((one for one in left if one.may_go), None)
        if child is not None:
            left.remove(child)
            begin = time.monotonic()
            status = child.take_turn(min(end, begin + turn_s))
            print(f"{child.name}: {time.monotonic() - begin:.1f} s, {status}", flush=True)
            ended(child, status)
        elif time.monotonic() >= end:
            child = left.pop()
            ended(child, child.end())
        else:
            time.sleep(_POLL_S)
