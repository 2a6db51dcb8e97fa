"""What runs in a child process of `tune`: compile candidates, time one and check its numbers. [TVM]"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..cost.choose.agreement import agree
from ..cost.measure.cache_state import copy_of
from ..cost.measure.kernel_timing import random_operands
from ..cost.measure.lane_timing import time_in_lane
from ..platform import Device
from ..platform.targets import runtime_device
from ..runtime.kernels import compile_kernels
from ..runtime.loading import load_kernels

#: Name of the function in every library that a child compiles.
SYMBOL = "candidate"

_PR_SET_PDEATHSIG = 1
# A candidate this many times slower than the fastest is timed no further.
_GIVE_UP = 3.0
# Samples that are kept of each candidate, an odd number.
_QUANTILES = 9


@dataclass(frozen=True)
class TimingJob:
    """How candidates of one kernel are timed on one device.

    Parameters
    ----------
    key
        Tells jobs apart.
    device
        The CPU device.
    argument_types
        Relax types of the kernel's arguments, inputs then outputs.
    cold, reuse_bytes
        See `tvm_sphinx.cost.measure.lane_timing.time_in_lane`.
    reference
        Library of an implementation whose numbers are taken for right.
    sample_ms
        How long a candidate is timed.
    divisors
        See `tvm_sphinx.cost.measure.divisors.divisor_operands`.
    """

    key: str
    device: Device
    argument_types: tuple[Any, ...]
    cold: tuple[int, ...]
    reuse_bytes: int
    reference: bytes
    sample_ms: float
    divisors: frozenset[int] = frozenset()


@dataclass
class _Ready:
    """The job that this process is ready for: its operands and the numbers expected."""

    job: TimingJob
    initial: list[Any] = field(default_factory=list)
    expected: list[Any] = field(default_factory=list)


_READY: dict[str, _Ready] = {}


def start(parent: int) -> None:
    """End this process when its parent ends, however that happens."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def build(function: Any) -> bytes:
    """Return a library with one scheduled PrimFunc, which carries its target, as `SYMBOL`.

    Raises
    ------
    UnsupportedError
        If it cannot be compiled.
    """
    return compile_kernels({SYMBOL: function}, lambda module: module)


def prepare(job: TimingJob) -> None:
    """Make the operands of a job, and compute with its reference what is expected of candidates."""
    ready = _Ready(job)
    ready.initial = random_operands(job.argument_types, job.divisors, runtime_device("cpu:0"))
    operands = [copy_of(tensor) for tensor in ready.initial]
    reference = load_kernels(job.reference).get_function(SYMBOL)
    time_in_lane(reference, operands, job.device, min_ns=1)
    ready.expected = [operand.numpy() for operand in operands]
    _READY.clear()
    _READY[job.key] = ready


def measure(key: str, library: bytes, best_s: float) -> tuple[list[float], str]:
    """Return samples of a candidate in s and "", or no samples and what is wrong with it.

    Parameters
    ----------
    key
        Of the job that was prepared last.
    library
        What `build` returned.
    best_s
        The fastest time so far; a candidate that is several times slower is timed briefly.
    """
    ready = _READY[key]
    job = ready.job
    # Fresh copies, so that no output of an earlier candidate is taken for this one's.
    operands = [copy_of(tensor) for tensor in ready.initial]
    function = load_kernels(library).get_function(SYMBOL)
    probe = time_in_lane(function, operands, job.device, min_ns=1)
    if not agree([operand.numpy() for operand in operands], ready.expected):
        return [], "it computes other numbers than the schedule rule's kernel"
    if min(probe) > _GIVE_UP * best_s * 1e9:
        return _thin(probe), ""
    samples = time_in_lane(
        function,
        operands,
        job.device,
        min_ns=round(job.sample_ms * 1e6),
        cold=job.cold,
        reuse_bytes=job.reuse_bytes,
    )
    return _thin(samples), ""


def _thin(samples_ns: Sequence[int]) -> list[float]:
    """Return some quantiles of samples in ns, their median among them, in s."""
    count = min(len(samples_ns), _QUANTILES)
    ordered = sorted(samples_ns)
    places = [round(number * (len(ordered) - 1) / max(1, count - 1)) for number in range(count)]
    return [1e-9 * ordered[place] for place in places]
