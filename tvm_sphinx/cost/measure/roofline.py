"""Estimates for devices that are not at hand: rooflines from the peaks of a platform file. [TVM]"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...platform import Device
from ...platform.targets import is_at_hand
from ...scheduling.graph import TaskGraph
from ...scheduling.problem import Int64Array


def needs_estimate(device: Device) -> bool:
    """Return whether a device is not at hand, so that its costs can only be estimated."""
    peaks = (device.peak_gflop_per_s, device.peak_gb_per_s)
    return device.rpc_key is None and not is_at_hand(device) and None not in peaks


def roofline_ns(graph: TaskGraph, device: Device) -> Int64Array:
    """Return the least time that each task can take on a device, shape (N,), int64 ns.

    The larger of operations over the peak rate and bytes over the peak bandwidth (Williams, Waterman,
    Patterson, CACM 52(4), 2009): a bound, used where a device is not at hand to be measured.
    """
    assert device.peak_gflop_per_s is not None
    assert device.peak_gb_per_s is not None
    flops = np.array([task.flops for task in graph.tasks], dtype=np.float64)
    times = np.maximum(flops / device.peak_gflop_per_s, moved_bytes(graph) / device.peak_gb_per_s)
    return np.ceil(times).astype(np.int64)


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
