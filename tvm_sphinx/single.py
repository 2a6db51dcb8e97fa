"""What cannot be scheduled: compile a module as a whole for the fastest single device. [TVM]"""

from __future__ import annotations

from typing import Any

from ._tvm import relax, tirx, tvm
from .compiled import CompiledModel, TensorSpec
from .cost.measure import MeasureConfig, measure_kernels
from .cost.records import RecordStore, median_and_spread
from .default_pipeline import compile_default
from .errors import ModelError, PlatformError
from .extract import Kernel
from .platform import Device, Platform
from .programs import StockProgram, library_bytes
from .targets import device_target, runtime_device

_PROBE_EXTENT = 128


def build_on_single_device(
    module: Any,
    function: str,
    platform: Platform,
    reason: str,
    stages_s: dict[str, float],
    config: MeasureConfig | None = None,
) -> CompiledModel:
    """Return a module compiled for one device, with TVM's own pipeline for its target.

    Since dynamic shapes cannot be measured, the device is the one that runs a probe, a matrix product,
    the fastest.

    Raises
    ------
    PlatformError
        If no device of the platform is at hand.
    """
    device = fastest_device(platform, config)
    target = device_target(device)
    executable = compile_default(module, target)
    return CompiledModel(
        inputs=input_specs(module[function]),
        platform=platform,
        program=StockProgram(library_bytes(executable), (device.runtime,), function),
        reference=None,
        report=None,
        note=f"{reason} The whole model runs on {device.name!r}, the fastest single device on a probe.",
        stages_s=stages_s,
    )


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
        if device.rpc_key is not None or runtime_device(device.runtime).exist:
            (record,) = measure_kernels([_probe()], device, RecordStore(None), config or MeasureConfig())
            if record.samples_ns:
                times[device] = median_and_spread(record.samples_ns)[0]
    if not times:
        names = ", ".join(device.name for device in platform.devices)
        raise PlatformError(f"Expected a device that is at hand; got {names}.")
    return min(times, key=lambda device: times[device])


def input_specs(function: Any) -> tuple[TensorSpec, ...]:
    """Return the inputs of a Relax function; symbolic extents are -1.

    Raises
    ------
    ModelError
        If an argument is no tensor of known rank.
    """
    specs = []
    for param in function.params:
        ty = param.ty
        if not isinstance(ty, relax.TensorType) or ty.shape is None:
            raise ModelError(f"Expected tensors of known rank; argument {param.name!r} is of type {ty}.")
        shape = tuple(int(e) if isinstance(e, tirx.IntImm) else -1 for e in ty.shape.values)
        specs.append(TensorSpec(str(param.name), shape, str(ty.dtype)))
    return tuple(specs)


def _probe() -> Kernel:
    """Return a matrix product as a kernel."""
    extent = _PROBE_EXTENT
    left = tvm.te.placeholder((extent, extent), name="left")
    right = tvm.te.placeholder((extent, extent), name="right")
    product = tvm.topi.matmul(left, right)
    ty = relax.TensorType([extent, extent], "float32")
    return Kernel("probe", tvm.te.create_prim_func([left, right, product]), (ty, ty, ty))
