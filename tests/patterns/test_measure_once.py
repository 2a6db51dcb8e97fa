"""One kernel, one measurement for each kind of device, however often and in whatever model it recurs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tvm

from tests.networks import recurrent_net, transformer
from tvm_sphinx.cost.choose.costing import measure_rules
from tvm_sphinx.cost.measure import kernels as measure
from tvm_sphinx.cost.measure.kernel_timing import BuiltKernels, LocalBench
from tvm_sphinx.cost.measure.sampling import Samples
from tvm_sphinx.cost.records.store import RecordStore
from tvm_sphinx.frontend.extract import Extraction, extract_task_graph
from tvm_sphinx.frontend.lower import lower_to_kernels
from tvm_sphinx.platform import Device, Platform
from tvm_sphinx.platform.machine import usable_cores
from tvm_sphinx.platform.targets import baseline_target, device_target, host_target


@pytest.fixture
def platform() -> Platform:
    core = usable_cores()[0]
    return Platform(
        (
            Device("native", host_target(), "cpu:0", (core,)),
            Device("again", host_target(), "cpu:0", (core,)),
            Device("baseline", baseline_target(), "cpu:0", (core,)),
        )
    )


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """Count what is timed, by kernel and kind of device; each takes 1,000 ns, and nothing is built."""
    counts: Counter[tuple[str, str]] = Counter()

    def time(bench: LocalBench, module: Any, symbol: str, *_: Any) -> Samples:
        counts[symbol, bench.device.cost_class] += 1
        return Samples((1000,) * 6, 0.0, 0.0)

    monkeypatch.setattr(LocalBench, "time", time)
    monkeypatch.setattr(
        measure, "build_kernels", lambda _, functions, __: BuiltKernels(dict.fromkeys(functions), {})
    )
    return counts


def extracted(module: tvm.IRModule, platform: Platform) -> Extraction:
    targets = [device_target(device) for device in platform.devices]
    return extract_task_graph(lower_to_kernels(module, targets[0], targets=targets))


def test_each_kernel_is_timed_once_per_kind_of_device_over_models_and_restarts(
    platform: Platform, timed: Counter[tuple[str, str]], tmp_path: Path
) -> None:
    records = tmp_path / "records.jsonl"
    short, long = (extracted(recurrent_net(steps=steps), platform) for steps in (3, 9))
    assert long.graph.num_tasks > 2 * len(long.kernels)

    costs = measure_rules(short.kernels.values(), platform.devices, RecordStore(records))
    assert {cost.best.time_ns for cost in costs.values()} == {1000}
    assert {device for _, device in timed} == {d.cost_class for d in platform.devices}
    assert len(timed) == 2 * len(short.kernels)
    assert set(timed.values()) == {1}

    # A longer network of the same kernels: only what depends on its length is new.
    new = set(long.kernels) - set(short.kernels)
    assert len(new) < len(long.kernels) / 2
    measure_rules(long.kernels.values(), platform.devices, RecordStore(records))
    assert len(timed) == 2 * (len(short.kernels) + len(new))
    assert set(timed.values()) == {1}


def test_deeper_networks_of_equal_layers_measure_nothing_new(
    platform: Platform, timed: Counter[tuple[str, str]], tmp_path: Path
) -> None:
    records = tmp_path / "records.jsonl"
    shallow, deeper = (extracted(transformer(layers), platform) for layers in (2, 4))
    measure_rules(shallow.kernels.values(), platform.devices, RecordStore(records))
    before = timed.copy()
    measure_rules(deeper.kernels.values(), platform.devices, RecordStore(records))
    assert timed == before
