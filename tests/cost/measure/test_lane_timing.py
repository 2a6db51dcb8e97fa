"""Kernels are timed as the lanes run them."""

from __future__ import annotations

import time

import numpy as np
import pytest
import tvm
from tvm import te

from tests.runtime.modules import ParallelKernels, platforms
from tvm_sphinx.cost.measure.cache_state import Reuse, pause, writer
from tvm_sphinx.cost.measure.lane_timing import load_for_lanes, time_in_lane
from tvm_sphinx.platform.targets import device_target


def test_samples_are_the_durations_of_single_calls() -> None:
    @tvm.register_global_func("tests.lanes.wait", override=True)
    def wait(_: tvm.runtime.Tensor) -> None:
        time.sleep(0.002)

    device = platforms()["sharing"].devices[2]
    tensor = tvm.runtime.empty((4,), "float32")
    wait_in_lane = tvm.get_global_func("tests.lanes.wait")
    samples = time_in_lane(wait_in_lane, [tensor], device, min_ns=20_000_000)
    assert sum(samples) >= 20_000_000
    assert 2_000_000 <= np.median(samples) < 50_000_000


def test_timed_kernel_computes_on_its_team() -> None:
    device = platforms()["sharing"].devices[2]
    source = te.placeholder((64, 64), name="source")
    result = te.compute((64, 64), lambda i, j: source[i, j] * 2.0, name="result")
    kernel = te.create_prim_func([source, result]).with_attr("target", device_target(device))
    module = load_for_lanes({"twice": kernel}, ParallelKernels())
    operands = [tvm.runtime.tensor(np.ones((64, 64), "float32")), tvm.runtime.empty((64, 64), "float32")]
    samples = time_in_lane(module.get_function("twice"), operands, device, min_ns=100_000)
    assert sum(samples) >= 100_000
    assert (operands[1].numpy() == 2).all()


def test_cold_operands_keep_their_values() -> None:
    """Sweeping the caches between calls changes neither what is read nor how many samples there are."""
    device = platforms()["sharing"].devices[0]
    source = te.placeholder((1024, 128), name="source")
    k = te.reduce_axis((0, 1024), name="k")
    result = te.compute((128,), lambda j: te.max(source[k, j], axis=k), name="result")
    kernel = te.create_prim_func([source, result]).with_attr("target", device_target(device))
    function = load_for_lanes({"largest": kernel}).get_function("largest")
    values = np.random.default_rng(0).standard_normal((1024, 128)).astype("float32")
    operands = [tvm.runtime.tensor(values), tvm.runtime.empty((128,), "float32")]
    samples = time_in_lane(function, operands, device, cold=[0], reuse_bytes=8 << 20)
    assert min(samples) > 0
    assert (operands[0].numpy() == values).all()
    assert (operands[1].numpy() == values.max(axis=0)).all()


@pytest.mark.parametrize("size", [0, 1, 63, 1000, 100_003])
def test_writer_copies_every_byte_on_any_device(size: int) -> None:
    for device in platforms()["sharing"].devices:
        source = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
        result = tvm.runtime.empty((size,), "uint8")
        writer(device)(tvm.runtime.tensor(source), result)
        assert (result.numpy() == source).all()


def test_a_pause_lasts_as_long_as_it_is_asked_to() -> None:
    begin = time.perf_counter_ns()
    pause(3_000_000)(tvm.runtime.empty((1,), "uint8"))
    assert time.perf_counter_ns() - begin >= 3_000_000


def test_reuse_grows_with_what_is_read_up_to_where_weights_are_as_far_as_they_get() -> None:
    near, far, farther = (Reuse.after(1 << power) for power in (16, 24, 32))
    assert near.bytes < far.bytes < farther.bytes == Reuse.after(1 << 40).bytes
    assert near.ns < far.ns < farther.ns == Reuse.after(1 << 40).ns
