"""Fill a cost table within a budget: measure what matters most, predict the rest. [TVM]"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...errors import SphinxError
from ...frontend.extract import Extraction
from ...kernels import calls_runtime
from ...platform import Device, Platform
from ...progress import Progress
from ...scheduling.graph import TaskGraph
from ...search import search_schedule
from ..measure.assemble import assemble_costs, under_load
from ..measure.kernel_timing import MeasureConfig
from ..measure.kernels import measure_kernels
from ..measure.links import Links, measure_links
from ..measure.roofline import needs_estimate
from ..model.criticality import criticality
from ..model.features import feature_rows, kernel_numbers
from ..model.model_file import CostModel
from ..model.profile import DeviceProfile
from ..model.training import device_profile
from ..records.store import RecordStore
from ..table import CostTable, build_problem
from .budget import measure_within
from .candidates import CandidateSource, KernelChoices
from .kernel_costs import Cell, CellKey, Implementation, add_candidates, chosen_kernels, read_cells


def fill_costs(
    extraction: Extraction,
    platform: Platform,
    records: RecordStore,
    model: CostModel,
    budget_s: float,
    sources: Sequence[CandidateSource] = (),
    *,
    config: MeasureConfig | None = None,
    progress: Progress | None = None,
) -> tuple[KernelChoices, CostTable]:
    """Return implementations and costs of a graph's kernels, measured within a budget, else predicted.

    What is not on record is predicted first. A schedule found with those times tells which tasks leave
    no slack; kernels are then measured in the order of their calls, weighted by how critical each call
    is, times how much their best time may change, until the budget ends.

    Kernels that no model knows, those of devices that are no CPU and calls of packed functions, are measured
    first, whatever the budget is.

    The candidates are those of `tvm_sphinx.cost.choose.candidates.choose_kernels`, and so is the choice
    among them. One that has never run is not chosen before it is measured. One that was timed where it
    was found (a tuned schedule) may be: by that time where the rules' kernel is on record here, as
    tuning leaves it, else by its predicted time.

    Parameters
    ----------
    model
        See `tvm_sphinx.cost.model.training.train_model`.
    budget_s
        Seconds to measure kernels that are predicted at first; 0 measures none. Copies between devices,
        a device's rates and kernels that no model knows are measured in any case where they are not on
        record.
    sources
        Of further implementations, see `tvm_sphinx.cost.choose.candidates.choose_kernels`.

    Raises
    ------
    PlatformError
        If the platform claims cores that this machine lacks.
    UnsupportedError
        If a device whose kernels cannot be predicted is not at hand.
    SphinxError
        If the budget is negative.
    """
    if not 0 <= budget_s < float("inf"):
        raise SphinxError(f"Expected a measuring budget of 0 s or more; got {budget_s} s.")
    platform.check_machine()
    config = config or MeasureConfig()
    graph = extraction.graph
    links = measure_links(platform, records, progress)
    cells = read_cells(extraction.kernels.values(), platform, records)
    _measure_unknown(cells, records, config, progress)
    predict = _Predictor(records, model, config)
    predict([cell.rule for cell in cells.values() if not cell.rule.is_measured])
    predict(add_candidates(cells.values(), sources, records, unseen=budget_s > 0))
    for cell in cells.values():
        cell.take_found_times()
    if budget_s:
        order = _by_urgency(cells, graph, platform, links)
        measure_within(budget_s, order, cells, records, config, progress)
    costs = _table(cells, graph, platform, links)
    return chosen_kernels(cells), under_load(costs, graph, platform, records, config, progress)


def always_measured(platform: Platform) -> list[str]:
    """Return the names of the devices at hand of whose kernels no model predicts the times."""
    return [d.name for d in platform.devices if not _has_model(d) and not needs_estimate(d)]


def _has_model(device: Device) -> bool:
    return device.is_cpu


def _measure_unknown(
    cells: Mapping[CellKey, Cell],
    records: RecordStore,
    config: MeasureConfig,
    progress: Progress | None,
) -> None:
    """Measure the rules' kernels that cannot be predicted, each class of devices in turn."""
    by_class: dict[str, list[Implementation]] = {}
    for (_, device_class), cell in cells.items():
        kernel = cell.rule.kernel
        is_hidden = kernel.is_external or calls_runtime(kernel.function)
        is_known = _has_model(cell.rule.device) and not is_hidden
        if not is_known and not cell.rule.is_measured:
            by_class.setdefault(device_class, []).append(cell.rule)
    for unknown in by_class.values():
        device = unknown[0].device
        stage = f"measure on {device.name}, which no model predicts"
        kernels = [one.kernel for one in unknown]
        measure_kernels(kernels, device, records, config, stage, progress)
        for one in unknown:
            one.look_up(records)


class _Predictor:
    """Predicts the times of implementations that are not on record."""

    def __init__(self, records: RecordStore, model: CostModel, config: MeasureConfig) -> None:
        self.records, self.model, self.config = records, model, config
        self._profiles: dict[str, DeviceProfile] = {}

    def __call__(self, missing: Sequence[Implementation]) -> None:
        """Set time and spread of each; one without a function cannot run."""
        missing = [entry for entry in missing if entry.candidate.function is not None]
        if not missing:
            return
        numbers, devices = [], []
        for entry in missing:
            profile = self._profile(entry.device)
            function, kernel = entry.candidate.function, entry.kernel
            numbers.append(kernel_numbers(function, kernel.weights, kernel.reuse_bytes, profile.shape))
            devices.append(profile.numbers)
        times, spreads = self.model.predict(feature_rows(np.array(numbers), np.array(devices)))
        for entry, time_ns, spread_ns in zip(missing, times.tolist(), spreads.tolist(), strict=True):
            entry.time_ns, entry.spread_ns = max(1, round(time_ns)), round(spread_ns)

    def _profile(self, device: Device) -> DeviceProfile:
        name = device.cost_class
        if name not in self._profiles:
            self._profiles[name] = device_profile(device, self.records, self.config)
        return self._profiles[name]


def _by_urgency(
    cells: dict[CellKey, Cell], graph: TaskGraph, platform: Platform, links: Links
) -> list[Implementation]:
    """Return what is not on record, the implementation first whose time matters most."""
    problem = build_problem(graph, platform, _table(cells, graph, platform, links))
    schedule = search_schedule(problem, algorithm="heft").best
    weight = criticality(problem, schedule)
    weights: dict[CellKey, float] = {}
    for column, device in enumerate(platform.devices):
        for task, entry in enumerate(graph.tasks):
            key = entry.kernel, device.cost_class
            weights[key] = weights.get(key, 0.0) + float(weight[task, column])
    wanted = [
        (-weights.get(key, 0.0) * cell.urgency_ns(one), key, number, one)
        for key, cell in cells.items()
        for number, one in enumerate((cell.rule, *cell.others))
        if not one.is_measured and one.candidate.function is not None
    ]
    return [one for *_, one in sorted(wanted, key=lambda entry: entry[:3])]


def _table(cells: dict[CellKey, Cell], graph: TaskGraph, platform: Platform, links: Links) -> CostTable:
    def numbers(kernel: str, device: Device) -> tuple[int, int, bool]:
        best = cells[kernel, device.cost_class].best
        return best.time_ns, best.spread_ns, best.is_measured

    return assemble_costs(graph, platform, numbers, links)
