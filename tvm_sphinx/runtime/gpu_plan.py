"""What the feeder of each GPU does in a run, as segments between its waits for others. Knows no TVM.

A feeder goes through the steps of its GPU in schedule order. What it issues from one of its waits to
the next is a *segment*, which becomes one CUDA graph: steps of a stream follow each other in it, and an
event stands where one stream waits for another. What the host waits for is written by the stream into
the stream's counter: the position of the step in the stream's list, plus one.
"""

from __future__ import annotations

from dataclasses import dataclass

from .plan import LanePlan


@dataclass(frozen=True)
class Op:
    """One thing that a feeder does or issues.

    ``kind`` is ``"step"`` (the kernels or the copy of a step, in a stream, or a stage), ``"record"`` or
    ``"wait"`` (of an event, by ``number``), or ``"write"`` (of the value ``number`` into the counter).
    """

    kind: str
    step: int
    number: int = 0


@dataclass(frozen=True)
class Segment:
    """What a feeder does once it has passed ``waits``, (list, position) pairs of other lists."""

    waits: tuple[tuple[int, int], ...]
    ops: tuple[Op, ...]
    uses_streams: bool


@dataclass(frozen=True)
class Feed:
    """The segments of a GPU's feeder, and how many events its streams need."""

    segments: tuple[Segment, ...]
    num_events: int


def make_feeds(plan: LanePlan) -> tuple[Feed, ...]:
    """Return what the feeder of each GPU does."""
    return tuple(_Feeder(plan, gpu).feed() for gpu in range(len(plan.places.gpus)))


class _Feeder:
    def __init__(self, plan: LanePlan, gpu: int) -> None:
        self.plan = plan
        self.place = len(plan.cores) + gpu
        self.waits: list[tuple[int, int]] = []
        self.ops: list[Op] = []
        self.uses_streams = False
        self.segments: list[Segment] = []
        self.events: dict[int, int] = {}  # number of the event behind a step
        self._find_awaited()

    def feed(self) -> Feed:
        for step in range(len(self.plan.program.steps)):
            if self.plan.places.feeder(self.plan.leader(step)) == self.place:
                self._add(step)
        self._close()
        return Feed(tuple(self.segments), len(self.events))

    def _is_thread(self, step: int) -> bool:
        return self.plan.leader(step) < self.plan.places.num_workers

    def _find_awaited(self) -> None:
        """Find the steps of our streams that the host awaits, and those that our other streams await."""
        self.written: set[int] = set()
        for step, waits in enumerate(self.plan.waits):
            for other in waits:
                if self._is_thread(other) or self._feeder(other) != self.place:
                    continue
                if self._is_thread(step) or self._feeder(step) != self.place:
                    self.written.add(other)
                else:
                    self.events.setdefault(other, len(self.events))

    def _feeder(self, step: int) -> int | None:
        return self.plan.places.feeder(self.plan.leader(step))

    def _add(self, step: int) -> None:
        is_stage = self._is_thread(step)
        by_host = [
            other
            for other in self.plan.waits[step]
            if is_stage or self._is_thread(other) or self._feeder(other) != self.place
        ]
        # A stage comes before what is issued in its segment, and a segment begins with its waits.
        if self.ops and (by_host or (is_stage and self.uses_streams)):
            self._close()
        self.waits += [
            (self.plan.leader(o), self.plan.position[self.plan.leader(o), o]) for o in by_host
        ]
        for other in self.plan.waits[step]:
            if other not in by_host:
                self.ops.append(Op("wait", step, self.events[other]))
        self.ops.append(Op("step", step))
        self.uses_streams |= not is_stage
        if step in self.events:
            self.ops.append(Op("record", step, self.events[step]))
        if step in self.written:
            self.ops.append(Op("write", step, self.plan.position[self.plan.leader(step), step] + 1))

    def _close(self) -> None:
        if self.ops:
            self.segments.append(Segment(tuple(self.waits), tuple(self.ops), self.uses_streams))
        self.waits, self.ops, self.uses_streams = [], [], False


def num_segments(plan: LanePlan) -> int:
    """Return how many segments the feeders of a plan have; they stand behind its steps."""
    return sum(len(feed.segments) for feed in make_feeds(plan))
