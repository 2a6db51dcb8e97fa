"""How much kernels slow each other down that run side by side on devices that share a memory. [TVM]

Probe kernels are timed on one CPU device, alone and while another one works without a pause. What they
lose stands for kernels of their class: bound by memory, by arithmetic, or by neither. What streams of a
GPU lose is told by the share of it that each kernel fills (`.gpu_shares`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..._tvm import tvm, tvm_ffi
from ...frontend.extract import Kernel
from ...kernels import compute
from ...kernels.implement import implement_kernel
from ...platform import Device, Platform
from ...platform.device import CostClass
from ...platform.targets import device_target, runtime_device
from ...progress import Progress
from ...scheduling.graph import TaskGraph
from ...scheduling.problem import Int64Array
from ..records.classes import class_of_pair
from ..records.store import Record, RecordStore, median_and_spread
from .divisors import divisor_operands
from .gpu_shares import shares_of_tasks, stream_slowdown
from .kernel_timing import kernel_of, operand_bytes, random_operands, shape_texts
from .lane_timing import Call, load_for_lanes, time_beside
from .roofline import moved_bytes
from .sampling import host_load

#: Kernel classes, and the probe of each: columns of the tables here.
CLASSES = ("memory", "mixed", "compute")
#: What a neighbour does: rows of the tables here.
NEIGHBOURS = ("memory", "compute")

# Beyond the last-level cache, read and written together.
_STREAM_FLOATS = 6 << 20
# (rows, depth, columns) of products of packed weights: one out of the caches of a core; one that reads
# 4 MiB of weights at a few operations for each byte.
_COMPUTE_PRODUCT = (448, 256, 64)
_MIXED_PRODUCT = (16, 1024, 1024)

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PairLoad:
    """What one device loses beside another.

    Parameters
    ----------
    slowdown : (len(NEIGHBOURS), len(CLASSES))
        How many times longer a probe takes beside a neighbour than alone, at least 1.
    flops_per_ns, bytes_per_ns
        What the compute probe and the memory probe reach alone: the device's peaks.
    """

    slowdown: FloatArray
    flops_per_ns: float
    bytes_per_ns: float


def expected_slowdown(
    graph: TaskGraph,
    platform: Platform,
    exec_ns: Int64Array,
    records: RecordStore,
    progress: Progress | None = None,
    end_s: float = math.inf,
    shares: Mapping[CostClass, Mapping[str, float]] | None = None,
) -> FloatArray:
    """Return how many times longer each task is expected to take than alone, shape (N, D), at least 1.

    A CPU device's neighbours are the others that it shares no core with, the smallest first, as many as
    fit beside each other: a device of all cores has none, and its times stay as they are. Each neighbour
    is taken to work for the share of time that the graph's average parallelism on the device and its
    neighbours (total work over the critical path; Brent, JACM 21(2), 1974) lets it, on what the graph
    consists of; what the neighbours cost adds up. No pair is measured once
    ``time.monotonic()`` has reached ``end_s``: those that are not on record are taken to cost nothing.

    A GPU's streams have each other for neighbours, and lose what the ``shares`` of their kernels tell,
    see `tvm_sphinx.cost.measure.gpu_shares`: by cost class, and by kernel id. Without any they lose
    nothing. They are taken to leave the CPU alone.
    """
    factors = _beside_streams(graph, platform, exec_ns, shares or {})
    measured = [neighbours(platform, index) for index in range(len(platform.devices))]
    pairs = [(index, other) for index, others in enumerate(measured) for other in others]
    busy = {
        index: _busy_share(graph, exec_ns, index, measured[index])
        for index in dict.fromkeys(index for index, _ in pairs)
    }
    both = [(platform.devices[index], platform.devices[other]) for index, other in pairs]
    kinds = [str(class_of_pair(*pair)) for pair in both]
    one_of_each = dict(zip(reversed(kinds), reversed(both), strict=True))
    is_known = not any(_missing(*pair, records) for pair in one_of_each.values())
    stage = f"measure under load{', all on record' * is_known}"
    loads: dict[str, PairLoad | None] = {}
    for done, ((index, other), kind) in enumerate(zip(pairs, kinds, strict=True)):
        if kind not in loads:
            may_measure = time.monotonic() < end_s
            loads[kind] = measure_pair(*one_of_each[kind], records, may_measure=may_measure)
        load = loads[kind]
        if load is None:
            continue
        classes = task_classes(graph, load)
        extra = neighbour_shares(classes, exec_ns[:, other]) @ (load.slowdown - 1.0)
        factors[:, index] += busy[index] * extra[classes]
        if progress:
            progress(stage, done + 1, len(pairs))
    return factors


def _beside_streams(
    graph: TaskGraph,
    platform: Platform,
    exec_ns: Int64Array,
    shares: Mapping[CostClass, Mapping[str, float]],
) -> FloatArray:
    """Return what tasks lose in the streams of GPUs, shape (N, D); 1 on all other devices."""
    factors = np.ones(exec_ns.shape)
    for index, device in enumerate(platform.devices):
        others = streams_beside(platform, index)
        known = shares.get(device.cost_class)
        if not others or not known:
            continue
        busy = _busy_share(graph, exec_ns, index, others)
        of_tasks = shares_of_tasks([task.kernel for task in graph.tasks], known)
        times_ns = exec_ns[:, index].astype(np.float64)
        factors[:, index] = stream_slowdown(of_tasks, times_ns, len(others), busy)
    return factors


def streams_beside(platform: Platform, index: int) -> list[int]:
    """Return the other streams of a device's GPU; none of a device that is no GPU."""
    device = platform.devices[index]
    return [
        other
        for other, candidate in enumerate(platform.devices)
        if device.runtime.startswith("cuda:")
        and device.rpc_key is None
        and other != index
        and candidate.runtime == device.runtime
    ]


def neighbours(platform: Platform, index: int) -> list[int]:
    """Return the CPU devices of this machine that can work beside one, and beside each other."""
    device = platform.devices[index]
    chosen: list[int] = []
    if device.rpc_key is not None or not device.is_cpu:
        return chosen
    taken = set(device.cores)
    for other in sorted(range(len(platform.devices)), key=lambda i: len(platform.devices[i].cores)):
        candidate = platform.devices[other]
        if candidate.is_cpu and candidate.rpc_key is None and not taken & set(candidate.cores):
            chosen.append(other)
            taken |= set(candidate.cores)
    return chosen


def average_parallelism(graph: TaskGraph, exec_ns: Int64Array) -> float:
    """Return the total work of a graph over its critical path, each task on its fastest device."""
    fastest = np.where(exec_ns < 0, np.iinfo(np.int64).max, exec_ns).min(axis=1, initial=2**62)
    fastest = np.where(fastest >= 2**62, 0, fastest)
    finish = np.zeros(graph.num_tasks)
    for task, before in enumerate(graph.predecessors):
        finish[task] = fastest[task] + max((finish[p] for p in before), default=0.0)
    longest = float(finish.max(initial=0.0))
    return float(fastest.sum()) / longest if longest > 0 else 1.0


def _busy_share(graph: TaskGraph, exec_ns: Int64Array, index: int, others: Sequence[int]) -> float:
    """Return for what share of the time parallelism lets the others work beside a device."""
    parallelism = average_parallelism(graph, exec_ns[:, [index, *others]])
    return min(1.0, (parallelism - 1.0) / len(others))


def task_classes(graph: TaskGraph, load: PairLoad) -> npt.NDArray[np.int64]:
    """Return the class of each task on a device, by its roofline: positions in `CLASSES`, shape (N,).

    A task is of the class of the resource that it needs at least twice as long as the other.
    """
    memory_ns = moved_bytes(graph) / load.bytes_per_ns
    compute_ns = np.array([task.flops for task in graph.tasks]) / load.flops_per_ns
    classes = np.full(graph.num_tasks, CLASSES.index("mixed"), dtype=np.int64)
    classes[memory_ns >= 2 * compute_ns] = CLASSES.index("memory")
    classes[compute_ns > 2 * memory_ns] = CLASSES.index("compute")
    return classes


def neighbour_shares(classes: npt.NDArray[np.int64], times_ns: Int64Array) -> FloatArray:
    """Return the share of its time that a device spends as each kind of neighbour, shape (NEIGHBOURS,).

    Tasks between the two count half for each.
    """
    weights = np.maximum(times_ns, 0).astype(np.float64)
    by_class = np.array([weights[classes == number].sum() for number in range(len(CLASSES))])
    total = by_class.sum()
    if not total:
        return np.zeros(len(NEIGHBOURS))
    memory, mixed, compute = by_class / total
    return np.array([memory + mixed / 2, compute + mixed / 2])


def _load_keys(probes: Mapping[str, Kernel]) -> dict[tuple[str, str], str]:
    """Return the names of the records of a pair, by the class of a probe and what is beside it."""
    wanted = [(name, beside) for name in CLASSES for beside in ("nothing", *NEIGHBOURS)]
    return {(name, beside): f"{probes[name].id} beside {beside}" for name, beside in wanted}


def _missing(device: Device, neighbour: Device, records: RecordStore) -> list[tuple[str, str]]:
    """Return which of the records of a pair are not there."""
    where, version = str(class_of_pair(device, neighbour)), str(tvm.__version__)
    keys = _load_keys({name: _probe(name, device) for name in CLASSES})
    return [pair for pair, key in keys.items() if records.get(key, where, version, "load") is None]


def measure_pair(
    device: Device, neighbour: Device, records: RecordStore, *, may_measure: bool = True
) -> PairLoad | None:
    """Return what a device loses beside another one, from the records or measured and recorded now.

    None where it is not on record and may not be measured.
    """
    version = str(tvm.__version__)
    where = class_of_pair(device, neighbour)
    mine = {name: _probe(name, device) for name in CLASSES}
    keys = _load_keys(mine)
    missing = _missing(device, neighbour, records)
    if missing and not may_measure:
        return None
    if missing:
        calls = _calls(mine, device)
        others = _calls({name: _probe(name, neighbour) for name in NEIGHBOURS}, neighbour)
        for name in dict.fromkeys(name for name, _ in missing):
            besides = ("nothing", *NEIGHBOURS)
            timed = time_beside(calls[name], [others.get(beside) for beside in besides])
            shapes = shape_texts(mine[name])
            for beside, samples in zip(besides, timed, strict=True):
                key = keys[name, beside]
                records.add(
                    Record(key, where, version, samples, host_load(), kind="load", shapes=shapes)
                )
    median = {}
    for pair, key in keys.items():
        record = records.get(key, str(where), version, "load")
        assert record is not None
        # A neighbour that ended before a single call did leaves no sample: then nothing is known.
        median[pair] = max(1, median_and_spread(record.samples_ns)[0]) if record.samples_ns else None
    alone = {name: median[name, "nothing"] or 1 for name in CLASSES}
    slowdown = [[max(1.0, (median[c, n] or alone[c]) / alone[c]) for c in CLASSES] for n in NEIGHBOURS]
    return PairLoad(
        np.array(slowdown),
        2.0 * math.prod(_COMPUTE_PRODUCT) / alone["compute"],
        operand_bytes(mine["memory"]) / alone["memory"],
    )


def _calls(probes: dict[str, Kernel], device: Device) -> dict[str, Any]:
    functions = {f"probe_{name}": kernel.function for name, kernel in probes.items()}
    runtime = runtime_device("cpu:0")
    module = load_for_lanes(functions)
    return {
        name: Call(
            module.get_function(f"probe_{name}"),
            random_operands(kernel.argument_types, divisor_operands(kernel.function), runtime),
            device,
            name == "memory",
        )
        for name, kernel in probes.items()
    }


def _probe(name: str, device: Device) -> Kernel:
    """Return the probe of a class as a device runs it."""
    bare = _stream() if name == "memory" else _product(name)
    function = implement_kernel(bare, device_target(device))
    digest = tvm_ffi.structural_hash(function.without_attr("target")) & (2**64 - 1)
    return kernel_of(function, f"probe-{name}.{digest:016x}")


def _stream() -> Any:
    shape = (_STREAM_FLOATS >> 10, 1 << 10)
    source = tvm.te.placeholder(shape, name="source")
    doubled = tvm.te.compute(shape, lambda i, j: source[i, j] * 2.0, name="doubled")
    return tvm.te.create_prim_func([source, doubled])


def _product(name: str) -> Any:
    rows, depth, columns = _COMPUTE_PRODUCT if name == "compute" else _MIXED_PRODUCT
    return compute.matmul((rows,), depth, columns, "float32", "float32")
