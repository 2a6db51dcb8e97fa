"""The NVIDIA GPUs of this machine, asked of their driver. Knows no TVM."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

# CUdevice_attribute of cuda.h.
_MAJOR, _MINOR, _THREADS, _SHARED, _WARP, _PROCESSORS, _REGISTERS, _L2 = 75, 76, 1, 8, 10, 16, 12, 38


@dataclass(frozen=True)
class Gpu:
    """A GPU: its name, compute capability, memory, and limits of a thread block."""

    name: str
    capability: tuple[int, int]
    memory_bytes: int
    multiprocessors: int
    threads_per_block: int
    shared_bytes_per_block: int
    registers_per_block: int
    l2_cache_bytes: int
    warp_size: int

    @property
    def arch(self) -> str:
        """Architecture as compilers name it, such as ``"sm_90"``."""
        return "sm_{}{}".format(*self.capability)


def find_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that this process may use, in the driver's order; none without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ()
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return ()
    found = [_describe(driver, ordinal) for ordinal in range(count.value)]
    return tuple(gpu for gpu in found if gpu is not None)


def find_gpu(runtime: str) -> Gpu | None:
    """Return the GPU of a runtime device such as ``"cuda:0"``, None if it is not there."""
    kind, _, ordinal = runtime.partition(":")
    gpus = find_gpus() if kind == "cuda" else ()
    return gpus[int(ordinal)] if int(ordinal) < len(gpus) else None


def _describe(driver: ctypes.CDLL, ordinal: int) -> Gpu | None:
    device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
    if driver.cuDeviceGet(ctypes.byref(device), ordinal):
        return None
    if driver.cuDeviceGetName(name, len(name), device):
        return None
    if driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device):
        return None

    def attribute(number: int) -> int:
        value = ctypes.c_int()
        driver.cuDeviceGetAttribute(ctypes.byref(value), number, device)
        return value.value

    return Gpu(
        name=name.value.decode(errors="replace"),
        capability=(attribute(_MAJOR), attribute(_MINOR)),
        memory_bytes=memory.value,
        multiprocessors=attribute(_PROCESSORS),
        threads_per_block=attribute(_THREADS),
        shared_bytes_per_block=attribute(_SHARED),
        registers_per_block=attribute(_REGISTERS),
        l2_cache_bytes=attribute(_L2),
        warp_size=attribute(_WARP),
    )
