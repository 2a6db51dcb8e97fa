"""Put on record what is missing: of the rules' kernels, and of what else may implement them. [TVM]"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

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

    Those of devices of one core come first: what they take there tells which can win on more cores.
    """
    classes = sorted(_by_class(missing).items(), key=lambda one: len(one[0].cores))
    for device, all_here in classes:
        same = [one for one in all_here if not _is_slower_on_more_cores(one, costs)]
        if not same:
            continue
        compile_ahead(same, records)
        rules = [costs[one.kernel.id, device.cost_class].rule for one in same]
        check_candidates(same, rules, records)
        here = {
            kernel: max(0, cost.rule.time_ns)
            for (kernel, where), cost in costs.items()
            if where == device.cost_class
        }
        demand = None if calls is None else Demand(calls).of_total(here)
        stage = f"candidates on {device.name}"
        _measure(same, stage, records, config, progress, demand=demand)


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
