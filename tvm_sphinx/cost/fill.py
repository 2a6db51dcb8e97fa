"""Fill a cost table within a budget: measure what matters most, predict the rest. [TVM]"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._tvm import tvm
from ..errors import SphinxError, UnsupportedError
from ..extract import Extraction, Kernel
from ..graph import TaskGraph
from ..platform import Device, Platform
from ..search import search_schedule
from .assemble import assemble_costs, under_load
from .classes import class_of
from .kernel_timing import MeasureConfig
from .links import Links, measure_links
from .measure import (
    implement_for,
    implementation_id,
    measure_kernels,
    weight_footprint_bytes,
)
from .model.features import feature_rows, kernel_numbers
from .model.model_file import CostModel
from .model.slack import criticality
from .model.training import device_profile
from .progress import Progress
from .records import RecordStore, median_and_spread
from .roofline import needs_estimate
from .table import CostTable, build_problem

# Cells that are measured between two looks at the clock; kernels that are built together build faster.
_BATCH = 8


@dataclass
class _Cell:
    """A kernel on a class of devices: its time and spread, and whether they are measured."""

    kernel: Kernel
    device: Device
    function: Any
    time_ns: int = -1
    spread_ns: int = 0
    measured: bool = False


def fill_costs(
    extraction: Extraction,
    platform: Platform,
    records: RecordStore,
    model: CostModel,
    budget_s: float,
    *,
    config: MeasureConfig | None = None,
    progress: Progress | None = None,
) -> CostTable:
    """Return the cost table of a task graph, measured as far as a budget goes and predicted beyond.

    What is not on record is predicted first. A schedule found with those times tells which tasks leave
    no slack; kernels are then measured in the order of their calls, weighted by how critical each call
    is, times the spread of their prediction, until the budget ends.

    Parameters
    ----------
    budget_s
        Seconds to measure kernels; 0 measures none. Copies between devices and a device's rates are
        measured in any case where they are not on record.
    model
        See `tvm_sphinx.cost.model.training.train_model`.

    Raises
    ------
    PlatformError
        If the platform claims cores that this machine lacks.
    UnsupportedError
        If the model knows nothing of a kind of device, or a kernel is not ours to read.
    SphinxError
        If the budget is negative.
    """
    if not 0 <= budget_s < float("inf"):
        raise SphinxError(f"Expected a measuring budget of 0 s or more; got {budget_s} s.")
    platform.check_machine()
    config = config or MeasureConfig()
    graph = extraction.graph
    footprint = weight_footprint_bytes(graph)
    links = measure_links(platform, records, progress)
    cells = _cells(extraction, platform, records, footprint)
    _predict(cells, records, model, footprint, config)
    if budget_s:
        wanted = [cell for cell in cells.values() if not cell.measured and cell.function is not None]
        end = time.monotonic() + budget_s
        _measure(
            _by_urgency(wanted, cells, graph, platform, links), records, footprint, end, config, progress
        )
    costs = _table(cells, graph, platform, links)
    return under_load(costs, graph, platform, records, config, progress)


def _cells(
    extraction: Extraction, platform: Platform, records: RecordStore, footprint: int
) -> dict[tuple[str, str], _Cell]:
    """Return all cells, those on record with their times."""
    cells: dict[tuple[str, str], _Cell] = {}
    version = str(tvm.__version__)
    by_class = {device.cost_class: device for device in reversed(platform.devices)}
    for name, device in by_class.items():
        if needs_estimate(device):
            continue
        where = str(class_of(device))
        for kernel in extraction.kernels.values():
            cell = _Cell(kernel, device, implement_for(kernel, device))
            cells[kernel.id, name] = cell
            far = footprint if device.is_cpu else 0
            record = records.get(implementation_id(kernel, cell.function, far), where, version)
            if record is not None:
                cell.measured = True
                if record.samples_ns:
                    cell.time_ns, cell.spread_ns = median_and_spread(record.samples_ns)
    return cells


def _predict(
    cells: dict[tuple[str, str], _Cell],
    records: RecordStore,
    model: CostModel,
    footprint: int,
    config: MeasureConfig,
) -> None:
    """Predict the time of every cell that is not on record; one without a function cannot run."""
    missing = [cell for cell in cells.values() if not cell.measured]
    for cell in missing:
        if cell.kernel.is_external:
            raise UnsupportedError(
                f"Expected kernels that can be read to predict their times; {cell.kernel.function!r} is "
                f"an external function. Compile without a measuring budget to have it measured."
            )
    missing = [cell for cell in missing if cell.function is not None]
    if not missing:
        return
    profiles = {cell.device.cost_class: device_profile(cell.device, records, config) for cell in missing}
    numbers = [
        kernel_numbers(
            cell.function, cell.kernel.weights, footprint, profiles[cell.device.cost_class].shape
        )
        for cell in missing
    ]
    devices = [profiles[cell.device.cost_class].numbers for cell in missing]
    times, spreads = model.predict(feature_rows(np.array(numbers), np.array(devices)))
    for cell, time_ns, spread_ns in zip(missing, times.tolist(), spreads.tolist(), strict=True):
        cell.time_ns, cell.spread_ns = max(1, round(time_ns)), round(spread_ns)


def _by_urgency(
    wanted: Sequence[_Cell],
    cells: dict[tuple[str, str], _Cell],
    graph: TaskGraph,
    platform: Platform,
    links: Links,
) -> list[_Cell]:
    """Return the cells to measure, the one that matters most first."""
    problem = build_problem(graph, platform, _table(cells, graph, platform, links))
    schedule = search_schedule(problem, algorithm="heft").best
    weight = criticality(problem, schedule)
    urgency: dict[tuple[str, str], float] = {}
    for column, device in enumerate(platform.devices):
        for task, entry in enumerate(graph.tasks):
            key = entry.kernel, device.cost_class
            urgency[key] = urgency.get(key, 0.0) + float(weight[task, column])
    names = {id(cell): key for key, cell in cells.items()}
    return sorted(
        wanted, key=lambda cell: (-urgency.get(names[id(cell)], 0.0) * cell.spread_ns, names[id(cell)])
    )


def _measure(
    order: Sequence[_Cell],
    records: RecordStore,
    footprint: int,
    end: float,
    config: MeasureConfig,
    progress: Progress | None,
) -> None:
    """Measure cells in order, a few of one device at a time, until the time is up."""
    left = list(order)
    while left and time.monotonic() < end:
        device = left[0].device
        batch = [cell for cell in left if cell.device is device][:_BATCH]
        chosen = {id(cell) for cell in batch}
        left = [cell for cell in left if id(cell) not in chosen]
        kernels = [cell.kernel for cell in batch]
        found = measure_kernels(kernels, device, records, config, "measure", None, footprint)
        for cell, record in zip(batch, found, strict=True):
            cell.measured, cell.time_ns, cell.spread_ns = True, -1, 0
            if record.samples_ns:
                cell.time_ns, cell.spread_ns = median_and_spread(record.samples_ns)
        if progress:
            progress("measure what matters most", len(order) - len(left), len(order))


def _table(
    cells: dict[tuple[str, str], _Cell],
    graph: TaskGraph,
    platform: Platform,
    links: Links,
) -> CostTable:
    def numbers(kernel: str, device: Device) -> tuple[int, int, bool]:
        cell = cells[kernel, device.cost_class]
        return cell.time_ns, cell.spread_ns, cell.measured

    return assemble_costs(graph, platform, numbers, links)
