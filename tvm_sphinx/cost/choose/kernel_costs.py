"""What is known of each kernel on each class of devices: its implementations and their times. [TVM]"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..._tvm import tvm
from ...frontend.extract import Kernel
from ...platform import Device
from ...platform.device import CostClass, one_of_each_class
from ...platform.targets import device_target
from ...runtime.threads import map_in_threads
from ..measure.kernels import implement_for, implementation_id
from ..measure.roofline import needs_estimate
from ..records.classes import class_of
from ..records.store import Record, RecordStore, median_and_spread
from .assemble import TimeOf
from .candidates import (
    Candidate,
    CandidateSource,
    has_candidates,
    is_faster,
    may_win,
    other_candidates,
    rules_candidate,
)

# A rules' kernel that takes so many times as long on a CPU as on a GPU is not worth another one: none of
# those that were measured was that much faster than the rules', and copies come on top.
_HOPELESS = 4
#: Kernel id and class of devices.
CostKey = tuple[str, CostClass]


@dataclass(eq=False)
class Implementation:
    """One implementation of a kernel on a class of devices.

    ``time_ns`` is -1 where it cannot run, or nothing is known yet; ``is_measured`` tells that time and
    spread are on record, else they are predicted. ``predicted`` is what a model said of both, if asked.
    """

    kernel: Kernel
    device: Device
    candidate: Candidate
    key: str
    time_ns: int = -1
    spread_ns: int = 0
    is_measured: bool = False
    predicted: tuple[int, int] | None = None

    @property
    def function(self) -> Any | None:
        """The PrimFunc with the device's target; None where there is none for it."""
        function = self.candidate.function
        return function and function.with_attr("target", device_target(self.device))

    @property
    def may_be_chosen(self) -> bool:
        """Whether it runs, and has run: what never did may compute other numbers."""
        return self.time_ns >= 0 and (self.is_measured or self.candidate.found_ns > 0)

    def record(self, records: RecordStore) -> Record | None:
        """Return what is on record of it, None if nothing is."""
        return records.get(self.key, str(class_of(self.device)), str(tvm.__version__))

    def look_up(self, records: RecordStore) -> None:
        """Take time and spread from the records, if it is there."""
        record = self.record(records)
        if record is None:
            return
        self.is_measured, self.time_ns, self.spread_ns = True, -1, 0
        if record.samples_ns:
            self.time_ns, self.spread_ns = median_and_spread(record.samples_ns)


@dataclass(eq=False)
class KernelCost:
    """What a kernel costs on a class of devices: by the rules' implementation, and by others.

    `best` is the decision: what runs, and what it takes.
    """

    rule: Implementation
    others: list[Implementation] = field(default_factory=list)

    @property
    def best(self) -> Implementation:
        """What runs, by the times at hand: the rules' kernel, unless one beats it by more than noise."""
        best = self.rule
        for other in self.others:
            if self.is_open(other) and other.may_be_chosen:
                best = other if is_faster(other.time_ns, best.time_ns, self.rule.time_ns) else best
        return best

    def is_open(self, other: Implementation) -> bool:
        """Return whether an implementation can still win, by what is measured of the rules'."""
        if not self.rule.is_measured:
            return True
        return self.rule.time_ns >= 0 and may_win(other.candidate, self.rule.time_ns)

    def take_found_times(self) -> None:
        """Give candidates the time that they took where they were found, if the rules' is measured here.

        That is surer than a prediction: tuning leaves the rules' time on record on the machine that it
        runs on.
        """
        for other in self.others:
            if self.rule.is_measured and not other.is_measured and other.candidate.found_ns > 0:
                other.time_ns = other.candidate.found_ns

    def urgency_ns(self, implementation: Implementation) -> int:
        """Return how much the best time may change where this implementation is measured.

        The best one's may by its spread; that of another by how far its lower end undercuts the best.
        """
        return max(0, self.best.time_ns - implementation.time_ns + implementation.spread_ns)


def read_kernel_costs(
    kernels: Iterable[Kernel], devices: Iterable[Device], records: RecordStore
) -> dict[CostKey, KernelCost]:
    """Return what is on record of the rules' kernels on each class of devices."""
    costs: dict[CostKey, KernelCost] = {}
    kernels = list(kernels)
    pairs = [(kernel, device) for device in one_of_each_class(devices) for kernel in kernels]
    functions = map_in_threads(lambda pair: implement_for(*pair), pairs)  # each is scheduled
    for (kernel, device), function in zip(pairs, functions, strict=True):
        candidate = Candidate("", None) if function is None else rules_candidate(function)
        rule = _implementation(kernel, device, candidate, records)
        costs[kernel.id, device.cost_class] = KernelCost(rule)
    return costs


def add_candidates(
    costs: Iterable[KernelCost],
    sources: Sequence[CandidateSource],
    records: RecordStore,
    *,
    unseen: bool,
    elsewhere: Sequence[KernelCost] = (),
) -> list[Implementation]:
    """Give kernels their other implementations, and return those that are not on record.

    A CPU kernel that takes many times as long as the GPU's, which may be among those ``elsewhere``, gets
    none: nothing puts it there. With ``unseen`` they may be measured later; else those that never ran
    are left out, since they could not be chosen. The times of the rules' kernels have to be known.
    """
    missing = []
    costs = list(costs)
    elsewhere_ns = _fastest_elsewhere([*costs, *elsewhere])
    for cost in costs:
        rule = cost.rule
        if rule.candidate.function is None or rule.time_ns < 0 or not has_candidates(rule.device):
            continue
        fastest_ns = elsewhere_ns.get(rule.kernel.id, math.inf)
        if rule.device.is_cpu and rule.time_ns > _HOPELESS * fastest_ns:
            continue
        for candidate in other_candidates(
            rule.kernel, rule.device, sources, rule.candidate, rule.time_ns
        ):
            other = _implementation(rule.kernel, rule.device, candidate, records)
            if other.is_measured or (cost.is_open(other) and (unseen or candidate.found_ns > 0)):
                cost.others.append(other)
                missing += [] if other.is_measured else [other]
    return missing


def _fastest_elsewhere(costs: Iterable[KernelCost]) -> dict[str, int]:
    """Return for each kernel what it takes at least, as measured, on a device that is no CPU."""
    found: dict[str, int] = {}
    for rule in (cost.rule for cost in costs):
        if not rule.device.is_cpu and rule.is_measured and rule.time_ns >= 0:
            found[rule.kernel.id] = min(rule.time_ns, found.get(rule.kernel.id, rule.time_ns))
    return found


@dataclass(frozen=True)
class KernelChoices:
    """The implementation of each kernel on each class of devices, by (kernel id, cost class).

    A kernel that is not listed takes what `tvm_sphinx.kernels.implement.implement_kernel` makes of it.
    """

    chosen: Mapping[CostKey, Candidate] = field(default_factory=dict)

    def function(self, kernel: Kernel, device: Device) -> Any | None:
        """Return the chosen PrimFunc of a kernel with the device's target, None if none was chosen."""
        candidate = self.chosen.get((kernel.id, device.cost_class))
        return candidate and candidate.function.with_attr("target", device_target(device))

    def origin(self, kernel: str, device: Device) -> str:
        """Return where the implementation of a kernel on a device comes from; "" if it is not listed."""
        candidate = self.chosen.get((kernel, device.cost_class))
        return candidate.origin if candidate else ""


def choose_kernels(costs: Mapping[CostKey, KernelCost]) -> KernelChoices:
    """Return the best implementation of each kernel on each class of CPUs at hand and of GPUs."""
    best = {key: cost.best for key, cost in costs.items() if _is_built_here(cost.rule.device)}
    return KernelChoices(
        {key: found.candidate for key, found in best.items() if found.candidate.function is not None}
    )


def _is_built_here(device: Device) -> bool:
    is_cuda = device.rpc_key is None and device.runtime.startswith("cuda:")
    return has_candidates(device) or is_cuda


def times_of(costs: Mapping[CostKey, KernelCost]) -> TimeOf:
    """Return a function from a kernel and a device to the time and spread of its best implementation."""

    def time_of(kernel: str, device: Device) -> tuple[int, int, bool] | None:
        best = costs[kernel, device.cost_class].best
        if best.candidate.function is not None and not best.is_measured and needs_estimate(device):
            return None
        return best.time_ns, best.spread_ns, best.is_measured

    return time_of


def _implementation(
    kernel: Kernel, device: Device, candidate: Candidate, records: RecordStore
) -> Implementation:
    kernel = kernel.on(device)
    key = implementation_id(kernel, candidate.function, device)
    made = Implementation(kernel, device, candidate, key)
    made.look_up(records)
    return made
