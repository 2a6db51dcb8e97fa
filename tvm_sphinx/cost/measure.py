"""Measure kernels and copies on this machine. [TVM]

Every distinct kernel is measured once for each kind of device, on the device's own cores, with as many
threads as it has cores.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np

from .._tvm import tvm, tvm_ffi
from ..errors import SphinxError, UnsupportedError
from ..extract import Extraction, Kernel
from ..graph import TaskGraph
from ..implement import implement_kernel
from ..platform import Device, Link, Platform
from ..problem import Int64Array
from ..targets import device_target, runtime_device
from .records import Record, RecordStore, median_and_spread
from .table import CostTable, fit_link

#: Called as ``progress(stage, done, total)`` whenever a step of a stage is done.
Progress = Callable[[str, int, int], None]

#: What handing a tensor from one CPU device to another costs: waking the lane that waits for it.
HANDOVER_NS = 2000

_COPY_BYTES = (1 << 12, 1 << 16, 1 << 20, 1 << 23)
_ONE_CORE_PER_THREAD = -2  # TVM's ThreadGroup::kSpecifyOneCorePerThread

_T = TypeVar("_T")


@dataclass(frozen=True)
class MeasureConfig:
    """How long to measure each kernel.

    Parameters
    ----------
    min_repeat_ms
        Each sample runs the kernel for at least this long.
    num_repeats
        Number of samples; their median is the cost.
    kernel_budget_ms
        A kernel so slow that its samples would take longer gets fewer, but at least two.
    """

    min_repeat_ms: float = 2.0
    num_repeats: int = 7
    kernel_budget_ms: float = 200.0

    def __post_init__(self) -> None:
        for name in ("min_repeat_ms", "num_repeats", "kernel_budget_ms"):
            if getattr(self, name) <= 0:
                raise SphinxError(f"Expected {name} > 0; got {name} = {getattr(self, name)}.")


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
    estimated = {name for name, device in by_class.items() if needs_estimate(device)}
    for position, device in enumerate(by_class.values()):
        if device.cost_class in estimated:
            continue
        stage = f"measure on {device.name} ({position + 1}/{len(by_class)})"
        for kernel, record in zip(
            kernels,
            measure_kernels(kernels, device, records, config or MeasureConfig(), stage, progress),
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


def needs_estimate(device: Device) -> bool:
    """Return whether a device is not at hand, so that its costs can only be estimated."""
    peaks = (device.peak_gflop_per_s, device.peak_gb_per_s)
    return not runtime_device(device.runtime).exist and None not in peaks


def roofline_ns(graph: TaskGraph, device: Device) -> Int64Array:
    """Return the least time that each task can take on a device, shape (N,), int64 ns.

    The larger of operations over the peak rate and bytes over the peak bandwidth (Williams, Waterman,
    Patterson, CACM 52(4), 2009): a bound, used where a device is not at hand to be measured.
    """
    assert device.peak_gflop_per_s is not None
    assert device.peak_gb_per_s is not None
    moved = np.array(
        [
            graph.input_bytes(number) + task.weight_bytes + sum(task.output_bytes)
            for number, task in enumerate(graph.tasks)
        ],
        dtype=np.float64,
    )
    for edge in graph.edges:
        moved[edge.dst] += edge.bytes
    flops = np.array([task.flops for task in graph.tasks], dtype=np.float64)
    times = np.maximum(flops / device.peak_gflop_per_s, moved / device.peak_gb_per_s)
    return np.ceil(times).astype(np.int64)


def measure_kernels(
    kernels: Sequence[Kernel],
    device: Device,
    records: RecordStore,
    config: MeasureConfig,
    stage: str = "measure",
    progress: Progress | None = None,
) -> list[Record]:
    """Return a record for each kernel on a device; those that the store lacks are measured."""
    implemented = [_implement(kernel, device) for kernel in kernels]
    version = str(tvm.__version__)
    keys = [
        implementation_id(kernel, function)
        for kernel, function in zip(kernels, implemented, strict=True)
    ]
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
        modules = _build_kernels({keys[i]: implemented[i] for i in missing})
        for done, i in enumerate(missing):
            samples = on_cores(
                device,
                partial(_time_kernel, kernels[i], keys[i], modules.get(keys[i]), device, config),
            )
            record = Record(keys[i], device.cost_class, version, samples, os.getloadavg()[0])
            records.add(record)
            report(stage, len(kernels) - len(missing) + done + 1, len(kernels))
    found = [records.get(key, device.cost_class, version) for key in keys]
    return [record for record in found if record is not None]


def implementation_id(kernel: Kernel, function: Any) -> str:
    """Return the id of a kernel as implemented for a device, for looking up its records."""
    if function is None or kernel.is_external:
        return kernel.id
    bare = function.without_attr("target")
    return f"{kernel.id}.{tvm_ffi.structural_hash(bare) & (2**64 - 1):016x}"


def _implement(kernel: Kernel, device: Device) -> Any:
    """Return the kernel scheduled for a device, None where it is not made for it."""
    if kernel.is_external:
        return None
    target = device_target(device)
    if kernel.target_kind not in (None, str(target.kind.name)):
        return None
    return implement_kernel(kernel.function, target)


def _build_kernels(functions: dict[str, Any]) -> dict[str, Any]:
    """Build kernels together, which is fast; if one fails, each alone, and leave out those that fail."""
    named = {key: function for key, function in functions.items() if function is not None}
    if not named:
        return {}
    try:
        return dict.fromkeys(named, _build(named))
    except Exception:  # TVM raises many types; which kernel is at fault shows when each is built alone
        built = {}
        for key, function in named.items():
            try:
                built[key] = _build({key: function})
            except Exception:  # as above: this kernel has no code for this device
                continue
        return built


def _build(functions: dict[str, Any]) -> Any:
    module = tvm.IRModule(
        {
            _symbol(key): function.with_attr("global_symbol", _symbol(key))
            for key, function in functions.items()
        }
    )
    return tvm.tirx.build(module)


def _symbol(key: str) -> str:
    return "kernel_" + "".join(char if char.isalnum() else "_" for char in key)


def _time_kernel(
    kernel: Kernel, key: str, module: Any, device: Device, config: MeasureConfig
) -> tuple[float, ...]:
    """Return samples in ns on the calling thread; none if the kernel cannot run on the device."""
    runtime = runtime_device(device.runtime)
    if kernel.is_external:
        function = tvm_ffi.get_global_func(kernel.function, allow_missing=True)
        if function is None or not device.is_cpu:
            return ()
    elif module is None:
        return ()
    arguments = [random_tensor(ty, runtime) for ty in kernel.argument_types]

    def sample(number: int, repeat: int) -> Sequence[float]:
        if kernel.is_external:
            return [_time_calls(function, arguments, number) for _ in range(repeat)]
        evaluator = module.time_evaluator(_symbol(key), runtime, number=number, repeat=repeat)
        return [float(seconds) for seconds in evaluator(*arguments).results]

    sample(1, 1)  # first touch of code and data
    once_s = max(sample(1, 1)[0], 1e-9)
    number = max(1, math.ceil(config.min_repeat_ms / 1e3 / once_s))
    affordable = int(config.kernel_budget_ms / 1e3 / (once_s * number))
    repeat = max(2, min(config.num_repeats, affordable))
    return tuple(1e9 * seconds for seconds in sample(number, repeat))


def _time_calls(function: Any, arguments: Sequence[Any], number: int) -> float:
    begin = time.perf_counter()
    for _ in range(number):
        function(*arguments)
    return (time.perf_counter() - begin) / number


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


def on_cores(device: Device, work: Callable[[], _T]) -> _T:
    """Run a function on a thread of its own that is bound to a device's cores, and return its result.

    TVM's thread pool of that thread has one worker for each core. For a device that is no CPU the
    function runs on an ordinary thread.
    """
    outcome: list[_T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            if device.cores:
                os.sched_setaffinity(0, device.cores)
                configure = tvm_ffi.get_global_func("runtime.config_threadpool")
                configure(_ONE_CORE_PER_THREAD, len(device.cores), [str(core) for core in device.cores])
            outcome.append(work())
        except BaseException as error:  # handed to the caller, whatever it is
            failure.append(error)

    thread = threading.Thread(target=body, name=f"measure-{device.name}")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def measure_links(platform: Platform, progress: Progress | None = None) -> tuple[Any, Any]:
    """Return the latency (ns) and the bandwidth (bytes/s) of every ordered pair of devices, each (D, D).

    Links that the platform gives are taken from it. CPU devices share their memory: handing a tensor
    over costs `HANDOVER_NS` and no copy.
    """
    num_devices = len(platform.devices)
    latency = np.zeros((num_devices, num_devices), dtype=np.int64)
    bandwidth = np.full((num_devices, num_devices), math.inf)
    given = {(link.src, link.dst): link for link in platform.links}
    measured: dict[tuple[str, str], Link] = {}
    pairs = [(i, j) for i in range(num_devices) for j in range(num_devices) if i != j]
    for done, (i, j) in enumerate(pairs):
        src, dst = platform.devices[i], platform.devices[j]
        link = given.get((src.name, dst.name))
        spaces = (src.memory_space, dst.memory_space)
        if link is None and spaces[0] == spaces[1]:
            link = Link(src.name, dst.name, HANDOVER_NS, math.inf)
        if link is None:
            for device in (src, dst):
                if not runtime_device(device.runtime).exist:
                    raise UnsupportedError(
                        f"Device {device.name!r} ({device.runtime}) is not at hand to measure copies "
                        f"from {src.name!r} to {dst.name!r}; give this link in the platform file."
                    )
            if spaces not in measured:
                measured[spaces] = _measure_link(src, dst)
            link = measured[spaces]
        latency[i, j], bandwidth[i, j] = link.latency_ns, link.bandwidth_bytes_per_s
        if progress:
            progress("measure copies", done + 1, len(pairs))
    return latency, bandwidth


def _measure_link(src: Device, dst: Device) -> Link:
    """Measure copies between two memories, as the VM makes them, at several sizes."""
    source, target = runtime_device(src.runtime), runtime_device(dst.runtime)
    times = []
    for size in _COPY_BYTES:
        data = tvm.runtime.empty((size,), "uint8", source)
        times.append(_time_copy(data, target))
    latency, bandwidth = fit_link(_COPY_BYTES, times)
    return Link(src.name, dst.name, latency, bandwidth)


def _time_copy(data: Any, target: Any) -> float:
    samples = []
    for _ in range(9):
        begin = time.perf_counter_ns()
        data.copyto(target)
        target.sync()
        samples.append(float(time.perf_counter_ns() - begin))
    return median_and_spread(samples)[0]
