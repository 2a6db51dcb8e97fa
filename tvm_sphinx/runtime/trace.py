"""What happened in a run: each step's measured time beside its predicted one. Knows no TVM."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import InvalidScheduleError
from ..platform import Platform
from ..scheduling.schedule import Schedule
from .plan import LanePlan
from .program import LaneProgram

_MEASURED, _PREDICTED = 1, 2  # process ids in Chrome's trace format: one group of rows each
# Steps that no task stands for have rows of their own.
_ROWS = {"copy": 1000, "stage": 2000, "turn": 3000}
_ROW_NAMES = {"copy": "copies", "stage": "feeder", "turn": "layouts"}


@dataclass(frozen=True)
class TracedStep:
    """One step of a run; times in ns from the first begin.

    ``task`` is its id in the schedule, None for a copy or a change of layout; ``predicted_ns`` its
    planned begin and end, None without a schedule. ``producers`` are the steps whose results it reads,
    ``previous`` those that its cores ran right before it.
    """

    name: str
    kind: str
    function: str
    device: int
    begin_ns: int
    end_ns: int
    task: int | None
    predicted_ns: tuple[int, int] | None
    producers: tuple[int, ...]
    previous: tuple[int, ...]

    @property
    def duration_ns(self) -> int:
        """How long it ran."""
        return self.end_ns - self.begin_ns


class Link(NamedTuple):
    """A step of the critical path, and what it waited for.

    ``cause`` is ``"start"``, ``"data"`` (the result of ``after``) or ``"core"`` (which ``after`` held);
    ``gap_ns`` is the time from its end until this step began.
    """

    step: int
    cause: str
    after: int | None
    gap_ns: int


@dataclass(frozen=True)
class Trace:
    """The steps of a run in schedule order."""

    devices: tuple[str, ...]
    device_cores: tuple[tuple[int, ...], ...]
    steps: tuple[TracedStep, ...]
    predicted_makespan_ns: int | None

    @cached_property
    def makespan_ns(self) -> int:
        """End of the last step."""
        return max((step.end_ns for step in self.steps), default=0)

    @property
    def device_busy_ns(self) -> tuple[int, ...]:
        """Time that each device ran steps."""
        busy = [0] * len(self.devices)
        for step in self.steps:
            busy[step.device] += step.duration_ns
        return tuple(busy)

    @property
    def core_busy_ns(self) -> dict[int, int]:
        """Time that each core was held by a step."""
        busy: dict[int, int] = {}
        for step in self.steps:
            for core in self.device_cores[step.device]:
                busy[core] = busy.get(core, 0) + step.duration_ns
        return dict(sorted(busy.items()))

    def crossings(self) -> Iterator[tuple[int, int]]:
        """Yield (producer, reader) of each tensor that another device reads."""
        for reader, step in enumerate(self.steps):
            for producer in step.producers:
                if self.steps[producer].device != step.device:
                    yield producer, reader

    def critical_path(self) -> tuple[Link, ...]:
        """Return the chain of steps that the makespan hung on, in order.

        Walked from the step that ended last: before each step stands the one among its producers and
        its cores' previous steps that ended last.
        """
        links: list[Link] = []
        current = max(range(len(self.steps)), key=lambda i: self.steps[i].end_ns, default=None)
        while current is not None:
            step = self.steps[current]
            earlier = (*step.producers, *step.previous)
            after = max(earlier, key=lambda i: (self.steps[i].end_ns, i), default=None)
            if after is None:
                links.append(Link(current, "start", None, step.begin_ns))
            else:
                cause = "data" if after in step.producers else "core"
                links.append(Link(current, cause, after, step.begin_ns - self.steps[after].end_ns))
            current = after
        return tuple(reversed(links))

    def to_chrome(self) -> str:
        """Return the trace as Chrome trace events (JSON), for chrome://tracing and Perfetto.

        One row for each device, one more for its copies; predicted times stand in a group of their own.
        """
        events = [*self._names(), *self._slices(), *self._flows()]
        return json.dumps({"traceEvents": events, "displayTimeUnit": "ns"})

    def _names(self) -> Iterator[dict[str, Any]]:
        groups = {_MEASURED: "measured"}
        if self.predicted_makespan_ns is not None:
            groups[_PREDICTED] = "predicted"
        for process, label in groups.items():
            yield _metadata("process_name", process, 0, label)
            for device, name in enumerate(self.devices):
                cores = ",".join(map(str, self.device_cores[device]))
                place = f"cores {cores}" if cores else "stream of a GPU"
                yield _metadata("thread_name", process, device, f"{name} ({place})")
        for kind, first in _ROWS.items():
            for device in sorted({step.device for step in self.steps if step.kind == kind}):
                row = f"{self.devices[device]} {_ROW_NAMES[kind]}"
                yield _metadata("thread_name", _MEASURED, first + device, row)

    def _slices(self) -> Iterator[dict[str, Any]]:
        for step in self.steps:
            row = step.device + _ROWS.get(step.kind, 0)
            details: dict[str, Any] = {"kernel": step.function, "task": step.task}
            if step.predicted_ns is not None:
                details["predicted_us"] = (step.predicted_ns[1] - step.predicted_ns[0]) / 1e3
                details["measured_us"] = step.duration_ns / 1e3
                yield _slice(step.name, _PREDICTED, step.device, *step.predicted_ns, details)
            yield _slice(step.name, _MEASURED, row, step.begin_ns, step.end_ns, details)

    def _flows(self) -> Iterator[dict[str, Any]]:
        for number, (producer, reader) in enumerate(self.crossings()):
            source, target = self.steps[producer], self.steps[reader]
            common = {"name": "hand-over", "cat": "hand-over", "id": number, "pid": _MEASURED}
            yield {**common, "ph": "s", "tid": source.device, "ts": source.end_ns / 1e3}
            yield {**common, "ph": "f", "bp": "e", "tid": target.device, "ts": target.begin_ns / 1e3}


def check_schedule(program: LaneProgram, schedule: Schedule) -> None:
    """Check that a schedule is the one that a program was made from.

    Raises
    ------
    InvalidScheduleError
        If it has another number of tasks, or places one on another device.
    """
    calls = [step for step in program.steps if step.kind not in _ROWS]
    if len(calls) != schedule.num_tasks:
        raise InvalidScheduleError(
            f"Expected a schedule of {len(calls)} tasks; got one of {schedule.num_tasks}."
        )
    for step, task in zip(calls, schedule.order, strict=True):
        if step.device != schedule.device[task]:
            raise InvalidScheduleError(
                f"Expected task {task} ({step.name!r}) on device {step.device}, where its program runs "
                f"it; got {schedule.device[task]}."
            )


def make_trace(
    plan: LanePlan, platform: Platform, schedule: Schedule | None, stamps: npt.NDArray[np.int64]
) -> Trace:
    """Return the trace of a run.

    Parameters
    ----------
    plan, platform, schedule
        Those of the executable; the schedule, which may be None, gives the predicted times.
    stamps : (num_steps, 2) int64
        Begin and end of each step in ns.
    """
    program = plan.program
    # Kernel calls stand in the program in the order of the schedule; copies of results are no tasks.
    tasks = iter(() if schedule is None else schedule.order)
    last: dict[int, int] = {}
    steps = []
    for index, step in enumerate(program.steps):
        places = plan.places.of_step[index]
        traced = TracedStep(
            step.name,
            step.kind,
            step.function,
            step.device,
            int(stamps[index, 0]),
            int(stamps[index, 1]),
            None,
            None,
            program.producers(index),
            tuple(sorted({last[place] for place in places if place in last})),
        )
        last.update(dict.fromkeys(places, index))
        task = None if step.kind in _ROWS else next(tasks, None)
        if schedule is not None and task is not None:
            planned = (int(schedule.start_ns[task]), int(schedule.finish_ns[task]))
            traced = replace(traced, task=task, predicted_ns=planned)
        steps.append(traced)
    return Trace(
        tuple(device.name for device in platform.devices),
        tuple(device.cores for device in platform.devices),
        tuple(steps),
        None if schedule is None else schedule.makespan_ns,
    )


def _metadata(kind: str, process: int, row: int, name: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": process, "tid": row, "args": {"name": name}}


def _slice(
    name: str, process: int, row: int, begin_ns: int, end_ns: int, details: dict[str, Any]
) -> dict[str, Any]:
    times = {"ts": begin_ns / 1e3, "dur": (end_ns - begin_ns) / 1e3}
    return {"name": name, "cat": "task", "ph": "X", "pid": process, "tid": row, **times, "args": details}
