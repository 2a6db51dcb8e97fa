"""Schedule or single device: a schedule has to promise enough, and to keep it when both run. [TVM]"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..cost.measure.sampling import cores_of_others, cpu_time
from ..frontend.tensor_spec import TensorSpec
from ..kernels.code_cache import cache_key, read_cached, write_cached
from ..notice import warn
from ..platform import Platform
from ..platform.machine import machine_id
from ..platform.targets import is_absent
from ..progress import Progress, StageClock
from ..report.text import format_ns
from ..runtime.executable import ConcurrentExecutable
from ..scheduling.schedule import Schedule
from ..search import SearchResult
from .compiled import random_inputs
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
# Rounds so close together were not disturbed, whichever side they are on.
_CLOSE = 0.1
#: What was timed while others used more cores than this tells nothing of other times.
MOST_OF_OTHERS = 0.15
# To be raised with whatever changes a race, or how fast a program runs.
_VERDICT_FORM = "tvm-sphinx race 1"
_STAGE = "race against the best single device"
_SINGLE_STAGE = "race of single devices"


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
    spread_ns, alone_ns = found.best.makespan_ns, single.best.makespan_ns
    how = "too little below" if spread_ns < alone_ns else "no less than"
    so = " to be tried" if spread_ns < alone_ns else ""
    return single, (
        f"The best schedule over all devices is predicted at {format_ns(spread_ns)}, {how} the best "
        f"single device's {format_ns(alone_ns)}{so}: the model runs on that."
    )


def race_with_single(
    build: Build,
    single: SearchResult | None,
    make: Callable[[SearchResult], Build],
    platform: Platform,
    inputs: Sequence[TensorSpec],
    clock: StageClock,
    progress: Progress | None = None,
    *,
    rivals: Sequence[SearchResult] = (),
    may_be_single: bool = True,
) -> tuple[Build, Build | None]:
    """Return the build that is to run, the faster of both, and that for the best single device.

    Which single device that is is told by a race, where others are predicted to be nearly as fast.
    Devices of another machine, or that are not at hand, cannot be raced: then it is the first. So it is
    without a ``single``, and where that may not take its place.

    Parameters
    ----------
    build
        Of the schedule that was found, which may be ``single`` itself.
    single, rivals
        The best single device by prediction, and others that are nearly as good.
    make
        Builds a schedule.
    """
    if single is None:
        return build, None
    is_single = build.found is single
    if is_single:
        reference = build
    else:
        with clock("build reference"):
            reference = make(single)
    if not runs_here(platform) or not may_be_single or (is_single and not rivals):
        return build, reference
    with clock("race"):
        drawn = list(random_inputs(inputs).values())
        reference = _fastest_single(reference, rivals, make, platform, drawn, progress)
        return (reference if is_single else choose_faster(build, reference, drawn, progress)), reference


def _fastest_single(
    best: Build,
    rivals: Sequence[SearchResult],
    make: Callable[[SearchResult], Build],
    platform: Platform,
    inputs: Sequence[Any],
    progress: Progress | None,
) -> Build:
    """Return the fastest of single devices: the best by prediction, unless a rival beats it twice."""
    predicted = best
    for found in rivals:
        rival = make(found)
        ratio = compare_programs(best.program, rival.program, inputs, progress, _SINGLE_STAGE)
        if ratio is None or ratio >= 1.0:
            continue
        was, now = (platform.devices[int(one.found.best.device[0])].name for one in (best, rival))
        known = ", the best by prediction" if best is predicted else ""
        note = (
            f"Of single devices {now} measured {1.0 / ratio:.2f}x as fast as {was}{known}. {best.note}"
        )
        best = Build(found, rival.program, note.rstrip())
    return best


def runs_here(platform: Platform) -> bool:
    """Return whether all devices of a platform are at hand, so that its programs can be timed here."""
    return not platform.is_remote and not any(map(is_absent, platform.devices))


def cores_of(platform: Platform) -> set[int]:
    """Return the cores of all devices of a platform."""
    return {core for device in platform.devices for core in device.cores}


def choose_faster(
    build: Build, reference: Build, inputs: Sequence[Any], progress: Progress | None = None
) -> Build:
    """Return the build that runs faster; the first if one of them does not run on the lanes."""
    ratio = compare_programs(build.program, reference.program, inputs, progress)
    if ratio is None or ratio >= 1.0 or _is_placed_alike(build.found, reference.found):
        return build
    note = (
        f"The schedule, predicted at {format_ns(build.found.best.makespan_ns)}, measured {ratio:.2f}x "
        f"as fast as the best single device alone, so the model runs on that device."
    )
    return Build(reference.found, reference.program, f"{note} {build.note}".rstrip())


def compare_programs(
    program: Program,
    reference: Program,
    inputs: Sequence[Any],
    progress: Progress | None = None,
    stage: str = _STAGE,
) -> float | None:
    """Return how many times as fast as the reference a program is, see `compare_executables`.

    One that loses races once more, and its better race counts. A verdict that was clear is kept beside
    the code of the kernels, and not asked for again on this machine; not one that was found while others
    used the cores, and a warning says so where the program lost. None where one of them does not run on
    the lanes.
    """
    if not isinstance(program, LaneProgramFile) or not isinstance(reference, LaneProgramFile):
        return None
    both = (program.image.what_runs(), reference.image.what_runs())
    name = cache_key(_VERDICT_FORM, machine_id(), *both)
    kept = read_cached(name)
    if kept is not None:
        return float(kept)
    cores = cores_of(program.image.platform)
    begin = cpu_time(cores)
    races = [_race(program.executable, reference.executable, inputs, progress, stage=stage)]
    if np.median(races[0]) < 1.0:
        # Who shares the machine may take a core for some seconds, which slows most what needs several.
        again = f"{stage}, once more"
        races.append(_race(program.executable, reference.executable, inputs, progress, stage=again))
    found = [float(np.median(ratios)) for ratios in races]
    ratio = max(found)
    others = cores_of_others(begin, cpu_time(cores))
    if others > MOST_OF_OTHERS:
        if ratio < 1.0:
            warn(
                f"Other processes used {others:.1f} cores while programs raced, which may have decided "
                f"the race ({ratio:.2f}x): compile again on a quiet machine."
            )
    elif all(map(_is_clear, races)) and (ratio < 1.0 or len(races) == 1):
        write_cached(name, repr(ratio).encode())
    return ratio


def _is_clear(ratios: Sequence[float]) -> bool:
    """Return whether three quarters of the rounds are on one side, or half of them close together."""
    low, high = np.quantile(ratios, [0.25, 0.75])
    return bool(low > 1.0 or high < 1.0 or high - low <= _CLOSE)


def compare_executables(
    executable: ConcurrentExecutable,
    reference: ConcurrentExecutable,
    inputs: Any,
    progress: Progress | None = None,
    limit_s: float = RACE_LIMIT_S,
) -> float:
    """Return how many times as fast as the reference an executable is, both run in turn here.

    The median of the ratios of up to 15 rounds, each of which runs both for some 30 ms, at least once;
    of at least 3 where the time limit ends them.
    """
    return float(np.median(_race(executable, reference, inputs, progress, limit_s)))


def _race(
    executable: ConcurrentExecutable,
    reference: ConcurrentExecutable,
    inputs: Any,
    progress: Progress | None,
    limit_s: float = RACE_LIMIT_S,
    stage: str = _STAGE,
) -> list[float]:
    """Return the ratio of each round of `compare_executables`."""
    begin_s = time.monotonic()
    report = progress or (lambda *_: None)
    report(stage, 0, _ROUNDS)
    both = (executable, reference)
    count = runs_per_round(both, inputs)
    ratios: list[float] = []
    while len(ratios) < _ROUNDS:
        if len(ratios) >= _LEAST_ROUNDS and time.monotonic() - begin_s >= limit_s:
            break
        mine, other = (float(np.median(one.durations_ns(inputs, count))) for one in both)
        ratios.append(other / mine)
        report(stage, len(ratios), _ROUNDS)
    if len(ratios) < _ROUNDS:
        report(stage, _ROUNDS, _ROUNDS)
    return ratios


def runs_per_round(executables: Iterable[ConcurrentExecutable], inputs: Any) -> int:
    """Return how many runs of the slowest of some executables fill a round, at least one."""
    slowest_ns = 1
    for one in executables:
        # One run tells a slow model, which three would take too long for.
        once_ns = int(one.durations_ns(inputs, 1)[0])
        if once_ns < _ROUND_NS:
            once_ns = int(np.median(one.durations_ns(inputs, 3)))
        slowest_ns = max(slowest_ns, once_ns)
    return int(np.clip(_ROUND_NS // slowest_ns, 1, _MOST_RUNS_PER_ROUND))


def _is_placed_alike(first: SearchResult, second: SearchResult) -> bool:
    return bool((first.best.device == second.best.device).all())
