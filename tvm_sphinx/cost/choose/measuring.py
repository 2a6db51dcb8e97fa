"""Put on record what is missing: of the rules' kernels, and of what else may implement them. [TVM]"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..._tvm import tvm, tvm_ffi
from ...platform import Device
from ...platform.device import CostClass
from ...progress import Progress
from ..measure.kernel_timing import MeasureConfig
from ..measure.kernels import measure_kernels
from ..measure.precision import Demand
from ..measure.roofline import needs_estimate
from ..records.store import RecordStore
from .candidates import is_faster
from .check_candidate import check_candidates, compile_ahead
from .kernel_costs import CostKey, Implementation, KernelCost
from .scaling import Scaling

# Default loops of each form that are tried before all of it are.
_PER_FORM = 3
#: Names of blocks, and types and ranks of operands.
Form = tuple[tuple[str, ...], tuple[tuple[str, int], ...]]


def measure_missing(
    rules: Sequence[Implementation],
    records: RecordStore,
    config: MeasureConfig,
    progress: Progress | None,
    end_s: float = math.inf,
    scaling: Scaling | None = None,
    demand: Demand | None = None,
) -> set[int]:
    """Measure what is not on record, the kernels of each class of devices together.

    Devices that are not at hand and that estimates do for are left out. Return the ``id`` of each kernel
    that was not measured because more cores do not help it.
    """
    settled: set[int] = set()
    classes = sorted(_by_class(rules).items(), key=lambda one: len(one[0].cores))
    for device, same in classes:
        if needs_estimate(device):
            continue
        if scaling is not None:
            settled |= {id(rule) for rule in same if scaling.settle(rule)}
        wanted = [rule for rule in same if id(rule) not in settled]
        if wanted:
            stage = f"measure on {device.name}"
            _measure(wanted, stage, records, config, progress, end_s, demand=demand)
    return settled


def measure_candidates(
    missing: Sequence[Implementation],
    costs: Mapping[CostKey, KernelCost],
    records: RecordStore,
    config: MeasureConfig,
    progress: Progress | None,
    calls: Mapping[str, int] | None,
) -> None:
    """Measure candidates that may win, once each was seen to compute what the rules' kernel does.

    Those of devices of one core come first: what they take there tells which can win on more cores. Of
    default loops of one form (`form_of`) a few are measured first; where none of them is faster than the
    rules' kernel, the others are left out.
    """
    classes = sorted(_by_class(missing).items(), key=lambda one: len(one[0].cores))
    for device, all_here in classes:
        here = {key[0]: cost for key, cost in costs.items() if key[1] == device.cost_class}
        times = {kernel: max(0, cost.rule.time_ns) for kernel, cost in here.items()}
        demand = None if calls is None else Demand(calls).of_total(times)

        def measure(
            wanted: Sequence[Implementation],
            here: Mapping[str, KernelCost] = here,
            stage: str = f"candidates on {device.name}",
            demand: Demand | None = demand,
        ) -> None:
            if wanted:
                if wanted[0].device.is_cpu:
                    compile_ahead(wanted, records)
                check_candidates(wanted, [here[one.kernel.id].rule for one in wanted], records)
                _measure(wanted, stage, records, config, progress, demand=demand)

        wanted = [one for one in all_here if not _is_slower_on_more_cores(one, costs)]
        first, later = _few_of_each_form(wanted, here)
        measure(first)
        winning = {form for form, wins in _known_forms(here).items() if any(wins)}
        measure([one for one in later if form_of(one) in winning])


def _few_of_each_form(
    candidates: Sequence[Implementation], costs: Mapping[str, KernelCost]
) -> tuple[list[Implementation], list[Implementation]]:
    """Return what to check first: all but default loops, and so many of each form of these; the rest.

    Of a form they are the shortest, the longest and those between, by the rules' kernels; those that are
    on record already count.
    """
    first: list[Implementation] = []
    forms: dict[Form, list[Implementation]] = defaultdict(list)
    for one in candidates:
        if one.candidate.origin == "default":
            forms[form_of(one)].append(one)
        else:
            first.append(one)
    later: list[Implementation] = []
    known = _known_forms(costs)
    for form, same in forms.items():
        count = min(len(same), max(0, _PER_FORM - len(known[form])))
        same.sort(key=lambda one: costs[one.kernel.id].rule.time_ns)
        chosen = set(np.linspace(0, len(same) - 1, count).round().astype(int).tolist())
        for place, one in enumerate(same):
            (first if place in chosen else later).append(one)
    return first, later


def _known_forms(costs: Mapping[str, KernelCost]) -> Mapping[Form, list[bool]]:
    """Return of each form which of its default loops that are on record beat the rules' kernel."""
    known: dict[Form, list[bool]] = defaultdict(list)
    for cost in costs.values():
        for other in cost.others:
            if other.candidate.origin == "default" and other.is_measured:
                wins = other.time_ns >= 0 and is_faster(
                    other.time_ns, cost.rule.time_ns, cost.rule.time_ns
                )
                known[form_of(other)].append(wins)
    return known


def form_of(one: Implementation) -> Form:
    """Return what kernels have in common that differ in extents: their blocks, and their operands."""
    blocks: list[Any] = []
    tvm_ffi.structural_walk(one.candidate.function.body, (tvm.s_tir.SBlock, blocks.append))
    operands = [(str(param.dtype), len(param.shape)) for param in one.candidate.function.params]
    return tuple(str(block.name_hint) for block in blocks), tuple(operands)


def _is_slower_on_more_cores(one: Implementation, costs: Mapping[CostKey, KernelCost]) -> bool:
    """Return whether TVM's default loops cannot win on several cores, by what they take on one.

    They share out nothing, so that they take as long on all cores as on one of the kind that leads.
    """
    device, rule = one.device, costs[one.kernel.id, one.device.cost_class].rule
    if one.candidate.origin != "default" or len(device.cores) < 2:
        return False
    alone = [
        other.time_ns
        for cost in costs.values()
        for other in cost.others
        if other.kernel.id == one.kernel.id
        and other.candidate.origin == "default"
        and other.is_measured
        and len(other.device.cores) == 1
        and (other.device.target, other.device.rpc_key) == (device.target, device.rpc_key)
        and other.device.core_kinds[:1] == device.core_kinds[:1]
    ]
    return bool(alone) and not is_faster(min(alone), rule.time_ns, rule.time_ns)


def _by_class(implementations: Iterable[Implementation]) -> dict[Device, list[Implementation]]:
    """Return implementations by the device of their class, in order."""
    groups: dict[CostClass, list[Implementation]] = {}
    for one in implementations:
        groups.setdefault(one.device.cost_class, []).append(one)
    return {same[0].device: same for same in groups.values()}


def _measure(
    implementations: Sequence[Implementation],
    stage: str,
    records: RecordStore,
    config: MeasureConfig,
    progress: Progress | None,
    end_s: float = math.inf,
    demand: Demand | None = None,
) -> None:
    """Measure implementations on the device of the first of them, and look up what they take."""
    measure_kernels(
        [one.kernel for one in implementations],
        implementations[0].device,
        records,
        config,
        stage,
        progress,
        functions=[one.function for one in implementations],
        end_s=end_s,
        demand=demand,
    )
    for one in implementations:
        one.look_up(records)
