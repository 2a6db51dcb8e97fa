"""Measure what it costs to hand a tensor from one CPU device to another. [TVM]"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ..platform import Platform
from .executable import ConcurrentExecutable
from .image import Image
from .program import Buffer, LaneProgram, Step, TensorView
from .tensors import aligned_bytes

_NUM_ROUNDS = 200
_NUM_RUNS = 25


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
