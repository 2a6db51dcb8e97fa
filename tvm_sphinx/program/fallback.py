"""The fallback of a module that cannot be scheduled: as a whole on the fastest single device. [TVM]"""

from __future__ import annotations

from typing import Any

from .._tvm import relax, tvm
from ..cost.measure.kernels import MeasureConfig, measure_kernels
from ..cost.records.store import RecordStore, median_and_spread
from ..errors import PlatformError, UnsupportedError, cause_of
from ..frontend.default_pipeline import compile_default
from ..frontend.extract import Kernel
from ..frontend.signature import Interface
from ..platform import Device, Platform
from ..platform.targets import device_target, is_at_hand
from ..progress import StageClock
from ..runtime.kernels import device_processor
from ..runtime.processor import Processor
from .build import library_bytes
from .compiled import CompiledModel
from .kinds import StockProgram

_PROBE_EXTENT = 128


def build_fallback(
    module: Any,
    function: str,
    platform: Platform,
    reason: str,
    clock: StageClock,
    interface: Interface,
    config: MeasureConfig | None = None,
) -> CompiledModel:
    """Return a module compiled for one device, with TVM's own pipeline for its target.

    Since dynamic shapes cannot be measured, the device is the one that runs a probe, a matrix product,
    the fastest.

    Raises
    ------
    PlatformError
        If no device of the platform is at hand.
    UnsupportedError
        If TVM cannot compile it.
    """
    device = fastest_device(platform, config)
    target = device_target(device)
    try:
        executable = compile_default(module, target)
    except Exception as error:  # TVM raises many types
        stop = "" if reason.endswith(".") else "."
        raise UnsupportedError(
            f"{reason}{stop} Nor can TVM compile the whole model for {device.name!r}: {cause_of(error)}"
        ) from error
    return CompiledModel(
        inputs=interface.inputs,
        outputs=interface.outputs,
        platform=platform,
        program=StockProgram(
            library_bytes(executable), (device.runtime,), function, processors=processors_of(device)
        ),
        reference=None,
        report=None,
        note=f"{reason} The whole model runs on {device.name!r}, the fastest single device on a probe.",
        stages_s=clock.stages_s,
    )


def processors_of(device: Device) -> dict[str, Processor]:
    """Return what the kernels of a device take for granted of a processor, by its name."""
    processor = device_processor(device)
    return {} if processor is None else {device.name: processor}


def fastest_device(platform: Platform, config: MeasureConfig | None = None) -> Device:
    """Return the device that multiplies two matrices the fastest.

    Raises
    ------
    PlatformError
        If no device of the platform is at hand.
    """
    platform.check_machine()
    times = {}
    for device in platform.devices:
        if device.rpc_key is not None or is_at_hand(device):
            (record,) = measure_kernels([_probe()], device, RecordStore(None), config or MeasureConfig())
            if record.samples_ns:
                times[device] = median_and_spread(record.samples_ns)[0]
    if not times:
        names = ", ".join(device.name for device in platform.devices)
        raise PlatformError(f"Expected a device that is at hand; got {names}.")
    return min(times, key=lambda device: times[device])


def _probe() -> Kernel:
    """Return a matrix product as a kernel."""
    extent = _PROBE_EXTENT
    left = tvm.te.placeholder((extent, extent), name="left")
    right = tvm.te.placeholder((extent, extent), name="right")
    product = tvm.topi.matmul(left, right)
    ty = relax.TensorType([extent, extent], "float32")
    return Kernel("probe", tvm.te.create_prim_func([left, right, product]), (ty, ty, ty))
