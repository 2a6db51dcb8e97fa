"""How much the time of each task matters to a schedule: little where there is slack."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...scheduling.problem import SchedulingProblem
from ...scheduling.schedule import Schedule

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
