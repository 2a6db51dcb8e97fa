"""Optimal schedules by OR-Tools CP-SAT, with or without tied genes: what tying alone costs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ortools.sat.python import cp_model

from tvm_sphinx.problem import CANNOT_RUN, SchedulingProblem
from tvm_sphinx.search import SearchSpace


class Optimum(NamedTuple):
    """The best makespan found, and a bound that equals it where it is proven optimal."""

    makespan_ns: int
    bound_ns: int

    @property
    def proven(self) -> bool:
        """Whether nothing shorter exists."""
        return self.bound_ns >= self.makespan_ns


def solve(
    problem: SchedulingProblem, space: SearchSpace, seconds: float, upper_ns: int
) -> Optimum | None:
    """Schedule a problem with each gene of a space on one device; None if nothing was found in time."""
    model = cp_model.CpModel()
    on = [
        [model.new_bool_var(f"g{g}d{d}") for d in range(problem.num_devices)]
        for g in range(space.num_genes)
    ]
    allowed = space.allowed(problem)
    for row, can in zip(on, allowed, strict=True):
        model.add_exactly_one(row)
        for literal, possible in zip(row, can, strict=True):
            if not possible:
                model.add(literal == 0)
    gene = space.gene_of_task()
    start = [model.new_int_var(0, upper_ns, f"s{t}") for t in range(problem.num_tasks)]
    finish = [model.new_int_var(0, upper_ns, f"f{t}") for t in range(problem.num_tasks)]
    makespan = model.new_int_var(0, upper_ns, "makespan")
    lanes: dict[int, list[cp_model.IntervalVar]] = {}
    for task, duration in enumerate(problem.exec_ns.tolist()):
        row = on[gene[task]]
        for device, literal in enumerate(row):
            if duration[device] == CANNOT_RUN:
                continue
            interval = model.new_optional_interval_var(
                start[task], duration[device], finish[task], literal, f"i{task}d{device}"
            )
            for core in problem.core_groups[device]:
                lanes.setdefault(core, []).append(interval)
            release, delivery = problem.release_ns[task, device], problem.delivery_ns[task, device]
            model.add(start[task] >= int(release)).only_enforce_if(literal)
            model.add(makespan >= finish[task] + int(delivery)).only_enforce_if(literal)
    for intervals in lanes.values():
        model.add_no_overlap(intervals)
    _add_copies(model, problem, [on[g] for g in gene], start, finish)
    model.minimize(makespan)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.num_workers = 2
    if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    return Optimum(int(solver.objective_value), int(np.ceil(solver.best_objective_bound)))


def _add_copies(
    model: cp_model.CpModel,
    problem: SchedulingProblem,
    on: list[list[cp_model.IntVar]],
    start: list[cp_model.IntVar],
    finish: list[cp_model.IntVar],
) -> None:
    for (src, dst), row in zip(problem.edges.tolist(), problem.copy_class.tolist(), strict=True):
        for a in range(problem.num_devices):
            for b in range(problem.num_devices):
                copy_ns = int(problem.copy_ns[row, a, b])
                model.add(start[dst] >= finish[src] + copy_ns).only_enforce_if(on[src][a], on[dst][b])
