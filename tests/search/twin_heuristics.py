"""HEFT, CPOP, PEFT and the rest in plain Python, from their papers: the oracle of the native ones."""

from __future__ import annotations

import numpy as np

from tvm_sphinx.scheduling.problem import CANNOT_RUN, NO_GROUP, SchedulingProblem

Kind = str | int


def split_mean(values: list[int]) -> int:
    """Return the mean as the native core rounds it: whole parts and remainders apart."""
    count = len(values)
    return sum(v // count for v in values) + sum(v % count for v in values) // count if count else 0


class Sets:
    """Tasks that must share a device, every other task by itself, and where each set can run."""

    def __init__(self, problem: SchedulingProblem) -> None:
        found: dict[tuple[str, int], list[int]] = {}
        for task, group in enumerate(problem.colocation.tolist()):
            found.setdefault(("task", task) if group == NO_GROUP else ("group", group), []).append(task)
        self.members = list(found.values())
        number = {task: index for index, tasks in enumerate(self.members) for task in tasks}
        self.of_task = [number[task] for task in range(problem.num_tasks)]
        can_run = problem.exec_ns != CANNOT_RUN
        self.choices = [np.flatnonzero(can_run[tasks].all(axis=0)).tolist() for tasks in self.members]


class Machine:
    """When each resource is busy; closed idle intervals of positive length hold tasks."""

    def __init__(self, problem: SchedulingProblem) -> None:
        self.groups = problem.core_groups
        self.busy: list[list[tuple[int, int]]] = [
            [] for _ in range(1 + max(max(g) for g in self.groups))
        ]

    def find(self, device: int, ready: int, length: int) -> int:
        ends = [end for r in self.groups[device] for _, end in self.busy[r]]
        for start in sorted({ready, *(end for end in ends if end >= ready)}):
            if all(self.is_idle(r, start, length) for r in self.groups[device]):
                return start
        raise AssertionError("after the last task every device is idle")

    def is_idle(self, resource: int, start: int, length: int) -> bool:
        before = [(b, e) for b, e in self.busy[resource] if b < e]
        if any(b < start + length and start < e for b, e in before):
            return False
        # A task of length 0 takes no time, but no other task runs across it.
        if any(start < b < start + length for b, e in self.busy[resource] if b == e):
            return False
        # No time at all between two tasks is not an interval that could hold one of length 0.
        touching = any(e == start for _, e in before) and any(b == start + length for b, _ in before)
        return length > 0 or not touching

    def take(self, device: int, start: int, length: int) -> None:
        for r in self.groups[device]:
            self.busy[r].append((start, start + length))


def run_heuristic(
    problem: SchedulingProblem, kind: Kind
) -> tuple[list[int], list[int], list[int]] | None:
    """Return order, device and finish; an integer kind means: all on that device."""
    n, num_devices = problem.num_tasks, problem.num_devices
    execs, copy = problem.exec_ns.tolist(), problem.copy_ns.tolist()
    if isinstance(kind, int) and any(row[kind] == CANNOT_RUN for row in execs):
        return None
    sets = Sets(problem)
    set_of, choices = sets.of_task, sets.choices
    preds: list[list[tuple[int, int]]] = [[] for _ in range(n)]
    succs: list[list[tuple[int, int]]] = [[] for _ in range(n)]
    for (src, dst), row in zip(problem.edges.tolist(), problem.copy_class.tolist(), strict=True):
        preds[dst].append((src, row))
        succs[src].append((dst, row))
    scale = 2 ** _shift(problem)
    mean = [split_mean([e * scale for e in row if e != CANNOT_RUN]) for row in execs]
    pairs = [(a, b) for a in range(num_devices) for b in range(num_devices)]
    num_pairs = num_devices * (num_devices - 1)

    def mean_copy(row: int, factor: int) -> int:
        if not num_pairs:
            return 0
        values = [copy[row][a][b] * factor for a, b in pairs]
        return sum(v // num_pairs for v in values) + sum(v % num_pairs for v in values) // num_pairs

    up, down = [0] * n, [0] * n
    for t in reversed(range(n)):
        up[t] = mean[t] + max([mean_copy(row, scale) + up[s] for s, row in succs[t]], default=0)
    for t in range(n):
        paths = [down[p] + mean[p] + mean_copy(row, scale) for p, row in preds[t]]
        down[t] = max(paths, default=0)
    priority, forced, bias = up, [-1] * n, np.zeros((n, num_devices), dtype=object)
    if isinstance(kind, int):
        forced = [kind] * n
    elif kind == "fastest":
        for tasks, allowed in zip(sets.members, choices, strict=True):
            sums = [(sum(execs[t][d] for t in tasks), d) for d in allowed]
            for t in tasks:
                forced[t] = min(sums)[1]
    elif kind == "cpop":
        priority = [u + d for u, d in zip(up, down, strict=True)]
        _force_critical_path(problem, priority, preds, succs, forced, set_of, choices)
    elif kind == "peft":
        for t in reversed(range(n)):
            for d in range(num_devices):
                bias[t, d] = max(
                    (
                        min(
                            bias[s, w] + execs[s][w] + (0 if w == d else mean_copy(row, 1))
                            for w in range(num_devices)
                            if execs[s][w] != CANNOT_RUN
                        )
                        for s, row in succs[t]
                    ),
                    default=0,
                )
        priority = [
            split_mean([bias[t, d] * scale for d in range(num_devices) if execs[t][d] != CANNOT_RUN])
            for t in range(n)
        ]
    machine, finish, device, order = Machine(problem), [0] * n, [0] * n, []
    placed: set[int] = set()
    while len(order) < n:
        ready = [t for t in range(n) if t not in placed and all(p in placed for p, _ in preds[t])]
        task = min(ready, key=lambda t: (-priority[t], t))
        options = []
        own = set_of[task]
        for d in [forced[task]] if forced[task] >= 0 else choices[own]:
            arrivals = [finish[p] + copy[row][device[p]][d] for p, row in preds[task]]
            start = machine.find(d, max([int(problem.release_ns[task, d]), *arrivals]), execs[task][d])
            end = start + execs[task][d]
            options.append((end + int(problem.delivery_ns[task, d]) + bias[task, d], d, start))
        _, on, start = min(options)
        machine.take(on, start, execs[task][on])
        for t in sets.members[own]:
            forced[t] = on
        device[task], finish[task] = on, start + execs[task][on]
        order.append(task)
        placed.add(task)
    return order, device, finish


def _shift(problem: SchedulingProblem) -> int:
    total = int(np.maximum(problem.exec_ns.max(axis=1, initial=0), 0).sum())
    total += int(problem.release_ns.max(axis=1, initial=0).sum())
    total += int(problem.delivery_ns.max(axis=1, initial=0).sum())
    if problem.num_edges:
        total += int(problem.copy_ns.max(axis=(1, 2))[problem.copy_class].sum())
    shift = 0
    while shift < 12 and total >> (61 - shift) == 0:
        shift += 1
    return shift


def _force_critical_path(problem, priority, preds, succs, forced, set_of, choices) -> None:  # type: ignore[no-untyped-def]
    entries = [t for t in range(problem.num_tasks) if not preds[t]]
    if not entries:
        return
    task = min(entries, key=lambda t: (-priority[t], t))
    path = [task]
    while succs[task]:
        task = min((s for s, _ in succs[task]), key=lambda s: (-priority[s], s))
        path.append(task)
    costs = []
    for d in range(problem.num_devices):
        column = problem.exec_ns[path, d]
        costs.append((int((column == CANNOT_RUN).sum()), int(np.maximum(column, 0).sum()), d))
    best = min(costs)[2]
    for t in path:
        if best in choices[set_of[t]]:
            forced[t] = best
