"""What a search has to beat, for the report: each single device, and each heuristic."""

from __future__ import annotations

import numpy as np

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
    found = {f"all on {alone.devices[device]}": ns for device, ns in single_device_ns(alone).items()}
    if (problem.exec_ns != CANNOT_RUN).any(axis=1).all() and problem.num_tasks:
        found |= {name: native_problem(problem).heuristic(kind)[0] for name, kind in KINDS.items()}
    return found


def single_device_ns(problem: SchedulingProblem) -> dict[int, int]:
    """Return what each device takes that can run all tasks by itself, in ns, by its number."""
    able = np.flatnonzero((problem.exec_ns != CANNOT_RUN).all(axis=0)).tolist()
    return {device: native_problem(problem).heuristic(SINGLE, device)[0] for device in able}
