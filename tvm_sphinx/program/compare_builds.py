"""Schedule or single device: a schedule has to promise enough, and to keep it when both run. [TVM]"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..runtime.executable import ConcurrentExecutable
from ..scheduling.schedule import Schedule
from .kinds import LaneProgramFile, Program

#: A schedule that promises less than this over the best single device is not tried: medians of kernel
#: times are known no better, and what it gains is less than what may go wrong between devices.
LEAST_GAIN = 1.02
_ROUNDS = 15
_ROUND_NS = 30_000_000
_MOST_RUNS_PER_ROUND = 200


def is_promising(schedule: Schedule, single: Schedule) -> bool:
    """Return whether a schedule is predicted to be well ahead of the best single device."""
    return single.makespan_ns >= LEAST_GAIN * schedule.makespan_ns


def speedup(program: Program, reference: Program, inputs: Sequence[Any]) -> float | None:
    """Return how many times as fast as the reference a program is, as `race` finds it.

    None where one of them does not run on the lanes.
    """
    if not isinstance(program, LaneProgramFile) or not isinstance(reference, LaneProgramFile):
        return None
    return race(program.executable, reference.executable, inputs)


def race(executable: ConcurrentExecutable, reference: ConcurrentExecutable, inputs: Any) -> float:
    """Return how many times as fast as the reference an executable is, both run in turn on this machine.

    The median of the ratios of 15 rounds; each round runs both for some 30 ms, at least once.
    """
    racers = (executable, reference)
    once_ns = max(int(np.median(racer.durations_ns(inputs, 3))) for racer in racers)
    count = int(np.clip(_ROUND_NS // max(1, once_ns), 1, _MOST_RUNS_PER_ROUND))
    ratios = []
    for _ in range(_ROUNDS):
        mine, other = (float(np.median(racer.durations_ns(inputs, count))) for racer in racers)
        ratios.append(other / mine)
    return float(np.median(ratios))
