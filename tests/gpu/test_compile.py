"""A model is compiled for CPU and GPU from costs that were measured on both."""

from __future__ import annotations

import numpy as np
import pytest

import tvm_sphinx
from tests.gpu.modules import platform
from tests.networks import recurrent_net
from tvm_sphinx.cost.measure.kernels import MeasureConfig
from tvm_sphinx.cost.records.store import RecordStore
from tvm_sphinx.platform.detect import detect_platform

pytestmark = pytest.mark.gpu


def test_detected_gpus_are_streams_that_share_a_memory() -> None:
    devices = [device for device in detect_platform().devices if not device.is_cpu]
    assert {device.runtime for device in devices} >= {"cuda:0"}
    assert sum(device.runtime == "cuda:0" for device in devices) >= 2
    assert all(device.target_config["arch"].startswith("sm_") for device in devices)


def test_costs_of_both_devices_are_measured_and_the_model_runs(tmp_path) -> None:
    path = tmp_path / "records.jsonl"
    model = tvm_sphinx.compile(
        recurrent_net(steps=2, inputs=4, hidden=4),
        platform(1, 2),
        records=path,
        measure=MeasureConfig(sample_ms=0.1, under_load=False),
    )
    (inputs,) = [model.random_inputs()]
    results = model.run(inputs)
    assert all(np.isfinite(np.asarray(result)).all() for result in results)
    store = RecordStore(path)
    names = [record.kernel for record in store._records.values()]
    assert any(name.startswith("crossing of") for name in names)
    assert any(record.where.device == "cuda:0" for record in store._records.values())
