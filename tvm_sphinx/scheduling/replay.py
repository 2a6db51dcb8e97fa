"""Play given places and a given order again: each task as early as it can be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import ProblemError
from .problem import CANNOT_RUN, Int64Array, SchedulingProblem
from .schedule import Schedule

# Placements that are played at once: their times stay within the caches.
_BLOCK = 256


class _Played(NamedTuple):
    start_ns: Int64Array
    finish_ns: Int64Array
    makespan_ns: Int64Array


def replay_schedule(problem: SchedulingProblem, device: Int64Array, order: Sequence[int]) -> Schedule:
    """Return the schedule with these devices, and this order on every core.

    Parameters
    ----------
    device : (N,) int64
        Device of each task.
    order
        All tasks, each after those that it reads.

    Raises
    ------
    ProblemError
        If a task cannot run on its device, or stands before one that it reads.
    """
    place = np.asarray(device, dtype=np.int64)
    _check(problem, place, order)
    played = _play(problem, place[:, None], order)
    start, finish = played.start_ns[:, 0], played.finish_ns[:, 0]
    return Schedule(place, start, finish, int(played.makespan_ns[0]), 0, problem.fingerprint)


def moved_makespans_ns(problem: SchedulingProblem, schedule: Schedule) -> Int64Array:
    """Return the makespan with one task alone moved to a device, everything in its order.

    Returns
    -------
    (N, D) int64
        ns; `CANNOT_RUN` where the task cannot run on the device.
    """
    num_tasks, num_devices = problem.exec_ns.shape
    order = schedule.order
    result = np.full((num_tasks, num_devices), CANNOT_RUN, dtype=np.int64)
    moves = np.argwhere(problem.exec_ns != CANNOT_RUN)
    for begin in range(0, len(moves), _BLOCK):
        task, device = moves[begin : begin + _BLOCK].T
        places = np.repeat(schedule.device[:, None], len(task), axis=1)
        places[task, np.arange(len(task))] = device
        result[task, device] = _play(problem, places, order).makespan_ns
    return result


def check_places(place: Int64Array, order: Sequence[int], num_tasks: int, num_devices: int) -> None:
    """Check that there is a device for each task, and an order of all.

    Raises
    ------
    ProblemError
        If there is not.
    """
    if place.shape != (num_tasks,) or sorted(order) != list(range(num_tasks)):
        raise ProblemError(
            f"Expected places and an order of {num_tasks} tasks; got {len(place)} places."
        )
    if place.size and not 0 <= place.min() <= place.max() < num_devices:
        raise ProblemError(f"Expected devices 0..{num_devices - 1}; got {place.max()}.")


def _check(problem: SchedulingProblem, place: Int64Array, order: Sequence[int]) -> None:
    check_places(place, order, problem.num_tasks, problem.num_devices)
    times = problem.exec_ns[np.arange(problem.num_tasks), place]
    for task in np.flatnonzero(times == CANNOT_RUN).tolist():
        can = [n for n, t in zip(problem.devices, problem.exec_ns[task], strict=True) if t >= 0]
        raise ProblemError(
            f"Task {task} cannot run on {problem.devices[place[task]]!r}, by its kernel or by a pin; it "
            f"can on: {', '.join(can)}."
        )
    rank = np.empty(problem.num_tasks, dtype=np.int64)
    rank[list(order)] = np.arange(problem.num_tasks)
    for src, dst in problem.edges.tolist():
        if rank[src] > rank[dst]:
            raise ProblemError(f"Expected task {src} before task {dst}, which reads it.")


def _play(problem: SchedulingProblem, places: Int64Array, order: Sequence[int]) -> _Played:
    """Play V placements, shape (N, V), side by side."""
    start = np.zeros(places.shape, dtype=np.int64)
    finish = np.zeros_like(start)
    uses = _device_uses(problem)
    free = np.zeros((uses.shape[0], places.shape[1]), dtype=np.int64)
    incoming: list[list[tuple[int, int]]] = [[] for _ in range(problem.num_tasks)]
    for (src, dst), row in zip(problem.edges.tolist(), problem.copy_class.tolist(), strict=True):
        incoming[dst].append((src, row))
    for task in order:
        here = places[task]
        length = problem.exec_ns[task, here]
        begin = problem.release_ns[task, here]
        for src, row in incoming[task]:
            arrival = finish[src] + problem.copy_ns[row, places[src], here]
            begin = np.maximum(begin, arrival)
        # A task of no duration needs no core.
        taken = uses[:, here] & (length > 0)
        begin = np.maximum(begin, (free * taken).max(axis=0, initial=0))
        start[task], finish[task] = begin, begin + length
        free = np.where(taken, finish[task], free)
    delivered = finish + problem.delivery_ns[np.arange(problem.num_tasks)[:, None], places]
    return _Played(start, finish, delivered.max(axis=0, initial=0))


def _device_uses(problem: SchedulingProblem) -> npt.NDArray[np.bool_]:
    """Return which exclusive resources each device occupies, shape (R, D)."""
    groups = problem.core_groups
    uses = np.zeros((1 + max(max(group) for group in groups), problem.num_devices), dtype=np.bool_)
    for device, group in enumerate(groups):
        uses[list(group), device] = True
    return uses
