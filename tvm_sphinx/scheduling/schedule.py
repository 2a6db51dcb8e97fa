"""Schedules, and the checker that trusts none of the searches that made them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from ..errors import InvalidScheduleError
from ..wording import counted
from .integers import MAX_TOTAL, frozen_int64, is_whole
from .problem import CANNOT_RUN, NO_GROUP, UNLIMITED, Int64Array, SchedulingProblem


@dataclass(frozen=True, eq=False, repr=False)
class Schedule:
    """Where and when each task runs.

    Parameters
    ----------
    device : (N,) int64
        Device of each task, an index into ``problem.devices``.
    start_ns, finish_ns : (N,) int64
        Planned times; the first input is at hand at 0.
    makespan_ns
        When the last model output is delivered.
    lower_bound_ns
        No schedule of the problem is shorter than this.
    problem_fingerprint
        The problem that this schedule was made for.

    Raises
    ------
    InvalidScheduleError
        If a field holds anything but integers, or the arrays are not of one shape.
    """

    device: Int64Array
    start_ns: Int64Array
    finish_ns: Int64Array
    makespan_ns: int
    lower_bound_ns: int
    problem_fingerprint: str

    def __post_init__(self) -> None:
        for name in ("device", "start_ns", "finish_ns"):
            frozen = frozen_int64(name, getattr(self, name), (-1,), InvalidScheduleError)
            object.__setattr__(self, name, frozen)
        for name in ("makespan_ns", "lower_bound_ns"):
            value = getattr(self, name)
            if not is_whole(value):
                raise InvalidScheduleError(f"Expected {name} as an integer; got {value!r:.40}.")
            object.__setattr__(self, name, int(value))
        if not self.device.shape == self.start_ns.shape == self.finish_ns.shape:
            raise InvalidScheduleError(
                "Expected device, start_ns and finish_ns of one shape (N,); got "
                f"{self.device.shape}, {self.start_ns.shape}, {self.finish_ns.shape}."
            )

    def __repr__(self) -> str:
        used = len(set(self.device.tolist()))
        return (
            f"<Schedule of {counted(self.num_tasks, 'task')} on {counted(used, 'device')}: "
            f"makespan {self.makespan_ns} ns, certified gap {self.gap:.1%}>"
        )

    @property
    def num_tasks(self) -> int:
        """Number of tasks."""
        return int(self.device.shape[0])

    @property
    def gap(self) -> float:
        """Certified gap: makespan over lower bound, minus one; 0 means proven optimal."""
        if self.makespan_ns == self.lower_bound_ns:
            return 0.0
        return self.makespan_ns / self.lower_bound_ns - 1.0 if self.lower_bound_ns else float("inf")

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Task ids by start time; tasks that start together by finish, then by id."""
        keys = (np.arange(self.num_tasks), self.finish_ns, self.start_ns)
        return tuple(np.lexsort(keys).tolist())

    def with_lower_bound(self, lower_bound_ns: int) -> Schedule:
        """Return the same schedule with the better of its lower bound and the given one."""
        return replace(self, lower_bound_ns=max(self.lower_bound_ns, lower_bound_ns))

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serialisable form."""
        return {
            "device": self.device.tolist(),
            "start_ns": self.start_ns.tolist(),
            "finish_ns": self.finish_ns.tolist(),
            "makespan_ns": self.makespan_ns,
            "lower_bound_ns": self.lower_bound_ns,
            "problem_fingerprint": self.problem_fingerprint,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Schedule:
        """Rebuild a schedule from `to_json`; fields that it does not know are ignored.

        Raises
        ------
        InvalidScheduleError
            If it is no object, a field is missing, or one holds something else than integers.
        """
        if not isinstance(content, dict):
            raise InvalidScheduleError(f"Expected one JSON object; got {type(content).__name__}.")
        names = [field.name for field in fields(cls)]
        missing = [name for name in names if name not in content]
        if missing:
            raise InvalidScheduleError(
                f"Expected the fields {', '.join(names)}; {missing[0]!r} is missing."
            )
        return cls(**{name: content[name] for name in names})


def validate(problem: SchedulingProblem, schedule: Schedule) -> None:
    """Check a schedule against its problem, independently of how it was found.

    Checked are: the fingerprint; devices that exist and can run their tasks; times from 0 to below
    2**62 ns; durations; release times; precedence with copies; no two tasks at once on any core;
    colocation; memory capacity; the makespan; and that the lower bound does not lie above it.

    Raises
    ------
    InvalidScheduleError
        With the first rule that is broken and the values that break it.
    """
    for violation in violations(problem, schedule):
        raise InvalidScheduleError(violation)


def violations(problem: SchedulingProblem, schedule: Schedule) -> Iterator[str]:
    """Yield a sentence for each rule that the schedule breaks; nothing if it is valid."""
    if schedule.problem_fingerprint != problem.fingerprint:
        yield (
            f"Expected a schedule of problem {problem.fingerprint}; "
            f"got one of problem {schedule.problem_fingerprint}."
        )
    if schedule.num_tasks != problem.num_tasks:
        yield f"Expected {problem.num_tasks} tasks; got {schedule.num_tasks}."
        return
    device = schedule.device
    if device.size and not 0 <= device.min() <= device.max() < problem.num_devices:
        yield f"Expected devices 0..{problem.num_devices - 1}; got {device.min()}..{device.max()}."
        return
    if out_of_range := list(_times_out_of_range(schedule)):
        yield from out_of_range
        return
    yield from _broken_times(problem, schedule)
    yield from _broken_precedences(problem, schedule)
    yield from _overlaps(problem, schedule)
    yield from _broken_colocation(problem, schedule)
    peaks = peak_memory_bytes(problem, schedule)
    for name, peak, capacity in zip(problem.devices, peaks, problem.memory_bytes, strict=True):
        if capacity != UNLIMITED and peak > capacity:
            yield f"Device {name!r} holds {peak} bytes at its peak; its capacity is {capacity}."


def _times_out_of_range(schedule: Schedule) -> Iterator[str]:
    for name in ("start_ns", "finish_ns", "makespan_ns", "lower_bound_ns"):
        times = np.atleast_1d(getattr(schedule, name))
        wrong = times[(times < 0) | (times >= MAX_TOTAL)]
        if wrong.size:
            yield f"Expected {name} in 0..2**62 - 1; got {wrong[0]}."


def _broken_times(problem: SchedulingProblem, schedule: Schedule) -> Iterator[str]:
    tasks = np.arange(problem.num_tasks)
    duration = problem.exec_ns[tasks, schedule.device]
    release = problem.release_ns[tasks, schedule.device]
    delivered = schedule.finish_ns + problem.delivery_ns[tasks, schedule.device]
    for task in np.flatnonzero(duration == CANNOT_RUN).tolist():
        yield f"Task {task} cannot run on {problem.devices[schedule.device[task]]!r}."
    actual = schedule.finish_ns - schedule.start_ns
    for task in np.flatnonzero((actual != duration) & (duration != CANNOT_RUN)).tolist():
        yield f"Task {task} takes {duration[task]} ns; it is planned for {actual[task]} ns."
    for task in np.flatnonzero(schedule.start_ns < release).tolist():
        yield f"Task {task} starts at {schedule.start_ns[task]} ns, before {release[task]} ns."
    makespan = int(delivered.max(initial=0))
    if makespan != schedule.makespan_ns:
        yield f"The last output is delivered at {makespan} ns; makespan_ns is {schedule.makespan_ns}."
    if schedule.lower_bound_ns > schedule.makespan_ns:
        yield f"Lower bound {schedule.lower_bound_ns} ns is above makespan {schedule.makespan_ns} ns."


def _broken_precedences(problem: SchedulingProblem, schedule: Schedule) -> Iterator[str]:
    if not problem.num_edges:
        return
    src, dst = problem.edges.T
    copies = problem.copy_ns[problem.copy_class, schedule.device[src], schedule.device[dst]]
    arrival = schedule.finish_ns[src] + copies
    for edge in np.flatnonzero(schedule.start_ns[dst] < arrival).tolist():
        yield (
            f"Task {dst[edge]} starts at {schedule.start_ns[dst[edge]]} ns; what it needs of task "
            f"{src[edge]} arrives at {arrival[edge]} ns."
        )


def _overlaps(problem: SchedulingProblem, schedule: Schedule) -> Iterator[str]:
    by_core: dict[int, list[int]] = {}
    for task, device in enumerate(schedule.device.tolist()):
        if schedule.finish_ns[task] > schedule.start_ns[task]:
            for core in problem.device_cores[device]:
                by_core.setdefault(core, []).append(task)
    for core, tasks in sorted(by_core.items()):
        tasks.sort(key=lambda task: int(schedule.start_ns[task]))
        for first, second in pairwise(tasks):
            if schedule.start_ns[second] < schedule.finish_ns[first]:
                yield (
                    f"Tasks {first} and {second} both run on core {core} at "
                    f"{schedule.start_ns[second]} ns."
                )


def _broken_colocation(problem: SchedulingProblem, schedule: Schedule) -> Iterator[str]:
    for group in np.unique(problem.colocation[problem.colocation != NO_GROUP]).tolist():
        members = np.flatnonzero(problem.colocation == group)
        used = np.unique(schedule.device[members])
        if len(used) > 1:
            names = [problem.devices[device] for device in used]
            yield f"Tasks {members.tolist()[:8]} of colocation group {group} run on {names}."


def peak_memory_bytes(problem: SchedulingProblem, schedule: Schedule) -> Int64Array:
    """Return the most bytes that each device holds at one time, shape (D,).

    A device holds, all the time, the weights of the tasks that it runs. It holds a task's outputs
    from the task's start until the last task that reads them has finished, wherever that runs (to the
    end, if none reads them). A device to which the outputs are copied holds them from the producer's
    finish until its own last reader has finished. At a moment where one tensor dies and another is
    born, only the latter counts.
    """
    peak = np.zeros(problem.num_devices, dtype=np.int64)
    weights = problem.weight_bytes_on[np.arange(problem.num_tasks), schedule.device]
    np.add.at(peak, schedule.device, weights)
    last_use: dict[tuple[int, int], int] = {}
    for src, dst in problem.edges.tolist():
        finish = int(schedule.finish_ns[dst])
        for device in {int(schedule.device[src]), int(schedule.device[dst])}:
            last_use[src, device] = max(last_use.get((src, device), 0), finish)
    for task in range(problem.num_tasks):
        home = int(schedule.device[task])
        last_use.setdefault((task, home), int(schedule.finish_ns.max(initial=0)))
    changes: list[list[tuple[int, int]]] = [[] for _ in range(problem.num_devices)]
    for (task, device), end in last_use.items():
        size = int(problem.output_bytes[task])
        is_home = device == int(schedule.device[task])
        begin = int(schedule.start_ns[task] if is_home else schedule.finish_ns[task])
        if size and end > begin:
            changes[device] += [(begin, size), (end, -size)]
    for device, events in enumerate(changes):
        level = highest = 0
        for _, change in sorted(events):
            level += change
            highest = max(highest, level)
        peak[device] += highest
    return peak
