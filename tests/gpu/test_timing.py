"""Kernels are timed on a GPU as a model runs them, and their machine code is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tvm

from tests.gpu.modules import platform
from tvm_sphinx.cost.measure import gpu_shares
from tvm_sphinx.cost.measure.gpu_shares import NUM_COPIES, GpuKernel, measure_shares
from tvm_sphinx.cost.measure.gpu_surroundings import NUM_TURNS, bytes_between, surroundings
from tvm_sphinx.cost.measure.gpu_timing import (
    CacheState,
    GpuCall,
    GpuRuns,
    build_for_gpu,
    sample_on_gpu,
)
from tvm_sphinx.cost.measure.kernel_timing import kernel_of, random_operands
from tvm_sphinx.cost.measure.sampling import Goal
from tvm_sphinx.cost.records.classes import class_of
from tvm_sphinx.cost.records.store import Record, RecordStore
from tvm_sphinx.frontend.extract import Kernel
from tvm_sphinx.kernels import compute
from tvm_sphinx.kernels.code_cache import (
    CACHE_VARIABLE,
    write_cached,
)
from tvm_sphinx.kernels.implement import implement_kernel
from tvm_sphinx.platform.targets import device_target, runtime_device
from tvm_sphinx.runtime import gpu_compile

_GOAL = Goal(0.5, 1, 10**12, max_samples=4)


@pytest.fixture(scope="module")
def product() -> GpuCall:
    device = platform(1, 1).devices[-1]
    function = implement_kernel(compute.matmul((4,), 16, 8, "float32", "float32"), device_target(device))
    types = [tvm.relax.TensorType(list(p.shape), str(p.dtype)) for p in function.params]
    operands = random_operands(types, (), runtime_device("cpu:0"))
    return GpuCall(build_for_gpu({"product": function}), "product", operands, device)


@pytest.mark.gpu
@pytest.mark.parametrize("state", CacheState)
def test_a_kernel_is_timed_in_each_state_of_the_caches(product: GpuCall, state: CacheState) -> None:
    samples = sample_on_gpu(product, _GOAL, lambda: 0, cold=(1,), reuse_bytes=1 << 10, state=state)
    assert len(samples.ns) >= 2
    assert min(samples.ns) >= 1


@pytest.mark.gpu
def test_other_code_and_other_memory_come_before_each_call(product: GpuCall) -> None:
    around = surroundings(product.device, 1 << 20)
    runs = GpuRuns([(product, 2)], cold=(1,), reuse_bytes=1 << 20, around=around)
    names = [step.function for step in runs.executable.plan.program.steps]
    assert names == ["other_code", "other_data", "call0"] * 2
    assert runs.duration_ns() > 0
    weights = [step.operands[1] for step in runs.steps if step.function == "call0"]
    assert len(set(weights)) == 2


@pytest.mark.gpu
def test_the_share_of_a_gpu_that_a_kernel_fills_is_measured_once(
    product: GpuCall, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = RecordStore(None)
    function = implement_kernel(
        compute.matmul((4,), 16, 8, "float32", "float32"), device_target(product.device)
    )
    kernel = GpuKernel(kernel_of(function, "product"), function, "product-in-model0k")
    found = measure_shares([kernel], product.device, records)
    assert 1 / NUM_COPIES <= found["product"] <= 1.0
    monkeypatch.setattr(gpu_shares, "side_by_side_on_gpu", None)  # would fail
    assert measure_shares([kernel], product.device, records) == found
    assert measure_shares([replace(kernel, key="other")], product.device, records, end_s=0.0) == {}


def test_a_share_is_how_much_longer_copies_take_side_by_side() -> None:
    records, device = RecordStore(None), platform(1, 1).devices[-1]
    kernels = []
    for number, together in enumerate((100, 200, 400, 500)):
        for key, time_ns in (
            (f"k{number} beside nothing", 100),
            (f"k{number}, 4 side by side", together),
        ):
            where = class_of(device)
            records.add(Record(key, where, str(tvm.__version__), (time_ns,), kind="load"))
        kernels.append(GpuKernel(Kernel(f"k{number}", None, (), None), None, f"k{number}"))
    assert measure_shares(kernels, device, records) == {"k0": 0.25, "k1": 0.5, "k2": 1.0, "k3": 1.0}


def test_weights_come_back_when_the_model_has_read_as_much_as_its_own() -> None:
    reuse, size = 64 << 20, 1 << 20
    between = bytes_between(reuse, size)
    assert between % (1 << 20) == 0
    assert NUM_TURNS * (between + size) == reuse // 2
    assert bytes_between(reuse, 8 << 20) == 0
    assert bytes_between(0, 100) == 0


@pytest.mark.gpu
def test_machine_code_is_compiled_once(tmp_path: Path, monkeypatch: Any, product: GpuCall) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    source = 'extern "C" __global__ void f(float* x) {\n  x[0] = 1.0f;\n}\n'
    arch = str(product.device.target_config["arch"])
    nvcc = gpu_compile.find_nvcc()
    compile_fresh = gpu_compile.compile_cubin.__wrapped__
    image = compile_fresh(source, arch, nvcc)
    (kept,) = tmp_path.iterdir()
    assert kept.read_bytes().endswith(image)
    write_cached(kept.name, b"as it was kept")
    assert compile_fresh(source, arch, nvcc) == b"as it was kept"
    assert compile_fresh(source, arch, nvcc, True) != b"as it was kept"
