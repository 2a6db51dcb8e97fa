"""Platforms of a CPU and an NVIDIA GPU, small enough that all kernels of a model are soon measured."""

from __future__ import annotations

import os
from dataclasses import replace

from tvm_sphinx.platform import Device, Platform, load_platform
from tvm_sphinx.platform.machine import usable_cores
from tvm_sphinx.platform.targets import host_target

_SEVERAL = 4


def cpu_devices() -> tuple[Device, ...]:
    """Return one core, and several of them together; the last core is left to what feeds the GPU."""
    cores = usable_cores()
    several = cores[: min(_SEVERAL, max(1, len(cores) - 1))]
    devices = [Device("core", host_target(), "cpu:0", several[:1])]
    if len(several) > 1:
        devices.append(Device("cores", host_target(), "cpu:0", several))
    return tuple(devices)


def gpu_devices() -> tuple[Device, ...]:
    """Return the devices of the first GPU: all its streams, where the package has several."""
    devices = load_platform("detect").devices
    return tuple(device for device in devices if device.runtime == "cuda:0")


def platforms() -> dict[str, Platform]:
    """Return the platforms to compile for, by what they stand for; the CPU is one device, the larger."""
    cpus = cpu_devices()[-1:]
    return {
        "ours, cpu + gpu": Platform((*cpus, *gpu_devices())),
        "ours, cpu alone": Platform(cpus),
    }


def with_streams(platform: Platform, count: int) -> Platform:
    """Return a platform with so many streams of its GPU."""
    cpus = tuple(device for device in platform.devices if device.is_cpu)
    gpu = gpu_devices()[0]
    return Platform((*cpus, *(replace(gpu, name=f"stream{number}") for number in range(count))))


def cpu_alone(count: int) -> Platform:
    """Return so many cores as one device."""
    return Platform((Device("cores", host_target(), "cpu:0", usable_cores()[:count]),))


def cpu_alone_counts() -> tuple[int, ...]:
    """Return on how many cores to time the CPU alone: as many as beside the GPU, and all but one."""
    count = len(usable_cores())
    return tuple(sorted({min(_SEVERAL, count), max(1, count - 1)}))


def gpu_alone() -> Platform:
    """Return the CPU, which holds inputs and outputs, and one device of the GPU."""
    return Platform((cpu_devices()[-1], gpu_devices()[0]))


def install_fake_compiler() -> None:
    """Let TVM compile for the fake GPU, if this run is on it (FAKE of scripts/gpu_machine.sh)."""
    if os.environ.get("FAKE"):
        from tests.gpu import fake

        fake.install()
