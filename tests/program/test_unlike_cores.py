"""A model over a fast and a slow core of one make, from `detect` to a run."""

from __future__ import annotations

from pathlib import Path

import pytest

import tvm_sphinx
from tests.networks import recurrent_net
from tvm_sphinx.cost.measure.kernels import MeasureConfig
from tvm_sphinx.cost.records.store import read_records
from tvm_sphinx.platform import detect_platform
from tvm_sphinx.platform.machine import usable_cores
from tvm_sphinx.platform.slow_cores import SLOW_VARIABLE
from tvm_sphinx.program.compiled import CompiledModel, largest_difference


@pytest.mark.skipif(len(usable_cores()) < 2, reason="a kind needs another")
def test_a_slow_core_is_measured_as_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kernel is timed on the fast core, on the slow one and on both; the program runs everywhere.

    Eight times as slow is more than what disturbs a core of a busy machine.
    """
    cores = usable_cores()[:2]
    monkeypatch.setenv("TVM_SPHINX_HOME", str(tmp_path))
    monkeypatch.setenv(SLOW_VARIABLE, f"{cores[1]}:8")
    platform = detect_platform()
    records = tmp_path / "records.jsonl"
    compiled = tvm_sphinx.compile(
        recurrent_net(steps=2),
        platform,
        records=records,
        measure=MeasureConfig(sample_ms=0.2, under_load=False),
    )
    times: dict[str, dict[str, float]] = {}
    for record in read_records(records):
        if record.kind == "kernel" and record.samples_ns:
            times.setdefault(record.kernel, {})[record.where.device] = min(record.samples_ns)
    both = [found for found in times.values() if {"1 P cores", "1 E cores"} <= set(found)]
    assert len(both) > 3
    slowed = [found["1 E cores"] / found["1 P cores"] for found in both]
    assert sorted(slowed)[len(slowed) // 2] > 2
    assert any("P + 1 E cores" in where for found in times.values() for where in found)
    assert compiled.report is not None
    assert compiled.report.best_single_device != f"core{cores[1]}"

    compiled.save(tmp_path / "model.sphinx")
    inputs = compiled.random_inputs()
    loaded = CompiledModel.load(tmp_path / "model.sphinx")
    assert loaded.platform == platform
    assert largest_difference(loaded.run(inputs), compiled.run(inputs)) == (0, 0)
    # Its cores are allowed here, whatever kind they are of now.
    monkeypatch.delenv(SLOW_VARIABLE)
    again = CompiledModel.load(tmp_path / "model.sphinx")
    assert largest_difference(again.run(inputs), loaded.run(inputs)) == (0, 0)
