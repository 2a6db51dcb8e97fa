"""Schedule or single device: a schedule has to promise enough, and to keep it when both run. [TVM]"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..progress import Progress
from ..runtime.executable import ConcurrentExecutable
from ..scheduling.schedule import Schedule
from .kinds import LaneProgramFile, Program

#: A schedule that promises less than this over the best single device is not tried: medians of kernel
#: times are known no better, and what it gains is less than what may go wrong between devices.
LEAST_GAIN = 1.02
_ROUNDS = 15
_ROUND_NS = 30_000_000
_MOST_RUNS_PER_ROUND = 200
#: Seconds after which no round is begun, once there are `_LEAST_ROUNDS`: a model that takes a second is
#: known well enough by few of them.
RACE_LIMIT_S = 10.0
_LEAST_ROUNDS = 3
_STAGE = "race against the best single device"


def is_promising(schedule: Schedule, single: Schedule) -> bool:
    """Return whether a schedule is predicted to be well ahead of the best single device."""
    return single.makespan_ns >= LEAST_GAIN * schedule.makespan_ns


def speedup(
    program: Program, reference: Program, inputs: Sequence[Any], progress: Progress | None = None
) -> float | None:
    """Return how many times as fast as the reference a program is, as `race` finds it.

    None where one of them does not run on the lanes.
    """
    if not isinstance(program, LaneProgramFile) or not isinstance(reference, LaneProgramFile):
        return None
    return race(program.executable, reference.executable, inputs, progress)


def race(
    executable: ConcurrentExecutable,
    reference: ConcurrentExecutable,
    inputs: Any,
    progress: Progress | None = None,
    limit_s: float = RACE_LIMIT_S,
) -> float:
    """Return how many times as fast as the reference an executable is, both run in turn on this machine.

    The median of the ratios of up to 15 rounds, each of which runs both for some 30 ms, at least once;
    of at least 3 where the time limit ends them.
    """
    begin_s = time.monotonic()
    report = progress or (lambda *_: None)
    report(_STAGE, 0, _ROUNDS)
    racers = (executable, reference)
    # One run of each tells a slow model, which three would take too long for.
    once_ns = [int(racer.durations_ns(inputs, 1)[0]) for racer in racers]
    if max(once_ns) < _ROUND_NS:
        once_ns = [int(np.median(racer.durations_ns(inputs, 3))) for racer in racers]
    count = int(np.clip(_ROUND_NS // max(1, *once_ns), 1, _MOST_RUNS_PER_ROUND))
    ratios: list[float] = []
    while len(ratios) < _ROUNDS:
        if len(ratios) >= _LEAST_ROUNDS and time.monotonic() - begin_s >= limit_s:
            break
        mine, other = (float(np.median(racer.durations_ns(inputs, count))) for racer in racers)
        ratios.append(other / mine)
        report(_STAGE, len(ratios), _ROUNDS)
    report(_STAGE, _ROUNDS, _ROUNDS)
    return float(np.median(ratios))
