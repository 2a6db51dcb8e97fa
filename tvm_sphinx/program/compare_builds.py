"""Schedule or single device: a schedule has to promise enough, and to keep it when both run. [TVM]"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..platform import Platform
from ..progress import StageClock
from ..report.text import format_ns
from ..runtime.executable import ConcurrentExecutable
from ..scheduling.schedule import Schedule
from ..search import SearchResult
from .compiled import TensorSpec, random_inputs
from .kinds import LaneProgramFile, Program

#: A schedule that promises less than this over the best single device is not tried: medians of kernel
#: times are known no better, and what it gains is less than what may go wrong between devices.
LEAST_GAIN = 1.02
_ROUNDS = 15
_ROUND_NS = 30_000_000
_MOST_RUNS_PER_ROUND = 200


@dataclass(frozen=True)
class Build:
    """A search's schedule as a program; the note says why it is not what one would expect."""

    found: SearchResult
    program: Program
    note: str = ""


def is_promising(schedule: Schedule, single: Schedule) -> bool:
    """Return whether a schedule is predicted to be well ahead of the best single device."""
    return single.makespan_ns >= LEAST_GAIN * schedule.makespan_ns


def choose_promising(found: SearchResult, single: SearchResult) -> tuple[SearchResult, str]:
    """Return the search whose schedule is to be built, and why, if it is not that over all devices."""
    if is_promising(found.best, single.best):
        return found, ""
    if _is_placed_alike(found, single):
        return single, ""
    return single, (
        f"The best schedule over all devices is predicted at {format_ns(found.best.makespan_ns)}, too "
        f"little below the best single device's {format_ns(single.best.makespan_ns)} to be tried: the "
        f"model runs on that."
    )


def race_with_single(
    build: Build,
    single: SearchResult | None,
    build_single: Callable[[], Build],
    platform: Platform,
    inputs: Sequence[TensorSpec],
    clock: StageClock,
) -> tuple[Build, Build | None]:
    """Return the build that is to run, the faster of both, and that for the best single device.

    Devices of another machine cannot be raced: then it is the first. So it is without a ``single``.
    """
    if single is None:
        return build, None
    if build.found is single:
        return build, build
    with clock("build reference"):
        reference = build_single()
    if platform.is_remote:
        return build, reference
    with clock("race"):
        return choose_faster(build, reference, random_inputs(inputs)), reference


def choose_faster(build: Build, reference: Build, inputs: Mapping[str, Any]) -> Build:
    """Return the build that runs faster; the first if one of them does not run on the lanes."""
    ratio = compare_programs(build.program, reference.program, inputs)
    if ratio is None or ratio >= 1.0 or _is_placed_alike(build.found, reference.found):
        return build
    note = (
        f"The schedule, predicted at {format_ns(build.found.best.makespan_ns)}, measured {ratio:.2f}x "
        f"as fast as the best single device alone, so the model runs on that device."
    )
    return Build(reference.found, reference.program, note)


def compare_programs(program: Program, reference: Program, inputs: Mapping[str, Any]) -> float | None:
    """Return how many times as fast as the reference a program is, see `compare_executables`.

    None where one of them does not run on the lanes.
    """
    if not isinstance(program, LaneProgramFile) or not isinstance(reference, LaneProgramFile):
        return None
    return compare_executables(program.executable, reference.executable, inputs)


def compare_executables(
    executable: ConcurrentExecutable, reference: ConcurrentExecutable, inputs: Any
) -> float:
    """Return how many times as fast as the reference an executable is, both run in turn here.

    The median of the ratios of 15 rounds; each round runs both for some 30 ms, at least once.
    """
    both = (executable, reference)
    once_ns = max(int(np.median(one.durations_ns(inputs, 3))) for one in both)
    count = int(np.clip(_ROUND_NS // max(1, once_ns), 1, _MOST_RUNS_PER_ROUND))
    ratios = []
    for _ in range(_ROUNDS):
        mine, other = (float(np.median(one.durations_ns(inputs, count))) for one in both)
        ratios.append(other / mine)
    return float(np.median(ratios))


def _is_placed_alike(first: SearchResult, second: SearchResult) -> bool:
    return bool((first.best.device == second.best.device).all())
