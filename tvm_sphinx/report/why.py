"""Why a task lies where it lies: what it waits for, what it would cost elsewhere, what binds it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..errors import SphinxError
from ..scheduling.constraints import find_tasks, task_names
from ..scheduling.graph import TaskGraph
from ..scheduling.problem import CANNOT_RUN, UNLIMITED, Int64Array, SchedulingProblem
from ..scheduling.replay import moved_makespans_ns
from ..scheduling.schedule import Schedule, peak_memory_bytes
from .decision import Decision
from .text import format_bytes, format_ns, format_table

_MOST_TASKS = 12


class Wait(NamedTuple):
    """What the start of a task waited for.

    ``cause`` is ``"start"`` (nothing), ``"input"`` (the copy of a model input), ``"data"`` (the result
    of task ``after``, of which ``copy_ns`` is on the way) or ``"core"`` (which ``after`` held).
    """

    cause: str
    after: int | None
    copy_ns: int


def find_waits(problem: SchedulingProblem, schedule: Schedule) -> list[Wait]:
    """Return what each task waited for: whatever came last."""
    incoming = _incoming(problem)
    last: dict[int, int] = {}
    waits: list[Wait] = [Wait("start", None, 0)] * problem.num_tasks
    for task in schedule.order:
        here = int(schedule.device[task])
        release = int(problem.release_ns[task, here])
        latest, wait = release, Wait("input" if release else "start", None, release)
        groups = problem.core_groups[here]
        for group in groups:
            holder = last.get(group)
            if holder is not None and schedule.finish_ns[holder] > latest:
                latest, wait = int(schedule.finish_ns[holder]), Wait("core", holder, 0)
        for src, row in incoming[task]:
            copy = int(problem.copy_ns[row, schedule.device[src], here])
            if schedule.finish_ns[src] + copy >= latest:
                latest, wait = int(schedule.finish_ns[src]) + copy, Wait("data", src, copy)
        if schedule.finish_ns[task] > schedule.start_ns[task]:
            last.update(dict.fromkeys(groups, task))
        waits[task] = wait
    return waits


def critical_path(problem: SchedulingProblem, schedule: Schedule, waits: list[Wait]) -> list[int]:
    """Return the tasks that the predicted makespan hangs on, in order."""
    if not problem.num_tasks:
        return []
    tasks = np.arange(problem.num_tasks)
    delivered = schedule.finish_ns + problem.delivery_ns[tasks, schedule.device]
    current: int | None = int(np.argmax(delivered))
    path = []
    while current is not None:
        path.append(current)
        current = waits[current].after
    return path[::-1]


def slack_ns(problem: SchedulingProblem, schedule: Schedule) -> Int64Array:
    """Return by how much each task could end later, ns, with the makespan and the order as they are."""
    tasks = np.arange(problem.num_tasks)
    latest = schedule.makespan_ns - problem.delivery_ns[tasks, schedule.device]
    outgoing: list[list[tuple[int, int]]] = [[] for _ in tasks]
    for (src, dst), row in zip(problem.edges.tolist(), problem.copy_class.tolist(), strict=True):
        outgoing[src].append((dst, row))
    following: dict[int, int] = {}
    for task in reversed(schedule.order):
        here = int(schedule.device[task])
        for dst, row in outgoing[task]:
            length = int(schedule.finish_ns[dst] - schedule.start_ns[dst])
            copy = int(problem.copy_ns[row, here, schedule.device[dst]])
            latest[task] = min(latest[task], int(latest[dst]) - length - copy)
        if schedule.finish_ns[task] > schedule.start_ns[task]:
            for group in problem.core_groups[here]:
                if (after := following.get(group)) is not None:
                    length = int(schedule.finish_ns[after] - schedule.start_ns[after])
                    latest[task] = min(latest[task], int(latest[after]) - length)
                following[group] = task
    slack: Int64Array = latest - schedule.finish_ns
    return slack


def _incoming(problem: SchedulingProblem) -> list[list[tuple[int, int]]]:
    found: list[list[tuple[int, int]]] = [[] for _ in range(problem.num_tasks)]
    for (src, dst), row in zip(problem.edges.tolist(), problem.copy_class.tolist(), strict=True):
        found[dst].append((src, row))
    return found


@dataclass(frozen=True)
class Alternative:
    """A device for a task: its time there, and the predicted makespan with this task alone moved to it.

    Both are -1 where it cannot run; ``moved_ns`` also where a pin forbids it, or where it was left out
    of what was measured: its time there is then predicted.
    """

    device: str
    exec_ns: int
    spread_ns: int
    is_measured: bool
    origin: str
    moved_ns: int
    is_pinned: bool = False


@dataclass(frozen=True)
class Reasons:
    """Why one task lies where it lies."""

    task: int
    name: str
    kernel: str
    origin: tuple[str, ...]
    device: str
    start_ns: int
    finish_ns: int
    slack_ns: int
    is_critical: bool
    alternatives: tuple[Alternative, ...]
    waited_for: str
    binds: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serialisable form."""
        return {**vars(self), "alternatives": [vars(one) for one in self.alternatives]}


class Analysis:
    """What is known of all tasks of a decision: waits, slack, moves."""

    def __init__(self, decision: Decision, graph: TaskGraph) -> None:
        self.decision, self.graph = decision, graph
        self.waits = find_waits(decision.problem, decision.schedule)
        self.path = critical_path(decision.problem, decision.schedule, self.waits)
        self.slack_ns = slack_ns(decision.problem, decision.schedule)
        self.moved_ns = moved_makespans_ns(decision.problem, decision.schedule)
        self._on_path = set(self.path)
        self._copies_ns = _copies_ns(decision.problem, decision.schedule)
        self._peaks = peak_memory_bytes(decision.problem, decision.schedule)

    def wait_text(self, task: int) -> str:
        """Return what a task waited for as a clause."""
        wait, problem = self.waits[task], self.decision.problem
        if wait.after is None:
            return f"a model input, {format_ns(wait.copy_ns)}" if wait.copy_ns else "nothing"
        device = int(self.decision.schedule.device[wait.after])
        other = f"{self.graph.tasks[wait.after].name} on {problem.devices[device]}"
        if wait.cause == "core":
            return f"its core, held by {other}"
        copy = f", of which {format_ns(wait.copy_ns)} is on the way" if wait.copy_ns else ""
        return f"the result of {other}{copy}"

    def reasons(self, task: int) -> Reasons:
        """Return why a task lies where it lies."""
        decision, schedule, entry = self.decision, self.decision.schedule, self.graph.tasks[task]
        here = int(schedule.device[task])
        alternatives = tuple(
            Alternative(
                name,
                int(decision.exec_ns[task, device]),
                int(decision.spread_ns[task, device]),
                bool(decision.measured[task, device]),
                decision.origins[task][device],
                int(self.moved_ns[task, device]),
                bool(decision.pins),
            )
            for device, name in enumerate(decision.problem.devices)
        )
        return Reasons(
            task=task,
            name=entry.name,
            kernel="+".join(entry.op_kinds),
            origin=entry.origin,
            device=decision.problem.devices[here],
            start_ns=int(schedule.start_ns[task]),
            finish_ns=int(schedule.finish_ns[task]),
            slack_ns=int(self.slack_ns[task]),
            is_critical=task in self._on_path,
            alternatives=alternatives,
            waited_for=self.wait_text(task),
            binds=tuple(self._binds(task, here)),
        )

    def _binds(self, task: int, here: int) -> Iterator[str]:
        problem = self.decision.problem
        names = problem.devices
        free, held = self.decision.exec_ns[task], problem.exec_ns[task]
        forbidden = [n for n, a, b in zip(names, free, held, strict=True) if a >= 0 and b == CANNOT_RUN]
        if forbidden and self.decision.pins:
            yield f"a pin keeps it off {', '.join(forbidden)} ({', '.join(self.decision.pins)})"
        elif forbidden:
            where = ", ".join(forbidden)
            yield f"it was not measured on {where}, where it is predicted to gain too little"
        cannot = [name for name, time in zip(names, free, strict=True) if time < 0]
        if cannot:
            yield f"its kernel cannot run on {', '.join(cannot)}"
        if task in self._on_path:
            yield "it is on the critical path: whatever it takes longer, all takes longer"
        elif self.slack_ns[task] > 0:
            slack = format_ns(int(self.slack_ns[task]))
            yield f"it is off the critical path: it could end {slack} later"
        yield from self._copies(task)
        shared = [
            names[other]
            for other in range(problem.num_devices)
            if other != here and set(problem.core_groups[other]) & set(problem.core_groups[here])
        ]
        if shared:
            yield f"{names[here]} shares cores with {', '.join(shared)}: while it runs, they wait"
        limit = int(problem.memory_bytes[here])
        if limit != UNLIMITED:
            peak = format_bytes(int(self._peaks[here]))
            yield f"{names[here]} holds {peak} at its peak, of {format_bytes(limit)}"
        yield from self._full(task, here)

    def _full(self, task: int, here: int) -> Iterator[str]:
        """Yield the devices that would be faster, but have no room left for a task."""
        problem = self.decision.problem
        for other, limit in enumerate(problem.memory_bytes.tolist()):
            time = int(problem.exec_ns[task, other])
            is_faster = 0 <= time < problem.exec_ns[task, here]
            peak = int(self._peaks[other])
            need = int(problem.weight_bytes_on[task, other] + problem.output_bytes[task])
            if other != here and is_faster and limit != UNLIMITED and peak + need > limit:
                held, most, needed = map(format_bytes, (peak, limit, need))
                name = problem.devices[other]
                already = f"{name} would take {format_ns(time)}, but holds {held} of {most} already"
                yield f"{already}: the {needed} that it needs have no room there"

    def _copies(self, task: int) -> Iterator[str]:
        """Yield how long its operands and results are on the way from and to other devices."""
        arriving, leaving = self._copies_ns[task].tolist()
        parts = ((arriving, "to fetch its operands"), (leaving, "to hand its results on"))
        told = [f"{format_ns(time)} {word}" for time, word in parts if time]
        if told:
            yield f"it takes {' and '.join(told)} between devices"


def _copies_ns(problem: SchedulingProblem, schedule: Schedule) -> Int64Array:
    """Return the copies to and from each task, shape (N, 2), ns."""
    copies = np.zeros((problem.num_tasks, 2), dtype=np.int64)
    if problem.num_edges:
        src, dst = problem.edges.T
        times = problem.copy_ns[problem.copy_class, schedule.device[src], schedule.device[dst]]
        np.add.at(copies[:, 0], dst, times)
        np.add.at(copies[:, 1], src, times)
    return copies


def explain_tasks(decision: Decision, graph: TaskGraph, wanted: str) -> list[Reasons]:
    """Return the reasons of the tasks that a number, or a pattern as of a pin, names.

    Raises
    ------
    SphinxError
        If there are none, or more than 12.
    """
    if wanted.isdigit() and int(wanted) < graph.num_tasks:
        tasks = [int(wanted)]
    elif wanted.isdigit() and not any(wanted in task_names(task) for task in graph.tasks):
        raise SphinxError(f"Expected a task's number in 0..{graph.num_tasks - 1}; got {wanted}.")
    else:
        tasks = find_tasks(graph, wanted)
    if len(tasks) > _MOST_TASKS:
        names = ", ".join(graph.tasks[task].name for task in tasks[:_MOST_TASKS])
        raise SphinxError(
            f"{wanted!r} names {len(tasks)} tasks; expected at most {_MOST_TASKS}. Some are: {names}."
        )
    analysis = Analysis(decision, graph)
    return [analysis.reasons(task) for task in tasks]


def format_reasons(reasons: Reasons, decision: Decision) -> str:
    """Return the reasons of one task as text."""
    makespan = decision.schedule.makespan_ns
    origin = f", {', '.join(reasons.origin)}" if reasons.origin else ""
    rows = [("device", "takes", "known", "code", "whole, if it alone moves there")]
    for one in reasons.alternatives:
        rows.append(
            (
                one.device + (" (here)" if one.device == reasons.device else ""),
                "cannot run" if one.exec_ns < 0 else format_ns(one.exec_ns),
                f"{'measured' if one.is_measured else 'predicted'} +-{format_ns(one.spread_ns)}",
                one.origin or "-",
                _moved(one, makespan, reasons.device),
            )
        )
    lines = [
        f"{reasons.name} ({reasons.kernel}{origin}) on {reasons.device}, "
        f"{format_ns(reasons.start_ns)} to {format_ns(reasons.finish_ns)}",
        f"  waited for {reasons.waited_for}",
        *(f"  {text}" for text in reasons.binds),
        *(f"  {line}" for line in format_table(rows).splitlines()),
    ]
    return "\n".join(lines)


def _moved(one: Alternative, makespan: int, here: str) -> str:
    if one.moved_ns < 0:
        forbidden = "forbidden by a pin" if one.is_pinned else "left out"
        return "-" if one.exec_ns < 0 else forbidden
    if one.device == here:
        return format_ns(makespan)
    change = one.moved_ns - makespan
    sign = "+" if change >= 0 else "-"
    return f"{format_ns(one.moved_ns)} ({sign}{format_ns(abs(change))})"
