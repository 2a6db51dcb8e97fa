"""What a device is and what it reaches: its shape, and the rates of a few probe kernels. [TVM]"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..._tvm import tvm
from ...errors import UnsupportedError
from ...frontend.extract import Kernel
from ...kernels.compute import matmul
from ...kernels.target_info import PANEL_LANES, cpu_info
from ...notice import warn
from ...platform import Device
from ...platform.machine import UNKNOWN_CACHE_BYTES, cache_bytes
from ...platform.targets import device_target
from ..measure.kernel_timing import kernel_of
from ..records.store import Record, RecordStore, median_and_spread
from .terms import CoreShape

#: Id of the probe kernels.
PROBE = "probe"
#: Names of the numbers of a device, see `DeviceProfile.numbers`.
PROFILE_NAMES = (
    "cores",
    "vector_bytes",
    "registers",
    "cache1_bytes",
    "cache2_bytes",
    "cache3_bytes",
    "gflop_per_s",
    "near_gb_per_s",
    "memory_gb_per_s",
    "cold_gb_per_s",
    "call_ns",
    "launch_ns",
)
_ROWS, _INNER, _PANELS_PER_CORE = 448, 256, 2
_NEAR_ELEMENTS, _FAR_ELEMENTS = 1 << 15, 1 << 23
_COLD_INNER, _COLD_COLUMNS = 1024, 2048
_COLD_REUSE_BYTES = 1 << 26
# What a core that nobody measured is taken for: two multiply-adds of whole vectors in each cycle, at
# so many cycles per second that are not lost; GB/s of its cache and of memory; ns to call and launch.
_TYPICAL_GHZ, _TYPICAL_NEAR, _TYPICAL_FAR = 1.6, 50.0, 10.0
_TYPICAL_CALL_NS, _TYPICAL_LAUNCH_NS = 100.0, 1_000.0

#: Measures probes on a device: ``measure(kernels, device, records)`` returns a record for each, None for
#: one that there was no time for.
Measure = Callable[[Sequence[Kernel], Device, RecordStore], Sequence[Record | None]]


@dataclass(frozen=True)
class DeviceProfile:
    """The numbers of a device that a prediction depends on.

    ``near`` is a copy inside the second level cache, ``memory`` one between arrays larger than all
    caches, ``cold`` a product with weights that are not in the caches; ``call_ns`` is the least time of
    a kernel and ``launch_ns`` what a parallel loop adds to it.
    """

    shape: CoreShape
    registers: int
    gflop_per_s: float
    near_gb_per_s: float
    memory_gb_per_s: float
    cold_gb_per_s: float
    call_ns: float
    launch_ns: float

    @property
    def numbers(self) -> list[float]:
        """Everything, in the order of `PROFILE_NAMES`."""
        return [
            float(self.shape.cores),
            float(self.shape.vector_bytes),
            float(self.registers),
            *map(float, self.shape.cache_bytes),
            self.gflop_per_s,
            self.near_gb_per_s,
            self.memory_gb_per_s,
            self.cold_gb_per_s,
            self.call_ns,
            self.launch_ns,
        ]


def core_shape(device: Device) -> CoreShape:
    """Return what of a CPU device decides the instructions and bytes of a kernel.

    Its caches are those that the platform gives, else those of this machine's core. What a core of
    another machine has is not known here: `UNKNOWN_CACHE_BYTES` stand for it, with a warning.
    """
    info = cpu_info(device_target(device), len(device.cores))
    return CoreShape(info.vector_bytes, info.cores, _caches(device))


def _caches(device: Device) -> tuple[int, int, int]:
    if device.cache_bytes is not None:
        first, second, third = device.cache_bytes
        return first, second, third
    if device.rpc_key is None:
        return cache_bytes(device.cores[0])
    warn(
        f"The caches of remote device {device.name!r} are not known; its times are predicted for "
        f"{UNKNOWN_CACHE_BYTES} bytes. Give cache_bytes = [first, second, third] in the platform file."
    )
    return UNKNOWN_CACHE_BYTES


def measure_profile(
    device: Device, records: RecordStore, measure: Measure, like: DeviceProfile | None = None
) -> DeviceProfile:
    """Return the profile of a CPU device, from its probes on record, else from measuring them.

    Parameters
    ----------
    device
        A CPU device.
    records
        Where the probes' times are kept, as those of any kernel.
    measure
        Measures what is not on record. A rate that it has no time for is that of a typical core.
    like
        Profile of another device of the machine: how far it is from a typical core of its shape tells
        how far this one is.

    Raises
    ------
    UnsupportedError
        If the device is no CPU, or a probe does not run there.
    """
    if not device.is_cpu:
        raise UnsupportedError(
            f"Expected a CPU device to predict costs for; device {device.name!r} is {device.runtime}."
        )
    cores = len(device.cores)
    kernels = probes(cores)
    times: dict[str, float] = {}
    for name, record in zip(kernels, measure(list(kernels.values()), device, records), strict=True):
        if record is None:
            continue
        if not record.samples_ns:
            raise UnsupportedError(f"The probe {name!r} does not run on device {device.name!r}.")
        times[name] = float(max(1, median_and_spread(record.samples_ns)[0]))
    shape = core_shape(device)
    return DeviceProfile(
        shape,
        cpu_info(device_target(device), cores).num_registers,
        **{**_expected_rates(shape, like), **_rates(times, cores)},
    )


def _rates(times: Mapping[str, float], cores: int) -> dict[str, float]:
    """Return the rates that probes tell, by their names in a profile, from those that were timed."""
    work = {
        "product": ("gflop_per_s", 2.0 * _ROWS * _INNER * _PANELS_PER_CORE * PANEL_LANES * cores),
        "near": ("near_gb_per_s", 8.0 * _NEAR_ELEMENTS * cores),
        "far": ("memory_gb_per_s", 8.0 * _FAR_ELEMENTS),
        "cold": ("cold_gb_per_s", 4.0 * _COLD_INNER * _COLD_COLUMNS),
    }
    rates = {rate: amount / times[probe] for probe, (rate, amount) in work.items() if probe in times}
    if "call" in times:
        rates["call_ns"] = times["call"]
    if cores == 1:
        rates["launch_ns"] = 1.0
    elif {"call", "launch"} <= times.keys():
        rates["launch_ns"] = max(1.0, times["launch"] - times["call"])
    return rates


def _expected_rates(shape: CoreShape, like: DeviceProfile | None) -> dict[str, float]:
    """Return rates that nobody measured, by how another device differs from a typical one."""
    typical = _typical_rates(shape)
    if like is None:
        return typical
    other = _typical_rates(like.shape)
    return {rate: value * getattr(like, rate) / other[rate] for rate, value in typical.items()}


def _typical_rates(shape: CoreShape) -> dict[str, float]:
    flop_per_cycle = 2 * 2 * shape.vector_bytes / 4
    return {
        "gflop_per_s": shape.cores * flop_per_cycle * _TYPICAL_GHZ,
        "near_gb_per_s": shape.cores * _TYPICAL_NEAR,
        "memory_gb_per_s": _TYPICAL_FAR,
        "cold_gb_per_s": _TYPICAL_FAR,
        "call_ns": _TYPICAL_CALL_NS,
        "launch_ns": _TYPICAL_LAUNCH_NS if shape.cores > 1 else 1.0,
    }


@functools.lru_cache(maxsize=8)
def probes(cores: int) -> dict[str, Kernel]:
    """Return the probe kernels by name, those first that a prediction depends on most."""
    columns = _PANELS_PER_CORE * PANEL_LANES * cores
    return {
        "product": _product((_ROWS,), _INNER, columns, 0),
        "call": _scaled((16,)),
        "launch": _scaled((8, 16)),
        "near": _scaled((32 * cores, _NEAR_ELEMENTS // 32)),
        "cold": _product((1,), _COLD_INNER, _COLD_COLUMNS, _COLD_REUSE_BYTES),
        "far": _scaled((_FAR_ELEMENTS >> 10, 1 << 10)),
    }


def _product(lead: tuple[int, ...], inner: int, columns: int, reuse_bytes: int) -> Kernel:
    """Return a product; with ``reuse_bytes``, its second operand is a weight."""
    weights = (1,) if reuse_bytes else ()
    return kernel_of(matmul(lead, inner, columns, "float32", "float32"), PROBE, weights, reuse_bytes)


def _scaled(shape: tuple[int, ...]) -> Kernel:
    source = tvm.te.placeholder(shape, name="source")
    result = tvm.te.compute(
        shape, lambda *at: source[at] * tvm.tirx.const(1.5, "float32"), name="scaled"
    )
    return kernel_of(tvm.te.create_prim_func([source, result]), PROBE)
