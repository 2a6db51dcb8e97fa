"""A model is compiled for CPU and GPU from costs that were measured on both."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tvm_sphinx
from tests.gpu.modules import platform
from tests.relax_modules import random_module
from tvm_sphinx.cost.measure.gpu_links import crossing_samples, stream_samples
from tvm_sphinx.cost.measure.kernels import MeasureConfig
from tvm_sphinx.cost.records.store import RecordStore
from tvm_sphinx.platform import Link
from tvm_sphinx.platform.detect import detect_platform

pytestmark = pytest.mark.gpu


def test_detected_gpus_are_streams_that_share_a_memory() -> None:
    devices = [device for device in detect_platform().devices if not device.is_cpu]
    assert {device.runtime for device in devices} >= {"cuda:0"}
    assert sum(device.runtime == "cuda:0" for device in devices) >= 2
    assert all(device.target_config["arch"].startswith("sm_") for device in devices)


def test_costs_of_both_devices_are_measured_and_the_model_runs(tmp_path: Path) -> None:
    where = platform(1, 1)
    pairs = itertools.permutations([device.name for device in where.devices], 2)
    links = tuple(Link(src, dst, 10_000, 1e10) for src, dst in pairs)
    model = tvm_sphinx.compile(
        random_module(2, 4),
        replace(where, links=links),
        records=tmp_path / "records.jsonl",
        measure=MeasureConfig(sample_ms=0.1, under_load=False),
    )
    results = model.run(model.random_inputs())
    assert all(np.isfinite(np.asarray(result)).all() for result in results)
    store = RecordStore(tmp_path / "records.jsonl")
    assert any(record.where.device == "cuda:0" for record in store._records.values())


def test_crossings_and_streams_are_measured() -> None:
    cpu, first, second = platform(1, 2).devices
    for pair in ((cpu, first), (first, cpu)):
        samples = crossing_samples(*pair, 4096)
        assert len(samples) > 5
        assert all(0 < sample < 1e9 for sample in samples)
    assert all(0 <= sample < 1e9 for sample in stream_samples(first, second))
