"""Whether a program runs as it was predicted to, and if not, which lane is late."""

from __future__ import annotations

from collections.abc import Sequence

from ..runtime.trace import Trace
from ..wording import counted
from .text import format_ns

#: Measured and predicted times that differ by more than this are told of.
MOST_RATIO = 1.5
# What waking a thread may take is no reason to tell of anything.
_LEAST_NS = 100_000


def fastest(traces: Sequence[Trace]) -> Trace:
    """Return the trace of the shortest run, which was disturbed the least."""
    return min(traces, key=lambda trace: trace.makespan_ns)


def parts_ways(trace: Trace) -> bool:
    """Return whether measured and predicted makespan differ by more than `MOST_RATIO`."""
    predicted_ns = trace.predicted_makespan_ns
    if not predicted_ns or not trace.makespan_ns:
        return False
    ratio = trace.makespan_ns / predicted_ns
    if abs(trace.makespan_ns - predicted_ns) < _LEAST_NS:
        return False
    return not 1 / MOST_RATIO <= ratio <= MOST_RATIO


def describe_lateness(trace: Trace) -> str:
    """Return a sentence on a run that parts ways with its prediction, with the lane that is late.

    That is the device whose tasks took the most longer than predicted; the sentence says so if it is
    waiting, and not tasks, that took longer.
    """
    predicted_ns = trace.predicted_makespan_ns or 1
    times = f"{format_ns(trace.makespan_ns)}, and {format_ns(predicted_ns)} was predicted"
    if trace.makespan_ns < predicted_ns:
        return (
            f"A run takes {times}: what it was predicted from was measured on a busier or another "
            f"machine. Compile the model again for a schedule that fits this one."
        )
    busy, planned = [0] * len(trace.devices), [0] * len(trace.devices)
    tasks = [0] * len(trace.devices)
    for step in trace.steps:
        if step.predicted_ns is not None:
            busy[step.device] += step.duration_ns
            planned[step.device] += step.predicted_ns[1] - step.predicted_ns[0]
            tasks[step.device] += 1
    late = max(range(len(trace.devices)), key=lambda device: busy[device] - planned[device])
    cores = ", ".join(map(str, trace.device_cores[late]))
    where = f"{trace.devices[late]!r}" + (f" (core{'s' * (',' in cores)} {cores})" if cores else "")
    over_ns = busy[late] - planned[late]
    if 2 * over_ns < trace.makespan_ns - predicted_ns:
        return (
            f"A run takes {times}: its tasks take what was predicted, and what it waits for between "
            f"them takes longer, the most beside {where}. Is a core taken, or are fewer allowed?"
        )
    return (
        f"A run takes {times}: {where} is late, its {counted(tasks[late], 'task')} took "
        f"{format_ns(busy[late])} in place of {format_ns(planned[late])}. Something "
        f"else uses it, or it is slower than when it was measured; then compile the model again."
    )
