"""What tasks took within runs of a whole model, in a file beside the records: one line for each loop.

``compile --refine`` traces programs of a model and writes what it saw, and which schedule it kept. Later
compilations of that model, for devices of these classes and with these kernels, cost it by that.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...notice import warn
from ...scheduling.problem import Int64Array
from .json_lines import append_line, parse_object, split_lines, to_line
from .store import METHOD

#: Version of the line format; lines of another version are left alone and not used.
SCHEMA = 1

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Seen:
    """What a program of N tasks on D devices did when it ran.

    Parameters
    ----------
    device : (N,) int64
        Where each task ran.
    took_ns : (N,) float64
        Its mean time, with what lies between it and the next one of its device.
    handover_ns : (D, D) float64
        Median time from the end of a task to the begin of one on another device that had only waited
        for it; NaN where there were too few.
    alone
        Whether one device did all.
    """

    device: Int64Array
    took_ns: FloatArray
    handover_ns: FloatArray
    alone: bool


@dataclass(frozen=True)
class Subject:
    """What was run: a task graph by its fingerprint, on devices of these classes, by these kernels.

    ``kernels`` is a fingerprint of what implements each kernel on each class of devices, and ``tvm``
    the version that built them.
    """

    graph: str = ""
    kernels: str = ""
    device_classes: tuple[str, ...] = ()
    tvm: str = ""


@dataclass(frozen=True)
class LoopLine:
    """What came of a loop.

    Parameters
    ----------
    subject, seen
        What was run, and what the programs that were traced did; the last is the one that was kept.
    programs
        Fingerprint of the two that the loop began with.
    device, order
        The schedule that was kept: the device of each task, and the order of tasks.
    is_single
        Whether it is that of the best single device.
    note
        What was told of it.
    """

    subject: Subject
    seen: tuple[Seen, ...]
    programs: str
    device: tuple[int, ...]
    order: tuple[int, ...]
    is_single: bool
    note: str
    time: float = field(default_factory=time.time)

    @property
    def kept(self) -> Seen | None:
        """What the schedule that was kept did; None in a line of a version that did not say."""
        last = self.seen[-1]
        return last if tuple(last.device.tolist()) == self.device else None


def in_place_path(records: Path) -> Path:
    """Return the file that belongs to a record file: ``records.in_place.jsonl``."""
    return records.with_name(f"{records.stem}.in_place.jsonl")


def note_loop(records: Path | None, line: LoopLine) -> None:
    """Append what came of a loop. A full disk costs the line, with a warning, and not the run."""
    if records is None:
        return
    subject = line.subject
    content = {
        "method": METHOD,
        "graph": subject.graph,
        "kernels": subject.kernels,
        "classes": list(subject.device_classes),
        "tvm": subject.tvm,
        "programs": line.programs,
        "device": list(line.device),
        "order": list(line.order),
        "single": line.is_single,
        "note": line.note,
        "time": line.time,
        "seen": [_seen_to_json(one) for one in line.seen],
    }
    try:
        append_line(in_place_path(records), to_line(SCHEMA, content))
    except OSError as error:
        warn(f"Cannot append to {in_place_path(records)}: {error.strerror}.")


def find_loops(records: Path | None, subject: Subject) -> list[LoopLine]:
    """Return what loops of a subject came to, the newest last; none without a file."""
    path = None if records is None else in_place_path(records)
    if path is None or not path.is_file():
        return []
    graph = subject.graph.encode()  # most lines are of other models, and long
    lines = (parse_loop(line) for line in split_lines(path.read_bytes()) if graph in line)
    return sorted(
        (line for line in lines if line is not None and line.subject == subject),
        key=lambda line: line.time,
    )


def parse_loop(line: bytes) -> LoopLine | None:
    """Return the loop of a line, None if it is torn, of another version, or of another method."""
    content = parse_object(line)
    if content is None or content.get("schema") != SCHEMA or content.get("method") != METHOD:
        return None
    try:
        seen = tuple(_seen_from_json(one) for one in content["seen"])
        subject = Subject(
            str(content["graph"]),
            str(content["kernels"]),
            tuple(map(str, content["classes"])),
            str(content["tvm"]),
        )
        device, order = (tuple(map(int, content[name])) for name in ("device", "order"))
        rest = str(content["programs"]), device, order, bool(content["single"]), str(content["note"])
        made = LoopLine(subject, seen, *rest, float(content["time"]))
    except (KeyError, TypeError, ValueError):
        return None
    return made if _is_whole(made) else None


def _is_whole(line: LoopLine) -> bool:
    """Return whether all parts of a line are of one program's size, and in range."""
    tasks, devices = len(line.device), len(line.subject.device_classes)
    shapes = {(one.device.shape, one.took_ns.shape, one.handover_ns.shape) for one in line.seen}
    places = [*line.device, *(int(d) for one in line.seen for d in one.device)]
    return (
        shapes == {((tasks,), (tasks,), (devices, devices))}
        and sorted(line.order) == list(range(tasks))
        and all(0 <= place < devices for place in places)
        and all((one.took_ns >= 0).all() for one in line.seen)
    )


def _seen_to_json(seen: Seen) -> dict[str, Any]:
    handover: list[list[float]] = seen.handover_ns.tolist()
    return {
        "device": seen.device.tolist(),
        "took_ns": [round(ns, 1) for ns in seen.took_ns.tolist()],
        "handover_ns": [[None if ns != ns else round(ns, 1) for ns in row] for row in handover],
        "alone": seen.alone,
    }


def _seen_from_json(content: dict[str, Any]) -> Seen:
    handover = [[np.nan if ns is None else float(ns) for ns in row] for row in content["handover_ns"]]
    return Seen(
        np.array(content["device"], dtype=np.int64),
        np.array(content["took_ns"], dtype=np.float64),
        np.array(handover, dtype=np.float64).reshape(len(handover), -1),
        bool(content["alone"]),
    )
