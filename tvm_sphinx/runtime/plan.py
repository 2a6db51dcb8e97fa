"""Plan of the lanes: who runs what in which order, who waits for whom, and where each tensor lies.

One worker for each core that the steps need. A device of one core is that worker; a device of several
cores is a team of workers, and its steps stand in the list of each. So devices that share cores take
turns in schedule order without further rules, and no core ever has two busy threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from ..errors import UnsupportedError
from ..platform import Platform
from .program import LaneProgram

#: Alignment of every tensor, in bytes; TVM's kernels take 64 for granted, and a neighbour's prefetch
#: of pairs of 64-byte lines stays out of a tensor that another core writes.
ALIGNMENT = 128


@dataclass(frozen=True)
class Entry:
    """A place in a worker's list.

    ``member`` is the worker's position in the team that runs the step: 0 leads it. ``waits`` are
    (worker, position) pairs that have to be passed first; ``publishes`` says that others wait for this.
    """

    step: int
    team: int
    member: int
    publishes: bool
    waits: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class LanePlan:
    """How a program runs on the cores of a platform.

    Parameters
    ----------
    program
    cores
        Core of each worker.
    device_workers
        For each device of the platform its workers, the first of which leads; empty where no step
        runs on it.
    order
        For each worker the steps that it takes part in.
    waits
        For each step the steps of other workers whose end its leader awaits, as few as imply the rest.
    offsets
        For each buffer of the arena or the weights its offset in bytes; 0 for the others.
    arena_bytes, weight_bytes
        Sizes of the two.
    """

    program: LaneProgram
    cores: tuple[int, ...]
    device_workers: tuple[tuple[int, ...], ...]
    order: tuple[tuple[int, ...], ...]
    waits: tuple[tuple[int, ...], ...]
    offsets: tuple[int, ...]
    arena_bytes: int
    weight_bytes: int

    @cached_property
    def teams(self) -> tuple[tuple[int, ...], ...]:
        """Workers of each device that has several and runs a step."""
        return tuple(dict.fromkeys(workers for workers in self.device_workers if len(workers) > 1))

    @cached_property
    def entries(self) -> tuple[tuple[Entry, ...], ...]:
        """For each worker its list."""
        awaited = {step for waits in self.waits for step in waits}
        position = {
            (worker, step): place
            for worker, steps in enumerate(self.order)
            for place, step in enumerate(steps)
        }
        return tuple(
            tuple(self._entry(worker, step, awaited, position) for step in steps)
            for worker, steps in enumerate(self.order)
        )

    def _entry(
        self, worker: int, step: int, awaited: set[int], position: dict[tuple[int, int], int]
    ) -> Entry:
        workers = self.device_workers[self.program.steps[step].device]
        member = workers.index(worker)
        if member:
            return Entry(step, self.teams.index(workers), member, False, ())
        waits = tuple(
            (self.leader(other), position[self.leader(other), other]) for other in self.waits[step]
        )
        team = self.teams.index(workers) if len(workers) > 1 else -1
        return Entry(step, team, 0, step in awaited, waits)

    def leader(self, step: int) -> int:
        """Worker that runs a step."""
        return self.device_workers[self.program.steps[step].device][0]

    @property
    def total_bytes(self) -> int:
        """Bytes of all tensors in the arena, had each its own place."""
        return sum(buffer.bytes for buffer in self.program.buffers if buffer.space == "arena")


def make_plan(program: LaneProgram, platform: Platform) -> LanePlan:
    """Return the plan of a program whose steps name devices of a platform.

    Raises
    ------
    UnsupportedError
        If a step runs on a device that is not a CPU.
    """
    used = sorted({step.device for step in program.steps})
    for device in used:
        if not platform.devices[device].is_cpu:
            raise UnsupportedError(
                f"Lanes run CPU devices; device {platform.devices[device].name!r} is "
                f"{platform.devices[device].runtime}."
            )
    # A program without steps still has one worker, which makes it run like any other.
    cores = tuple(dict.fromkeys(core for device in used for core in platform.devices[device].cores))
    cores = cores or platform.devices[platform.host_index].cores[:1]
    device_workers = tuple(
        tuple(cores.index(core) for core in device.cores) if index in used else ()
        for index, device in enumerate(platform.devices)
    )
    order: list[list[int]] = [[] for _ in cores]
    for index, step in enumerate(program.steps):
        for worker in device_workers[step.device]:
            order[worker].append(index)
    waits, before = _order_steps(program, device_workers, order)
    offsets, arena_bytes = _place_arena(program, before)
    weight_bytes = 0
    for buffer in program.space_buffers("weights"):
        offsets[buffer] = weight_bytes
        weight_bytes += _aligned(program.buffers[buffer].bytes)
    return LanePlan(
        program,
        cores,
        device_workers,
        tuple(map(tuple, order)),
        waits,
        tuple(offsets),
        arena_bytes,
        weight_bytes,
    )


def _order_steps(
    program: LaneProgram, device_workers: Sequence[Sequence[int]], order: Sequence[Sequence[int]]
) -> tuple[tuple[tuple[int, ...], ...], list[int]]:
    """Return for each step the steps to wait for, and the steps that happen before it, as bit sets.

    A step comes after those that made what it reads, and after the step before it on each of its
    workers. Of these only what nothing else implies is waited for, and nothing on the own leader.
    """
    previous: list[dict[int, int]] = [{} for _ in program.steps]
    for worker, steps in enumerate(order):
        for earlier, later in pairwise(steps):
            previous[later][worker] = earlier
    before: list[int] = []
    waits: list[tuple[int, ...]] = []
    for index, step in enumerate(program.steps):
        leader = device_workers[step.device][0]
        direct = {*program.producers(index), *previous[index].values()}
        implied = 0
        for other in direct:
            implied |= before[other]
        needed = {other for other in direct if not implied >> other & 1}
        # What the leader took part in has ended when it comes to this step.
        waits.append(tuple(sorted(needed - {previous[index].get(leader, -1)})))
        for other in direct:
            implied |= 1 << other
        before.append(implied)
    return tuple(waits), before


def happens_before(plan: LanePlan) -> list[int]:
    """Return for each step the bit set of steps that have ended before it begins.

    Read off the lists and waits of the workers alone, so that it can check a plan however it was made.
    A worker knows that a step has ended when it took part in it, or waited for it; and then all that
    happened before it has ended too.
    """
    before = [0] * len(plan.program.steps)
    known = [0] * len(plan.cores)
    for index, step in enumerate(plan.program.steps):
        bits = known[plan.leader(index)]
        for other in plan.waits[index]:
            bits |= before[other] | 1 << other
        before[index] = bits
        for worker in plan.device_workers[step.device]:
            known[worker] |= bits | 1 << index
    return before


def _place_arena(program: LaneProgram, before: list[int]) -> tuple[list[int], int]:
    """Return the offset of each arena buffer, and the size of the arena.

    Two buffers may overlap when every step that touches the one happens before the step that writes
    the other. Large buffers are placed first, each at the lowest offset that is free (the "greedy by
    size" of Pisarchyk and Lee 2020, with happens-before in the place of execution order).
    """
    offsets = [0] * len(program.buffers)
    touching, readers = {}, program.readers
    arena = [b for b in program.space_buffers("arena") if program.buffers[b].bytes]
    for buffer in arena:
        bits = 1 << program.writer[buffer]
        for reader in readers.get(buffer, ()):
            bits |= 1 << reader
        touching[buffer] = bits
    placed: list[int] = []
    size = 0
    for buffer in sorted(arena, key=lambda b: (-program.buffers[b].bytes, b)):
        taken = sorted(
            (offsets[other], offsets[other] + _aligned(program.buffers[other].bytes))
            for other in placed
            if not (
                _ends_before(touching[other], before[program.writer[buffer]])
                or _ends_before(touching[buffer], before[program.writer[other]])
            )
        )
        offset = 0
        for begin, end in taken:
            if offset + program.buffers[buffer].bytes <= begin:
                break
            offset = max(offset, end)
        offsets[buffer] = offset
        placed.append(buffer)
        size = max(size, offset + _aligned(program.buffers[buffer].bytes))
    return offsets, size


def _ends_before(steps: int, before: int) -> bool:
    return steps & ~before == 0


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
