"""Measure what it costs to hand a tensor from one CPU device to another. [TVM]

The tensor stays where it is, but the device that waits for it has to be woken, and reads what lies in
another core's cache.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ..platform import Platform
from .executable import ConcurrentExecutable
from .image import Image
from .kernels import compile_kernels
from .program import Buffer, LaneProgram, Step, TensorView
from .surroundings import writer_function
from .tensors import aligned_bytes

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
    num_steps = 2 * num_rounds
    buffers = [Buffer("input", 0, 4), *(Buffer("arena", i, 4) for i in range(num_steps))]
    tensors = [TensorView(i, (1,), "int32") for i in range(num_steps + 1)]
    steps = [
        Step(f"step{i}", "nothing", (first, second)[i % 2], "", (i, i + 1), 1) for i in range(num_steps)
    ]
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
    executables = [
        ConcurrentExecutable(
            Image(_relay(writer, second, size), platform, None, aligned_bytes(0), library)
        )
        for writer in (first, second)
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


def _relay(writer: int, reader: int, size: int) -> LaneProgram:
    """Return copies of bytes, in turn by a device that writes and by one that reads what that wrote."""
    num_steps = 2 * _NUM_FETCHES
    buffers = [Buffer("input", 0, size), *(Buffer("arena", i, size) for i in range(num_steps))]
    tensors = [TensorView(i, (size,), "uint8") for i in range(num_steps + 1)]
    steps = []
    for number in range(num_steps):
        device = (writer, reader)[number % 2]
        steps.append(Step(f"step{number}", "kernel", device, f"write{device}", (number, number + 1), 1))
    return LaneProgram(tuple(buffers), tuple(tensors), tuple(steps), ("x",), (0,), (), [])


def handover_samples(platform: Platform, first: int, second: int) -> tuple[float, ...]:
    """Return the latency in ns of hand-overs between two devices, the median of each of several runs."""
    program = ping_pong(first, second)
    executable = ConcurrentExecutable(Image(program, platform, None, aligned_bytes(0), b""))
    inputs = [np.zeros(1, dtype=np.int32)]
    between = []
    for _ in range(_NUM_RUNS):
        _, trace = executable.run_traced(inputs)
        # From the end of a step to the begin of the next: the hand-over without the steps.
        gaps = [later.begin_ns - earlier.end_ns for earlier, later in pairwise(trace.steps)]
        between.append(max(0.0, float(np.median(gaps))))
    return tuple(between)
