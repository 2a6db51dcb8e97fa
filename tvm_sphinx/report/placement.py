"""What runs where: the numbers of a schedule for people, and their table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from ..platform import Platform
from ..scheduling.graph import FROM_INPUT, Operand, TaskGraph
from ..scheduling.schedule import Schedule

_MOST_NAMED = 8  # kernels that the report names in a line
_MOST_ORIGINS = 3  # operators of the source that it names for a task


class Crossing(NamedTuple):
    """A tensor that another device reads than the one that it is on."""

    src: int
    dst: int
    bytes: int


@dataclass(frozen=True)
class DeviceRow:
    """One device of a schedule: its tasks, how long it works, and what is brought to it.

    ``copies`` cross from one memory to another; ``handovers`` stay in shared memory.
    """

    name: str
    tasks: int
    busy_ns: int
    copies: int
    copied_bytes: int
    handovers: int


@dataclass(frozen=True)
class TaskRow:
    """One task of a schedule; ``kernel`` is its kinds of operators, ``origin`` those of the source."""

    name: str
    kernel: str
    device: str
    start_ns: int
    finish_ns: int
    origin: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlacementReport:
    """The numbers of a schedule. Times are predictions, in ns.

    ``num_kernels`` counts distinct kernels; ``default_kernels`` names those that run in the plain loops
    that TVM makes by default, because no schedule rule fits or because these were measured faster.
    ``implementations`` counts the distinct kernels that run, each once on each device, by where their
    code comes from: ``rule``, ``tuned``, ``default``. ``always_measured`` names the devices whose
    kernels were measured although others were predicted, because no model knows them.
    """

    devices: tuple[DeviceRow, ...]
    tasks: tuple[TaskRow, ...]
    makespan_ns: int
    best_single_device: str
    best_single_device_ns: int
    lower_bound_ns: int
    measured_share: float
    algorithm: str
    seed: int
    evaluations: int
    num_kernels: int = 0
    default_kernels: tuple[str, ...] = ()
    implementations: dict[str, int] = field(default_factory=dict)
    always_measured: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serialisable form."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> PlacementReport:
        """Rebuild a report from `to_json`."""
        rows = tuple(DeviceRow(**row) for row in content["devices"])
        tasks = tuple(
            TaskRow(**{**row, "origin": tuple(row.get("origin", ()))}) for row in content["tasks"]
        )
        default = tuple(content.get("default_kernels", ()))
        measured = tuple(content.get("always_measured", ()))
        made = {"devices": rows, "tasks": tasks, "default_kernels": default}
        return cls(**{**content, **made, "always_measured": measured})


def placement_report(
    graph: TaskGraph,
    platform: Platform,
    schedule: Schedule,
    single: Schedule,
    *,
    measured_share: float,
    algorithm: str,
    seed: int,
    evaluations: int,
    default_kernels: Sequence[str] = (),
    implementations: Mapping[str, int] | None = None,
    always_measured: Sequence[str] = (),
) -> PlacementReport:
    """Return the report of a schedule beside the best schedule on a single device."""
    names = [device.name for device in platform.devices]
    busy = [0] * len(names)
    counts = [0] * len(names)
    tasks = []
    for task in schedule.order:
        device = int(schedule.device[task])
        begin, end = int(schedule.start_ns[task]), int(schedule.finish_ns[task])
        counts[device] += 1
        busy[device] += end - begin
        entry = graph.tasks[task]
        kinds = "+".join(entry.op_kinds)
        tasks.append(TaskRow(entry.name, kinds, names[device], begin, end, entry.origin))
    crossings = find_crossings(graph, platform, schedule)
    rows = []
    for device, name in enumerate(names):
        arriving = [c for c in crossings if c.dst == device]
        copied = [c for c in arriving if _spaces(platform, c)[0] != _spaces(platform, c)[1]]
        num_bytes = sum(c.bytes for c in copied)
        row = DeviceRow(
            name, counts[device], busy[device], len(copied), num_bytes, len(arriving) - len(copied)
        )
        rows.append(row)
    return PlacementReport(
        devices=tuple(rows),
        tasks=tuple(tasks),
        makespan_ns=schedule.makespan_ns,
        best_single_device=names[int(single.device[0])] if single.num_tasks else platform.host,
        best_single_device_ns=single.makespan_ns,
        lower_bound_ns=schedule.lower_bound_ns,
        measured_share=measured_share,
        algorithm=algorithm,
        seed=seed,
        evaluations=evaluations,
        num_kernels=len({task.kernel for task in graph.tasks}),
        default_kernels=tuple(default_kernels),
        implementations=dict(implementations or {}),
        always_measured=tuple(always_measured),
    )


def find_crossings(graph: TaskGraph, platform: Platform, schedule: Schedule) -> list[Crossing]:
    """Return the crossings of a schedule: one for each tensor and destination, however many readers."""
    host = platform.host_index
    readers: dict[tuple[Operand, int], None] = {}
    for task, entry in enumerate(graph.tasks):
        for operand in entry.operands:
            readers[operand, int(schedule.device[task])] = None
    for operand in graph.outputs:
        readers[operand, host] = None
    crossings = []
    for operand, device in readers:
        if operand.producer >= 0:
            home = int(schedule.device[operand.producer])
            size = graph.tasks[operand.producer].output_bytes[operand.output]
        elif operand.producer == FROM_INPUT:
            home, size = host, graph.inputs[operand.output].bytes
        else:
            continue
        if home != device:
            crossings.append(Crossing(home, device, size))
    return crossings


def format_report(report: PlacementReport, *, verbose: bool = False) -> str:
    """Return the report as text; ``verbose`` adds a line for each task."""
    rows = [("device", "tasks", "busy", "of makespan", "copies in", "bytes", "hand-overs in")]
    for row in report.devices:
        share = row.busy_ns / report.makespan_ns if report.makespan_ns else 0.0
        rows.append(
            (
                row.name,
                str(row.tasks),
                format_ns(row.busy_ns),
                f"{share:.0%}",
                str(row.copies),
                format_bytes(row.copied_bytes),
                str(row.handovers),
            )
        )
    lines = [format_table(rows), ""]
    gap = report.makespan_ns / report.lower_bound_ns - 1 if report.lower_bound_ns else 0.0
    proof = ", proven optimal" if report.lower_bound_ns == report.makespan_ns > 0 else ""
    speedup = report.best_single_device_ns / report.makespan_ns if report.makespan_ns else 1.0
    lines += [
        f"predicted makespan   {format_ns(report.makespan_ns)}",
        f"best single device   {format_ns(report.best_single_device_ns)} on "
        f"{report.best_single_device} ({speedup:.2f}x the makespan)",
        f"lower bound          {format_ns(report.lower_bound_ns)} (certified gap {gap:.1%}{proof})",
        f"search               {report.algorithm}, seed {report.seed}, {report.evaluations} evaluations",
        f"costs                {_format_costs(report)}",
        f"kernels              {_format_kernels(report)}",
    ]
    if verbose:
        table = [("task", "kernel", "device", "start", "finish", "source")]
        for task in report.tasks:
            times = format_ns(task.start_ns), format_ns(task.finish_ns)
            table.append((task.name, task.kernel, task.device, *times, _format_origin(task.origin)))
        lines += ["", format_table(table)]
    return "\n".join(lines)


def _format_origin(origin: Sequence[str]) -> str:
    """Return the first operators of the source that a task computes, and how many there are more."""
    more = f" and {len(origin) - _MOST_ORIGINS} more" if len(origin) > _MOST_ORIGINS else ""
    return (", ".join(origin[:_MOST_ORIGINS]) + more) or "-"


def _format_costs(report: PlacementReport) -> str:
    """Return the share of costs that are measured, and where there was no model to predict them."""
    names = ", ".join(report.always_measured)
    outside = f"; all of {names}, which no model predicts" if names else ""
    return f"{report.measured_share:.0%} measured{outside}"


def _format_kernels(report: PlacementReport) -> str:
    """Return how many kernels there are, where their code comes from, and which are TVM's own loops."""
    text = f"{report.num_kernels} distinct"
    if report.implementations:
        text += "; " + ", ".join(f"{count} {name}" for name, count in report.implementations.items())
    names = report.default_kernels
    if names:
        shown = ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "")
        text += f"; {len(names)} in TVM's default loops: {shown}"
    return text


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as text in columns; the first row is the heading, numbers stand to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    numeric = [
        all(row[column][:1].isdigit() or row[column] == "-" for row in rows[1:])
        for column in range(len(rows[0]))
    ]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def format_ns(value: int) -> str:
    """Return a time with the unit that suits it."""
    for unit, scale in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if value >= scale:
            return (
                f"{value / scale:.3g} {unit}" if value < 100 * scale else f"{value / scale:.0f} {unit}"
            )
    return f"{value} ns"


def format_bytes(value: int) -> str:
    """Return a size with the unit that suits it."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= scale:
            return f"{value / scale:.1f} {unit}"
    return f"{value} B"


def _spaces(platform: Platform, crossing: Crossing) -> tuple[str, str]:
    devices = platform.devices
    return devices[crossing.src].memory_space, devices[crossing.dst].memory_space
