"""Measure what may change the schedule, and leave out the rest, which is predicted. [TVM]"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...errors import ArtifactError
from ...frontend.extract import Kernel
from ...notice import warn
from ...platform import Device, Platform
from ...platform.device import CostClass, one_of_each_class
from ...progress import Progress
from ...scheduling.graph import TaskGraph
from ...scheduling.problem import Int64Array, SchedulingProblem
from ..measure.kernel_timing import MeasureConfig
from ..measure.links import Links
from ..measure.precision import Demand
from ..measure.roofline import needs_estimate
from ..records.store import RecordStore
from ..table import CostTable, build_problem
from .assemble import Turns, assemble_costs, under_load
from .candidates import CandidateSource
from .decisive import Outlook, to_measure
from .intervals import BoolArray, FloatArray, Ranges, ranges
from .kernel_costs import (
    CostKey,
    Implementation,
    KernelCost,
    add_candidates,
    read_kernel_costs,
    times_of,
)
from .measuring import measure_candidates, measure_missing
from .predictor import Predictor, is_described
from .scaling import Scaling

#: Fewer kernels, each counted once for each class of devices, are measured without a prediction: what it
#: takes to predict them is more than what it saves.
FEWEST_GUIDED = 100
#: On so many classes of devices leaving out takes less time than it spares: see docs/measured.md.
MANY_CLASSES = 5
#: Measures the rules' kernels given, and then what else may implement them.
MeasureAll = Callable[[Sequence[Implementation], Mapping[str, float]], None]


@dataclass(frozen=True)
class Setting:
    """What kernels are costed for, and how."""

    graph: TaskGraph
    platform: Platform
    links: Links
    records: RecordStore
    config: MeasureConfig
    progress: Progress | None = None
    turns: Turns | None = None


def may_guide(num_kernels: int, platform: Platform) -> bool:
    """Return whether predictions are worth while: for kernels enough, on devices that are all at hand.

    A device that may hold only so much may be out of the question for other reasons than its times, so
    that all are measured.
    """
    devices = platform.devices
    if any(needs_estimate(device) or device.memory_bytes is not None for device in devices):
        return False
    count = num_classes(platform)
    return count > 1 and num_kernels * count >= FEWEST_GUIDED


def num_classes(platform: Platform) -> int:
    """Return how many classes of devices kernels are measured on."""
    return len(one_of_each_class(platform.devices))


def decide_guided(
    kernels: Iterable[Kernel],
    sources: Sequence[CandidateSource],
    guide: Predictor,
    setting: Setting,
) -> tuple[dict[CostKey, KernelCost], frozenset[CostKey]]:
    """Return what kernels cost, and those of them that are left out since they decide nothing."""
    records, config, progress = setting.records, setting.config, setting.progress
    calls = calls_of(setting.graph)
    costs = read_kernel_costs(kernels, setting.platform.devices, records)
    rules = [cost.rule for cost in costs.values()]
    scaling = Scaling(costs)
    described = [rule for rule in rules if is_described(guide, rule)]
    is_guided = not all(rule.is_measured for rule in rules) and _note_predictions(guide, described)
    elsewhere = [cost for cost in costs.values() if not cost.rule.device.is_cpu]

    def measure(wanted: Sequence[Implementation], expected_ns: Mapping[str, float]) -> None:
        demand = Demand(calls).of_total(expected_ns)
        measure_missing(wanted, records, config, progress, demand=demand)
        add_and_measure(wanted)

    def add_and_measure(measured: Sequence[Implementation]) -> None:
        here = [costs[rule.kernel.id, rule.device.cost_class] for rule in measured]
        missing = add_candidates(here, sources, records, unseen=True, elsewhere=elsewhere)
        measure_candidates(missing, costs, records, config, progress, calls)

    known = {id(rule) for rule in described} if is_guided else set()
    first = [rule for rule in rules if id(rule) not in known]
    measure_missing(first, records, config, progress, scaling=scaling, demand=Demand(calls))
    add_and_measure([rule for rule in rules if rule.is_measured])
    if not is_guided:
        return costs, frozenset()
    return costs, measure_decisive(costs, scaling, setting, measure)


def _note_predictions(guide: Predictor, rules: Sequence[Implementation]) -> bool:
    """Note what is predicted, of measured kernels too: they tell how far predictions are off.

    Return whether there is a model to predict.
    """
    try:
        predicted = guide.predict(rules)
    except ArtifactError as error:
        warn(f"All kernels are measured, since nothing tells which need not be. {error}")
        return False
    for rule, times in zip(rules, predicted, strict=True):
        rule.predicted = times
    return True


def measure_decisive(
    costs: Mapping[CostKey, KernelCost],
    scaling: Scaling,
    setting: Setting,
    measure: MeasureAll,
) -> frozenset[CostKey]:
    """Measure in rounds what may change the schedule; return the kernels that are left out.

    Times of the rules' kernels that are not on record have to be predicted. After each round they are
    corrected by what was measured (`ranges`), and what is to come next is asked anew (`to_measure`), so
    that what is measured depends on what is on record alone, and on no clock. What is left out has the
    time that it is expected to take, in the end.

    Parameters
    ----------
    costs
        Of each kernel on each class of devices, see `read_kernel_costs`.
    scaling
        Gives kernels that gain nothing by more cores their times without a measurement.
    measure
        Measures the rules' kernels of a class of devices and what else may implement them. It is told
        what all kernels of the class are expected to take, in ns.
    """
    grid = _Grid(costs, setting)
    while True:
        is_known = grid.is_known(scaling)
        times = ranges(*grid.predicted, grid.known_ns(), is_known)
        grid.expect(times, is_known)
        wanted = to_measure(grid.outlook(), times, is_known)
        if not wanted.any():
            return frozenset(grid.keys_of(~is_known))
        for column in np.flatnonzero(wanted.any(axis=0)).tolist():
            rows = np.flatnonzero(wanted[:, column]).tolist()
            rules = [grid.cost(row, column).rule for row in rows]
            expected = dict(zip(grid.kernels, times.expected_ns[:, column].tolist(), strict=True))
            measure(rules, {name: ns for name, ns in expected.items() if np.isfinite(ns)})


class _Grid:
    """The costs of K kernels on C classes of devices as arrays."""

    def __init__(self, costs: Mapping[CostKey, KernelCost], setting: Setting) -> None:
        self.costs, self.setting = costs, setting
        graph, devices = setting.graph, setting.platform.devices
        self.kernels = list(dict.fromkeys(task.kernel for task in graph.tasks))
        self.classes: list[CostClass] = [d.cost_class for d in one_of_each_class(devices)]
        self._cores = [device.cores for device in one_of_each_class(devices)]
        self._kernel_of = np.array([self.kernels.index(task.kernel) for task in graph.tasks])
        self._class_of = np.array([self.classes.index(device.cost_class) for device in devices])
        rules = [[self.cost(k, c).rule for c in range(self.shape[1])] for k in range(self.shape[0])]
        predicted = [[_prediction(rule) for rule in row] for row in rules]
        pairs: FloatArray = np.array(predicted, dtype=np.float64).reshape(*self.shape, 2)
        #: Predicted times and their spreads, (K, C) each, NaN where there is none.
        self.predicted = pairs[..., 0], pairs[..., 1]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.kernels), len(self.classes)

    def cost(self, row: int, column: int) -> KernelCost:
        return self.costs[self.kernels[row], self.classes[column]]

    def keys_of(self, chosen: BoolArray) -> list[CostKey]:
        return [(self.kernels[k], self.classes[c]) for k, c in np.argwhere(chosen).tolist()]

    def is_known(self, scaling: Scaling) -> BoolArray:
        """Return whose times are known: measured, or settled by those on fewer cores."""
        known = np.zeros(self.shape, dtype=np.bool_)
        for column in sorted(range(self.shape[1]), key=lambda c: len(self._cores[c])):
            for row in range(self.shape[0]):
                rule = self.cost(row, column).rule
                known[row, column] = rule.is_measured or scaling.settle(rule)
        return known

    def known_ns(self) -> FloatArray:
        """Return the times of what implements each kernel best, infinite where it cannot run."""
        found = np.zeros(self.shape)
        for row, column in np.ndindex(self.shape):
            found[row, column] = self.cost(row, column).best.time_ns
        return np.where(found < 0, np.inf, found)

    def expect(self, times: Ranges, is_known: BoolArray) -> None:
        """Give what is not known the time that it is expected to take, and how far off that may be."""
        for row, column in np.argwhere(~is_known).tolist():
            rule, expected = self.cost(row, column).rule, times.expected_ns[row, column]
            rule.time_ns = max(1, round(float(expected)))
            rule.spread_ns = round(float(expected - times.low_ns[row, column]))

    def outlook(self) -> Outlook:
        """Return the graph as what is asked which kernels are decisive, at the times of now."""
        graph, platform = self.setting.graph, self.setting.platform
        table = self._table()

        def problem(exec_ns: Int64Array, *, loaded: bool) -> SchedulingProblem:
            return build_problem(graph, platform, replace(table, exec_ns=exec_ns), loaded=loaded)

        return Outlook(
            self._kernel_of,
            self._class_of,
            lambda exec_ns: problem(exec_ns, loaded=True),
            lambda exec_ns: problem(exec_ns, loaded=False),
        )

    def _table(self) -> CostTable:
        s = self.setting
        table = assemble_costs(s.graph, s.platform, times_of(self.costs), s.links, s.turns)
        return under_load(table, s.graph, s.platform, s.records, s.config, s.progress)


def _prediction(rule: Implementation) -> tuple[float, float]:
    """Return predicted time and spread, NaN where there is none."""
    if rule.predicted is None:
        return np.nan, np.nan
    time_ns, spread_ns = rule.predicted
    return float(max(1, time_ns)), float(spread_ns)


def left_out_mask(
    left_out: Collection[CostKey], graph: TaskGraph, devices: Sequence[Device]
) -> BoolArray:
    """Return which tasks have a time on which device that was left out, (N, D)."""
    rows = [[(task.kernel, d.cost_class) in left_out for d in devices] for task in graph.tasks]
    return np.array(rows, dtype=np.bool_).reshape(graph.num_tasks, len(devices))


def calls_of(graph: TaskGraph) -> Counter[str]:
    """Return how often a graph calls each kernel."""
    return Counter(task.kernel for task in graph.tasks)
