"""From costs to the schedule that is to be built, and the grounds for it. [TVM]"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .._tvm import tvm
from ..cost.choose.costing import Costing
from ..cost.table import build_problem
from ..platform import Platform
from ..platform.device import CostClass
from ..platform.machine import machine_id
from ..report.decision import Decision
from ..report.text import format_ns
from ..scheduling.graph import TaskGraph
from ..scheduling.problem import CANNOT_RUN, SchedulingProblem, without_memory_limits
from ..scheduling.replay import replay_schedule
from ..scheduling.schedule import Schedule, violations
from ..scheduling.schedule_file import read_schedule
from ..search import SearchResult, search_schedule
from ..search.alternatives import weigh_alternatives
from ..search.bounds import lower_bound_ns
from .compare_builds import choose_promising
from .options import CompileOptions, naming_fixed_schedule

#: Other single devices that are predicted to take less than this many times as long as the best one are
#: raced against it, `MOST_RIVALS` at most.
NEAR = 1.15
MOST_RIVALS = 2


@dataclass(frozen=True)
class Decided:
    """What is to be built.

    ``found`` is the schedule, ``single`` that of the best single device, whatever pins there are, and
    ``rivals`` those of devices of other classes that are predicted to be nearly as fast, the fastest
    first. ``alone`` and ``alone_limited`` are the problem with the times of a device that works alone,
    without and with pins. ``may_be_single`` tells whether the limits allow that in place of ``found``.
    """

    problem: SchedulingProblem
    alone: SchedulingProblem
    alone_limited: SchedulingProblem
    found: SearchResult
    searched: SearchResult
    single: SearchResult
    rivals: tuple[SearchResult, ...]
    may_be_single: bool
    note: str
    free_ns: int | None


def decide_schedule(
    graph: TaskGraph, platform: Platform, costs: Costing, asked: CompileOptions
) -> Decided:
    """Return the schedule to build: that of a search, of the best single device, or a given one.

    Raises
    ------
    SphinxError
        If a pin names no task or no device, or a fixed schedule does not fit.
    """
    free = build_problem(graph, platform, costs.table)
    problem = asked.constrain(free, graph)
    # A device that works alone is not slowed by others: its times are those that were measured.
    alone = build_problem(graph, platform, costs.table, loaded=False)
    single, fits = best_single_device(alone)
    searched = find_schedule(problem, asked)
    limited = asked.constrain(alone, graph)
    may_be_single = asked.fixed_schedule is None and _is_valid(limited, single.best)
    rivals = near_single_devices(limited, platform, single) if fits and may_be_single else ()
    found, note = choose_promising(searched, single) if may_be_single else (searched, "")
    free_ns = None
    if asked.pins or asked.fixed_schedule is not None or asked.memory_bytes:
        free_asked = replace(asked, fixed_schedule=None, output=None)
        roomy = without_memory_limits(free) if asked.memory_bytes else free
        free_ns = find_schedule(roomy, free_asked).best.makespan_ns
        if _is_valid(without_memory_limits(alone) if asked.memory_bytes else alone, single.best):
            free_ns = min(free_ns, single.best.makespan_ns)
        note = note or _price(found.best.makespan_ns, free_ns, asked)
    if not fits:
        name = platform.devices[int(single.best.device[0])].name
        note = f"No single device has the memory for all of the model; {name} would be the best. {note}"
    note = note.rstrip()
    return Decided(
        problem, alone, limited, found, searched, single, rivals, may_be_single, note, free_ns
    )


def best_single_device(problem: SchedulingProblem) -> tuple[SearchResult, bool]:
    """Return the schedule of the best device that has the memory for all tasks, and True.

    Where none has, that of the best device if it had, and False.

    Raises
    ------
    ProblemError
        If no device can run all tasks.
    """
    roomy = without_memory_limits(problem)
    first = best = search_schedule(roomy, algorithm="single")
    exec_ns = roomy.exec_ns.copy()
    while problem.num_tasks and not _is_valid(problem, best.best):
        exec_ns[:, int(best.best.device[0])] = CANNOT_RUN
        if (exec_ns == CANNOT_RUN).any(axis=0).all():
            return first, False
        best = search_schedule(replace(roomy, exec_ns=exec_ns), algorithm="single")
    return best, True


def near_single_devices(
    problem: SchedulingProblem, platform: Platform, best: SearchResult
) -> tuple[SearchResult, ...]:
    """Return the schedules of single devices that are nearly as good as the best, the shortest first.

    One of each class of devices but that of the best, as far as it can run all tasks and has the memory,
    and is predicted to take less than `NEAR` times as long; at most `MOST_RIVALS`.
    """
    if not problem.num_tasks:
        return ()
    of_best = platform.devices[int(best.best.device[0])].cost_class
    can_run = (problem.exec_ns != CANNOT_RUN).all(axis=0)
    columns: dict[CostClass, list[int]] = {}
    for column, device in enumerate(platform.devices):
        if device.cost_class != of_best and can_run[column]:
            columns.setdefault(device.cost_class, []).append(column)
    near = []
    for chosen in columns.values():
        exec_ns = np.full_like(problem.exec_ns, CANNOT_RUN)
        exec_ns[:, chosen] = problem.exec_ns[:, chosen]
        found = search_schedule(
            without_memory_limits(replace(problem, exec_ns=exec_ns)), algorithm="single"
        )
        if found.best.makespan_ns < NEAR * best.best.makespan_ns and _is_valid(problem, found.best):
            # A schedule of the whole problem: what bounds the best bounds this one.
            told = replace(
                found.best,
                problem_fingerprint=best.best.problem_fingerprint,
                lower_bound_ns=best.best.lower_bound_ns,
            )
            near.append(replace(found, best=told))
    return tuple(sorted(near, key=lambda one: one.best.makespan_ns)[:MOST_RIVALS])


def _is_valid(problem: SchedulingProblem, schedule: Schedule) -> bool:
    """Return whether a schedule of a problem like this one is one of this problem, too."""
    return not any(violations(problem, replace(schedule, problem_fingerprint=problem.fingerprint)))


def find_schedule(problem: SchedulingProblem, asked: CompileOptions) -> SearchResult:
    """Return the best schedule that a search finds: the one door from a compilation to a search."""
    if asked.fixed_schedule is not None:
        return _fixed_schedule(problem, asked)
    return search_schedule(
        problem, algorithm=asked.algorithm, seed=asked.seed, stop=asked.stop, prune=asked.prune
    )


def _fixed_schedule(problem: SchedulingProblem, asked: CompileOptions) -> SearchResult:
    """Return a given schedule with the times of the costs at hand."""
    given = asked.fixed_schedule
    schedule = given if isinstance(given, Schedule) else read_schedule(str(given), problem)
    with naming_fixed_schedule():
        played = replay_schedule(problem, schedule.device, schedule.order)
    best = played.with_lower_bound(lower_bound_ns(problem))
    return SearchResult(best, "fixed", asked.seed, (), 1, 0.0, "fixed")


def _price(bound_ns: int, free_ns: int, asked: CompileOptions) -> str:
    """Return what pins, limits of memory or a fixed schedule cost, by the predicted times."""
    if not asked.pins and asked.fixed_schedule is None and bound_ns <= free_ns:
        return ""  # there is memory enough
    limits = ["pins"] * bool(asked.pins) + ["limits of memory"] * bool(asked.memory_bytes)
    given = "fixed schedule" if asked.fixed_schedule is not None else " and ".join(limits)
    what = f"With the {given}"
    ratio = bound_ns / free_ns if free_ns else 1.0
    return (
        f"{what} the schedule is predicted at {format_ns(bound_ns)}, without at {format_ns(free_ns)}: "
        f"{ratio:.2f} times as long."
    )


def record_decision(
    decided: Decided,
    kept: SearchResult,
    graph: TaskGraph,
    platform: Platform,
    costs: Costing,
    asked: CompileOptions,
) -> Decision:
    """Return the grounds of the schedule that was kept, for `tvm-sphinx explain`."""
    is_alone = kept is decided.single
    table = costs.table
    problem = decided.alone_limited if is_alone else decided.problem
    origins = tuple(
        tuple(costs.summary.origin(task.kernel, device) for device in platform.devices)
        for task in graph.tasks
    )
    return Decision(
        problem=problem,
        schedule=replace(kept.best, problem_fingerprint=problem.fingerprint),
        exec_ns=table.exec_ns if is_alone else table.loaded_ns,
        spread_ns=table.spread_ns,
        measured=table.measured,
        origins=origins,
        weighed={
            **weigh_alternatives(decided.problem, decided.alone),
            decided.searched.algorithm: decided.searched.best.makespan_ns,
        },
        algorithm=kept.algorithm,
        stop_reason=kept.stop_reason,
        pins=tuple(map(str, asked.pins)),
        free_ns=decided.free_ns,
        measured_at=costs.measured_at,
        machine=machine_id(),
        tvm=str(tvm.__version__),
    )
