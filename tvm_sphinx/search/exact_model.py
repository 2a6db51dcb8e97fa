"""A scheduling problem as a CP-SAT model.

The model is the disjunctive one of job-shop scheduling with unrelated machines: an optional interval for
each task on each device, no overlap on any resource, and a copy wherever an edge crosses devices. With
memory limits, weights and live tensors are intervals of a cumulative constraint per device. Durations
and the load of each resource are stated a second time as linear sums: with them the relaxation proves in
seconds what intervals alone did not prove in minutes.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import EnvironmentMismatchError
from ..scheduling.problem import CANNOT_RUN, NO_GROUP, UNLIMITED, Int64Array, SchedulingProblem
from ..scheduling.schedule import Schedule
from .cpga import NoRoomError
from .native import native_problem

# CP-SAT's deterministic time, some ten seconds, after which a search without linear relaxations gives
# way to one with them: the first is quicker where copies are long, the second where they are short.
_WITHOUT_RELAXATION = 1.0


@contextlib.contextmanager
def _sigint_kept() -> Iterator[None]:
    """Give SIGINT back to Python: CP-SAT catches it, and leaves the system's handler, which kills."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if handler is not None:  # else it is not Python's, and cannot be put back from here
            signal.signal(signal.SIGINT, handler)


def cp_model_module() -> Any:
    """Return OR-Tools' ``cp_model``.

    Raises
    ------
    EnvironmentMismatchError
        If it is not installed; the message says how to get it.
    """
    try:
        from ortools.sat.python import cp_model
    except ImportError as error:
        raise EnvironmentMismatchError(
            'Exact search needs OR-Tools: pip install "tvm-sphinx[exact]".'
        ) from error
    return cp_model


class ExactModel:
    """The CP-SAT model of a problem.

    Parameters
    ----------
    problem
        The whole problem.
    horizon_ns
        A makespan that is known to be possible, or None.
    fixed_device, free
        For a window: the device of every task, and the tasks, as a boolean array, whose device may
        still change; all by default.
    bound_ns
        A lower bound on the makespan that is known; the cheap ones are computed.
    """

    def __init__(
        self,
        problem: SchedulingProblem,
        horizon_ns: int | None = None,
        fixed_device: Int64Array | None = None,
        free: Any = None,
        bound_ns: int = 0,
    ) -> None:
        self.problem = problem
        self.cp = cp_model_module()
        self.model = self.cp.CpModel()
        self.horizon_ns = self._safe_horizon_ns() if horizon_ns is None else horizon_ns
        num = problem.num_tasks
        self.start = [self.model.new_int_var(0, self.horizon_ns, f"s{i}") for i in range(num)]
        self.finish = [self.model.new_int_var(0, self.horizon_ns, f"f{i}") for i in range(num)]
        self.bound_ns = max(bound_ns, native_problem(problem).lower_bound())
        self.makespan = self.model.new_int_var(
            min(self.bound_ns, self.horizon_ns), self.horizon_ns, "makespan"
        )
        self.on: list[dict[int, Any]] = []
        self._add_tasks(fixed_device, free)
        self._add_edges()
        self._add_colocation()
        self._add_linear_sums()
        if (problem.memory_bytes != UNLIMITED).any():
            self._add_memory()
        self.model.minimize(self.makespan)

    def _safe_horizon_ns(self) -> int:
        problem = self.problem
        total = int(problem.exec_ns.max(axis=1, initial=0).sum())
        total += int(problem.release_ns.max(initial=0) + problem.delivery_ns.max(initial=0))
        if problem.num_edges:
            total += int(problem.copy_ns.max(axis=(1, 2))[problem.copy_class].sum())
        return total

    def _add_tasks(self, fixed_device: Int64Array | None, free: Any) -> None:
        problem, model = self.problem, self.model
        groups = problem.core_groups
        intervals: dict[int, list[Any]] = {}
        for task in range(problem.num_tasks):
            devices = np.flatnonzero(problem.exec_ns[task] != CANNOT_RUN).tolist()
            if fixed_device is not None and not free[task]:
                devices = [int(fixed_device[task])]
            literals = {device: model.new_bool_var(f"x{task}_{device}") for device in devices}
            model.add_exactly_one(literals.values())
            for device, literal in literals.items():
                length = int(problem.exec_ns[task, device])
                interval = model.new_optional_interval_var(
                    self.start[task], length, self.finish[task], literal, f"i{task}_{device}"
                )
                for resource in groups[device] if length else ():
                    intervals.setdefault(resource, []).append(interval)
                release, delivery = problem.release_ns[task, device], problem.delivery_ns[task, device]
                if release:
                    model.add(self.start[task] >= int(release)).only_enforce_if(literal)
                model.add(self.makespan >= self.finish[task] + int(delivery)).only_enforce_if(literal)
            self.on.append(literals)
        for resource_intervals in intervals.values():
            model.add_no_overlap(resource_intervals)

    def _add_edges(self) -> None:
        problem, model = self.problem, self.model
        for (src, dst), row in zip(problem.edges.tolist(), problem.copy_class.tolist(), strict=True):
            table = problem.copy_ns[row]
            model.add(self.start[dst] >= self.finish[src])
            for there, receives in self.on[dst].items():
                for here, sends in self.on[src].items():
                    copy = int(table[here, there])
                    if copy:
                        arrival = self.finish[src] + copy
                        model.add(self.start[dst] >= arrival).only_enforce_if([sends, receives])

    def _add_colocation(self) -> None:
        groups = self.problem.colocation
        for group in np.unique(groups[groups != NO_GROUP]).tolist():
            members = np.flatnonzero(groups == group).tolist()
            for device in range(self.problem.num_devices):
                literals = [self.on[task].get(device, 0) for task in members]
                for other in literals[1:]:
                    self.model.add(literals[0] == other)

    def _add_linear_sums(self) -> None:
        """Add what the intervals imply: each task's duration, and the load of each resource."""
        load: dict[int, list[Any]] = {}
        for task, literals in enumerate(self.on):
            terms = {d: int(self.problem.exec_ns[task, d]) * lit for d, lit in literals.items()}
            self.model.add(self.finish[task] == self.start[task] + sum(terms.values()))
            for device, term in terms.items():
                for resource in self.problem.core_groups[device]:
                    load.setdefault(resource, []).append(term)
        for terms_of_resource in load.values():
            self.model.add(self.makespan >= sum(terms_of_resource))

    def _add_memory(self) -> None:
        problem, model = self.problem, self.model
        held: list[list[tuple[Any, int]]] = [[] for _ in problem.devices]
        last = model.new_int_var(0, self.horizon_ns, "last")
        model.add_max_equality(last, [*self.finish, 0])
        readers: list[list[int]] = [[] for _ in range(problem.num_tasks)]
        for src, dst in problem.edges.tolist():
            readers[src].append(dst)
        for task in range(problem.num_tasks):
            size = int(problem.output_bytes[task])
            for device, literal in self.on[task].items():
                weight = int(problem.weight_bytes_on[task, device])
                if weight:
                    whole = model.new_optional_fixed_size_interval_var(
                        0, self.horizon_ns + 1, literal, ""
                    )
                    held[device].append((whole, weight))
                if size:
                    ends = [self.finish[reader] for reader in readers[task]] or [last]
                    span = self._interval(self.start[task], ends, literal)
                    held[device].append((span, size))
            for device in range(problem.num_devices) if size else ():
                self._add_copy_on(task, device, readers[task], held[device], size)
        for device, capacity in enumerate(problem.memory_bytes.tolist()):
            if capacity != UNLIMITED:
                spans, sizes = [s for s, _ in held[device]], [b for _, b in held[device]]
                model.add_cumulative(spans, sizes, capacity)

    def _add_copy_on(
        self, task: int, device: int, readers: list[int], held: list[tuple[Any, int]], size: int
    ) -> None:
        """Hold the outputs of a task on a device that it does not run on, while it has readers."""
        literals = [(r, self.on[r][device]) for r in readers if device in self.on[r]]
        if not literals:
            return
        here = self.model.new_bool_var("")
        at_home = self.on[task].get(device)
        end = self.model.new_int_var(0, self.horizon_ns, "")
        for reader, literal in literals:
            conditions = [literal] if at_home is None else [literal, at_home.negated()]
            self.model.add(here == 1).only_enforce_if(conditions)
            self.model.add(end >= self.finish[reader]).only_enforce_if(conditions)
        held.append((self._interval(self.finish[task], [end], here), size))

    def _interval(self, start: Any, ends: list[Any], literal: Any) -> Any:
        end = self.model.new_int_var(0, self.horizon_ns, "")
        size = self.model.new_int_var(0, self.horizon_ns, "")
        for earliest in ends:
            self.model.add(end >= earliest)
        return self.model.new_optional_interval_var(start, size, end, literal, "")

    def keep_order(self, schedule: Schedule, free: Any) -> None:
        """Keep the order of the tasks on each resource, but for those that are free."""
        last: dict[int, int] = {}
        for task in schedule.order:
            if free[task]:
                continue
            for resource in self.problem.core_groups[int(schedule.device[task])]:
                if resource in last:
                    self.model.add(self.start[task] >= self.finish[last[resource]])
                last[resource] = task

    def hint(self, schedule: Schedule) -> None:
        """Tell the solver a schedule to start from."""
        for task in range(self.problem.num_tasks):
            self.model.add_hint(self.start[task], int(schedule.start_ns[task]))
            for device, literal in self.on[task].items():
                self.model.add_hint(literal, device == int(schedule.device[task]))

    def solve(self, limit_s: float, num_workers: int, seed: int) -> tuple[Schedule | None, int]:
        """Return the best schedule found, or None, and a lower bound on the makespan in ns.

        On one thread a proof that ends within the limit ends with the same schedule every time.

        Raises
        ------
        NoRoomError
            If it is proven that no schedule fits the memory of the devices: nothing else can rule out
            all schedules of a problem.
        """
        begin_s = time.monotonic()
        solver = self.cp.CpSolver()
        solver.parameters.max_time_in_seconds = limit_s
        solver.parameters.num_workers = num_workers
        solver.parameters.random_seed = seed % 2**31
        bound_ns = self.bound_ns
        if num_workers > 1:
            return self._run(solver, bound_ns)
        solver.parameters.linearization_level = 0
        solver.parameters.max_deterministic_time = _WITHOUT_RELAXATION
        found, bound_ns = self._run(solver, bound_ns)
        left_s = limit_s - (time.monotonic() - begin_s)
        # Short of its deterministic time it ended by a proof, or by Ctrl-C, which CP-SAT catches.
        if left_s <= 0 or solver.response_proto.deterministic_time < _WITHOUT_RELAXATION:
            return found, bound_ns
        solver.parameters.linearization_level = 1
        solver.parameters.max_deterministic_time = float("inf")
        solver.parameters.max_time_in_seconds = left_s
        if found is not None:
            self.model.clear_hints()
            self.hint(found)
        other, bound_ns = self._run(solver, bound_ns)
        if other is None or (found is not None and found.makespan_ns < other.makespan_ns):
            other = found
        return other, bound_ns

    def _run(self, solver: Any, bound_ns: int) -> tuple[Schedule | None, int]:
        with _sigint_kept():
            status = solver.solve(self.model)
        if status == self.cp.INFEASIBLE:
            raise NoRoomError("CP-SAT proved that no schedule fits the memory of the devices.")
        if status not in (self.cp.OPTIMAL, self.cp.FEASIBLE):
            return None, bound_ns
        bound_ns = max(bound_ns, int(np.ceil(solver.best_objective_bound)))
        device = [
            next(d for d, literal in literals.items() if solver.boolean_value(literal))
            for literals in self.on
        ]
        finish = np.array([solver.value(finish) for finish in self.finish], dtype=np.int64)
        tasks = np.arange(self.problem.num_tasks)
        found = Schedule(
            device=np.array(device, dtype=np.int64),
            start_ns=finish - self.problem.exec_ns[tasks, device],
            finish_ns=finish,
            makespan_ns=int((finish + self.problem.delivery_ns[tasks, device]).max(initial=0)),
            lower_bound_ns=0,
            problem_fingerprint=self.problem.fingerprint,
        )
        return found, bound_ns
