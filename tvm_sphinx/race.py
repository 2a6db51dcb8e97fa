"""Race two programs of one model: that a schedule is never slower is kept by measuring. [TVM]"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .programs import LaneProgramFile, Program

_ROUNDS = 15
_ROUND_NS = 30_000_000
_MOST_RUNS_PER_ROUND = 200


def speedup(program: Program, reference: Program, inputs: Mapping[str, Any]) -> float | None:
    """Return how many times as fast as the reference a program is, both run in turn on this machine.

    The median of the ratios of 15 rounds; each round runs both for some 30 ms, at least once. None where
    one of them does not run on the lanes.
    """
    if not isinstance(program, LaneProgramFile) or not isinstance(reference, LaneProgramFile):
        return None
    racers = (program.executable, reference.executable)
    once_ns = max(int(np.median(racer.durations_ns(inputs, 3))) for racer in racers)
    count = int(np.clip(_ROUND_NS // max(1, once_ns), 1, _MOST_RUNS_PER_ROUND))
    ratios = []
    for _ in range(_ROUNDS):
        mine, other = (float(np.median(racer.durations_ns(inputs, count))) for racer in racers)
        ratios.append(other / mine)
    return float(np.median(ratios))
