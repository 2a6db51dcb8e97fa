"""What a user demands of a schedule: tasks pinned to devices.

Pins are written into the problem, as devices that cannot run a task, so that every search obeys.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from ..errors import ProblemError, SphinxError, known_choices
from .graph import Task, TaskGraph
from .problem import CANNOT_RUN, SchedulingProblem

_MOST_NAMED = 8


@dataclass(frozen=True)
class Pin:
    """Tasks that a pattern names run on one of these devices.

    Parameters
    ----------
    pattern
        Of a shell (``*``, ``?``, ``[...]``), for what `task_names` returns.
    devices
        Names, at least one.
    """

    pattern: str
    devices: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.pattern}={'|'.join(self.devices)}"


def parse_pin(text: str) -> Pin:
    """Return the pin of ``"conv*=core0"``; ``"conv*=core0|core1"`` leaves a choice.

    Raises
    ------
    SphinxError
        If the text has another form.
    """
    pattern, sign, names = text.rpartition("=")
    devices = tuple(name.strip() for name in names.split("|"))
    if not sign or not pattern.strip() or not all(devices):
        raise SphinxError(f"Expected a pin in the form 'conv*=core0'; got {text!r}.")
    return Pin(pattern.strip(), devices)


def read_pins(path: str | Path) -> tuple[Pin, ...]:
    """Read a file of pins, one in a line; a ``#`` at its begin or after a blank begins a comment.

    Raises
    ------
    SphinxError
        If it cannot be read, or a line is no pin; the message names the line.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SphinxError(f"Cannot read pin file {str(path)!r}: {reason}.") from error
    pins = []
    for number, line in enumerate(lines, 1):
        text = re.split(r"(?:^|\s)#", line)[0].strip()
        try:
            pins += [parse_pin(text)] if text else []
        except SphinxError as error:
            raise SphinxError(f"Pin file {str(path)!r}, line {number}: {error}") from error
    return tuple(pins)


def task_names(task: Task) -> Iterator[str]:
    """Yield what a pattern may match: a task's name, its operators, and those of the source.

    Of an origin ``Conv conv1`` the whole, the kind ``Conv`` and the name ``conv1`` count.
    """
    yield task.name
    yield from task.op_kinds
    yield "+".join(task.op_kinds)
    for origin in task.origin:
        yield origin
        yield from origin.split(" ", 1)


def find_tasks(graph: TaskGraph, pattern: str) -> list[int]:
    """Return the tasks that a pattern names.

    Raises
    ------
    SphinxError
        If there are none; the message lists some that are there.
    """
    found = [
        number
        for number, task in enumerate(graph.tasks)
        if any(fnmatchcase(name, pattern) for name in task_names(task))
    ]
    if not found:
        kinds = sorted({kind for task in graph.tasks for kind in task.op_kinds})
        names = [task.name for task in graph.tasks][:_MOST_NAMED]
        raise SphinxError(
            f"No task is named {pattern!r}; operators: {', '.join(kinds)}; tasks: {', '.join(names)}"
            f"{', ...' if graph.num_tasks > len(names) else ''}."
        )
    return found


def pinned_tasks(graph: TaskGraph, devices: Sequence[str], pins: Iterable[Pin]) -> dict[int, Pin]:
    """Return the pin that counts of each task that has one: the last.

    Raises
    ------
    SphinxError
        If a pattern names no task.
    ProblemError
        If there is no such device.
    """
    pinned: dict[int, Pin] = {}
    for pin in pins:
        for name in pin.devices:
            if name not in devices:
                raise ProblemError(known_choices(f"device of pin '{pin}':", name, devices))
        pinned.update(dict.fromkeys(find_tasks(graph, pin.pattern), pin))
    return pinned


def pin_tasks(problem: SchedulingProblem, graph: TaskGraph, pins: Iterable[Pin]) -> SchedulingProblem:
    """Return the problem with pinned tasks unable to run elsewhere; the last pin of a task counts.

    Raises
    ------
    SphinxError
        If a pattern names no task.
    ProblemError
        If there is no such device, or it cannot run the task.
    """
    allowed = pinned_tasks(graph, problem.devices, pins)
    if not allowed:
        return problem
    exec_ns = problem.exec_ns.copy()
    for task, pin in allowed.items():
        others = [name not in pin.devices for name in problem.devices]
        exec_ns[task, others] = CANNOT_RUN
        if (exec_ns[task] == CANNOT_RUN).all():
            can = [n for n, t in zip(problem.devices, problem.exec_ns[task], strict=True) if t >= 0]
            raise ProblemError(
                f"Pin '{pin}' leaves no device for task {graph.tasks[task].name!r}, which can run on: "
                f"{', '.join(can)}."
            )
    return replace(problem, exec_ns=exec_ns)
