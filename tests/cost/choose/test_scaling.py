"""What is measured on how many cores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import tvm

from tests.networks import recurrent_net
from tests.platform import machines
from tvm_sphinx.cost.choose import measuring
from tvm_sphinx.cost.choose.costing import decide_kernels
from tvm_sphinx.cost.measure.kernels import MeasureConfig, implementation_id
from tvm_sphinx.cost.records.classes import class_of
from tvm_sphinx.cost.records.store import Record, RecordStore
from tvm_sphinx.frontend.extract import Extraction, Kernel, extract_task_graph
from tvm_sphinx.frontend.lower import lower_to_kernels
from tvm_sphinx.kernels.schedule import rule_of
from tvm_sphinx.platform import Device, sysfs
from tvm_sphinx.platform.targets import device_target, host_target

Times = Callable[[int], int]


@pytest.fixture(scope="module")
def extraction() -> Extraction:
    target = device_target(Device("one", host_target(), "cpu:0", (0,)))
    return extract_task_graph(lower_to_kernels(recurrent_net(steps=2), target))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Counter[int]]:
    """Return a function that costs kernels on a desktop of 16 cores and counts what was measured there.

    A kernel takes what a given function of the number of cores says.
    """
    machines.two_domain_desktop(tmp_path)
    monkeypatch.setattr(sysfs, "ROOT", tmp_path)

    def cost(extraction: Extraction, groups: Sequence[Device], times: Times, store: RecordStore) -> Any:
        counts: Counter[int] = Counter()

        def fake(kernels: Sequence[Kernel], device: Device, *_: object, **named: Any) -> None:
            for kernel, function in zip(kernels, named["functions"], strict=True):
                key = implementation_id(kernel, function, device)
                where, version = class_of(device), str(tvm.__version__)
                if store.get(key, str(where), version) is not None:
                    continue
                store.add(Record(key, where, version, (float(times(len(device.cores))),)))
                counts[len(device.cores)] += rule_of(function) != "given"  # default loops are

        monkeypatch.setattr(measuring, "measure_kernels", fake)
        monkeypatch.setattr(measuring, "check_candidates", lambda *_: None)
        kernels = list(extraction.kernels.values())
        costs = decide_kernels(kernels, groups, store, config=MeasureConfig())
        assert all(cost.rule.time_ns > 0 for cost in costs.values())
        return counts, costs

    return cost


def _devices(*sizes: int, kinds: Callable[[int], str] = lambda core: "") -> list[Device]:
    return [
        Device(
            f"cores{size}",
            host_target(),
            "cpu:0",
            tuple(range(size)),
            core_kinds=tuple(kinds(core) for core in range(size)) if kinds(0) else (),
        )
        for size in sizes
    ]


def test_kernels_that_stop_scaling_are_not_measured_on_more_cores(
    extraction: Extraction, measured: Callable[..., Any]
) -> None:
    """Two cores bring nothing: four and eight are not measured; sixteen are, over two caches."""
    store, groups = RecordStore(None), _devices(1, 2, 4, 8, 16)
    counts, costs = measured(extraction, groups, lambda cores: 5000, store)
    assert counts[1] >= len(extraction.kernels)
    assert (counts[4], counts[8]) == (0, 0)
    assert counts[2] == counts[16] == counts[1]
    assert {cost.rule.is_measured for cost in costs.values() if len(cost.rule.device.cores) == 8} == {
        False
    }
    number = len(store)
    measured(extraction, groups, lambda cores: 5000, store)
    assert len(store) == number


def test_kernels_that_scale_are_measured_on_all_sizes(
    extraction: Extraction, measured: Callable[..., Any]
) -> None:
    counts, costs = measured(
        extraction, _devices(1, 2, 4, 8, 16), lambda cores: 100_000 // cores, RecordStore(None)
    )
    assert len(set(counts.values())) == 1
    assert all(cost.rule.is_measured for cost in costs.values())


def test_each_kind_of_core_is_measured_for_itself(
    extraction: Extraction, measured: Callable[..., Any]
) -> None:
    groups = _devices(1, 2, 4, kinds=lambda core: "P")
    groups += _devices(1, 2, 4, kinds=lambda core: "E")
    groups = [
        Device(f"{d.name}{d.core_kinds[0]}", d.target, d.runtime, d.cores, core_kinds=d.core_kinds)
        for d in groups
    ]
    counts, _ = measured(extraction, groups, lambda cores: 5000, RecordStore(None))
    assert counts[1] == counts[2]
    assert counts[1] >= 2 * len(extraction.kernels)
    assert counts[4] == 0


def test_two_cores_are_always_measured(extraction: Extraction, measured: Callable[..., Any]) -> None:
    counts, _ = measured(extraction, _devices(1, 2), lambda cores: 5000, RecordStore(None))
    assert counts[1] == counts[2] > 0
