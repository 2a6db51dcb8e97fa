"""Put a cost table together from what kernels and links take, alone and beside busy devices. [TVM]"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ...platform import Device, Platform
from ...progress import Progress
from ...scheduling.graph import TaskGraph
from ...scheduling.problem import Int64Array
from ..measure.kernel_timing import MeasureConfig
from ..measure.links import Links
from ..measure.roofline import needs_estimate, roofline_ns
from ..measure.slowdown import expected_slowdown
from ..records.store import RecordStore
from ..table import CostTable

#: Time and spread in ns of a kernel (by its id) on a device, and whether they were measured.
TimeOf = Callable[[str, Device], tuple[int, int, bool]]


def assemble_costs(graph: TaskGraph, platform: Platform, time_of: TimeOf, links: Links) -> CostTable:
    """Return the cost table of a graph, from the time of each task's kernel on each device.

    Devices that are not at hand, but whose peaks are known, get roofline estimates instead.
    """
    shape = (graph.num_tasks, len(platform.devices))
    exec_ns: Int64Array = np.full(shape, -1, dtype=np.int64)
    spread_ns, measured = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.bool_)
    for column, device in enumerate(platform.devices):
        if needs_estimate(device):
            exec_ns[:, column] = roofline_ns(graph, device)
            continue
        for task, entry in enumerate(graph.tasks):
            time_ns, spread, is_measured = time_of(entry.kernel, device)
            exec_ns[task, column], spread_ns[task, column] = time_ns, spread
            measured[task, column] = is_measured
    return CostTable(
        exec_ns,
        spread_ns,
        measured,
        links.latency_ns,
        links.bandwidth_bytes_per_s,
        graph.fingerprint,
        link_error=links.error,
        most_bytes=links.most_bytes,
        num_estimated_links=links.num_estimated,
    )


def under_load(
    costs: CostTable,
    graph: TaskGraph,
    platform: Platform,
    records: RecordStore,
    config: MeasureConfig,
    progress: Progress | None = None,
    end_s: float = math.inf,
) -> CostTable:
    """Return costs with what tasks lose beside busy devices, unless the configuration leaves it out.

    What is not on record is measured as long as ``time.monotonic()`` has not reached ``end_s``.
    """
    if not config.under_load:
        return costs
    slowdown = expected_slowdown(graph, platform, costs.exec_ns, records, progress, end_s)
    return replace(costs, slowdown=slowdown)
