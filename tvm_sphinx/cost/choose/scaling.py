"""Kernels that run no faster on more cores: their times on still more need not be measured. [TVM]"""

from __future__ import annotations

from collections.abc import Mapping

from ...platform import Device
from ...platform.topology import read_cores
from .kernel_costs import CostKey, Implementation, KernelCost

# A kernel scales as long as more cores of its kind take less than this share of the time.
_LEAST_GAIN = 0.95


class Scaling:
    """What the measured times of the rules' kernels on few cores tell of those on more.

    Classes of one target that the same kind of core leads are in line, small ones first: one core, two,
    four, all of the kind, all kinds. Where the last of them has brought next to nothing, the next one is
    not measured: it is taken to be as fast as the last one that was. A schedule has no reason to put the
    kernel there. One that reaches into a further cache domain or node is measured in any case: it has
    a further cache, and other ways to the memory.
    """

    def __init__(self, costs: Mapping[CostKey, KernelCost]) -> None:
        self._lines: dict[tuple[object, ...], list[Implementation]] = {}
        for cost in costs.values():
            if cost.rule.device.is_cpu:
                self._lines.setdefault(_line(cost.rule), []).append(cost.rule)
        for line in self._lines.values():
            line.sort(key=lambda rule: len(rule.device.cores))
        self._settled: set[int] = set()
        self._places = {core.number: (core.domain, core.node) for core in read_cores()}

    def settle(self, rule: Implementation) -> bool:
        """Give a kernel the time that it has on fewer cores, if more of them have not helped before.

        Return whether it has that time.
        """
        device = rule.device
        is_here = device.is_cpu and device.rpc_key is None
        if id(rule) in self._settled:
            return True
        if rule.is_measured or not is_here or rule.candidate.function is None:
            return False
        size = len(device.cores)
        fewer = [other for other in self._lines[_line(rule)] if len(other.device.cores) < size]
        if len(fewer) < 2 or not all(map(self._is_known, fewer[-2:])):
            return False
        before, last = fewer[-2:]
        if self._num_places(device) > self._num_places(last.device):
            return False
        if last.is_measured and last.time_ns < _LEAST_GAIN * before.time_ns:
            return False
        rule.time_ns, rule.spread_ns = last.time_ns, last.spread_ns
        self._settled.add(id(rule))
        return True

    def _is_known(self, rule: Implementation) -> bool:
        """Return whether a kernel runs, and its time is no prediction."""
        return rule.time_ns >= 0 and (rule.is_measured or id(rule) in self._settled)

    def _num_places(self, device: Device) -> int:
        return len({self._places.get(core) for core in device.cores})


def _line(rule: Implementation) -> tuple[object, ...]:
    device: Device = rule.device
    return rule.kernel.id, device.target, device.rpc_key, device.core_kinds[:1]
