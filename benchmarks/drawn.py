"""Problems drawn once by seed: unrelated machines, communication-to-computation ratio 0.1 to 10."""

from __future__ import annotations

import numpy as np

from tvm_sphinx.scheduling.problem import SchedulingProblem


def draw_layered(seed: int, num_tasks: int, num_devices: int, ccr: float) -> SchedulingProblem:
    """Return a layered random graph: about sqrt(N) layers, three successors each, unrelated devices."""
    rng = np.random.default_rng(seed)
    num_layers = max(2, round(num_tasks**0.5))
    layer = np.sort(
        np.concatenate([np.arange(num_layers), rng.integers(0, num_layers, num_tasks - num_layers)])
    )
    edges = set()
    for task in range(num_tasks):
        later = np.flatnonzero(layer > layer[task])
        near = later[layer[later] <= layer[task] + 2]
        for other in rng.choice(near, min(int(rng.integers(1, 6)), len(near)), replace=False):
            edges.add((task, int(other)))
    work = rng.uniform(1_000, 40_000, num_tasks)
    exec_ns = np.maximum(1, work[:, None] * rng.uniform(0.5, 1.5, (num_tasks, num_devices)))
    cost = rng.uniform(0, 2, len(edges)) * ccr * work.mean()
    pair = rng.uniform(0.5, 1.5, (num_devices, num_devices)) * (1 - np.eye(num_devices))
    return SchedulingProblem(
        name=f"drawn-{num_tasks}x{num_devices}-ccr{ccr:g}-{seed}",
        devices=tuple(f"d{i}" for i in range(num_devices)),
        device_cores=tuple((i,) for i in range(num_devices)),
        exec_ns=exec_ns.astype(np.int64),
        edges=np.array(sorted(edges)),
        copy_class=np.arange(len(edges)),
        copy_ns=(cost[:, None, None] * pair[None]).astype(np.int64),
    )


def draw_problems() -> list[SchedulingProblem]:
    """Return a mix of sizes at communication-to-computation ratios of 0.1, 1 and 10."""
    sizes = ((50, 3), (150, 4), (334, 8))
    return [
        draw_layered(10 * place + index, tasks, devices, ccr)
        for place, (tasks, devices) in enumerate(sizes)
        for index, ccr in enumerate((0.1, 1.0, 10.0))
    ]
