"""Without a budget: what is measured, left out, and told, on a bench that builds and times nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import tvm

from tests.networks import inception
from tvm_sphinx.cost.choose import guided, measuring
from tvm_sphinx.cost.choose.costing import Costing, cost_kernels
from tvm_sphinx.cost.choose.kernel_costs import Implementation
from tvm_sphinx.cost.measure.kernels import MeasureConfig, implementation_id
from tvm_sphinx.cost.records.classes import class_of
from tvm_sphinx.cost.records.store import Record, RecordStore
from tvm_sphinx.cost.table import build_problem
from tvm_sphinx.errors import ArtifactError
from tvm_sphinx.frontend.extract import Extraction, Kernel, extract_task_graph
from tvm_sphinx.frontend.lower import lower_to_kernels
from tvm_sphinx.platform import Device, Link, Platform, unlike_cpus
from tvm_sphinx.platform.targets import device_target
from tvm_sphinx.report.describe import format_report
from tvm_sphinx.report.placement import placement_report
from tvm_sphinx.search import search_schedule

ENDS = (("native", "baseline"), ("baseline", "native"))
PLATFORM = replace(unlike_cpus(), links=tuple(Link(*ends, 1000, 1e10) for ends in ENDS))
QUICK = MeasureConfig(under_load=False)


@pytest.fixture(scope="module")
def extraction() -> Extraction:
    targets = [device_target(device) for device in PLATFORM.devices]
    return extract_task_graph(lower_to_kernels(inception(), targets[0], targets=targets))


def drawn(*of: str) -> float:
    """Return a number in [0, 1) that these texts draw."""
    return crc32(" ".join(of).encode()) / 2**32


def time_ns(kernel: str, device: Device) -> int:
    """Return what a kernel takes: 0.1 to 2 ms, 1 to 4 times as long on the lesser device."""
    slower = 1.0 if device.name == "native" else 1 + 3 * drawn(kernel, "slower")
    return round(1e5 * 20 ** drawn(kernel) * slower)


class Oracle:
    """Predicts each time up to a drawn error of a tenth to either side."""

    label = "an oracle"

    def __init__(self) -> None:
        self.asked = 0

    def can_predict(self, device: Device) -> bool:
        return device.is_cpu

    def predict(self, implementations: Sequence[Implementation]) -> list[tuple[int, int]]:
        self.asked += len(implementations)
        found = []
        for one in implementations:
            exact = time_ns(one.kernel.id, one.device)
            found.append((round(exact * (0.9 + 0.2 * drawn(one.key))), round(0.05 * exact)))
        return found


class Blind(Oracle):
    """Has no model."""

    def predict(self, implementations: Sequence[Implementation]) -> list[tuple[int, int]]:
        raise ArtifactError("There is no cost model.")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Time kernels as `time_ns` says, and return what was timed."""
    timed: list[tuple[str, str]] = []

    def fake(kernels: Sequence[Kernel], device: Device, *rest: Any, **named: Any) -> None:
        store: RecordStore = rest[0]
        for kernel, function in zip(kernels, named["functions"], strict=True):
            key = implementation_id(kernel, function, device)
            where, version = class_of(device), str(tvm.__version__)
            if store.get(key, str(where), version) is None:
                store.add(Record(key, where, version, (float(time_ns(kernel.id, device)),)))
                timed.append((kernel.id, device.name))

    monkeypatch.setattr(measuring, "measure_kernels", fake)
    monkeypatch.setattr(measuring, "check_candidates", lambda *_: None)
    monkeypatch.setattr(measuring, "compile_ahead", lambda *_: None)
    monkeypatch.setattr("tvm_sphinx.cost.choose.candidates.default_loops", lambda *_: None)
    return timed


def cost(extraction: Extraction, store: RecordStore, guide: Any) -> Costing:
    return cost_kernels(extraction, PLATFORM, store, guide=guide, config=QUICK)


def makespan_ns(extraction: Extraction, found: Costing) -> int:
    problem = build_problem(extraction.graph, PLATFORM, found.table)
    best = search_schedule(problem).best
    for task, device in enumerate(best.device.tolist()):
        assert found.table.measured[task, device]
    return best.makespan_ns


def test_what_decides_nothing_is_left_out(extraction: Extraction, bench: list[tuple[str, str]]) -> None:
    everything = cost(extraction, RecordStore(None), None)
    num_all = len(bench)
    assert num_all == everything.num_kernels == 2 * len(extraction.kernels)
    assert everything.num_left_out == 0
    bench.clear()
    found = cost(extraction, RecordStore(None), Oracle())
    assert len(set(bench)) == len(bench) == num_all - found.num_left_out
    assert found.num_left_out > num_all / 5
    assert found.table.left_out.any()
    assert not (found.table.left_out & found.table.measured).any()
    assert makespan_ns(extraction, found) <= 1.005 * makespan_ns(extraction, everything)


def test_what_is_on_record_is_decided_again_without_a_measurement(
    extraction: Extraction, bench: list[tuple[str, str]]
) -> None:
    store = RecordStore(None)
    first = cost(extraction, store, Oracle())
    bench.clear()
    again = cost(extraction, store, Oracle())
    assert not bench
    assert np.array_equal(first.table.exec_ns, again.table.exec_ns)
    assert np.array_equal(first.table.left_out, again.table.left_out)
    whole = RecordStore(None)
    cost(extraction, whole, None)
    oracle = Oracle()
    assert cost(extraction, whole, oracle).num_left_out == 0
    assert oracle.asked == 0


@pytest.mark.parametrize("after", [1, 20, 50])
def test_a_run_that_was_stopped_loses_nothing(
    extraction: Extraction,
    bench: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    after: int,
) -> None:
    """What comes next depends on what is on record: the run may end with other kernels left out."""
    everything = cost(extraction, RecordStore(None), None)
    bench.clear()
    store, add = RecordStore(None), RecordStore.add

    def stop(self: RecordStore, record: Record) -> None:
        add(self, record)
        if len(self) == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RecordStore, "add", stop)
        with pytest.raises(KeyboardInterrupt):
            cost(extraction, store, Oracle())
    assert len(store) == after
    found = cost(extraction, store, Oracle())
    assert len(set(bench)) == len(bench)
    assert len(store) == found.num_kernels - found.num_left_out
    assert found.num_left_out > found.num_kernels / 10
    assert makespan_ns(extraction, found) <= 1.005 * makespan_ns(extraction, everything)
    again = cost(extraction, store, Oracle())
    assert np.array_equal(found.table.exec_ns, again.table.exec_ns)


def test_without_a_model_all_is_measured_and_that_is_told(
    extraction: Extraction, bench: list[tuple[str, str]]
) -> None:
    with pytest.warns(UserWarning, match=r"All kernels are measured.* There is no cost model\."):
        found = cost(extraction, RecordStore(None), Blind())
    assert found.num_left_out == 0
    assert len(bench) == found.num_kernels


def test_few_kernels_and_devices_of_little_memory_are_measured_whole() -> None:
    assert guided.may_guide(guided.FEWEST_GUIDED // 2, PLATFORM)
    assert not guided.may_guide(guided.FEWEST_GUIDED // 2 - 1, PLATFORM)
    assert not guided.may_guide(10_000, Platform(PLATFORM.devices[:1]))
    assert not guided.may_guide(10_000, PLATFORM.with_memory({"native": 1 << 20}))


def test_the_report_says_what_was_left_out(extraction: Extraction, bench: Callable[..., None]) -> None:
    found = cost(extraction, RecordStore(None), Oracle())
    searched = search_schedule(build_problem(extraction.graph, PLATFORM, found.table))
    report = placement_report(extraction.graph, PLATFORM, searched, searched.best, found.summary)
    told = f"; {found.num_left_out} of {found.num_kernels} times of kernels are predicted (an oracle)"
    assert told in format_report(report)
    assert type(report).from_json(report.to_json()) == report
