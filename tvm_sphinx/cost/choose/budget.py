"""Measure implementations in a given order until a budget ends. [TVM]"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from ...progress import Progress
from ..measure.kernel_timing import MeasureConfig
from ..measure.kernels import measure_kernels
from ..records.store import RecordStore
from .check_candidate import check_candidate
from .kernel_costs import CostKey, Implementation, KernelCost

# Most kernels that are built together, which is faster than one by one.
_BATCH = 8
# A first guess of what a kernel costs: builds, and calls of it, those that are not counted among them.
_BUILD_S = 0.1
_CALLS = 6
# One that has to be checked is built with the rules' kernel before it is built to be timed.
_BUILDS_TO_CHECK = 3
# Seconds of measuring that the first guess counts for beside what is seen later.
_GUESS_WEIGHT_S = 0.2


def measure_within(
    budget_s: float,
    order: Sequence[Implementation],
    costs: Mapping[CostKey, KernelCost],
    records: RecordStore,
    config: MeasureConfig,
    progress: Progress | None = None,
) -> None:
    """Measure implementations in order, a few of one device at a time, while they are likely to fit.

    Their times and spreads are then those that were measured. One that is not the rules' is checked
    first (see `tvm_sphinx.cost.choose.check_candidate`), and left out where the rules' turned out to be
    faster than it was where it was found.

    What a kernel costs is learned on the way: the first batch is of one, and each of at most twice as
    many as were measured before. A kernel that does not fit into the rest of the budget gives way to a
    later one that does, and none is begun once the budget is spent.
    """
    session = _Session(budget_s, costs, records, config)
    left = list(order)
    while batch := session.next_batch(left):
        session.measure(batch)
        left = [one for one in left if one not in batch]
        if progress:
            progress("measure what matters most", len(order) - len(left), len(order))


class _Session:
    """What is left of a budget, and the pace at which it is spent."""

    def __init__(
        self,
        budget_s: float,
        costs: Mapping[CostKey, KernelCost],
        records: RecordStore,
        config: MeasureConfig,
    ) -> None:
        self.costs, self.records, self.config = costs, records, config
        self.end_s = time.monotonic() + budget_s
        self._num_tried = 0
        self._guessed_s = self._taken_s = _GUESS_WEIGHT_S

    def next_batch(self, left: Sequence[Implementation]) -> list[Implementation]:
        """Return the next few on one device, each of another kernel, that fit into the budget."""
        rest_s = self.end_s - time.monotonic()
        batch: dict[str, Implementation] = {}
        device = None
        for one in left:
            if len(batch) == min(_BATCH, max(1, 2 * self._num_tried)):
                break
            if one.kernel.id in batch or device not in (None, one.device):
                continue
            expected_s = self._guess_s(one) * self._taken_s / self._guessed_s
            if expected_s <= rest_s:
                rest_s -= expected_s
                batch[one.kernel.id], device = one, one.device
        return list(batch.values())

    def measure(self, batch: Sequence[Implementation]) -> None:
        """Measure a batch, and learn how long that takes."""
        begin_s, guessed_s = time.monotonic(), sum(map(self._guess_s, batch))
        wanted = [one for one in batch if time.monotonic() < self.end_s and self._is_sound(one)]
        measure_kernels(
            [one.kernel for one in wanted],
            batch[0].device,
            self.records,
            self.config,
            functions=[one.function for one in wanted],
            end_s=self.end_s,
        )
        for one in wanted:
            one.look_up(self.records)
            self._cost(one).take_found_times()
        self._num_tried += len(batch)
        self._guessed_s += guessed_s
        self._taken_s += time.monotonic() - begin_s

    def _cost(self, one: Implementation) -> KernelCost:
        return self.costs[one.kernel.id, one.device.cost_class]

    def _guess_s(self, one: Implementation) -> float:
        """Return the seconds that one takes to build and measure, if all went as first guessed."""
        builds = 1 if one is self._cost(one).rule else _BUILDS_TO_CHECK
        calls_ns = _CALLS * (max(0, one.time_ns) + one.spread_ns)
        return builds * _BUILD_S + max(self.config.goal.max_ns, calls_ns) / 1e9

    def _is_sound(self, one: Implementation) -> bool:
        """Return whether one is worth measuring, after a few calls if it never ran before."""
        cost = self._cost(one)
        if one is cost.rule:
            return True
        if not cost.is_open(one):
            return False
        check_candidate(one, cost.rule, self.records)
        return True
