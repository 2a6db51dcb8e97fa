"""A measuring budget, on a clock that only what is measured moves: it is used, and not overrun."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace

import pytest

from tests.cost.measure.test_kernels import doubling_kernel, one_core
from tvm_sphinx.cost.choose import budget
from tvm_sphinx.cost.choose.budget import measure_within
from tvm_sphinx.cost.choose.candidates import Candidate
from tvm_sphinx.cost.choose.kernel_costs import (
    CostKey,
    Implementation,
    KernelCost,
    read_kernel_costs,
)
from tvm_sphinx.cost.measure import kernels as measure
from tvm_sphinx.cost.measure.hosts import LocalHost
from tvm_sphinx.cost.measure.kernel_timing import MeasureConfig
from tvm_sphinx.cost.measure.kernels import implementation_id
from tvm_sphinx.cost.measure.sampling import Samples
from tvm_sphinx.cost.records.store import RecordStore
from tvm_sphinx.frontend.extract import Kernel

CONFIG = MeasureConfig(sample_ms=1.0)
BUILD_S = 0.05


class Machine:
    """Builds and times kernels in no time at all, and puts the clock forward by what they cost."""

    def __init__(self, cost_s: Callable[[int], float], monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s, self.cost_s = 1000.0, cost_s
        self.timed: list[str] = []
        clock = SimpleNamespace(monotonic=lambda: self.now_s)
        monkeypatch.setattr(measure, "time", clock)
        monkeypatch.setattr(budget, "time", clock)
        monkeypatch.setattr(measure, "_open_bench", lambda *_: self)

    host = LocalHost()

    def build(self, functions: Mapping[str, object]) -> object:
        self.now_s += BUILD_S * len(functions)
        return self

    def time(self, _module: object, _symbol: str, kernel: Kernel, _goal: object) -> Samples:
        self.now_s += self.cost_s(int(kernel.argument_types[0].shape.values[0]))
        self.timed.append(kernel.id)
        return Samples((1000,) * 10, 0.0, 0.0)

    def turn(self, *_: object) -> None:
        return


def _costs(count: int, time_ns: Callable[[int], int]) -> dict[CostKey, KernelCost]:
    """Return the costs of kernels of extents 1, 2, ..., on one core, with predicted times."""
    kernels = [doubling_kernel(extent + 1) for extent in range(count)]
    costs = read_kernel_costs(kernels, (one_core(),), RecordStore(None))
    for extent, cost in enumerate(costs.values()):
        cost.rule.time_ns = time_ns(extent + 1)
    return costs


def _measure(seconds: float, costs: dict[CostKey, KernelCost], machine: Machine) -> float:
    """Measure in the order of the costs; return what of the clock that took."""
    begin_s = machine.now_s
    order = [one for cost in costs.values() for one in (cost.rule, *cost.others)]
    measure_within(seconds, order, costs, RecordStore(None), CONFIG)
    return machine.now_s - begin_s


@pytest.mark.parametrize("seconds", [0.5, 1.0, 3.0, 10.0, 17.3])
@pytest.mark.parametrize("cost_s", [0.01, 0.3, 1.0])
def test_the_pace_is_learned_from_the_first_kernel_on(
    seconds: float, cost_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Predictions say nothing of how long measuring takes here: one kernel at most is in excess."""
    machine = Machine(lambda _: cost_s, monkeypatch)
    spent_s = _measure(seconds, _costs(60, lambda _: 1000), machine)
    assert spent_s <= seconds + cost_s + BUILD_S
    rest_s = seconds - spent_s
    assert len(machine.timed) == 60 or rest_s < 1.5 * (cost_s + BUILD_S)


@pytest.mark.parametrize("seconds", [2.0, 7.0, 20.0])
def test_a_kernel_that_is_predicted_to_be_too_long_gives_way(
    seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cost_s(extent: int) -> float:
        return 3.0 if extent % 5 == 3 else 0.1

    machine = Machine(cost_s, monkeypatch)
    costs = _costs(60, lambda extent: round(1e9 * cost_s(extent) / 6))
    spent_s = _measure(seconds, costs, machine)
    assert spent_s <= seconds
    assert spent_s > seconds - 0.5
    first = [cost.rule for cost in costs.values()][2]
    assert first.is_measured == (seconds > 4)


def test_a_batch_that_takes_longer_than_expected_is_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(lambda extent: 0.01 if extent < 16 else 2.0, monkeypatch)
    spent_s = _measure(5.0, _costs(60, lambda _: 1000), machine)
    assert 4.99 <= spent_s <= 5.0 + 2.0 + 8 * BUILD_S


def test_nothing_is_begun_without_time(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(lambda _: 1.0, monkeypatch)
    assert _measure(0.01, _costs(5, lambda _: 1000), machine) == 0
    assert machine.timed == []


def test_other_implementations_are_checked_and_only_those_that_may_win_are_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(lambda _: 0.01, monkeypatch)
    checked = []
    monkeypatch.setattr(budget, "check_candidate", lambda one, *_: checked.append(one.kernel.id))
    costs = _costs(3, lambda _: 500)
    for cost, found_ns in zip(costs.values(), (0, 999, 1001), strict=True):
        function = cost.rule.kernel.function.with_attrs({"tirx.is_scheduled": True, "sphinx.test": 1})
        candidate = Candidate("tuned", function, found_ns)
        key = implementation_id(cost.rule.kernel, function, cost.rule.device)
        cost.others.append(Implementation(cost.rule.kernel, cost.rule.device, candidate, key, 400))
    _measure(100.0, costs, machine)
    names = [cost.rule.kernel.id for cost in costs.values()]
    # The rules' kernels take 1000 ns, so that the third candidate cannot win by what is known of it.
    assert checked == names[:2]
    assert sorted(machine.timed) == sorted([*names, *names[:2]])
    assert [cost.others[0].is_measured for cost in costs.values()] == [True, True, False]
