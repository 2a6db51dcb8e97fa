"""Chains of tasks that no schedule gains anything from splitting over devices."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import permutations

import numpy as np

from ..scheduling.problem import CANNOT_RUN, NO_GROUP, UNLIMITED, Int64Array, SchedulingProblem
from ..search.bounds import heads_and_tails_ns
from ..search.series import cut_tasks

_FAR = np.iinfo(np.int64).max // 4


def serial_units(problem: SchedulingProblem) -> list[list[int]]:
    """Return chains of tasks, each of which some optimal schedule keeps on one device.

    **Serial tasks.** Call a task *serial* if each other task is its ancestor or its descendant. Two
    serial tasks that are neighbours in topological order are joined by an edge, and while they run,
    every other task has finished or cannot have begun. A unit is a chain ``t_1 .. t_m`` of such
    neighbours; the task ``v`` after it joins if, for all devices a != b that can run the unit and
    ``v``, one of the two moves below is *free*, that is, it can be made in any schedule that has the
    unit on a and ``v`` on b without changing any other task and without a larger makespan.

    Write s, f for starts and finishes before a move and s', f' after it, E for execution times,
    c_e[p, d] for the copy on edge e from device p to d, and c = c_(m,v)[a, b] for the copy saved.

    *Move a block from device x to y.* The block is ``v`` alone (from b to a) or the whole unit (from
    a to b). Give its tasks, in order, the earliest starts that their inputs allow, the first one no
    start before the block's predecessors have finished. By induction along the block,
    s'_k <= s_k + D_k and f'_k <= f_k + F_k with F_k = D_k + E[k, y] - E[k, x], where D_k is the
    largest of

    - F_(k-1), as s_k >= f_(k-1); for the first task 0 if the unit moves (tasks outside have finished
      by s_1) and -c if ``v`` moves (s_v >= f_m + c, and then nothing runs but the unit);
    - c_e[p, y] - c_e[p, x] for each edge e from outside the unit and each device p of its producer,
      since s_k >= f_producer + c_e[p, x]; this is left out if the producer also feeds an earlier
      task of the unit over an edge that costs at least as much, for then the data are on y by the
      start of that task;
    - release[k, y] - release[k, x] where release[k, y] > 0.

    *The move is free if nobody notices.* If the unit moves: F_m <= c, so that ``v``, which needs no
    copy now, can start as before. For each reader z outside, on any device q: z gets its data no later
    if F_k + c_e[y, q] - c_e[x, q] <= 0; or, as z comes after ``v`` and f'_k <= f'_m <= s_v - c + F_m, if
    F_m - c + c_e[y, q] <= E[v, b]. For each output, with delivery times in place of copies, the same
    holds. The cores of y are free: all other tasks finish before the block begins, or begin after one
    of its direct readers begins, which is not before f'. So nothing else moves, the makespan does not
    grow, and the unit and ``v`` share a device.

    Moves change tasks of one unit only. Making them from the first unit to the last, and in each from
    the first task to the last, turns any schedule, an optimal one too, into one that splits no unit.

    Devices that share cores need no care here, since nothing runs beside a serial task. Colocated
    tasks join no unit, and with a memory capacity there are no units: a move could break either.

    Returns
    -------
    Lists of at least two task ids, ascending.
    """
    if (problem.memory_bytes != UNLIMITED).any():
        return []
    edges = _Edges(problem)
    units: list[list[int]] = []
    for run in _serial_runs(problem):
        unit: _Unit | None = None
        for task in run:
            if unit is None or not unit.joins(task):
                unit = _Unit(problem, edges)
                units.append(unit.members)
            unit.add(task)
    return [unit for unit in units if len(unit) > 1]


def bounded_units(problem: SchedulingProblem, upper_bound_ns: int) -> list[list[int]]:
    """Return sets of tasks that every schedule shorter than the given bound keeps on one device each.

    Take an edge (u, v). A schedule with u on a and v on b != a takes at least
    head(u, a) + E[u, a] + copy[a, b] + E[v, b] + tail(v, b), where head and tail are lower bounds on
    what goes before and after (`heads_and_tails_ns`). If that is not
    below ``upper_bound_ns`` for any a != b, only schedules that are no better than the bound split the
    edge. This holds for all such edges at once: a set that they connect is split by no schedule below
    the bound. Any graph, memory capacity and colocation are allowed: they only take schedules away.

    Parameters
    ----------
    problem
        The problem.
    upper_bound_ns
        Makespan of a schedule that is at hand, and kept if nothing better is found.

    Returns
    -------
    Lists of at least two task ids, ascending.
    """
    parent = list(range(problem.num_tasks))

    def find(task: int) -> int:
        while parent[task] != task:
            parent[task] = parent[parent[task]]
            task = parent[task]
        return task

    head, tail = heads_and_tails_ns(problem)
    done = _padded(problem, head + problem.exec_ns)
    left = _padded(problem, tail + problem.exec_ns)
    if problem.num_edges:
        src, dst = problem.edges.T
        through = done[src][:, :, None] + problem.copy_ns[problem.copy_class] + left[dst][:, None, :]
        devices = np.arange(problem.num_devices)
        through[:, devices, devices] = _FAR
        useless = through.min(axis=(1, 2)) >= upper_bound_ns
        for one, other in problem.edges[useless].tolist():
            first, second = sorted((find(one), find(other)))
            parent[second] = first
    members: dict[int, list[int]] = {}
    for task in range(problem.num_tasks):
        members.setdefault(find(task), []).append(task)
    return [tasks for tasks in members.values() if len(tasks) > 1]


def _padded(problem: SchedulingProblem, times: Int64Array) -> Int64Array:
    padded: Int64Array = np.where(problem.exec_ns == CANNOT_RUN, _FAR // 4, times)
    return padded


def _serial_runs(problem: SchedulingProblem) -> list[list[int]]:
    """Return maximal runs of neighbouring serial tasks."""
    runs: list[list[int]] = []
    for task in cut_tasks(problem):
        if runs and runs[-1][-1] == task - 1:
            runs[-1].append(task)
        else:
            runs.append([task])
    return runs


@dataclass(frozen=True)
class _Edge:
    """An edge as seen from one of its ends: the task at the other end, copy class and times (D, D)."""

    other: int
    copy_class: int
    copy_ns: Int64Array


class _Edges:
    """The edges into and out of each task, and what holds for all edges of one class.

    Differences of copies are looked up per edge and pair of devices but depend only on the class and on
    where the other task can run, so each is computed once.
    """

    def __init__(self, problem: SchedulingProblem) -> None:
        self.entering: list[list[_Edge]] = [[] for _ in range(problem.num_tasks)]
        self.leaving: list[list[_Edge]] = [[] for _ in range(problem.num_tasks)]
        classes = problem.copy_class.tolist()
        tables = list(problem.copy_ns)
        for (src, dst), row in zip(problem.edges.tolist(), classes, strict=True):
            self.entering[dst].append(_Edge(src, row, tables[row]))
            self.leaving[src].append(_Edge(dst, row, tables[row]))
        self.can_run = problem.exec_ns != CANNOT_RUN
        self._devices = [row.tobytes() for row in self.can_run]
        self._known: dict[tuple[object, ...], int] = {}

    def later_ns(self, edge: _Edge, new: int, old: int) -> int:
        """Return how much longer the copy to the other task takes from the new device, at worst."""
        key = ("later", edge.copy_class, self._devices[edge.other], new, old)
        if key not in self._known:
            difference = edge.copy_ns[new] - edge.copy_ns[old]
            self._known[key] = int(difference[self.can_run[edge.other]].max())
        return self._known[key]

    def longest_ns(self, edge: _Edge, new: int) -> int:
        """Return the longest copy to the other task from the new device."""
        key = ("longest", edge.copy_class, self._devices[edge.other], new)
        if key not in self._known:
            self._known[key] = int(edge.copy_ns[new][self.can_run[edge.other]].max())
        return self._known[key]

    def later_from_ns(self, edge: _Edge, new: int, old: int) -> int:
        """Return how much longer the copy from the other task takes to the new device, at worst."""
        key = ("later from", edge.copy_class, self._devices[edge.other], new, old)
        if key not in self._known:
            difference = edge.copy_ns[:, new] - edge.copy_ns[:, old]
            self._known[key] = int(difference[self.can_run[edge.other]].max())
        return self._known[key]


@dataclass
class _Shift:
    """What moving the unit as a whole from one device to another would do.

    ``late`` is F of its last task. ``waiting`` has the readers (N for a delivery) that would get their
    data later than before, each with the longest copy to it.
    """

    late: int = 0
    waiting: list[tuple[int, int]] = field(default_factory=list)


class _Unit:
    """A unit while it grows; decides by the conditions of `serial_units` which task joins it."""

    def __init__(self, problem: SchedulingProblem, edges: _Edges) -> None:
        self.problem = problem
        self.edges = edges
        self.can_run = edges.can_run
        self.members: list[int] = []
        self.devices: list[int] = list(range(problem.num_devices))
        # Copy times of the edges from outside into the unit, by producer.
        self.fed: dict[int, list[Int64Array]] = {}
        self.shifts: dict[tuple[int, int], _Shift] = {}

    def joins(self, task: int) -> bool:
        """Return whether, for each pair of devices, the unit or the task moves for free."""
        groups = self.problem.colocation
        on = np.flatnonzero(self.can_run[task]).tolist()
        if groups[task] != NO_GROUP or groups[self.members[0]] != NO_GROUP:
            return False
        return not set(on).isdisjoint(self.devices) and all(
            (b in self.devices and self._unit_can_move(task, a, b))
            or (a in on and self._task_can_move(task, a, b))
            for a in self.devices
            for b in on
            if a != b
        )

    def add(self, task: int) -> None:
        """Append a task."""
        self.devices = [device for device in self.devices if self.can_run[task, device]]
        for a, b in permutations(self.devices, 2):
            shift = self.shifts.setdefault((a, b), _Shift())
            late = self._late(task, a, b, floor=shift.late)
            waiting = [(reader, longest) for reader, longest in shift.waiting if reader > task]
            for edge in self.edges.leaving[task]:
                if late + self.edges.later_ns(edge, b, a) > 0:
                    waiting.append((edge.other, self.edges.longest_ns(edge, b)))
            if self.problem.delivery_ns[task, b] and late + self._delivery(task, a, b) > 0:
                waiting.append((self.problem.num_tasks, int(self.problem.delivery_ns[task, b])))
            self.shifts[a, b] = _Shift(late, waiting)
        for edge in self.edges.entering[task]:
            self.fed.setdefault(edge.other, []).append(edge.copy_ns)
        self.members.append(task)

    def _task_can_move(self, task: int, a: int, b: int) -> bool:
        """Whether ``task`` moves for free from b to a, where the unit is."""
        late = self._late(task, b, a, floor=-self._saved(task, a, b))
        readers = self.edges.leaving[task]
        undelivered = late + self._delivery(task, b, a) > 0
        if undelivered and (not readers or self.problem.delivery_ns[task, a] > 0):
            return False
        return all(late + self.edges.later_ns(edge, a, b) <= 0 for edge in readers)

    def _unit_can_move(self, task: int, a: int, b: int) -> bool:
        """Whether the unit moves for free from a to b, where ``task`` is."""
        shift = self.shifts[a, b]
        late = shift.late - self._saved(task, a, b)
        duration = int(self.problem.exec_ns[task, b])
        return late <= 0 and all(
            late + longest <= duration for reader, longest in shift.waiting if reader != task
        )

    def _saved(self, task: int, a: int, b: int) -> int:
        """Return the copy that is saved if ``task``, on b, joins the unit on a or the other way."""
        last = self.members[-1]
        copies = (edge.copy_ns[a, b] for edge in self.edges.entering[task] if edge.other == last)
        return int(next(copies))

    def _late(self, task: int, x: int, y: int, *, floor: int) -> int:
        """Return F of a task that moves from x to y, where the unit before it is."""
        delay = floor
        for edge in self.edges.entering[task]:
            into_y = edge.copy_ns[:, y]
            inside = bool(self.members) and edge.other >= self.members[0]
            if inside or any((known[:, y] >= into_y).all() for known in self.fed.get(edge.other, ())):
                continue
            delay = max(delay, self.edges.later_from_ns(edge, y, x))
        release, exec_ns = self.problem.release_ns[task], self.problem.exec_ns[task]
        if release[y] > 0:
            delay = max(delay, int(release[y] - release[x]))
        return delay + int(exec_ns[y] - exec_ns[x])

    def _delivery(self, task: int, x: int, y: int) -> int:
        return int(self.problem.delivery_ns[task, y] - self.problem.delivery_ns[task, x])
