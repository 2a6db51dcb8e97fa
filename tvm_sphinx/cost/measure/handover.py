"""Measure what it costs to hand a tensor from one CPU device to another. [TVM]

The tensor stays where it is, but the device that waits for it has to be woken, and reads what lies in
another core's cache.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ...platform import Platform
from ...runtime.executable import ConcurrentExecutable
from ...runtime.image import Image
from ...runtime.kernels import compile_kernels
from ...runtime.program import Buffer, LaneProgram, Step, TensorView
from ...runtime.tensors import aligned_bytes
from .cache_state import writer_function

_NUM_ROUNDS = 200
_NUM_RUNS = 25
_NUM_FETCHES = 16


def measure_handover(platform: Platform) -> dict[tuple[str, str], int]:
    """Return the median latency in ns of a hand-over between each ordered pair of CPU devices.

    Two lanes with an empty task each hand a tensor to and fro, in the executor that runs the models, so
    half of a round trip is what a hand-over adds to a schedule, beside the tasks themselves. Devices
    that share a core take turns on it; there the hand-over is what the lanes spend between two steps.
    Sizes do not matter: the tensor stays where it is.
    """
    measured: dict[tuple[str, str], int] = {}
    cpus = [index for index, device in enumerate(platform.devices) if device.is_cpu]
    for position, first in enumerate(cpus):
        for second in cpus[position + 1 :]:
            latency = round(float(np.median(handover_samples(platform, first, second))))
            names = (platform.devices[first].name, platform.devices[second].name)
            measured[names] = measured[names[::-1]] = latency
    return measured


def ping_pong(first: int, second: int, num_rounds: int = _NUM_ROUNDS) -> LaneProgram:
    """Return empty steps on two devices in turn, each of which reads what the last wrote."""
    return _in_turn(first, second, num_rounds, 4)


def _in_turn(first: int, second: int, num_rounds: int, size: int, copies: bool = False) -> LaneProgram:
    """Return steps on two devices in turn, each of which reads the bytes that the last wrote.

    They are empty, or copy the bytes with the device's kernel, ``write<device>``.
    """
    num_steps = 2 * num_rounds
    buffers = [Buffer("input", 0, size), *(Buffer("arena", i, size) for i in range(num_steps))]
    tensors = [TensorView(i, (size,), "uint8") for i in range(num_steps + 1)]
    steps = []
    for number in range(num_steps):
        device = (first, second)[number % 2]
        kind, function = ("kernel", f"write{device}") if copies else ("nothing", "")
        steps.append(Step(f"step{number}", kind, device, function, (number, number + 1), 1))
    return LaneProgram(tuple(buffers), tuple(tensors), tuple(steps), ("x",), (0,), (), [])


def fetch_samples(platform: Platform, first: int, second: int, size: int) -> tuple[float, ...]:
    """Return in ns how much longer a device reads what another has just written than what it wrote.

    Parameters
    ----------
    platform
    first, second
        Positions of the device that writes and of the one that reads.
    size
        Bytes that are written, and read.

    Returns
    -------
    tuple of float
        The difference of the medians, for each of several runs; at least 0.
    """
    functions = {
        f"write{number}": writer_function(platform.devices[number]) for number in {first, second}
    }
    library = compile_kernels(functions, lambda module: module)
    programs = [_in_turn(writer, second, _NUM_FETCHES, size, copies=True) for writer in (first, second)]
    executables = [
        ConcurrentExecutable(Image(program, platform, None, aligned_bytes(0), library))
        for program in programs
    ]
    inputs = [np.ones(size, dtype=np.uint8)]
    longer = []
    for _ in range(_NUM_RUNS):
        read_ns = []
        for executable in executables:
            _, trace = executable.run_traced(inputs)
            read_ns.append(float(np.median([step.duration_ns for step in trace.steps[1::2]])))
        longer.append(max(0.0, read_ns[0] - read_ns[1]))
    return tuple(longer[1:])  # in the first, all memory is new


def handover_samples(platform: Platform, first: int, second: int) -> tuple[float, ...]:
    """Return the latency in ns of hand-overs between two devices, the median of each of several runs."""
    program = ping_pong(first, second)
    executable = ConcurrentExecutable(Image(program, platform, None, aligned_bytes(0), b""))
    inputs = [np.zeros(4, dtype=np.uint8)]
    between = []
    for _ in range(_NUM_RUNS):
        _, trace = executable.run_traced(inputs)
        # From the end of a step to the begin of the next: the hand-over without the steps.
        gaps = [later.begin_ns - earlier.end_ns for earlier, later in pairwise(trace.steps)]
        between.append(max(0.0, float(np.median(gaps))))
    return tuple(between)
