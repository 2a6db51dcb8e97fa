"""Which kernels have to be measured yet, since their times may change the schedule. Knows no TVM."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...scheduling.problem import CANNOT_RUN, Int64Array, SchedulingProblem
from ...search import search_schedule
from ...search.alternatives import single_device_ns
from .intervals import BoolArray, FloatArray, Ranges

#: A schedule that may be shorter by less than this share is not looked for.
GAIN = 0.005
# Kernels of each class that are measured in any case: they tell how far predictions are off there.
_FEWEST = 6


@dataclass(frozen=True, eq=False)
class Outlook:
    """A graph of N tasks on D devices by kernels (K) and classes of devices (C).

    Parameters
    ----------
    kernel_of : (N,) int64
        The kernel of each task.
    class_of : (D,) int64
        The class of each device.
    problem
        Returns the scheduling problem for times of tasks on devices, (N, D) int64 ns.
    alone
        The same by the times of a device that works alone.
    """

    kernel_of: Int64Array
    class_of: Int64Array
    problem: Callable[[Int64Array], SchedulingProblem]
    alone: Callable[[Int64Array], SchedulingProblem]

    def exec_ns(self, times_ns: FloatArray, allowed: BoolArray | None = None) -> Int64Array:
        """Return the time of each task on each device by those of its kernel; the others cannot run."""
        runs = np.isfinite(times_ns) & (True if allowed is None else allowed)
        whole = np.where(runs, np.maximum(np.rint(np.where(runs, times_ns, 0)), 0), CANNOT_RUN)
        return whole.astype(np.int64)[self.kernel_of][:, self.class_of]


#: Returns which kernels on which classes, (K, C), some question needs to know of.
Ask = Callable[[Outlook, Ranges, BoolArray], BoolArray]


def to_measure(outlook: Outlook, times: Ranges, is_measured: BoolArray) -> BoolArray:
    """Return which kernels on which classes, (K, C), are to be measured next; none when all is known.

    They are all that will be asked for if each takes what it is expected to, since many are timed in
    less time together than in rounds of a few. It is a function of what is known alone: who asks again
    with the same is told the same.
    """
    calls = np.bincount(outlook.kernel_of, minlength=len(is_measured))
    weight = np.where(is_measured, -1.0, calls[:, None] * np.minimum(times.expected_ns, 1e18))
    is_timed = is_measured & np.isfinite(times.expected_ns)
    found = _first_of_each_class(weight, is_timed) & ~is_measured
    for asks in ((_single_devices, _glance), (_schedule,)):
        if not found.any():
            found = _foresee(outlook, times, is_measured, asks) & ~is_measured
    return found


def _foresee(outlook: Outlook, times: Ranges, is_measured: BoolArray, asks: Sequence[Ask]) -> BoolArray:
    """Return what is measured once nothing is asked for, if each takes what it is expected to."""
    is_measured = is_measured.copy()
    while True:
        low_ns = np.where(is_measured, times.expected_ns, times.low_ns)
        hoped = Ranges(times.expected_ns, low_ns)
        for ask in asks:
            found = ask(outlook, hoped, is_measured) & ~is_measured
            if found.any():
                break
        else:
            return is_measured
        is_measured |= found


def _first_of_each_class(weight: FloatArray, is_timed: BoolArray) -> BoolArray:
    """Return the heaviest kernels of classes where few were measured."""
    chosen = np.zeros_like(is_timed)
    for column in range(weight.shape[1]):
        lacking = _FEWEST - int(is_timed[:, column].sum())
        if lacking > 0:
            rows = np.argsort(-weight[:, column], kind="stable")[:lacking]
            chosen[rows, column] = True
    return chosen


def _single_devices(outlook: Outlook, times: Ranges, is_measured: BoolArray) -> BoolArray:
    """Return what is not known of a device that may be the best of those that do all by themselves."""
    whole = [bool(column.all()) for column in is_measured.T]
    low = _totals(outlook, times.low_ns)
    kinds = outlook.class_of.tolist()
    best = min((low[d] for d, kind in enumerate(kinds) if whole[kind]), default=math.inf)
    expected = _totals(outlook, times.expected_ns)
    chosen = np.zeros_like(is_measured)
    open_ = [d for d, kind in enumerate(kinds) if not whole[kind] and low[d] < best]
    if open_:
        chosen[:, outlook.class_of[min(open_, key=lambda d: (expected[d], d))]] = True
    return chosen


def _totals(outlook: Outlook, times_ns: FloatArray) -> list[float]:
    """Return what each device takes for all tasks by itself; infinite where it cannot run one."""
    problem = outlook.alone(outlook.exec_ns(times_ns))
    found = single_device_ns(problem)
    return [float(found.get(device, math.inf)) for device in range(problem.num_devices)]


def _glance(outlook: Outlook, times: Ranges, is_measured: BoolArray) -> BoolArray:
    """Return the same as `_schedule` by a heuristic, which sees most of what is to be measured."""
    return _schedule(outlook, times, is_measured, "heft")


def _schedule(
    outlook: Outlook, times: Ranges, is_measured: BoolArray, algorithm: str = "cpga"
) -> BoolArray:
    """Return what is not known of a schedule that would be shorter if all went as well as it may."""
    nothing = np.zeros_like(is_measured)
    hopeful = search_schedule(outlook.problem(outlook.exec_ns(times.low_ns)), algorithm=algorithm).best
    used = np.zeros_like(is_measured)
    used[outlook.kernel_of, outlook.class_of[hopeful.device]] = True
    if not (used & ~is_measured).any():
        return nothing
    known_exec = outlook.exec_ns(times.expected_ns, is_measured)
    if (known_exec == CANNOT_RUN).all(axis=1).any():
        return used
    known = search_schedule(outlook.problem(known_exec), algorithm=algorithm).best
    return used if hopeful.makespan_ns < (1 - GAIN) * known.makespan_ns else nothing
