"""Put a cost table together from what kernels and links take, alone and beside busy devices. [TVM]"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...platform import Device, Platform
from ...platform.device import CostClass
from ...progress import Progress
from ...scheduling.graph import TaskGraph
from ...scheduling.problem import Int64Array
from ..measure.kernel_timing import MeasureConfig
from ..measure.links import Links
from ..measure.roofline import roofline_ns
from ..measure.slowdown import expected_slowdown
from ..records.store import RecordStore
from ..table import CostTable

#: Time and spread in ns of a kernel (by its id) on a device, and whether they were measured; None is for
#: what is to be estimated.
TimeOf = Callable[[str, Device], tuple[int, int, bool] | None]


class Turns(NamedTuple):
    """What it takes to turn the results of N tasks from one of D devices to another.

    ``turn_ns``, shape (N, D, D), int64 ns, is what comes on top of the copy, and ``turned_bytes``, shape
    (N,), int64, what is turned.
    """

    turn_ns: Int64Array
    turned_bytes: Int64Array


def assemble_costs(
    graph: TaskGraph, platform: Platform, time_of: TimeOf, links: Links, turns: Turns | None = None
) -> CostTable:
    """Return the cost table of a graph, from the time of each task's kernel on each device.

    What is not on record of a device that is not at hand is estimated (`estimated_ns`). ``turns`` is
    what images cost that stand otherwise on some devices than on others.
    """
    shape = (graph.num_tasks, len(platform.devices))
    exec_ns: Int64Array = np.full(shape, -1, dtype=np.int64)
    spread_ns, measured = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.bool_)
    for column, device in enumerate(platform.devices):
        unknown = []
        for task, entry in enumerate(graph.tasks):
            found = time_of(entry.kernel, device)
            if found is None:
                unknown.append(task)
            else:
                exec_ns[task, column], spread_ns[task, column], measured[task, column] = found
        if unknown:
            exec_ns[unknown, column] = estimated_ns(
                roofline_ns(graph, device), exec_ns[:, column], measured[:, column]
            )[unknown]
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
        staging_bytes_per_s=links.staging_bytes_per_s,
        turn_ns=None if turns is None else turns.turn_ns,
        turned_bytes=None if turns is None else turns.turned_bytes,
    )


def estimated_ns(
    bound_ns: Int64Array, known_ns: Int64Array, measured: npt.NDArray[np.bool_]
) -> Int64Array:
    """Return an estimate of each task's time from a bound of it.

    The bound, times what tasks of the same graph that are on record take over theirs in the median. The
    bound itself where none is.
    """
    usable = measured & (known_ns > 0) & (bound_ns > 0)
    ratio = float(np.median(known_ns[usable] / bound_ns[usable])) if usable.any() else 1.0
    estimated: Int64Array = np.ceil(bound_ns * max(1.0, ratio)).astype(np.int64)
    return estimated


def under_load(
    costs: CostTable,
    graph: TaskGraph,
    platform: Platform,
    records: RecordStore,
    config: MeasureConfig,
    progress: Progress | None = None,
    end_s: float = math.inf,
    shares: Mapping[CostClass, Mapping[str, float]] | None = None,
) -> CostTable:
    """Return costs with what tasks lose beside busy devices, unless the configuration leaves it out.

    What is not on record is measured as long as ``time.monotonic()`` has not reached ``end_s``.
    ``shares`` are of the kernels of GPUs, see `expected_slowdown`.
    """
    if not config.under_load:
        return costs
    slowdown = expected_slowdown(graph, platform, costs.exec_ns, records, progress, end_s, shares)
    return replace(costs, slowdown=slowdown)
