"""Which of TVM's default loops are measured beside the rules' kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import tvm
from tvm import te

from tvm_sphinx.cost.choose import measuring
from tvm_sphinx.cost.choose.costing import decide_kernels
from tvm_sphinx.cost.measure.kernel_timing import MeasureConfig, kernel_of
from tvm_sphinx.cost.measure.kernels import implementation_id
from tvm_sphinx.cost.records.classes import class_of
from tvm_sphinx.cost.records.store import Record, RecordStore
from tvm_sphinx.frontend.extract import Kernel
from tvm_sphinx.kernels.schedule import rule_of
from tvm_sphinx.platform import Device
from tvm_sphinx.platform.machine import usable_cores
from tvm_sphinx.platform.targets import host_target

_EXTENTS = range(64, 64 * 13, 64)
#: What default loops take where a rules' kernel takes 1,000 ns on one core, by extent and cores.
Times = Callable[[int, int], float]


def _doubling(extent: int) -> Kernel:
    source = te.placeholder((8, extent), name="source")
    doubled = te.compute((8, extent), lambda i, j: source[i, j] * 2.0, name="doubled")
    return kernel_of(te.create_prim_func([source, doubled]), f"doubling{extent}")


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> Callable[[Times, RecordStore, int], list[str]]:
    """Return the default loops that are measured on devices of one core up to some, by their times."""
    kernels = [_doubling(extent) for extent in _EXTENTS]

    def measure(times: Times, store: RecordStore, most_cores: int = 1) -> list[str]:
        timed: list[str] = []

        def fake(some: Sequence[Kernel], device: Device, *_: Any, **named: Any) -> None:
            for kernel, function in zip(some, named["functions"], strict=True):
                key = implementation_id(kernel, function, device)
                where, version, cores = class_of(device), str(tvm.__version__), len(device.cores)
                if store.get(key, str(where), version) is not None:
                    continue
                is_rule = rule_of(function) == "Injective"
                extent = int(kernel.argument_types[0].shape.values[1])
                taken = 1000.0 / cores if is_rule else times(extent, cores)
                store.add(Record(key, where, version, (taken,)))
                if not is_rule:
                    timed.append(f"{kernel.id} on {cores}")

        monkeypatch.setattr(measuring, "measure_kernels", fake)
        monkeypatch.setattr(measuring, "compile_ahead", lambda *_: None)
        monkeypatch.setattr(measuring, "check_candidates", lambda *_: None)
        cores = usable_cores()
        devices = [
            Device(f"cores{count}", host_target(), "cpu:0", tuple(cores[:count]))
            for count in range(1, most_cores + 1)
        ]
        decide_kernels(kernels, devices, store, config=MeasureConfig())
        return timed

    return measure


def test_of_a_form_that_never_wins_a_few_are_measured(tried: Any) -> None:
    store = RecordStore(None)
    assert len(tried(lambda *_: 990.0, store)) == 3
    assert tried(lambda *_: 1.0, store) == []  # those on record tell enough


def test_of_a_form_that_may_win_all_are_measured(tried: Any) -> None:
    store = RecordStore(None)
    assert len(tried(lambda extent, _: 500.0 if extent == _EXTENTS[0] else 2000.0, store)) == 12


@pytest.mark.skipif(len(usable_cores()) < 2, reason="a team has two cores")
def test_what_is_slower_on_one_core_is_not_measured_on_more(tried: Any) -> None:
    store = RecordStore(None)
    timed = tried(lambda extent, _: 400.0 if extent == _EXTENTS[0] else 700.0, store, 2)
    assert [name for name in timed if name.endswith("2")] == [f"doubling{_EXTENTS[0]} on 2"]
    assert len(timed) == 13
