"""Close the loop: trace programs, search again with the times in place, and keep the fastest. [TVM]"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..cost.choose.costing import Costing
from ..cost.choose.in_place import correct_costs, summarise
from ..cost.measure.sampling import cores_of_others, cpu_time
from ..cost.records.in_place import LoopLine, Seen, find_loops, note_loop
from ..cost.records.store import RecordStore
from ..frontend.signature import Interface
from ..notice import warn
from ..platform import Platform
from ..progress import Progress, StageClock
from ..report.text import format_ns
from ..runtime.trace import Trace
from ..scheduling.graph import TaskGraph
from ..scheduling.replay import replay_schedule
from ..scheduling.schedule import Schedule
from ..search import SearchResult, search_schedule
from ..search.heuristics import KINDS
from .compare_builds import (
    MOST_OF_OTHERS,
    Build,
    cores_of,
    race_with_single,
    runs_here,
    runs_per_round,
)
from .compiled import random_inputs
from .decide import Decided
from .kinds import LaneProgramFile
from .options import CompileOptions

#: Searches with corrected costs, at most.
MOST_ROUNDS = 3
# Traced runs of a program, at most, and seconds for each after which there are no more.
_TRACES, _TRACE_S = 15, 1.0
_LEAST_TRACES = 3
# A schedule that promises this little over the best so far is not built.
_LEAST_PROMISE = 1.002
_HEATS, _FINAL_HEATS = 4, 15
_STAGE = "refine by times in place"


@dataclass(frozen=True)
class Refined:
    """What came of it: the build that is kept, and costs and decision by the times that were seen."""

    kept: Build
    decided: Decided
    costs: Costing


def refine(
    first: Build,
    single: Build,
    decided: Decided,
    costs: Costing,
    graph: TaskGraph,
    platform: Platform,
    inputs: Sequence[Any],
    *,
    decide: Callable[[Costing], Decided],
    build: Callable[[SearchResult], Build],
    limit_s: float,
    records: RecordStore,
    progress: Progress | None = None,
) -> Refined | None:
    """Return the fastest of several schedules, by measurement; None where programs cannot be traced.

    Candidates are the schedule that was found, the best single device and those that are nearly as good
    by prediction, the best of the list schedulers, and what up to `MOST_ROUNDS` searches find with costs
    corrected by traces of those before (`correct_costs`). They run in turn; the slower half drops out of
    each heat. Of two that the noise does not tell apart the one on fewer devices is kept.

    Parameters
    ----------
    first, single
        Programs of the schedule that was found, which may be that of ``single``, and of the best device.
    decided, costs, graph, platform
        What they come from.
    inputs
        To run with.
    decide, build
        From costs to a decision, and from a schedule to its program.
    limit_s
        Seconds after which no further search is begun, and no further heat.
    records
        Where what was seen is noted, unless others used the cores meanwhile.
    """
    if not _is_for_lanes(first) or not _is_for_lanes(single) or not runs_here(platform):
        return None
    programs = _fingerprint(first, single)
    loops = find_loops(records.path, costs.subject)
    known = [line for line in loops if line.programs == programs]
    if known:
        return _repeat(known[-1], first, single, costs, graph, platform, decide=decide, build=build)
    end_s, begin = time.monotonic() + limit_s, cpu_time(cores_of(platform))
    report = progress or (lambda *_: None)
    field = {"found": first}
    if not _is_alike(first.found.best, single.found.best):
        field["single"] = single
    alone = {"single", "found"} if first.found is single.found else {"single"}

    def enter(name: str, found: SearchResult) -> bool:
        """Let a schedule take part, unless one like it does, or it cannot run on the lanes."""
        if any(_is_alike(one.found.best, found.best) for one in field.values()):
            return False
        made = build(found)
        if _is_for_lanes(made):
            field[name] = made
        return name in field

    for rival in decided.rivals:
        name = f"{platform.devices[int(rival.best.device[0])].name} alone"
        if enter(name, rival):
            alone.add(name)
    listed = _best_listed(decided)
    if listed is not None:
        enter("list scheduler", listed)
    traces: dict[str, list[Trace]] = {}
    seen: list[Seen] = []
    rounds, is_ended = 0, False
    while True:
        new = _trace({name: one for name, one in field.items() if name not in traces}, inputs)
        traces |= new
        seen += map(summarise, new.values())
        latest = decide(_corrected(costs, graph, platform, seen))
        report(_STAGE, rounds, MOST_ROUNDS)
        is_ended = time.monotonic() >= end_s
        if rounds == MOST_ROUNDS or is_ended:
            break
        best_ns = min(_makespan_ns(latest, one) for one in field.values())
        if best_ns < _LEAST_PROMISE * latest.searched.best.makespan_ns:
            break
        if not enter(f"round {rounds + 1}", latest.searched):
            break
        rounds += 1
    report(_STAGE, MOST_ROUNDS, MOST_ROUNDS)
    name, heats = _race(field, inputs, end_s, traces)
    kept = field[name]
    own = summarise(traces.pop(name))
    seen = [*map(summarise, traces.values()), own]
    corrected = _corrected(costs, graph, platform, seen, own)
    latest = decide(corrected)
    is_single = name in alone
    timed, latest = _with_times(kept, latest, is_single, build)
    note = f"{_describe(first, timed, name, rounds, heats)} {kept.note}".rstrip()
    best = kept.found.best
    line = LoopLine(
        costs.subject,
        tuple(seen),
        "" if is_ended else programs,  # more time may find more
        tuple(best.device.tolist()),
        tuple(best.order),
        is_single,
        note,
    )
    others = cores_of_others(begin, cpu_time(cores_of(platform)))
    if others > MOST_OF_OTHERS:
        warn(
            f"Other processes used {others:.1f} cores while programs were traced and raced: what was "
            f"seen is used now and not kept."
        )
    else:
        note_loop(records.path, line)
    return Refined(replace(timed, note=note), latest, corrected)


def _corrected(
    costs: Costing,
    graph: TaskGraph,
    platform: Platform,
    seen: Sequence[Seen],
    kept: Seen | None = None,
) -> Costing:
    table = correct_costs(costs.table, graph, platform, seen, kept)
    return replace(costs, table=table, num_traced=len(seen))


def _fingerprint(first: Build, single: Build) -> str:
    """Return what tells two programs from others."""
    digest = hashlib.sha256()
    for one in (first, single):
        assert isinstance(one.program, LaneProgramFile)
        digest.update(one.program.image.what_runs().encode())
    return digest.hexdigest()


def _repeat(
    line: LoopLine,
    first: Build,
    single: Build,
    costs: Costing,
    graph: TaskGraph,
    platform: Platform,
    *,
    decide: Callable[[Costing], Decided],
    build: Callable[[SearchResult], Build],
) -> Refined:
    """Return what a loop of the same programs came to before."""
    corrected = _corrected(costs, graph, platform, line.seen, line.kept)
    latest = decide(corrected)
    problem = latest.alone if line.is_single else latest.problem
    device, order = np.array(line.device, dtype=np.int64), line.order
    found = replace(first.found, best=replay_schedule(problem, device, order))
    alike = [one for one in (single, first) if _is_alike(one.found.best, found.best)]
    kept = alike[0] if alike else build(found)
    timed, latest = _with_times(kept, latest, line.is_single, build)
    return Refined(replace(timed, note=line.note), latest, corrected)


def _describe(
    first: Build, kept: Build, name: str, rounds: int, heats: dict[str, tuple[float, ...]]
) -> str:
    """Return what was predicted, and what was measured of each candidate."""
    origin = {
        "found": "the schedule as it was first found",
        "single": "the best single device alone",
        "list scheduler": "a list scheduler's",
    }.get(name, name if name.endswith(" alone") else f"that of {name} with times in place")
    now, before = (format_ns(one.found.best.makespan_ns) for one in (kept, first))
    measured = _compared(name, heats)
    return (
        f"Refined in {rounds} round{'s' * (rounds != 1)}: kept is {origin}, predicted at {now} by times "
        f"in place (the first at {before} by kernels alone)."
        f"{f' Measured in turn: {measured}.' if measured else ''}"
    )


def _compared(name: str, heats: dict[str, tuple[float, ...]]) -> str:
    """Return what was measured of a build, and of others in the heats that they ran together."""
    mine = np.array(heats[name])
    if not len(mine):
        return ""
    ratios = {
        other: float(np.median(np.array(ns) / mine[: len(ns)]))
        for other, ns in heats.items()
        if other != name and ns
    }
    others = ", ".join(f"{other} {ratio:.2f} times as long" for other, ratio in ratios.items())
    return f"{format_ns(round(np.median(mine)))}{f'; {others}' if others else ''}"


def _is_for_lanes(build: Build) -> bool:
    return isinstance(build.program, LaneProgramFile)


def _is_alike(first: Schedule, second: Schedule) -> bool:
    """Whether two schedules run the same tasks on each device in the same order."""
    return bool((first.device == second.device).all()) and first.order == second.order


def _best_listed(decided: Decided) -> SearchResult | None:
    """Return the best schedule of the list schedulers, None where limits leave no choice."""
    if not decided.may_be_single:
        return None
    found = [search_schedule(decided.problem, algorithm=kind) for kind in KINDS]
    return min(found, key=lambda one: one.best.makespan_ns)


def _executable(build: Build) -> Any:
    assert isinstance(build.program, LaneProgramFile)
    return build.program.executable


def _trace(field: dict[str, Build], inputs: Sequence[Any]) -> dict[str, list[Trace]]:
    """Return traces of each of some builds, made in turn."""
    running = {name: _executable(one) for name, one in field.items()}
    traces: dict[str, list[Trace]] = {name: [] for name in running}
    end_s = time.monotonic() + _TRACE_S * len(running)
    for count in range(_TRACES):
        if count >= _LEAST_TRACES and time.monotonic() >= end_s:
            break
        for name, executable in running.items():
            # Reading a trace took the caches, and the memory of results is new.
            traces[name].append(executable.run_traced(inputs, warm_runs=2)[1])
    return traces


def _makespan_ns(decided: Decided, build: Build) -> int:
    """Return what a build's schedule takes by the costs of a decision."""
    best = build.found.best
    alone = len(np.unique(best.device)) <= 1
    problem = decided.alone if alone else decided.problem
    return replay_schedule(problem, best.device, best.order).makespan_ns


def _with_times(
    kept: Build, decided: Decided, is_single: bool, build: Callable[[SearchResult], Build]
) -> tuple[Build, Decided]:
    """Return a build whose schedule has the times of a decision's costs, and the decision with it."""
    best = kept.found.best
    problem = decided.alone if is_single else decided.problem
    played = replay_schedule(problem, best.device, best.order)
    bound_ns = min(decided.searched.best.lower_bound_ns, played.makespan_ns)
    found = replace(kept.found, best=played.with_lower_bound(bound_ns))
    if is_single:
        decided = replace(decided, single=found)
    if played.order != best.order:  # tasks of unlike devices begin in another order: so do the steps
        return replace(build(found), note=kept.note), decided
    program = kept.program
    assert isinstance(program, LaneProgramFile)
    image = replace(program.image, schedule=found.best)
    return Build(found, LaneProgramFile(image), kept.note), decided


def _race(
    field: dict[str, Build], inputs: Sequence[Any], end_s: float, traces: dict[str, list[Trace]]
) -> tuple[str, dict[str, tuple[float, ...]]]:
    """Return the name of the build to keep, and the medians of each in the heats that it ran.

    A trace of each heat joins those that are known, which were made within a moment: machines are slower
    for a while.
    """
    running = {name: _executable(one) for name, one in field.items()}
    heats: dict[str, list[float]] = {name: [] for name in field}
    count = runs_per_round(running.values(), inputs)
    done = 0
    while len(running) > 1 and done < (_FINAL_HEATS if len(running) <= 2 else _HEATS):
        names = list(running)
        for name in names[done % len(names) :] + names[: done % len(names)]:
            heats[name].append(float(np.median(running[name].durations_ns(inputs, count))))
            traces[name].append(running[name].run_traced(inputs, warm_runs=1)[1])
        done += 1
        if done >= _LEAST_TRACES and time.monotonic() >= end_s:
            break
        if done == _HEATS and len(running) > 2:
            ranked = sorted(names, key=lambda name: float(np.median(heats[name])))
            running = {name: running[name] for name in ranked[: max(2, len(ranked) // 2)]}
            done = 0
    return _simplest(field, {name: np.array(heats[name]) for name in running}), {
        name: tuple(values) for name, values in heats.items()
    }


def _simplest(field: dict[str, Build], heats: dict[str, npt.NDArray[np.float64]]) -> str:
    """Return the fastest, or one on fewer devices that it is not clearly ahead of."""
    if len(heats) == 1:
        return next(iter(heats))
    last = min(len(values) for values in heats.values())
    fastest = min(heats, key=lambda name: float(np.median(heats[name][-last:])))

    def spread(name: str) -> int:
        return len(np.unique(field[name].found.best.device))

    simpler = [
        name
        for name in heats
        if spread(name) < spread(fastest)
        and np.quantile(heats[name][-last:] / heats[fastest][-last:], 0.25) <= 1.0
    ]
    return (
        min(simpler, key=lambda name: (spread(name), float(np.median(heats[name]))))
        if simpler
        else fastest
    )


@dataclass(frozen=True)
class Settled:
    """The build that is to run, that for the best single device if there is one, and their grounds."""

    kept: Build
    reference: Build | None
    decided: Decided
    costs: Costing


def settle(
    first: Build,
    decided: Decided,
    costs: Costing,
    graph: TaskGraph,
    platform: Platform,
    interface: Interface,
    asked: CompileOptions,
    records: RecordStore,
    *,
    decide: Callable[[Costing], Decided],
    build: Callable[[SearchResult], Build],
    clock: StageClock,
) -> Settled:
    """Return what is to run: after a race with the best single device, or after closing the loop."""

    def race(*, may_be_single: bool) -> tuple[Build, Build | None]:
        return race_with_single(
            first,
            decided.single if asked.with_reference else None,
            build,
            platform,
            interface.inputs,
            clock,
            asked.progress,
            rivals=decided.rivals,
            may_be_single=may_be_single,
        )

    if not asked.refine_s or not decided.may_be_single:
        kept, reference = race(may_be_single=decided.may_be_single)
        if reference is not None:
            decided = replace(decided, single=reference.found)
        return Settled(kept, reference, decided, costs)
    _, reference = race(may_be_single=False)  # builds it
    if reference is None:
        return Settled(first, None, decided, costs)
    with clock("refine"):
        found = refine(
            first,
            reference,
            decided,
            costs,
            graph,
            platform,
            list(random_inputs(interface.inputs).values()),
            decide=decide,
            build=build,
            limit_s=asked.refine_s,
            records=records,
            progress=asked.progress,
        )
    if found is None:
        return Settled(first, reference, decided, costs)
    return Settled(found.kept, reference, found.decided, found.costs)
