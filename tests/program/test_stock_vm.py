"""Lowering a scheduled module for the VM: memory per device, host memory shared, GPUs compiled for."""

from __future__ import annotations

import json
import platform as host
import re
import shutil

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from tests.relax_modules import cpu_platform, serial_schedule
from tvm_sphinx.errors import SphinxError
from tvm_sphinx.frontend.lower import lower_to_kernels
from tvm_sphinx.platform import Device, Platform, platform_of_targets
from tvm_sphinx.platform.targets import device_target, host_target
from tvm_sphinx.program.stock_vm import build_executable, lowering_passes, storage_devices, vm_devices
from tvm_sphinx.relax_pass import HeterogeneousSchedule


@I.ir_module
class Chain:
    """A chain whose tensors all have one size, so that a planner is tempted to share them."""

    @R.function
    def main(x: R.Tensor((16, 16), "float32")) -> R.Tensor((16, 16), "float32"):
        with R.dataflow():
            a = R.exp(x)
            b = R.permute_dims(a)
            c = R.exp(b)
            d = R.permute_dims(c)
            e = R.exp(d)
            f = R.permute_dims(e)
            R.output(f)
        return f


def _unfused(module: tvm.IRModule) -> tvm.IRModule:
    return relax.transform.LegalizeOps()(module)


def _in_pairs(platform: Platform) -> tvm.IRModule:
    """Place the chain two by two, so that storage that dies on one device suits the other."""
    scheduler = HeterogeneousSchedule(lambda g: serial_schedule(g, [0, 0, 1, 1, 0, 0]), platform)
    return scheduler(_unfused(Chain))


def _planned(module: tvm.IRModule) -> tvm.IRModule:
    names = [str(one.info.name) for one in lowering_passes()]
    return tvm.transform.Sequential(lowering_passes()[: names.index("CheckDeviceMemory") + 1])(module)


def _gpu_platform() -> Platform:
    gpu = json.dumps({"kind": "cuda", "arch": "sm_90"})
    cpu = Device("cpu", host_target(), "cpu:0", (0,))
    return Platform((cpu, Device("gpu", gpu, "cuda:0")))


@pytest.mark.parametrize("platform", [cpu_platform(2), _gpu_platform()], ids=["cpus", "cpu+gpu"])
def test_no_storage_serves_two_devices(platform: Platform) -> None:
    found = storage_devices(_planned(_in_pairs(platform)))
    assert {device for devices in found.values() for device in devices} == {0, 1}
    assert all(len(devices) == 1 for devices in found.values())


@pytest.mark.skipif(host.machine() not in ("x86_64", "AMD64"), reason="names x86 processors")
def test_each_kernel_is_built_for_the_processor_of_its_device() -> None:
    platform = platform_of_targets(["llvm -mcpu=x86-64-v2", "llvm -mcpu=x86-64"])
    executable = build_executable(_in_pairs(platform))
    built = {}
    for library in _with_imports(executable.mod):
        if library.kind == "llvm":
            text = library.inspect_source("ll")
            (processor,) = set(re.findall(r'"target-cpu"="([^"]+)"', text))
            for name in re.findall(r"define [^@]*@__tvm_ffi_(\w+)\(", text):
                built[name] = processor
    assert len(built) == 4
    for name, processor in built.items():
        assert processor == ("x86-64" if name.endswith("device1") else "x86-64-v2")
    x = np.random.default_rng(0).random((16, 16), "float32")
    machine = relax.VirtualMachine(executable, vm_devices(platform))
    expected = np.exp(np.exp(np.exp(x).T).T).T
    np.testing.assert_allclose(machine["main"](tvm.runtime.tensor(x)).numpy(), expected, rtol=1e-5)


def _with_imports(module: tvm.runtime.Module) -> list[tvm.runtime.Module]:
    return [module, *(found for one in module.imports for found in _with_imports(one))]


def test_storage_is_reused_within_a_device() -> None:
    single = HeterogeneousSchedule(lambda g: serial_schedule(g, [0] * 6), cpu_platform(1))(
        _unfused(Chain)
    )
    assert len(storage_devices(_planned(single))) == 2


def test_the_check_finds_shared_storage() -> None:
    """The stock planner does share storage between devices here; the check says so."""
    names = [str(one.info.name) for one in lowering_passes()]
    without = [
        one
        for one, name in zip(lowering_passes(), names, strict=True)
        if name not in ("SeparateDeviceMemory", "JoinDeviceMemory")
    ]
    with pytest.raises(SphinxError, match="serves several devices"):
        tvm.transform.Sequential(without)(_in_pairs(cpu_platform(2)))


@pytest.mark.parametrize("num_opened", [1, 2])
def test_cpu_module_runs_on_one_or_all_cpu_devices(num_opened: int) -> None:
    platform = cpu_platform(2)
    executable = build_executable(_in_pairs(platform))
    machine = relax.VirtualMachine(executable, vm_devices(platform)[:num_opened])
    x = np.linspace(-2, 0, 256, dtype="float32").reshape(16, 16)
    np.testing.assert_allclose(
        machine["main"](tvm.runtime.tensor(x)).numpy(), np.exp(np.exp(np.exp(x))).T, rtol=1e-5
    )


def test_two_cpus_of_other_numbers_exchange_tensors_and_weights() -> None:
    """CPU numbers have no meaning in memory: cpu:0 and cpu:3 hand over like any two CPU devices."""
    target = host_target()
    platform = Platform((Device("a", target, "cpu:0", (0,)), Device("b", target, "cpu:3", (0,))))
    weight = np.arange(256, dtype="float32").reshape(16, 16)
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType([16, 16], "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit(relax.op.exp(x))
            z = builder.emit(relax.op.matmul(y, relax.const(weight)))
            out = builder.emit_output(z)
        builder.emit_func_output(out)
    scheduler = HeterogeneousSchedule(lambda g: serial_schedule(g, [0, 1]), platform)
    executable = build_executable(scheduler(_unfused(builder.finalize())))
    machine = relax.VirtualMachine(executable, vm_devices(platform))
    got = machine["main"](tvm.runtime.tensor(np.zeros((16, 16), "float32"))).numpy()
    np.testing.assert_allclose(got, np.ones((16, 16)) @ weight, rtol=1e-5)


def test_gpu_kernels_are_bound_to_threads_and_weights_become_arguments() -> None:
    platform = _gpu_platform()
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType([16, 16], "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit(relax.op.matmul(x, relax.const(np.ones((16, 16), "float32"))))
            out = builder.emit_output(y)
        builder.emit_func_output(out)
    lowered = lower_to_kernels(builder.finalize(), device_target(platform.devices[0]))
    scheduled = HeterogeneousSchedule(lambda g: serial_schedule(g, [1] * g.num_tasks), platform)(lowered)
    main = scheduled["main"]
    assert [str(param.name) for param in main.params] == ["x", "weight0"]
    assert int(main.attrs["num_input"]) == 1
    assert str(main.attrs["sphinx.weights"]) == "main_weights"
    relax.analysis.well_formed(scheduled)
    if shutil.which("nvcc"):
        executable = build_executable(scheduled)
        assert executable.mod.implements_function("vm_load_executable", query_imports=True)
    implemented = lowering_passes()[0](scheduled)
    (kernel,) = [f for f in implemented.functions.values() if isinstance(f, tvm.tirx.PrimFunc)]
    assert "threadIdx.x" in kernel.script()
