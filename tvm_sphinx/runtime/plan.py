"""Plan of the lanes: who runs what in which order, who waits for whom, and where each tensor lies.

One worker for each core that the steps need. A device of one core is that worker; a device of several
cores is a team of workers, and its steps stand in the list of each. So devices that share cores take
turns in schedule order without further rules, and no core ever has two busy threads. A GPU is a feeder
and the streams that it feeds, see `gpu_places`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from ..errors import UnsupportedError
from ..platform import Platform
from .gpu_places import Places, find_places
from .program import HOST, LaneProgram

#: Alignment of every tensor, in bytes; TVM's kernels take 64 for granted, and a neighbour's prefetch
#: of pairs of 64-byte lines stays out of a tensor that another core writes.
ALIGNMENT = 128

#: Workers that run a step together, the first of which leads, and what each can do for it.
Team = tuple[tuple[int, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Entry:
    """A place in a worker's list.

    ``member`` is the worker's position in the team that runs the step: 0 leads it. ``waits`` are
    (list, position) pairs that have to be passed first; ``publishes`` says that others wait for this.
    """

    step: int
    team: int
    member: int
    publishes: bool
    waits: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class LanePlan:
    """How a program runs on the cores and GPUs of a platform.

    Parameters
    ----------
    program
    places
        The lists of workers, feeders and streams.
    order
        For each list the steps that it takes part in.
    waits
        For each step the steps of other lists whose end it awaits, as few as imply the rest.
    offsets
        For each buffer of the arena or the weights its offset in bytes; 0 for the others.
    sizes
        Bytes of each (space, memory), of the arena and the weights.
    """

    program: LaneProgram
    places: Places
    order: tuple[tuple[int, ...], ...]
    waits: tuple[tuple[int, ...], ...]
    offsets: tuple[int, ...]
    sizes: dict[tuple[str, str], int]

    @property
    def cores(self) -> tuple[int, ...]:
        """Core of each CPU worker."""
        return self.places.cores

    @property
    def device_workers(self) -> tuple[tuple[int, ...], ...]:
        """For each device its CPU workers, the first of which leads; empty where no step runs on it."""
        return self.places.device_workers

    @property
    def arena_bytes(self) -> int:
        """Size of the arena in the host's memory."""
        return self.sizes.get(("arena", HOST), 0)

    @property
    def weight_bytes(self) -> int:
        """Size of the weights in the host's memory."""
        return self.sizes.get(("weights", HOST), 0)

    @cached_property
    def teams(self) -> dict[Team, int]:
        """The teams that run steps, numbered."""
        found = filter(None, map(self._team, range(len(self.program.steps))))
        return {team: number for number, team in enumerate(dict.fromkeys(found))}

    def _team(self, step: int) -> Team | None:
        workers = self.places.of_step[step]
        return (workers, self.places.step_speeds[step]) if len(workers) > 1 else None

    @cached_property
    def awaited(self) -> frozenset[int]:
        """Steps that others wait for."""
        return frozenset(step for waits in self.waits for step in waits)

    @cached_property
    def position(self) -> dict[tuple[int, int], int]:
        """Position of each (list, step) in the list."""
        return {
            (place, step): position
            for place, steps in enumerate(self.order)
            for position, step in enumerate(steps)
        }

    @cached_property
    def entries(self) -> tuple[tuple[Entry, ...], ...]:
        """For each CPU worker its list."""
        return tuple(
            tuple(self._entry(worker, step) for step in self.order[worker])
            for worker in range(len(self.cores))
        )

    def _entry(self, worker: int, step: int) -> Entry:
        workers = self.places.of_step[step]
        member = workers.index(worker)
        shared = self._team(step)
        team = -1 if shared is None else self.teams[shared]
        if member:
            return Entry(step, team, member, False, ())
        return Entry(step, team, 0, step in self.awaited, self.host_waits(step))

    def host_waits(self, step: int) -> tuple[tuple[int, int], ...]:
        """Return the (list, position) pairs that a thread awaits before a step."""
        return tuple(
            (self.leader(other), self.position[self.leader(other), other]) for other in self.waits[step]
        )

    def leader(self, step: int) -> int:
        """List that runs a step."""
        return self.places.of_step[step][0]

    @property
    def total_bytes(self) -> int:
        """Bytes of all tensors in the arenas, had each its own place."""
        return sum(buffer.bytes for buffer in self.program.buffers if buffer.space == "arena")


def make_plan(program: LaneProgram, platform: Platform) -> LanePlan:
    """Return the plan of a program whose steps name devices of a platform.

    Raises
    ------
    UnsupportedError
        If a step runs on a device that lanes do not know.
    """
    places = find_places(program, platform)
    order: list[list[int]] = [[] for _ in range(places.num_lists)]
    for index, lists in enumerate(places.of_step):
        for place in lists:
            order[place].append(index)
    waits, before = _order_steps(program, places, order)
    offsets = [0] * len(program.buffers)
    sizes: dict[tuple[str, str], int] = {}
    for memory in dict.fromkeys(buffer.memory for buffer in program.buffers):
        sizes["arena", memory] = _place_arena(program, memory, before, offsets)
    for buffer in program.space_buffers("weights"):
        key = "weights", program.buffers[buffer].memory
        offsets[buffer] = sizes.get(key, 0)
        sizes[key] = offsets[buffer] + _aligned(program.buffers[buffer].bytes)
    return LanePlan(program, places, tuple(map(tuple, order)), waits, tuple(offsets), sizes)


def _order_steps(
    program: LaneProgram, places: Places, order: Sequence[Sequence[int]]
) -> tuple[tuple[tuple[int, ...], ...], list[int]]:
    """Return for each step the steps to wait for, and the steps that happen before it, as bit sets.

    A step comes after those that made what it reads, and after the step before it on each of its lists;
    a step of a stream also after what its feeder knows to have ended when it issues it. Of these only
    what nothing else implies is waited for, and nothing on the own leader.
    """
    previous: list[dict[int, int]] = [{} for _ in program.steps]
    for place, steps in enumerate(order):
        for earlier, later in pairwise(steps):
            previous[later][place] = earlier
    before: list[int] = []
    waits: list[tuple[int, ...]] = []
    known = [0] * places.num_workers  # by each feeder
    for index in range(len(program.steps)):
        leader = places.of_step[index][0]
        feeder = places.feeder(leader)
        implied = 0 if feeder is None else known[feeder]
        direct = {*program.producers(index), *previous[index].values()}
        for other in direct:
            implied |= before[other]
        # What the leader took part in has ended when it comes to this step.
        needed = {other for other in direct if not implied >> other & 1} - {previous[index].get(leader)}
        waits.append(tuple(sorted(needed)))
        for other in direct:
            implied |= 1 << other
        before.append(implied)
        _tell_feeder(places, index, waits, before, known)
    return tuple(waits), before


def _tell_feeder(
    places: Places, step: int, waits: Sequence[Sequence[int]], before: Sequence[int], known: list[int]
) -> None:
    """Note what the feeder of a step knows to have ended once it has issued it, or run it itself."""
    leader = places.of_step[step][0]
    feeder = places.feeder(leader)
    if feeder is None:
        return
    for other in waits[step]:
        if leader == feeder or places.feeder(places.of_step[other][0]) != feeder:
            known[feeder] |= before[other] | 1 << other
    if leader == feeder:
        known[feeder] |= before[step] | 1 << step


def happens_before(plan: LanePlan) -> list[int]:
    """Return for each step the bit set of steps that have ended before it begins.

    Read off the lists and waits alone, so that it can check a plan however it was made. A worker knows
    that a step has ended when it took part in it, or waited for it; and then all that happened before it
    has ended too. A stream knows what came before in it, what it waited for, and what its feeder knew.
    """
    places = plan.places
    before = [0] * len(plan.program.steps)
    known = [0] * places.num_lists
    for index in range(len(plan.program.steps)):
        leader = plan.leader(index)
        feeder = places.feeder(leader)
        bits = known[leader]
        for other in plan.waits[index]:
            ended = before[other] | 1 << other
            bits |= ended
            # A feeder waits itself for what no event of its own GPU tells.
            if feeder is not None and (leader == feeder or places.feeder(plan.leader(other)) != feeder):
                known[feeder] |= ended
        if feeder is not None:
            bits |= known[feeder]
        before[index] = bits
        for place in places.of_step[index]:
            known[place] |= bits | 1 << index
    return before


def _place_arena(program: LaneProgram, memory: str, before: list[int], offsets: list[int]) -> int:
    """Give each arena buffer of a memory its offset; return the size of the arena.

    Two buffers may overlap when every step that touches the one happens before the step that writes
    the other. Large buffers are placed first, each at the lowest offset that is free (the "greedy by
    size" of Pisarchyk and Lee 2020, with happens-before in the place of execution order).
    """
    touching, readers = {}, program.readers
    arena = [
        buffer
        for buffer in program.space_buffers("arena")
        if program.buffers[buffer].bytes and program.buffers[buffer].memory == memory
    ]
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
    return size


def _ends_before(steps: int, before: int) -> bool:
    return steps & ~before == 0


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def check_capacity(plan: LanePlan, platform: Platform) -> None:
    """Check that what a GPU holds, weights and all, is no more than its devices are said to have.

    Raises
    ------
    UnsupportedError
        With the GPU, what it would hold, and its capacity.
    """
    for device in platform.devices:
        if device.is_cpu or device.memory_bytes is None:
            continue
        arena, weights = (plan.sizes.get((space, device.runtime), 0) for space in ("arena", "weights"))
        if arena + weights > device.memory_bytes:
            raise UnsupportedError(
                f"Expected at most {device.memory_bytes} bytes on {device.runtime} (memory_bytes of "
                f"{device.name!r}); the schedule needs {weights} for weights and {arena} for tensors."
            )
