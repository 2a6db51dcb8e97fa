"""Platforms of a CPU and an NVIDIA GPU, small enough that all kernels of a model are soon measured."""

from __future__ import annotations

import os

from tvm_sphinx.platform import Device, Platform
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
    devices = Platform.detect().devices
    return tuple(device for device in devices if device.runtime == "cuda:0")


def platforms() -> dict[str, tuple[Platform, str]]:
    """Return platforms by what they stand for, each with the search algorithm to take."""
    cpus, gpus = cpu_devices(), gpu_devices()
    return {
        "ours, cpu + gpu": (Platform((*cpus, *gpus)), "cpga"),
        "ours, gpu alone": (Platform((cpus[0], gpus[0])), "single"),
        "ours, cpu alone": (Platform(cpus), "cpga"),
    }


def install_fake_compiler() -> None:
    """Let TVM compile for the fake GPU, if this run is on it (FAKE of scripts/gpu_machine.sh)."""
    if os.environ.get("FAKE"):
        from tests.gpu import fake

        fake.install()
