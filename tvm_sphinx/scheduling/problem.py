"""The scheduling problem: the arrays that every search, bound and checker works on.

A problem is made from a task graph and a cost table (`tvm_sphinx.cost.table.build_problem`) or read
from a problem file. All times are int64 nanoseconds, so that sums are exact and ties are true ties.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ProblemError
from ..wording import counted
from .integers import MAX_TOTAL, frozen_int64, is_whole

Int64Array = npt.NDArray[np.int64]

#: ``exec_ns`` of a task on a device that cannot run it.
CANNOT_RUN = -1
#: ``memory_bytes`` of a device without a limit, and ``colocation`` of a task that is tied to none.
UNLIMITED = NO_GROUP = -1
#: Largest group number in ``colocation``.
MAX_GROUP = 2**31 - 1

# Stands for "no limits, no ties, no times"; replaced by an array at construction.
_DEFAULT: Any = None


@dataclass(frozen=True, eq=False, repr=False)
class SchedulingProblem:
    """Tasks with precedences, to be placed on devices whose copies cost time.

    With N tasks, E edges, D devices and C copy classes:

    Parameters
    ----------
    name
        For people; not part of the fingerprint.
    devices
        D unique names.
    device_cores
        For each device the ids of the cores that it occupies while it runs a task. Devices that
        share a core exclude each other in time.
    exec_ns : (N, D) int64
        Execution time, `CANNOT_RUN` where the device cannot run the task.
    edges : (E, 2) int64
        (source, destination) with source < destination: tasks are numbered topologically.
    copy_class : (E,) int64
        Row of ``copy_ns`` that each edge pays; edges that carry the same bytes share one.
    copy_ns : (C, D, D) int64
        Time from the finish on the source device until the data can be used on the destination
        device; 0 on the diagonal.
    release_ns, delivery_ns : (N, D) int64
        Earliest start of a task on a device (its model inputs have to arrive), and the time from its
        finish until its model outputs are delivered. Zero by default.
    colocation : (N,) int64
        Tasks with the same group id, 0 .. `MAX_GROUP`, must share a device; `NO_GROUP` ties to none.
    memory_bytes : (D,) int64
        Capacity, or `UNLIMITED`. See `tvm_sphinx.scheduling.schedule.peak_memory_bytes` for what counts.
    weight_bytes : (N,) or (N, D) int64
        Resident bytes of a task's weights; on each device, if they take more on some than on others.
    output_bytes : (N,) int64
        Bytes of a task's outputs while they are alive.

    Raises
    ------
    ProblemError
        If a shape or an invariant above does not hold, a task can run nowhere, or the sum of all
        times or of all bytes of tasks reaches 2**62.
    """

    name: str
    devices: tuple[str, ...]
    device_cores: tuple[tuple[int, ...], ...]
    exec_ns: Int64Array
    edges: Int64Array
    copy_class: Int64Array
    copy_ns: Int64Array
    release_ns: Int64Array = _DEFAULT
    delivery_ns: Int64Array = _DEFAULT
    colocation: Int64Array = _DEFAULT
    memory_bytes: Int64Array = _DEFAULT
    weight_bytes: Int64Array = _DEFAULT
    output_bytes: Int64Array = _DEFAULT

    def __post_init__(self) -> None:
        num_devices = len(self.devices)
        num_tasks = np.asarray(self.exec_ns).shape[0] if np.ndim(self.exec_ns) else 0
        self._check_devices()
        defaults = {"colocation": NO_GROUP, "memory_bytes": UNLIMITED}
        shapes: dict[str, tuple[int, ...]] = {
            "exec_ns": (num_tasks, num_devices),
            "edges": (-1, 2),
            "copy_class": (len(self.edges),),
            "copy_ns": (-1, num_devices, num_devices),
            "release_ns": (num_tasks, num_devices),
            "delivery_ns": (num_tasks, num_devices),
            "colocation": (num_tasks,),
            "memory_bytes": (num_devices,),
            "weight_bytes": (num_tasks,),
            "output_bytes": (num_tasks,),
        }
        for field_name, shape in shapes.items():
            value = getattr(self, field_name)
            if value is None:
                value = np.full(shape, defaults.get(field_name, 0), dtype=np.int64)
            elif field_name == "weight_bytes" and _has_rows(value):
                shape = (num_tasks, num_devices)
            object.__setattr__(self, field_name, frozen_int64(field_name, value, shape, ProblemError))
        if self.weight_bytes.ndim == 2 and (self.weight_bytes == self.weight_bytes[:, :1]).all():
            alike = frozen_int64("weight_bytes", self.weight_bytes[:, 0], (num_tasks,), ProblemError)
            object.__setattr__(self, "weight_bytes", alike)
        self._check_times()
        self._check_edges()
        self._check_totals()
        self._check_colocation()

    def __repr__(self) -> str:
        return (
            f"<SchedulingProblem {self.name!r}: {counted(self.num_tasks, 'task')}, "
            f"{counted(self.num_edges, 'edge')}, devices "
            f"{', '.join(self.devices)}>"
        )

    def _check_devices(self) -> None:
        if not self.devices:
            raise ProblemError("Expected at least one device; got none.")
        if len(set(self.devices)) != len(self.devices):
            raise ProblemError(f"Expected unique device names; got {list(self.devices)}.")
        if len(self.device_cores) != len(self.devices):
            raise ProblemError(
                f"Expected cores for each of {len(self.devices)} devices; "
                f"got {len(self.device_cores)} entries."
            )
        for name, cores in zip(self.devices, self.device_cores, strict=True):
            whole = all(is_whole(core) for core in cores)
            if not cores or not whole or len(set(cores)) != len(cores) or min(cores) < 0:
                raise ProblemError(
                    f"Expected distinct integer core ids >= 0, at least one, for device {name!r}; "
                    f"got {list(cores)}."
                )

    def _check_times(self) -> None:
        exec_ns, copy_ns = self.exec_ns, self.copy_ns
        if exec_ns.size and exec_ns.min() < CANNOT_RUN:
            raise ProblemError(f"Expected exec_ns >= 0, or -1 for cannot run; got {exec_ns.min()}.")
        nowhere = np.flatnonzero((exec_ns == CANNOT_RUN).all(axis=1))
        if nowhere.size:
            raise ProblemError(f"Expected a device for every task; task {nowhere[0]} can run on none.")
        for field_name in ("copy_ns", "release_ns", "delivery_ns", "weight_bytes", "output_bytes"):
            value = getattr(self, field_name)
            if value.size and value.min() < 0:
                raise ProblemError(f"Expected {field_name} >= 0; got {value.min()}.")
        if np.diagonal(copy_ns, axis1=1, axis2=2).any():
            raise ProblemError("Expected copy_ns = 0 between a device and itself.")
        if self.memory_bytes.min() < UNLIMITED:
            raise ProblemError(f"Expected memory_bytes >= 0, or -1; got {self.memory_bytes.min()}.")

    def _check_edges(self) -> None:
        edges, num_tasks = self.edges, self.num_tasks
        if edges.size and (edges.min() < 0 or edges.max() >= num_tasks):
            raise ProblemError(f"Expected edges between tasks 0..{num_tasks - 1}; got {edges.max()}.")
        backward = np.flatnonzero(edges[:, 0] >= edges[:, 1])
        if backward.size:
            raise ProblemError(
                "Expected edges from a lower to a higher task (topological numbering); "
                f"got {edges[backward[0]].tolist()}."
            )
        if len(np.unique(edges, axis=0)) != len(edges):
            raise ProblemError("Expected unique edges; one is given twice.")
        if edges.size and not 0 <= self.copy_class.min() <= self.copy_class.max() < len(self.copy_ns):
            raise ProblemError(
                f"Expected copy_class in 0..{len(self.copy_ns) - 1}; got {self.copy_class.tolist()[:8]}."
            )

    def _check_totals(self) -> None:
        """Check sums in Python's integers: in int64 they could wrap, in floating point lose digits."""
        times = [
            value.max(axis=1, initial=0) for value in (self.exec_ns, self.release_ns, self.delivery_ns)
        ]
        if self.num_edges:
            times.append(self.copy_ns.max(axis=(1, 2))[self.copy_class])
        for what, unit, parts in (
            ("times", "ns", times),
            (
                "weight_bytes and output_bytes",
                "bytes",
                [self.weight_bytes_on.max(axis=1), self.output_bytes],
            ),
        ):
            total = sum(sum(part.tolist()) for part in parts)
            if total >= MAX_TOTAL:
                raise ProblemError(f"Expected all {what} to sum below 2**62 {unit}; got {total}.")

    def _check_colocation(self) -> None:
        beyond = (self.colocation < NO_GROUP) | (self.colocation > MAX_GROUP)
        if beyond.any():
            raise ProblemError(
                f"Expected colocation groups 0..{MAX_GROUP}, or -1 for none; "
                f"got {self.colocation[beyond][0]}."
            )
        for group in np.unique(self.colocation[self.colocation != NO_GROUP]).tolist():
            members = np.flatnonzero(self.colocation == group)
            if not (self.exec_ns[members] != CANNOT_RUN).all(axis=0).any():
                raise ProblemError(
                    f"Expected a device that can run all tasks of colocation group {group}; "
                    f"tasks {members.tolist()[:8]} have none in common."
                )

    @property
    def num_tasks(self) -> int:
        """Number of tasks, N."""
        return int(self.exec_ns.shape[0])

    @property
    def num_devices(self) -> int:
        """Number of devices, D."""
        return len(self.devices)

    @property
    def num_edges(self) -> int:
        """Number of edges, E."""
        return int(self.edges.shape[0])

    @cached_property
    def core_groups(self) -> tuple[tuple[int, ...], ...]:
        """For each device the exclusive resources that it occupies, as few as the sharing allows.

        Cores that belong to the same set of devices are one resource. Resources are numbered 0..R-1.
        """
        members: dict[int, list[int]] = {}
        for device, cores in enumerate(self.device_cores):
            for core in cores:
                members.setdefault(core, []).append(device)
        distinct = {devices: None for _, devices in sorted((c, tuple(d)) for c, d in members.items())}
        numbered = list(distinct)
        return tuple(
            tuple(resource for resource, devices in enumerate(numbered) if device in devices)
            for device in range(self.num_devices)
        )

    @cached_property
    def weight_bytes_on(self) -> Int64Array:
        """Resident bytes of each task's weights on each device, shape (N, D)."""
        if self.weight_bytes.ndim == 2:
            return self.weight_bytes
        return np.repeat(self.weight_bytes[:, None], self.num_devices, axis=1)

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of everything but the name; the same on every machine."""
        digest = hashlib.sha256(repr((self.devices, self.device_cores)).encode())
        copies = self.copy_ns[self.copy_class] if self.num_edges else self.copy_ns[:0]
        times = (self.exec_ns, self.edges, copies, self.release_ns, self.delivery_ns)
        sizes = (self.colocation, self.memory_bytes, self.weight_bytes, self.output_bytes)
        for array in (*times, *sizes):
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array).astype("<i8").tobytes())
        return digest.hexdigest()[:32]


def _has_rows(value: Any) -> bool:
    """Return whether a value has two axes; rows of unlike lengths are none."""
    try:
        return np.ndim(value) == 2
    except ValueError:
        return False


def without_memory_limits(problem: SchedulingProblem) -> SchedulingProblem:
    """Return a problem with as much memory as one likes."""
    return replace(problem, memory_bytes=np.full(problem.num_devices, UNLIMITED))
