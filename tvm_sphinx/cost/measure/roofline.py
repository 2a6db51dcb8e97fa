"""Estimates for devices that are not at hand: rooflines from the peaks of a platform file. [TVM]"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...platform import Device
from ...platform.targets import is_absent
from ...scheduling.graph import TaskGraph
from ...scheduling.problem import Int64Array

# No kernel took less on a GPU that was seen (NVIDIA H100: 1,867 ns, half of it between two nodes).
_LEAST_ON_GPU_NS = 1_800.0


def needs_estimate(device: Device) -> bool:
    """Return whether a device is not at hand, so that what is not on record can only be estimated."""
    peaks = (device.peak_gflop_per_s, device.peak_gb_per_s)
    return is_absent(device) and None not in peaks


def roofline_ns(graph: TaskGraph, device: Device) -> Int64Array:
    """Return the least time that each task can take on a device, shape (N,), int64 ns.

    The larger of operations over the peak rate and bytes over the peak bandwidth (Williams, Waterman,
    Patterson, CACM 52(4), 2009): a bound, used where a device is not at hand to be measured.
    """
    assert device.peak_gflop_per_s is not None
    assert device.peak_gb_per_s is not None
    flops = np.array([task.flops for task in graph.tasks], dtype=np.float64)
    times = np.maximum(flops / device.peak_gflop_per_s, moved_bytes(graph) / device.peak_gb_per_s)
    if device.runtime.startswith("cuda:"):
        times = np.maximum(times, _LEAST_ON_GPU_NS)
    return np.ceil(times).astype(np.int64)


def moving_ns(num_bytes: int, device: Device) -> float | None:
    """Return the least time in which a kernel of a device reads and writes so many bytes.

    None where the platform does not tell the device's bandwidth.
    """
    if device.peak_gb_per_s is None:
        return None
    least = _LEAST_ON_GPU_NS if device.runtime.startswith("cuda:") else 0.0
    return max(least, num_bytes / device.peak_gb_per_s)


def moved_bytes(graph: TaskGraph) -> npt.NDArray[np.float64]:
    """Return the bytes that each task reads and writes, shape (N,)."""
    moved = np.array(
        [
            graph.input_bytes(number) + task.weight_bytes + sum(task.output_bytes)
            for number, task in enumerate(graph.tasks)
        ],
        dtype=np.float64,
    )
    for edge in graph.edges:
        moved[edge.dst] += edge.bytes
    return moved
