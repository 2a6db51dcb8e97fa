"""Correct costs by the times that tasks had in place, within runs of a whole program. Knows no TVM.

Kernels are measured one by one, each with caches as a model is expected to leave them. What they really
take beside their neighbours, and what lies between two of them, a trace tells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ...platform import Platform
from ...runtime.trace import Trace
from ...scheduling.graph import TaskGraph
from ..records.in_place import FloatArray, Seen
from ..table import CostTable

# A kernel that takes less than this share of what was measured, or more than its inverse, was disturbed
# in one of the two; it counts as this.
_MOST_RATIO = 5.0
# Hand-overs between two devices that are worth a median.
_LEAST_CROSSINGS = 3


def summarise(traces: Sequence[Trace]) -> Seen:
    """Return the medians of several traces of one program, made with its schedule."""
    first = traces[0]
    num_devices = len(first.devices)
    ran = {index: step.task for index, step in enumerate(first.steps) if step.task is not None}
    calls, tasks = list(ran), list(ran.values())
    place = np.zeros(len(calls), dtype=np.int64)
    place[tasks] = [first.steps[index].device for index in calls]
    spent = np.median([[trace.steps[index].duration_ns for index in calls] for trace in traces], axis=0)
    took = np.zeros(len(calls))
    took[tasks] = spent
    between: list[list[float]] = [[] for _ in range(num_devices)]
    crossings: list[list[list[float]]] = [[[] for _ in range(num_devices)] for _ in range(num_devices)]
    for trace in traces:
        for source, target, gap_ns in _waits(trace):
            (between[target] if source == target else crossings[source][target]).append(gap_ns)
    own = np.array([np.median(gaps) if gaps else 0.0 for gaps in between])
    handover = np.full((num_devices, num_devices), np.nan)
    for source, row in enumerate(crossings):
        for target, gaps in enumerate(row):
            if len(gaps) >= _LEAST_CROSSINGS * len(traces):
                handover[source, target] = np.median(gaps)
    return Seen(place, took + own[place], handover, len(np.unique(place)) <= 1)


def _waits(trace: Trace) -> Iterator[tuple[int, int, float]]:
    """Yield for each step the device that it waited for last, its own, and the time in between."""
    for step in trace.steps:
        earlier = [trace.steps[index] for index in (*step.producers, *step.previous)]
        if earlier:
            last = max(earlier, key=lambda other: other.end_ns)
            yield last.device, step.device, float(step.begin_ns - last.end_ns)


def correct_costs(
    table: CostTable, graph: TaskGraph, platform: Platform, seen: Sequence[Seen]
) -> CostTable:
    """Return costs by which the programs that were seen take what they took.

    A task on a device where it was seen takes what it took there. On another device it takes what was
    measured, times the ratio of the two for its kernel on devices of that class, if it was seen there;
    else times that of all that was seen on the class; else times that of everything that was seen.

    Parameters
    ----------
    table
        Costs as they were measured, N tasks on D devices.
    graph, platform
        What they are of.
    seen
        At least one.
    """
    kernels = [task.kernel for task in graph.tasks]
    classes = [device.cost_class for device in platform.devices]
    return correct_times(table, kernels, classes, seen)


def correct_times(
    table: CostTable, kernels: Sequence[str], classes: Sequence[object], seen: Sequence[Seen]
) -> CostTable:
    """Return what `correct_costs` does.

    Parameters
    ----------
    kernels
        The kernel of each task; equal ones take the same.
    classes
        The class of costs of each device.
    """
    ratio = _ratios(table, kernels, classes, seen)
    runs = table.exec_ns >= 0
    exec_ns = np.where(runs, np.maximum(np.rint(table.exec_ns * ratio), 0), table.exec_ns)
    latency = table.latency_ns.astype(np.float64)
    for one in seen:
        known = ~np.isnan(one.handover_ns)
        # Large tensors take longer; what a small one takes is what is seen most often.
        latency[known] = np.maximum(one.handover_ns[known], 0.0)
    return replace(table, exec_ns=exec_ns.astype(np.int64), latency_ns=np.rint(latency).astype(np.int64))


def _ratios(
    table: CostTable, kernels: Sequence[str], classes: Sequence[object], seen: Sequence[Seen]
) -> FloatArray:
    """Return how many times as long as measured each task takes on each device, shape (N, D)."""
    num_tasks, num_devices = table.exec_ns.shape
    tasks = np.arange(num_tasks)
    logs: list[FloatArray] = []
    predicted_sum: dict[object, float] = {}
    took_sum: dict[object, float] = {}
    of_kernel: dict[tuple[str, object], list[float]] = {}
    for one in seen:
        predicted = (table.exec_ns if one.alone else table.loaded_ns)[tasks, one.device]
        usable = (predicted > 0) & (one.took_ns > 0)
        log = np.full((num_tasks, num_devices), np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.clip(np.log(one.took_ns / predicted), -np.log(_MOST_RATIO), np.log(_MOST_RATIO))
        log[tasks[usable], one.device[usable]] = values[usable]
        logs.append(log)
        for task in np.flatnonzero(usable).tolist():
            where = classes[int(one.device[task])]
            predicted_sum[where] = predicted_sum.get(where, 0.0) + float(predicted[task])
            took_sum[where] = took_sum.get(where, 0.0) + float(one.took_ns[task])
            of_kernel.setdefault((kernels[task], where), []).append(float(values[task]))
    total = sum(predicted_sum.values())
    overall = sum(took_sum.values()) / total if total else 1.0
    ratio = np.empty((num_tasks, num_devices))
    for column, where in enumerate(classes):
        common = took_sum[where] / predicted_sum[where] if where in took_sum else overall
        for task in range(num_tasks):
            own = of_kernel.get((kernels[task], where))
            ratio[task, column] = np.exp(np.median(own)) if own else common
    count = np.sum([~np.isnan(log) for log in logs], axis=0)
    direct = np.nansum(logs, axis=0) / np.maximum(count, 1)
    return np.where(count > 0, np.exp(direct), ratio)
