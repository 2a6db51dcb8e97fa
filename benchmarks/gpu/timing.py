"""Time calls, one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Keep other processes of this benchmark from timing at the same time."""
    with open(Path(tempfile.gettempdir()) / "tvm-sphinx-bench.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def timed(call: Callable[[], Any], seconds: float = 0.7, most: int = 500) -> Row:
    """Return the median, and the 10th and 90th percentile, of calls after five, in us."""
    with alone():
        for _ in range(5):
            call()
        samples: list[float] = []
        end = time.perf_counter() + seconds
        while len(samples) < 5 or (len(samples) < most and time.perf_counter() < end):
            begin = time.perf_counter()
            call()
            samples.append(time.perf_counter() - begin)
    return quantiles(samples)


def quantiles(seconds: Sequence[float]) -> Row:
    low, middle, high = np.percentile(np.array(seconds) * 1e6, [10, 50, 90]).round(2).tolist()
    return {"median_us": middle, "p10_us": low, "p90_us": high, "n": len(seconds)}
