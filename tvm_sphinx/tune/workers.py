"""Child processes that compile and time candidates: one that crashes or hangs is replaced. [TVM]"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from typing import Any

from tvm.support.popen_pool import PopenWorker

from . import worker
from .worker import TimingJob

# LLVM takes this long on no kernel that is any good.
_BUILD_TIMEOUT_S = 30.0
_LEAST_RUN_TIMEOUT_S = 20.0
# How often a candidate is called at most, times how much slower than the best it may be; beyond that it
# counts as hung.
_CALLS_TIMES_SLOWDOWN = 4000


class Workers:
    """Children that compile, side by side; the first of them also times, when the others are idle.

    Use it in a ``with`` block. A child takes seconds to start, so it starts with its first work.

    Parameters
    ----------
    count
        Number of children.
    """

    def __init__(self, count: int) -> None:
        parent = [os.getpid()]
        # What LLVM says about a candidate is of no use to anyone, and would tear the progress line.
        self._builders = [
            PopenWorker(worker.start, parent, stderr=subprocess.DEVNULL) for _ in range(count)
        ]
        self._runner = self._builders[0]
        self._prepared = ""

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._builders:
            child.kill()

    def build(self, functions: Sequence[Any]) -> list[bytes | str]:
        """Return for each PrimFunc, which carries its target, its library, or why there is none."""
        results: list[bytes | str] = []
        for first in range(0, len(functions), len(self._builders)):
            batch = functions[first : first + len(self._builders)]
            children = self._builders[: len(batch)]
            for child, function in zip(children, batch, strict=True):
                child.send(worker.build, [function], timeout=_BUILD_TIMEOUT_S)
            results += [_receive(child, "it takes too long to compile") for child in children]
        return results

    def measure(self, job: TimingJob, library: bytes, best_s: float) -> tuple[list[float], str]:
        """Return samples in s and "", or no samples and why; see `tvm_sphinx.tune.worker.measure`."""
        timeout = max(_LEAST_RUN_TIMEOUT_S, _CALLS_TIMES_SLOWDOWN * best_s)
        if self._prepared != job.key or not self._runner.is_alive():
            self._prepared = ""
            self._runner.send(worker.prepare, [job], timeout=timeout)
            failure = _receive(self._runner, "the reference takes too long")
            if failure is not None:
                return [], f"the schedule rule's kernel cannot be run: {failure}"
            self._prepared = job.key
        self._runner.send(worker.measure, [job.key, library, best_s], timeout=timeout)
        result = _receive(self._runner, "it takes too long to run")
        return ([], result) if isinstance(result, str) else result


def _receive(child: Any, too_long: str) -> Any:
    """Return what a child sends, or why it sends nothing, in one line."""
    try:
        return child.recv()
    except TimeoutError:
        return too_long
    except ChildProcessError:
        return "it ends the process"
    except Exception as error:  # whatever the child raised, it concerns one candidate
        child_alive = child.is_alive()
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        if not child_alive:
            child.kill()
        return reason[0]
