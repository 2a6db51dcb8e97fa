"""What a search has to beat, for the report: each single device, and each heuristic."""

from __future__ import annotations

from ..scheduling.problem import CANNOT_RUN, SchedulingProblem
from .heuristics import KINDS, SINGLE
from .native import native_problem


def weigh_alternatives(problem: SchedulingProblem, alone: SchedulingProblem) -> dict[str, int]:
    """Return makespans in ns by name, whether or not they fit the memory of the devices.

    Parameters
    ----------
    problem
        For the heuristics.
    alone
        The same with the times of a device that works alone, for the single devices, without pins.
    """
    found = {}
    for device, name in enumerate(alone.devices):
        if (alone.exec_ns[:, device] != CANNOT_RUN).all():
            found[f"all on {name}"] = native_problem(alone).heuristic(SINGLE, device)[0]
    if (problem.exec_ns != CANNOT_RUN).any(axis=1).all() and problem.num_tasks:
        found |= {name: native_problem(problem).heuristic(kind)[0] for name, kind in KINDS.items()}
    return found
