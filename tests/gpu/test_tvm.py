"""TVM's own CUDA runtime and kernels on the GPU, against the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax

from tests.relax_modules import EXTENT, random_module
from tvm_sphinx.frontend.extract import extract_task_graph
from tvm_sphinx.frontend.lower import lower_to_kernels
from tvm_sphinx.platform import Device, Platform
from tvm_sphinx.platform.targets import cuda_devices, device_target, host_target
from tvm_sphinx.program.build import build_stock_program
from tvm_sphinx.program.kinds import flatten_outputs
from tvm_sphinx.relax_pass import annotate_schedule
from tvm_sphinx.scheduling.schedule import Schedule

pytestmark = pytest.mark.gpu


def inputs() -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.random((EXTENT, EXTENT), dtype=np.float32) for _ in range(2)]


def platform() -> Platform:
    return Platform(
        (Device("cpu", host_target(), "cpu:0", (0,)), Device("gpu", cuda_devices()[0], "cuda:0"))
    )


def stock_outputs(target: Any, device: Any) -> list[np.ndarray]:
    """Return what TVM's own pipeline computes."""
    executable = tvm.compile(random_module(5, num_ops=8), target)
    machine = relax.VirtualMachine(executable, device)
    given = [tvm.runtime.tensor(value, device) for value in inputs()]
    return flatten_outputs(machine["main"](*given))


def test_the_fake_has_two_devices(fake_gpu: Any) -> None:
    assert len(cuda_devices()) == 2


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "bool"])
def test_copy_to_the_gpu_and_back(dtype: str) -> None:
    values = (np.random.default_rng(0).random((3, 5, 7)) * 9).astype(dtype)
    np.testing.assert_array_equal(tvm.runtime.tensor(values, tvm.cuda(0)).numpy(), values)


def test_module_of_tvms_own_pipeline_agrees_with_the_cpu() -> None:
    cpu, gpu = (device_target(device) for device in platform().devices)
    expected = stock_outputs(cpu, tvm.cpu())
    for got, value in zip(stock_outputs(gpu, tvm.cuda(0)), expected, strict=True):
        np.testing.assert_allclose(got, value, rtol=1e-3, atol=1e-3)


def test_placements_on_both_devices_agree_with_the_cpu() -> None:
    targets = [device_target(device) for device in platform().devices]
    extraction = extract_task_graph(lower_to_kernels(random_module(6), targets[0], targets=targets))
    count = extraction.graph.num_tasks
    start = np.arange(count) * 10
    expected: list[np.ndarray] = []
    rng = np.random.default_rng(1)
    for placement in (np.zeros(count, int), np.ones(count, int), rng.integers(0, 2, count)):
        schedule = Schedule(placement, start, start + 10, 10 * count, 0, "by hand")
        annotated = annotate_schedule(extraction, schedule, platform())
        program = build_stock_program(annotated, platform(), "main").open()
        for _ in range(2):
            outputs = flatten_outputs(program(inputs()))
            expected = expected or outputs
            for got, value in zip(outputs, expected, strict=True):
                np.testing.assert_allclose(got, value, rtol=1e-3, atol=1e-3)
