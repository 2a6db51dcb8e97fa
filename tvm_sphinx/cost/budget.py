"""Measure implementations in a given order until a budget ends. [TVM]"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from ..targets import device_target
from .cells import Cell, CellKey, Implementation
from .kernel_timing import MeasureConfig
from .measure import measure_kernels
from .progress import Progress
from .records import RecordStore
from .vetting import vet_implementation

# Kernels that are measured between two looks at the clock; those that are built together build faster.
_BATCH = 8


def measure_within(
    budget_s: float,
    order: Sequence[Implementation],
    cells: Mapping[CellKey, Cell],
    records: RecordStore,
    footprint_bytes: int,
    config: MeasureConfig,
    progress: Progress | None = None,
) -> None:
    """Measure implementations in order, a few of one device at a time, until the time is up.

    Their times and spreads are then those that were measured. One that is not the rules' is vetted
    first (see `tvm_sphinx.cost.vetting`), and left out where the rules' turned out to be faster than
    it was where it was found.
    """
    end = time.monotonic() + budget_s
    left = list(order)
    while left and time.monotonic() < end:
        batch = _next_batch(left)
        left = [one for one in left if one not in batch]
        _measure_batch(batch, cells, records, footprint_bytes, config)
        if progress:
            progress("measure what matters most", len(order) - len(left), len(order))


def _next_batch(left: Sequence[Implementation]) -> list[Implementation]:
    """Return the next few on one device, each of another kernel."""
    batch: dict[str, Implementation] = {}
    for one in left:
        if one.device is left[0].device and len(batch) < _BATCH:
            batch.setdefault(one.kernel.id, one)
    return list(batch.values())


def _measure_batch(
    batch: Sequence[Implementation],
    cells: Mapping[CellKey, Cell],
    records: RecordStore,
    footprint_bytes: int,
    config: MeasureConfig,
) -> None:
    device = batch[0].device
    wanted = [one for one in batch if _is_sound(one, cells, records, footprint_bytes)]
    functions = {one.kernel.id: one.candidate.function for one in wanted}
    target = device_target(device)
    measure_kernels(
        [one.kernel for one in wanted],
        device,
        records,
        config,
        footprint_bytes=footprint_bytes,
        implement=lambda kernel, _: functions[kernel.id].with_attr("target", target),
    )
    for one in wanted:
        one.look_up(records)
        cells[one.kernel.id, device.cost_class].take_found_times()


def _is_sound(
    one: Implementation, cells: Mapping[CellKey, Cell], records: RecordStore, footprint_bytes: int
) -> bool:
    """Return whether an implementation is worth measuring, after a few calls if it never ran before."""
    cell = cells[one.kernel.id, one.device.cost_class]
    if one is cell.rule:
        return True
    if not cell.is_open(one):
        return False
    vet_implementation(
        one.kernel,
        one.candidate.function,
        cell.rule.candidate.function,
        one.device,
        records,
        origin=one.candidate.origin,
        rule_ns=cell.rule.time_ns,
        footprint_bytes=footprint_bytes,
    )
    return True
