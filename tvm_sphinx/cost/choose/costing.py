"""Decide for each kernel and class of devices what implements it and what it costs. [TVM]

The one path from records to costs. What is on record is taken from there. The rest is measured, all of
it by default; within a budget what matters most is, and the rest is predicted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..._tvm import tvm
from ...errors import SphinxError
from ...frontend.extract import Extraction, Kernel
from ...platform import Device, Platform
from ...platform.device import CostClass
from ...platform.targets import is_absent
from ...progress import Progress
from ...report.placement import CostSummary
from ...scheduling.graph import TaskGraph, fingerprint_json
from ..measure.gpu_shares import GpuKernel, measure_shares
from ..measure.kernel_timing import MeasureConfig
from ..measure.links import measure_links
from ..measure.precision import Demand
from ..measure.roofline import needs_estimate
from ..measure.slowdown import streams_beside
from ..records.cards import shipped_records
from ..records.classes import card_of, class_of
from ..records.in_place import Subject, find_loops
from ..records.store import RecordStore
from ..table import CostTable
from .assemble import assemble_costs, under_load
from .budget import measure_within
from .candidates import CandidateSource
from .criticality import by_urgency
from .guided import Setting, calls_of, decide_guided, left_out_mask, may_guide
from .held_weights import held_weight_bytes
from .in_place import correct_costs
from .kernel_costs import (
    CostKey,
    Implementation,
    KernelChoices,
    KernelCost,
    add_candidates,
    choose_kernels,
    read_kernel_costs,
    times_of,
)
from .measuring import measure_candidates, measure_missing
from .predictor import Predictor, is_bounded, is_known
from .scaling import Scaling
from .turning import cost_turns

# Of what is left of a budget once copies are measured; the rest is for what kernels lose side by side.
_KERNELS_SHARE = 0.8


@dataclass(frozen=True)
class Costing:
    """What was decided: the implementation of each kernel, and what each task costs with it.

    ``always_measured`` names the devices whose kernels were measured although others were predicted,
    because the predictor does not know them. ``keys`` are what the kernels are on record by, and
    ``measured_at`` tells when the oldest and the newest of these times were measured, ``estimated`` for
    each device that is not at hand how many of its tasks' times are estimates. ``num_kernels`` counts
    the kernels, each once for each class of devices, and ``num_left_out`` those of them that were not
    measured, since they cannot make the schedule much shorter by what ``predicted_by`` names.
    ``subject`` says what was costed, and ``num_traced`` by how many programs' traces the times of tasks
    were corrected (`tvm_sphinx.program.refine`).
    """

    choices: KernelChoices
    table: CostTable
    always_measured: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    measured_at: tuple[float, float] | None = None
    estimated: dict[str, int] = field(default_factory=dict)
    num_kernels: int = 0
    num_left_out: int = 0
    predicted_by: str = ""
    subject: Subject = field(default_factory=Subject)
    num_traced: int = 0

    @property
    def summary(self) -> CostSummary:
        """What a report tells of it."""
        return CostSummary(
            self.table.measured_share,
            self.choices.origin,
            self.always_measured,
            self.table.num_estimated_links,
            self.estimated,
            self.num_kernels,
            self.num_left_out,
            self.predicted_by,
            self.num_traced,
        )


def cost_kernels(
    extraction: Extraction,
    platform: Platform,
    records: RecordStore,
    sources: Sequence[CandidateSource] = (),
    *,
    budget_s: float | None = None,
    predictor: Predictor | None = None,
    guide: Predictor | None = None,
    in_place: bool = True,
    config: MeasureConfig | None = None,
    progress: Progress | None = None,
) -> Costing:
    """Return implementations and costs of a graph's kernels on the devices of a platform.

    Candidates are the schedule rules' kernels, TVM's default loops, and those of the sources. On
    devices at hand the fastest is chosen; one that is new is run beside the rules' kernel first, and
    dropped with a warning if it computes other numbers.

    Within a budget, what is not on record is predicted first. A schedule found with those times tells
    which tasks leave no slack; kernels are then measured in the order of their calls, weighted by how
    critical each call is, times how much their best time may change, until the budget ends. Kernels
    that cannot be predicted, those of devices that the predictor does not know and external functions,
    are measured first, whatever the budget is; those that call TVM's runtime, such as a sort, first as
    long as there is time. A candidate that has never run is not chosen before it is measured. One that
    was timed where it was found (a tuned schedule) may be: by that time where the rules' kernel is on
    record here, as tuning leaves it, else by its predicted time.

    Parameters
    ----------
    records
        Measured times, used and extended: each new one is on record before the next one starts.
    sources
        Of further implementations.
    budget_s
        Seconds to measure copies between devices, kernels that can be predicted, what is run to check
        them, and what kernels lose beside each other; 0 measures none of it, None all. Copies that
        there is no time for are estimated. What a predictor has to know of a device is measured in any
        case where it is not on record, and counts.
    predictor
        Of the times that are not measured; not asked without a budget.
    guide
        Without a budget: tells what need not be measured, see
        `tvm_sphinx.cost.choose.guided.measure_decisive`. It is not asked where all is on record, or
        there is too little to leave out. Without it all is measured, but for kernels on more cores than
        they gain by.
    in_place
        Whether tasks take what they took within runs of this model, where that is on record.
    config
        How long to measure, and whether beside busy devices.

    Raises
    ------
    PlatformError
        If the platform claims cores that this machine lacks, or a remote device cannot be reached.
    UnsupportedError
        If a device is not at hand, and its kernels are neither on record nor can be predicted or
        estimated.
    SphinxError
        If the budget is negative or not finite, or there is one without a predictor.
    """
    check_budget(budget_s, predictor)
    end_s = math.inf if budget_s is None else time.monotonic() + budget_s
    platform.check_machine()
    for card in {name for device in platform.devices if (name := card_of(device)) is not None}:
        records.know(shipped_records(card))
    config = config or MeasureConfig()
    graph = extraction.graph
    asked = None if budget_s is None else predictor
    left_out: frozenset[CostKey] = frozenset()
    turns = cost_turns(extraction, platform, records, config, progress, end_s)
    if budget_s is None and guide is not None and may_guide(len(extraction.kernels), platform):
        links = measure_links(platform, records, progress)
        setting = Setting(graph, platform, links, records, config, progress, turns)
        costs, left_out = decide_guided(extraction.kernels.values(), sources, guide, setting)
    else:
        costs = decide_kernels(
            extraction.kernels.values(),
            platform.devices,
            records,
            sources,
            predictor=asked,
            unseen=budget_s != 0,
            config=config,
            progress=progress,
            end_s=end_s,
            calls=calls_of(graph),
        )
        links = measure_links(platform, records, progress, end_s)
    left_s = end_s - time.monotonic()
    if budget_s and left_s > 0:
        expected = assemble_costs(graph, platform, times_of(costs), links, turns)
        here = {key: cost for key, cost in costs.items() if not needs_estimate(cost.rule.device)}
        order = by_urgency(here, graph, platform, expected)
        measure_within(_KERNELS_SHARE * left_s, order, costs, records, config, progress)
    table = assemble_costs(graph, platform, times_of(costs), links, turns)
    table = replace(
        table,
        left_out=left_out_mask(left_out, graph, platform.devices),
        weight_bytes=held_weight_bytes(graph, platform, costs),
    )
    shares = _gpu_shares(platform, costs, records, progress, end_s) if config.under_load else {}
    best = [cost.best for cost in costs.values()]
    times = [record.time for one in best if (record := one.record(records)) is not None]
    table = under_load(table, graph, platform, records, config, progress, end_s, shares)
    subject = _subject(costs, graph, platform)
    loops = find_loops(records.path, subject) if in_place else []
    seen = loops[-1].seen if loops else ()
    return Costing(
        choose_kernels(costs),
        correct_costs(table, graph, platform, seen, loops[-1].kept) if seen else table,
        () if asked is None else always_measured(platform, asked),
        tuple({one.key: None for cost in costs.values() for one in (cost.rule, *cost.others)}),
        (min(times), max(times)) if times else None,
        _estimated(platform, table),
        len(costs),
        len(left_out),
        _predicted_by(table, asked if guide is None or budget_s is not None else guide),
        subject,
        len(seen),
    )


def decide_kernels(
    kernels: Iterable[Kernel],
    devices: Sequence[Device],
    records: RecordStore,
    sources: Sequence[CandidateSource] = (),
    *,
    predictor: Predictor | None = None,
    unseen: bool = True,
    config: MeasureConfig | None = None,
    progress: Progress | None = None,
    end_s: float = math.inf,
    calls: Mapping[str, int] | None = None,
) -> dict[CostKey, KernelCost]:
    """Return what kernels cost on each class of devices that are at hand, by each implementation.

    Without a predictor all is measured that is not on record, but for kernels on more cores than they
    gain by, see `Scaling`; with one, only what it cannot predict.
    ``unseen`` tells whether candidates that never ran are to be measured yet, in the latter case, and
    no kernel that the predictor knows the least time of is begun once ``time.monotonic()`` has reached
    ``end_s``. ``calls`` are those of a model, by kernel id: its kernels are measured as well as they
    matter to it. The others are as of `cost_kernels`.
    """
    config = config or MeasureConfig()
    costs = read_kernel_costs(kernels, devices, records)
    rules = [cost.rule for cost in costs.values()]
    unknown = [rule for rule in rules if predictor is None or not is_known(predictor, rule)]
    settled = measure_missing(
        unknown,
        records,
        config,
        progress,
        scaling=Scaling(costs) if predictor is None else None,
        demand=None if calls is None or predictor is not None else Demand(calls),
    )
    if predictor is not None:
        hidden = [rule for rule in rules if not rule.is_measured and is_bounded(predictor, rule)]
        measure_missing(hidden, records, config, progress, end_s)
        unmeasured = [rule for rule in rules if not rule.is_measured]
        _predict(predictor, [rule for rule in unmeasured if not needs_estimate(rule.device)])
    scaling_on = [cost for cost in costs.values() if id(cost.rule) not in settled]
    missing = add_candidates(scaling_on, sources, records, unseen=unseen)
    if predictor is None:
        measure_candidates(missing, costs, records, config, progress, calls)
        return costs
    on_others = [one for one in missing if not predictor.can_predict(one.device)]
    measure_candidates(on_others, costs, records, config, progress, calls)
    _predict(predictor, [one for one in missing if predictor.can_predict(one.device)])
    for cost in costs.values():
        cost.take_found_times()
    return costs


def measure_rules(
    kernels: Iterable[Kernel],
    devices: Sequence[Device],
    records: RecordStore,
    *,
    config: MeasureConfig | None = None,
    progress: Progress | None = None,
    end_s: float = math.inf,
) -> dict[CostKey, KernelCost]:
    """Return what kernels cost as the schedule rules implement them, from records or measured now.

    No kernel is begun once ``time.monotonic()`` has reached ``end_s``; such a one stays unmeasured.
    """
    costs = read_kernel_costs(kernels, devices, records)
    rules = [cost.rule for cost in costs.values()]
    measure_missing(rules, records, config or MeasureConfig(), progress, end_s)
    return costs


def check_budget(budget_s: float | None, predictor: Predictor | None) -> None:
    """Check, before anything is measured, that there is a predictor for what a budget leaves out.

    Raises
    ------
    SphinxError
        If the budget is negative or not finite, or there is one without a predictor.
    """
    if budget_s is None:
        return
    if not 0 <= budget_s < math.inf:
        raise SphinxError(f"Expected a measuring budget of 0 s or more; got {budget_s} s.")
    if predictor is None:
        raise SphinxError(
            f"Expected a model that predicts what a measuring budget of {budget_s:g} s leaves out; got "
            f"none. Make one with: tvm-sphinx train"
        )


def always_measured(platform: Platform, predictor: Predictor) -> tuple[str, ...]:
    """Return the names of the devices at hand of whose kernels a predictor knows nothing."""
    devices = platform.devices
    return tuple(d.name for d in devices if not predictor.can_predict(d) and not needs_estimate(d))


def _predicted_by(table: CostTable, predictor: Predictor | None) -> str:
    """Return which model has predicted times, "" where none has."""
    return "" if predictor is None or table.measured.all() else predictor.label


def _subject(costs: Mapping[CostKey, KernelCost], graph: TaskGraph, platform: Platform) -> Subject:
    """Return what is costed, as loops are on record by it."""
    chosen = sorted([*map(str, key), cost.best.key] for key, cost in costs.items())
    classes = tuple(str(class_of(device)) for device in platform.devices)
    return Subject(graph.fingerprint, fingerprint_json(chosen), classes, str(tvm.__version__))


def _estimated(platform: Platform, table: CostTable) -> dict[str, int]:
    """Return for each device that is not at hand how many of its tasks' times are estimates."""
    absent = [(i, device.name) for i, device in enumerate(platform.devices) if is_absent(device)]
    return {name: int((~table.measured[:, i]).sum()) for i, name in absent}


def _gpu_shares(
    platform: Platform,
    costs: Mapping[CostKey, KernelCost],
    records: RecordStore,
    progress: Progress | None,
    end_s: float,
) -> dict[CostClass, dict[str, float]]:
    """Return the share of a GPU that each kernel fills, for GPUs with several streams."""
    found = {}
    for index, device in enumerate(platform.devices):
        if device.cost_class in found or not streams_beside(platform, index):
            continue
        best = [cost.best for (_, where), cost in costs.items() if where == device.cost_class]
        runs = [
            GpuKernel(one.kernel, one.function, one.key)
            for one in best
            if one.time_ns >= 0 and one.candidate.function is not None
        ]
        found[device.cost_class] = measure_shares(runs, device, records, progress, end_s)
    return found


def _predict(predictor: Predictor, missing: Sequence[Implementation]) -> None:
    """Set time and spread of what is not on record; one without a PrimFunc cannot run."""
    wanted = [one for one in missing if one.candidate.function is not None]
    if wanted:
        for one, (time_ns, spread_ns) in zip(wanted, predictor.predict(wanted), strict=True):
            one.time_ns, one.spread_ns = time_ns, spread_ns
