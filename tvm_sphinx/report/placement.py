"""What runs where: the numbers of a schedule for people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from ..platform import Device, Platform
from ..platform.device import CostClass
from ..scheduling.graph import FROM_INPUT, Operand, TaskGraph
from ..scheduling.schedule import Schedule
from ..search import SearchResult
from .dynamic import DynamicReport


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
    ``num_estimated_links`` counts the kinds of link that could not be measured, or in no time that was
    left. ``estimated`` tells for each device that is not at hand how many of its tasks' times are
    estimates; the others are on record. ``num_times`` counts the times of kernels, each once for each
    class of devices, and ``num_left_out`` those of them that were predicted and not measured, since they
    cannot make the schedule much shorter: nothing runs there. ``predicted_by`` says by which model.
    ``num_traced`` counts the programs by whose traces the times of tasks were corrected.
    ``dynamic`` is what runs after the schedule, None if nothing does; what that takes is not in
    ``makespan_ns`` and the other times, but in those with ``whole`` in their names.
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
    num_estimated_links: int = 0
    estimated: dict[str, int] = field(default_factory=dict)
    num_times: int = 0
    num_left_out: int = 0
    predicted_by: str = ""
    num_traced: int = 0
    dynamic: DynamicReport | None = None

    @property
    def added_ns(self) -> int:
        """What runs after the schedule, and after that of any single device; 0 if nothing does."""
        return 0 if self.dynamic is None else self.dynamic.added_ns

    @property
    def whole_ns(self) -> int:
        """What one inference is predicted to take."""
        return self.makespan_ns + self.added_ns

    @property
    def whole_single_device_ns(self) -> int:
        """What it is predicted to take on the best single device."""
        return self.best_single_device_ns + self.added_ns

    @property
    def whole_lower_bound_ns(self) -> int:
        """What it takes with any schedule, for these costs; 0 where no bound is known."""
        return self.lower_bound_ns and self.lower_bound_ns + self.added_ns

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
        made: dict[str, Any] = {"devices": rows, "tasks": tasks, "default_kernels": default}
        if content.get("dynamic") is not None:
            made["dynamic"] = DynamicReport.from_json(content["dynamic"])
        return cls(**{**content, **made, "always_measured": measured})


@dataclass(frozen=True)
class CostSummary:
    """What a report tells of the costs: how many are measured, and where the code of kernels is from.

    ``origin`` tells the latter of a kernel, by its id, on a device; "" is not known. The others are as
    in `PlacementReport`.
    """

    measured_share: float = 1.0
    origin: Callable[[str, Device], str] = lambda _kernel, _device: ""
    always_measured: tuple[str, ...] = ()
    num_estimated_links: int = 0
    estimated: dict[str, int] = field(default_factory=dict)
    num_times: int = 0
    num_left_out: int = 0
    predicted_by: str = ""
    num_traced: int = 0


def placement_report(
    graph: TaskGraph,
    platform: Platform,
    found: SearchResult,
    single: Schedule,
    costs: CostSummary,
    dynamic: DynamicReport | None = None,
) -> PlacementReport:
    """Return the report of what a search found beside the best schedule on a single device."""
    schedule = found.best
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
        measured_share=costs.measured_share,
        algorithm=found.algorithm,
        seed=found.seed,
        evaluations=found.evaluations,
        num_kernels=len({task.kernel for task in graph.tasks}),
        default_kernels=_default_kernels(graph, platform, schedule, costs),
        implementations=_count_origins(graph, platform, schedule, costs),
        always_measured=costs.always_measured,
        num_estimated_links=costs.num_estimated_links,
        estimated=costs.estimated,
        num_times=costs.num_times,
        num_left_out=costs.num_left_out,
        predicted_by=costs.predicted_by,
        num_traced=costs.num_traced,
        dynamic=dynamic,
    )


def _count_origins(
    graph: TaskGraph, platform: Platform, schedule: Schedule, costs: CostSummary
) -> dict[str, int]:
    """Count the distinct kernels that a schedule runs, each once on each device, by their origin."""
    placed = {
        (task.kernel, int(device)) for task, device in zip(graph.tasks, schedule.device, strict=True)
    }
    origins = [costs.origin(kernel, platform.devices[device]) for kernel, device in placed]
    return {name: origins.count(name) for name in sorted(set(origins) - {""})}


def _default_kernels(
    graph: TaskGraph, platform: Platform, schedule: Schedule, costs: CostSummary
) -> tuple[str, ...]:
    """Name the kernels that run on a CPU device in TVM's default loops, by operators and first task."""
    found: dict[tuple[str, CostClass], str] = {}
    for task, number in zip(graph.tasks, schedule.device.tolist(), strict=True):
        device = platform.devices[number]
        if costs.origin(task.kernel, device) == "default":
            name = f"{'+'.join(task.op_kinds)} ({task.name} on {device.name})"
            found.setdefault((task.kernel, device.cost_class), name)
    return tuple(found.values())


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


def _spaces(platform: Platform, crossing: Crossing) -> tuple[str, str]:
    devices = platform.devices
    return devices[crossing.src].memory_space, devices[crossing.dst].memory_space
