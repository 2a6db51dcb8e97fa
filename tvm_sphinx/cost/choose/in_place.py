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
from ...scheduling.problem import Int64Array
from ..records.in_place import FloatArray, Seen
from ..table import CostTable

# A kernel that takes less than this share of what was measured, or more than its inverse, was disturbed
# in one of the two; it counts as this.
_MOST_RATIO = 5.0
# Hand-overs between two devices that are worth a median.
_LEAST_CROSSINGS = 3


def summarise(traces: Sequence[Trace]) -> Seen:
    """Return what the faster half of several traces of one program, made with its schedule, come to.

    Others use a machine for seconds at a time, and then most of what is traced in a row is slower. What
    is added up to a run's time is a mean: the sum of medians is less than the median of a sum.
    """
    traces = sorted(traces, key=lambda trace: trace.makespan_ns)[: (len(traces) + 1) // 2]
    first = traces[0]
    num_devices = len(first.devices)
    ran = {index: step.task for index, step in enumerate(first.steps) if step.task is not None}
    calls, tasks = list(ran), list(ran.values())
    place = np.zeros(len(calls), dtype=np.int64)
    place[tasks] = [first.steps[index].device for index in calls]
    spent = np.mean([[trace.steps[index].duration_ns for index in calls] for trace in traces], axis=0)
    took = np.zeros(len(calls))
    took[tasks] = spent
    between: list[list[float]] = [[] for _ in range(num_devices)]
    crossings: list[list[list[float]]] = [[[] for _ in range(num_devices)] for _ in range(num_devices)]
    for trace in traces:
        for source, target, gap_ns in _waits(trace):
            (between[target] if source == target else crossings[source][target]).append(gap_ns)
    own = np.array([np.mean(gaps) if gaps else 0.0 for gaps in between])
    handover = np.full((num_devices, num_devices), np.nan)
    for source, row in enumerate(crossings):
        for target, gaps in enumerate(row):
            if len(gaps) >= _LEAST_CROSSINGS * len(traces):
                handover[source, target] = np.median(gaps)
    # As a record holds them, so that a later compilation comes to the same.
    return Seen(place, np.round(took + own[place], 1), np.round(handover, 1), len(np.unique(place)) <= 1)


def _waits(trace: Trace) -> Iterator[tuple[int, int, float]]:
    """Yield for each step the device that it waited for last, its own, and the time in between."""
    for step in trace.steps:
        earlier = [trace.steps[index] for index in (*step.producers, *step.previous)]
        if earlier:
            last = max(earlier, key=lambda other: other.end_ns)
            yield last.device, step.device, float(step.begin_ns - last.end_ns)


def correct_costs(
    table: CostTable,
    graph: TaskGraph,
    platform: Platform,
    seen: Sequence[Seen],
    kept: Seen | None = None,
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
    kept
        The last of these, to count alone where it ran: what a task takes depends on its neighbours.
    """
    kernels = [task.kernel for task in graph.tasks]
    classes = [device.cost_class for device in platform.devices]
    return correct_times(table, kernels, classes, seen, kept)


def correct_times(
    table: CostTable,
    kernels: Sequence[str],
    classes: Sequence[object],
    seen: Sequence[Seen],
    kept: Seen | None = None,
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
    if kept is not None:
        own = ~np.isnan(log := _logs(table, kept))
        ratio[own] = np.exp(log[own])
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
    logs: list[FloatArray] = []
    predicted_sum: dict[object, float] = {}
    took_sum: dict[object, float] = {}
    of_kernel: dict[tuple[str, object], list[float]] = {}
    for one in seen:
        predicted, log = _predicted(table, one), _logs(table, one)
        logs.append(log)
        for task, device in np.argwhere(~np.isnan(log)).tolist():
            where = classes[device]
            predicted_sum[where] = predicted_sum.get(where, 0.0) + float(predicted[task])
            took_sum[where] = took_sum.get(where, 0.0) + float(one.took_ns[task])
            of_kernel.setdefault((kernels[task], where), []).append(float(log[task, device]))
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


def _predicted(table: CostTable, seen: Seen) -> Int64Array:
    """Return what was measured for each task where a program ran it, alone or beside others as there."""
    costs = table.exec_ns if seen.alone else table.loaded_ns
    return costs[np.arange(len(costs)), seen.device]


def _logs(table: CostTable, seen: Seen) -> FloatArray:
    """Return the logarithm of how many times as long as measured each task took where it ran.

    Shape (N, D); NaN where it did not run, or one of the two is not known.
    """
    predicted, tasks = _predicted(table, seen), np.arange(len(seen.device))
    usable = (predicted > 0) & (seen.took_ns > 0)
    logs = np.full(table.exec_ns.shape, np.nan)
    ratio = seen.took_ns[usable] / predicted[usable]
    most = np.log(_MOST_RATIO)
    logs[tasks[usable], seen.device[usable]] = np.clip(np.log(ratio), -most, most)
    return logs
