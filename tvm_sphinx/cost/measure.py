"""Measure kernels on this machine. [TVM]

Every distinct kernel is measured once for each kind of device, on the device's own cores, with as many
threads as it has cores.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._tvm import tvm, tvm_ffi
from ..errors import SphinxError, UnsupportedError
from ..extract import Extraction, Kernel
from ..graph import TaskGraph
from ..implement import implement_kernel
from ..platform import Device, Platform
from ..runtime.timing import load_for_lanes, time_in_lane
from ..targets import device_target, runtime_device
from .links import measure_links
from .model.texts import KernelTexts
from .progress import Progress
from .records import Record, RecordStore, median_and_spread
from .roofline import needs_estimate, roofline_ns
from .table import CostTable

_GPU_REPEATS = 7


@dataclass(frozen=True)
class MeasureConfig:
    """How long to measure each kernel.

    Parameters
    ----------
    sample_ms
        Calls of a kernel are timed until they sum up to this; a slow kernel is called at least twice.
    """

    sample_ms: float = 20.0

    def __post_init__(self) -> None:
        if not self.sample_ms > 0:
            raise SphinxError(f"Expected sample_ms > 0; got sample_ms = {self.sample_ms}.")


def measure_costs(
    extraction: Extraction,
    platform: Platform,
    records: RecordStore,
    *,
    config: MeasureConfig | None = None,
    progress: Progress | None = None,
) -> CostTable:
    """Return the cost table of a task graph, from records where there are any, else measured now.

    Each new measurement is on record before the next one starts.

    Raises
    ------
    PlatformError
        If the platform claims cores that this machine lacks.
    UnsupportedError
        If a device is not at hand and its kernels are not on record.
    """
    platform.check_machine()
    kernels = list(extraction.kernels.values())
    by_class: dict[str, Device] = {}
    for device in platform.devices:
        by_class.setdefault(device.cost_class, device)
    found: dict[tuple[str, str], Record] = {}
    footprint = weight_footprint_bytes(extraction.graph)
    estimated = {name for name, device in by_class.items() if needs_estimate(device)}
    for position, device in enumerate(by_class.values()):
        if device.cost_class in estimated:
            continue
        stage = f"measure on {device.name} ({position + 1}/{len(by_class)})"
        for kernel, record in zip(
            kernels,
            measure_kernels(
                kernels, device, records, config or MeasureConfig(), stage, progress, footprint
            ),
            strict=True,
        ):
            found[kernel.id, device.cost_class] = record
    latency, bandwidth = measure_links(platform, progress)
    graph = extraction.graph
    shape = (graph.num_tasks, len(platform.devices))
    exec_ns, spread_ns = np.full(shape, -1, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    measured = np.ones(shape, dtype=np.bool_)
    for column, device in enumerate(platform.devices):
        if device.cost_class in estimated:
            measured[:, column] = False
            exec_ns[:, column] = roofline_ns(graph, device)
            continue
        for task, entry in enumerate(graph.tasks):
            samples = found[entry.kernel, device.cost_class].samples_ns
            if samples:
                exec_ns[task, column], spread_ns[task, column] = median_and_spread(samples)
    return CostTable(exec_ns, spread_ns, measured, latency, bandwidth, graph.fingerprint)


def measure_kernels(
    kernels: Sequence[Kernel],
    device: Device,
    records: RecordStore,
    config: MeasureConfig,
    stage: str = "measure",
    progress: Progress | None = None,
    footprint_bytes: int = 0,
) -> list[Record]:
    """Return a record for each kernel on a device; those that the store lacks are measured.

    ``footprint_bytes`` is what a model reads between two uses of the same weight: on a CPU, weights are
    measured as far away as that puts them.
    """
    implemented = [implement_for(kernel, device) for kernel in kernels]
    version = str(tvm.__version__)
    far = footprint_bytes if device.is_cpu else 0
    keys = [implementation_id(*pair, far) for pair in zip(kernels, implemented, strict=True)]
    missing = [i for i, key in enumerate(keys) if records.get(key, device.cost_class, version) is None]
    report = progress or (lambda *_: None)
    report(stage, len(kernels) - len(missing), len(kernels))
    if missing:
        if not runtime_device(device.runtime).exist:
            raise UnsupportedError(
                f"Device {device.name!r} ({device.runtime}) is not at hand, and {len(missing)} of "
                f"{len(kernels)} kernels are not on record for it. Give peak_gflop_per_s and "
                f"peak_gb_per_s in the platform file to have its costs estimated."
            )
        modules = _build_kernels({keys[i]: implemented[i] for i in missing}, device)
        texts = KernelTexts.beside(records)
        for done, i in enumerate(missing):
            texts.add(keys[i], kernels[i].id, implemented[i], kernels[i].weights, far)
            samples = _time_kernel(kernels[i], keys[i], modules.get(keys[i]), device, config, far)
            record = Record(keys[i], device.cost_class, version, samples, os.getloadavg()[0])
            records.add(record)
            report(stage, len(kernels) - len(missing) + done + 1, len(kernels))
    found = [records.get(key, device.cost_class, version) for key in keys]
    return [record for record in found if record is not None]


def implementation_id(kernel: Kernel, function: Any, footprint_bytes: int = 0) -> str:
    """Return the id of a kernel as implemented and as measured, for looking up its records."""
    far = f"-far{footprint_bytes >> 20}" if footprint_bytes and kernel.weights else ""
    if function is None or kernel.is_external:
        return kernel.id + far
    bare = function.without_attr("target")
    return f"{kernel.id}.{tvm_ffi.structural_hash(bare) & (2**64 - 1):016x}{far}"


def weight_footprint_bytes(graph: TaskGraph) -> int:
    """Return the bytes of all weights of a graph, rounded up to a power of two, at least 1 MiB.

    Models of about one size then share their records.
    """
    total = max(1 << 20, sum(task.weight_bytes for task in graph.tasks))
    return 1 << (total - 1).bit_length()


def implement_for(kernel: Kernel, device: Device) -> Any:
    """Return the kernel scheduled for a device, None where it is not made for it."""
    if kernel.is_external:
        return None
    target = device_target(device)
    if kernel.target_kind not in (None, str(target.kind.name)):
        return None
    return implement_kernel(kernel.function, target)


def _build_kernels(functions: dict[str, Any], device: Device) -> dict[str, Any]:
    """Build kernels together, which is fast; if one fails, each alone, and leave out those that fail."""
    named = {key: function for key, function in functions.items() if function is not None}
    if not named:
        return {}
    try:
        return dict.fromkeys(named, _build(named, device))
    except Exception:  # TVM raises many types; which kernel is at fault shows when each is built alone
        built = {}
        for key, function in named.items():
            try:
                built[key] = _build({key: function}, device)
            except Exception:  # as above: this kernel has no code for this device
                continue
        return built


def _build(functions: dict[str, Any], device: Device) -> Any:
    """Compile kernels; those of a CPU device for the lanes, as they will run."""
    symbols = {_symbol(key): function for key, function in functions.items()}
    if device.is_cpu:
        return load_for_lanes(symbols)
    return tvm.tirx.build(
        tvm.IRModule({name: f.with_attr("global_symbol", name) for name, f in symbols.items()})
    )


def _symbol(key: str) -> str:
    return "kernel_" + "".join(char if char.isalnum() else "_" for char in key)


def _time_kernel(
    kernel: Kernel, key: str, module: Any, device: Device, config: MeasureConfig, far: int
) -> tuple[float, ...]:
    """Return samples in ns; none if the kernel cannot run on the device."""
    if kernel.is_external:
        function = tvm_ffi.get_global_func(kernel.function, allow_missing=True)
        if function is None or not device.is_cpu:
            return ()
    elif module is None:
        return ()
    runtime = runtime_device(device.runtime)
    arguments = [random_tensor(ty, runtime) for ty in kernel.argument_types]
    if device.is_cpu:
        callee = function if kernel.is_external else module.get_function(_symbol(key))
        cold = kernel.weights if far else ()
        min_ns = round(config.sample_ms * 1e6)
        return time_in_lane(callee, arguments, device, min_ns=min_ns, cold=cold, footprint_bytes=far)
    return _time_on_gpu(module, _symbol(key), arguments, runtime, config)


def _time_on_gpu(
    module: Any, symbol: str, arguments: Sequence[Any], runtime: Any, config: MeasureConfig
) -> tuple[float, ...]:
    """Return samples of TVM's time evaluator, which times a GPU with events."""

    def sample(number: int, repeat: int) -> Sequence[float]:
        evaluator = module.time_evaluator(symbol, runtime, number=number, repeat=repeat)
        return [float(seconds) for seconds in evaluator(*arguments).results]

    sample(1, 1)  # first touch of code and data
    once_s = max(sample(1, 1)[0], 1e-9)
    number = max(1, math.ceil(config.sample_ms / 1e3 / _GPU_REPEATS / once_s))
    return tuple(1e9 * seconds for seconds in sample(number, _GPU_REPEATS))


def random_tensor(ty: Any, device: Any) -> Any:
    """Return a tensor of a Relax type: floats in [0.5, 1), so that none is denormal; integers are 0.

    Zero is a valid index into any tensor, so kernels that gather stay inside their operands.
    """
    shape = [int(extent) for extent in ty.shape.values]
    dtype = str(ty.dtype)
    if dtype.startswith("float"):
        rng = np.random.default_rng(0)
        values = rng.uniform(0.5, 1.0, shape).astype(dtype)
        return tvm.runtime.tensor(values, device)
    tensor = tvm.runtime.empty(shape, dtype, device)
    tensor.copyfrom(np.zeros(shape, dtype="uint8" if dtype == "bool" else dtype).astype(dtype))
    return tensor
