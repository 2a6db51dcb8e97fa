"""Time kernels of a model in turn, so that each finds the caches as the others leave them. [TVM]

Between two calls of a kernel a model runs all of its others, which takes the time and goes through the
memory that put weights out of the caches. So kernels that take turns need not wait for each other: what
one call is timed for is the distance of all others. Only once few are left other memory is gone through
and time passes in their place (`.cache_state`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...platform import Device
from ...runtime.program import Step
from .cache_state import Reuse, filled_bytes, num_bytes, pause, writer
from .lane_timing import PAUSE, WRITE, Call, Runs, Timer
from .sampling import Collector, Goal, Samples, involuntary_switches

# A visit makes about a share of the calls that a goal asks for, but this many at most, and copies of
# cold operands for them take no more than these bytes.
_VISITS, _MOST_CALLS, _MOST_COPY_BYTES = 6, 16, 16 << 20
# Operands of kernels that take turns with each other take no more than this.
MOST_TOGETHER_BYTES = 1 << 30
_NOTHING = Reuse(0, 0)
# What is gone through in place of kernels that are done is sized anew once it is off by this factor.
_STALE = 1.5


@dataclass(frozen=True)
class Turn:
    """A kernel to time: the call, positions of its cold operands, and how well.

    ``reuse_bytes`` is what a model reads of weights between two uses of a cold operand.
    """

    call: Call
    cold: tuple[int, ...]
    reuse_bytes: int
    goal: Goal

    @property
    def bytes(self) -> int:
        """Size of all operands."""
        return sum(num_bytes(operand) for operand in self.call.operands)


def sample_in_rotation(
    turns: Sequence[Turn],
    *,
    switches: Callable[[], int] = involuntary_switches,
    end_s: float = math.inf,
) -> list[Samples]:
    """Time kernels on a device until each one's goal is met, or time is up; return the samples of each.

    The first call of each is not counted. Each takes no longer than its goal allows: its own calls, and
    its share of what is done in place of kernels that are done.

    Parameters
    ----------
    turns
        With calls on the same CPU device of this machine.
    switches
        See `tvm_sphinx.cost.measure.sampling.collect_samples`.
    end_s
        No round is begun once ``time.monotonic()`` has reached this, but the first.
    """
    visitors = [_Visitor(turn, switches) for turn in turns]
    distance = _Distance()
    left = visitors
    while left:
        begin_ns = time.perf_counter_ns()
        for visitor in left:
            visitor.visit()
        if time.monotonic() >= end_s:
            break
        left = [visitor for visitor in left if not visitor.collector.is_done]
        if left:
            begin_s = time.monotonic()
            distance.keep([one.turn for one in left], time.perf_counter_ns() - begin_ns)
            share_s = (time.monotonic() - begin_s) / len(left)
            for visitor in left:
                visitor.collector.spent_s += share_s
    return [visitor.collector.samples for visitor in visitors]


class _Visitor:
    """One kernel, which is called a few times whenever its turn comes."""

    def __init__(self, turn: Turn, switches: Callable[[], int]) -> None:
        self.turn = turn
        self.collector = Collector(turn.goal, switches)
        timer = Timer(turn.call, frozenset(turn.cold))
        once_ns = max(1, timer.runs(1).sample()[0])
        cold_bytes = sum(num_bytes(turn.call.operands[position]) for position in turn.cold)
        wanted = turn.goal.min_ns // (_VISITS * once_ns)
        fitting = _MOST_COPY_BYTES // max(1, cold_bytes)
        count = max(1, min(_MOST_CALLS, wanted, fitting))
        timer.take_turns(count)
        self._runs = timer.runs(count)
        self._runs.sleep_when_idle()

    def visit(self) -> None:
        """Call the kernel as often as there are copies of its cold operands."""
        self.collector.take(self._runs.sample)


class _Distance:
    """Goes through memory, and lets time pass, in place of kernels that are done."""

    def __init__(self) -> None:
        self._runs: Runs | None = None
        self._made = _NOTHING

    def keep(self, left: Sequence[Turn], round_ns: int) -> None:
        """Do what a round of those that are left lacks of the distance that they are to be timed at."""
        reuses = [Reuse.after(turn.reuse_bytes) for turn in left]
        lacking = Reuse(
            max(0, max(reuse.bytes for reuse in reuses) - sum(turn.bytes for turn in left)),
            max(0, max(reuse.ns for reuse in reuses) - round_ns),
        )
        if lacking == _NOTHING:
            return
        made, runs = self._made, self._runs
        if runs is None or _is_off(made.bytes, lacking.bytes) or _is_off(made.ns, lacking.ns):
            self._made, self._runs = lacking, (runs := _runs_of(lacking, left[0].call.device))
        runs.stamps()


def _runs_of(lacking: Reuse, device: Device) -> Runs:
    """Return what goes through so much memory on a device, and takes so much time."""
    half = max(1, lacking.bytes // 2)
    tensors = [filled_bytes(half), filled_bytes(half)]
    steps = [
        Step("write", "kernel", 0, WRITE, (2, 3), 0, True),
        Step("pause", "external", 0, PAUSE, (0,), 0),
    ]
    runs = Runs({WRITE: writer(device), PAUSE: pause(lacking.ns)}, tensors, steps, (device,))
    runs.sleep_when_idle()
    return runs


def _is_off(made: int, wanted: int) -> bool:
    return max(made, wanted) > 0 and not 1 / _STALE <= max(1, made) / max(1, wanted) <= _STALE
