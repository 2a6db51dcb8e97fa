"""The rates of a device: from probes where there was time for them, else as a core of its shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tvm_sphinx.cost.measure import kernels as kernels_module
from tvm_sphinx.cost.measure.kernels import MeasureConfig
from tvm_sphinx.cost.model.profile import Measure, measure_profile, probes
from tvm_sphinx.cost.model.training import device_profile
from tvm_sphinx.cost.records.classes import class_of
from tvm_sphinx.cost.records.store import Record, RecordStore
from tvm_sphinx.frontend.extract import Kernel
from tvm_sphinx.platform import Device, unlike_cpus

NATIVE, BASELINE = unlike_cpus().devices
QUICK = MeasureConfig(sample_ms=0.02, under_load=False)


def takes(**times_ns: float) -> Measure:
    """Return what tells the times of some probes, and has no time for the others."""

    def measure(kernels: Sequence[Kernel], device: Device, _: RecordStore) -> list[Record | None]:
        where, names = class_of(device), list(probes(len(device.cores)))
        assert len(names) == len(kernels)
        return [
            Record("probe", where, "0", (times_ns[name],) * 9) if name in times_ns else None
            for name in names
        ]

    return measure


def test_a_rate_is_the_work_of_its_probe_over_its_time() -> None:
    profile = measure_profile(NATIVE, RecordStore(None), takes(far=1e6, call=50.0, product=1e5))
    assert profile.memory_gb_per_s == pytest.approx(2 * 4 * (1 << 23) / 1e6)
    assert profile.gflop_per_s == pytest.approx(2 * 448 * 256 * 32 / 1e5)
    assert profile.call_ns == 50.0


def test_what_no_probe_tells_is_as_far_from_a_typical_core_as_that_of_another_device() -> None:
    typical = measure_profile(BASELINE, RecordStore(None), takes())
    native = measure_profile(NATIVE, RecordStore(None), takes())
    vectors = native.shape.vector_bytes / typical.shape.vector_bytes
    assert native.gflop_per_s == pytest.approx(vectors * typical.gflop_per_s)
    slow = replace(native, gflop_per_s=native.gflop_per_s / 2, call_ns=3 * native.call_ns)
    like = measure_profile(BASELINE, RecordStore(None), takes(near=1e5), slow)
    assert like.gflop_per_s == pytest.approx(typical.gflop_per_s / 2)
    assert like.call_ns == pytest.approx(3 * typical.call_ns)
    assert like.near_gb_per_s == pytest.approx(8.0 * (1 << 15) / 1e5)


def test_probes_go_on_where_time_ended_and_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    store = RecordStore(None)
    clock = SimpleNamespace(monotonic=lambda: float(store.num_added))  # a second for each probe
    monkeypatch.setattr(kernels_module, "time", clock)
    device_profile(NATIVE, store, QUICK, end_s=0.0)
    assert store.num_added == 0
    first = device_profile(NATIVE, store, QUICK, end_s=2.0)
    assert store.num_added == 2
    whole = device_profile(NATIVE, store, QUICK, end_s=6.0)
    assert store.num_added == len(probes(1)) == 6
    assert whole.gflop_per_s == first.gflop_per_s
    assert device_profile(NATIVE, store, QUICK, end_s=9.0) == whole
    assert store.num_added == 6
