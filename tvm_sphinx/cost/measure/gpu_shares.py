"""What share of a GPU each kernel fills, and what streams lose to each other by that. [TVM]

Kernels in streams of one GPU slow each other down once together they fill it. Copies of a kernel run in
several streams at the same time tell its share: that of one that fills the GPU by itself take as long as
one after the other, those of one that leaves room take as long as one alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..._tvm import tvm
from ...frontend.extract import Kernel
from ...platform import Device
from ...platform.targets import is_at_hand, runtime_device
from ...progress import Progress
from ..records.classes import class_of
from ..records.store import Record, RecordStore, median_and_spread
from .gpu_timing import GpuCall, build_for_gpu, side_by_side_on_gpu
from .kernel_timing import draws_of, kernel_symbol, shape_texts
from .sampling import host_load

#: Streams that copies of a kernel run in.
NUM_COPIES = 4
# Steps of a share in which the shares of neighbours are added up.
_STEPS = 64

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class GpuKernel:
    """A kernel as a GPU runs it: with its PrimFunc, and the key of its records."""

    kernel: Kernel
    function: Any
    key: str


def measure_shares(
    kernels: Sequence[GpuKernel],
    device: Device,
    records: RecordStore,
    progress: Progress | None = None,
    end_s: float = math.inf,
) -> dict[str, float]:
    """Return the share of a GPU that each kernel fills, by kernel id, from the records or measured now.

    Shares are at least 1 / `NUM_COPIES` and at most 1. What is not on record is left out where the GPU
    is not at hand, and once ``time.monotonic()`` has reached ``end_s``.
    """
    where, version = class_of(device), str(tvm.__version__)

    def look_up(one: GpuKernel) -> float | None:
        found = [records.get(key, str(where), version, "load") for key in _keys(one)]
        if any(record is None or not record.samples_ns for record in found):
            return None
        alone, together = (median_and_spread(record.samples_ns)[0] for record in found if record)
        return min(1.0, max(1.0, together / max(1, alone)) / NUM_COPIES)

    missing = [one for one in kernels if look_up(one) is None]
    if missing and is_at_hand(device) and time.monotonic() < end_s:
        stage = f"measure side by side on {device.name}"
        module = build_for_gpu({kernel_symbol(one.key): one.function for one in missing})
        for done, one in enumerate(missing):
            if time.monotonic() >= end_s:
                break
            operands = draws_of(one.kernel, runtime_device("cpu:0"))[0]
            call = GpuCall(module, kernel_symbol(one.key), operands, device)
            samples = side_by_side_on_gpu(call, NUM_COPIES)
            shapes = shape_texts(one.kernel)
            for key, times in zip(_keys(one), samples, strict=True):
                records.add(Record(key, where, version, times, host_load(), kind="load", shapes=shapes))
            if progress:
                progress(stage, done + 1, len(missing))
    found = {one.kernel.id: look_up(one) for one in kernels}
    return {kernel: share for kernel, share in found.items() if share is not None}


def _keys(one: GpuKernel) -> tuple[str, str]:
    """Return the names of the records of a kernel alone, and of copies of it side by side."""
    return f"{one.key} beside nothing", f"{one.key}, {NUM_COPIES} side by side"


def stream_slowdown(shares: FloatArray, times_ns: FloatArray, others: int, busy: float) -> FloatArray:
    """Return how many times longer each task takes in a stream than alone, shape (N,), at least 1.

    Each of the other streams is taken to run a task, drawn by the time that tasks take, for a share
    ``busy`` of the time, and all tasks that run to share the GPU fairly once they fill it.

    Parameters
    ----------
    shares : (N,)
        Of the GPU, see `measure_shares`.
    times_ns : (N,)
        What each task takes alone.
    others
        Number of other streams.
    busy
        In [0, 1].
    """
    steps = np.rint(shares * _STEPS).astype(np.int64)
    weights = np.maximum(times_ns, 0.0)
    if not weights.sum() > 0.0:
        return np.ones(len(shares))
    one = busy * np.bincount(steps, weights, _STEPS + 1) / weights.sum()
    one[0] += 1.0 - busy
    together = np.ones(1)
    for _ in range(others):
        together = np.convolve(together, one)
    filled = (steps[:, None] + np.arange(len(together))) / _STEPS
    slower: FloatArray = np.maximum(1.0, filled) @ together
    return slower


def shares_of_tasks(kernels: Sequence[str], shares: Mapping[str, float]) -> FloatArray:
    """Return the share of each task's kernel, shape (N,); of one that is not known the median."""
    usual = float(np.median(list(shares.values()))) if shares else 1.0 / NUM_COPIES
    return np.array([shares.get(kernel, usual) for kernel in kernels])
