"""How much the time of each task matters to a schedule, little where there is slack, and so of a kernel.

[TVM]
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ...platform import Platform
from ...scheduling.graph import TaskGraph
from ...scheduling.problem import SchedulingProblem, without_memory_limits
from ...scheduling.schedule import Schedule
from ...search import search_schedule
from ..table import CostTable, build_problem
from .kernel_costs import CostKey, Implementation, KernelCost

# Slack of this share of the makespan makes a task matter 1/e as much as a critical one.
_FADING_SHARE = 0.05
# A task on a device that the schedule did not choose matters less than on the chosen one.
_OTHER_DEVICE = 0.3


def slack_ns(problem: SchedulingProblem, schedule: Schedule) -> npt.NDArray[np.int64]:
    """Return how much later each task could start without a longer makespan, shape (N,) int64 ns.

    The order of tasks on every core stays as it is, and so do the devices.
    """
    device, start, finish = schedule.device, schedule.start_ns, schedule.finish_ns
    latest = schedule.makespan_ns - problem.delivery_ns[np.arange(problem.num_tasks), device]
    length = finish - start
    successors: list[list[tuple[int, int]]] = [[] for _ in range(problem.num_tasks)]
    for (src, dst), kind in zip(problem.edges.tolist(), problem.copy_class.tolist(), strict=True):
        copy = int(problem.copy_ns[kind, device[src], device[dst]])
        successors[src].append((dst, copy))
    after: dict[int, int] = {}
    for task in sorted(range(problem.num_tasks), key=lambda t: (-int(start[t]), -int(finish[t]), -t)):
        bounds = [latest[other] - length[other] - copy for other, copy in successors[task]]
        bounds += [after[core] for core in problem.device_cores[device[task]] if core in after]
        latest[task] = min([int(latest[task]), *map(int, bounds)])
        for core in problem.device_cores[device[task]]:
            after[core] = int(latest[task] - length[task])
    result: npt.NDArray[np.int64] = np.maximum(0, latest - finish)
    return result


def criticality(problem: SchedulingProblem, schedule: Schedule) -> npt.NDArray[np.float64]:
    """Return how much the time of each task on each device matters, shape (N, D), in [0, 1]."""
    fading = max(1.0, _FADING_SHARE * schedule.makespan_ns)
    near = np.exp(-slack_ns(problem, schedule) / fading)
    weight = np.full((problem.num_tasks, problem.num_devices), _OTHER_DEVICE)
    weight[np.arange(problem.num_tasks), schedule.device] = 1.0
    result: npt.NDArray[np.float64] = near[:, None] * weight
    return result


def by_urgency(
    costs: Mapping[CostKey, KernelCost], graph: TaskGraph, platform: Platform, expected: CostTable
) -> list[Implementation]:
    """Return what is not on record, the implementation first whose time matters most.

    ``expected`` is the cost table by what is known: predicted, where nothing is measured.
    """
    # HEFT heeds no limits of memory, and whatever fits them is not far from it.
    problem = without_memory_limits(build_problem(graph, platform, expected))
    weight = criticality(problem, search_schedule(problem, algorithm="heft").best)
    weights: dict[CostKey, float] = {}
    for column, device in enumerate(platform.devices):
        for task, entry in enumerate(graph.tasks):
            key = entry.kernel, device.cost_class
            weights[key] = weights.get(key, 0.0) + float(weight[task, column])
    wanted = [
        (-weights.get(key, 0.0) * cost.urgency_ns(one), key[0], str(key[1]), number, one)
        for key, cost in costs.items()
        for number, one in enumerate((cost.rule, *cost.others))
        if not one.is_measured and one.candidate.function is not None
    ]
    return [one for *_, one in sorted(wanted, key=lambda entry: entry[:4])]
