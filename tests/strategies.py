"""Random scheduling problems: one drawn by a seed, or by hypothesis."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from tvm_sphinx.scheduling.problem import CANNOT_RUN, NO_GROUP, UNLIMITED, SchedulingProblem

#: Cores of each device: apart, sharing, and one that overlaps two others.
CORE_LAYOUTS = {
    1: [((0,),)],
    2: [((0,), (1,)), ((0,), (0, 1))],
    3: [((0,), (1,), (2,)), ((0,), (1,), (0, 1)), ((0, 1), (1, 2), (2, 3))],
    4: [((0,), (1,), (2,), (3,)), ((0,), (1,), (0, 1), (2,))],
}


def draw_problem(
    seed: int,
    num_tasks: int,
    num_devices: int = 3,
    *,
    ccr: float = 1.0,
    density: float = 0.3,
    layout: int = 0,
    special: bool = False,
    memory: bool = False,
) -> SchedulingProblem:
    """Return a random problem; ``special`` adds cannot-run cells, colocation, release and delivery."""
    rng = np.random.default_rng(seed)
    exec_ns = rng.integers(0 if special else 1, 100, (num_tasks, num_devices))
    pairs = [
        (i, j) for j in range(num_tasks) for i in range(max(0, j - 12), j) if rng.random() < density
    ]
    edges = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    num_classes = max(1, len(pairs) // 2)
    copy_ns = rng.integers(0, max(1, int(100 * ccr)) + 1, (num_classes, num_devices, num_devices))
    copy_ns[:, range(num_devices), range(num_devices)] = 0
    colocation = np.full(num_tasks, NO_GROUP)
    release_ns = delivery_ns = None
    if special:
        always = rng.integers(0, num_devices)
        cannot = rng.random((num_tasks, num_devices)) < 0.2
        cannot[:, always] = False
        exec_ns[cannot] = CANNOT_RUN
        tied = rng.random(num_tasks) < 0.3
        colocation[tied] = rng.integers(0, 3, int(tied.sum()))
        release_ns = rng.integers(0, 50, (num_tasks, num_devices))
        delivery_ns = rng.integers(0, 50, (num_tasks, num_devices))
    weight_bytes = rng.integers(0, 20, (num_tasks, num_devices))
    output_bytes = rng.integers(0, 20, num_tasks)
    capacity = int(weight_bytes.max(axis=1).sum() + output_bytes.sum())
    limits = [capacity, capacity // 2, UNLIMITED, capacity // 3][:num_devices]
    return SchedulingProblem(
        name=f"drawn-{seed}",
        devices=tuple(f"d{i}" for i in range(num_devices)),
        device_cores=CORE_LAYOUTS[num_devices][layout % len(CORE_LAYOUTS[num_devices])],
        exec_ns=exec_ns,
        edges=edges,
        copy_class=rng.integers(0, num_classes, len(pairs)),
        copy_ns=copy_ns,
        release_ns=release_ns,
        delivery_ns=delivery_ns,
        colocation=colocation,
        memory_bytes=limits if memory else None,
        weight_bytes=weight_bytes,
        output_bytes=output_bytes,
    )


@st.composite
def problems(
    draw: st.DrawFn, max_tasks: int = 20, *, special: bool = True, memory: bool = False
) -> SchedulingProblem:
    """Draw problems of all kinds: shared cores, cannot run, colocation, release and delivery times."""
    num_devices = draw(st.integers(1, 4))
    return draw_problem(
        draw(st.integers(0, 2**32 - 1)),
        draw(st.integers(0, max_tasks)),
        num_devices,
        ccr=draw(st.sampled_from([0.0, 0.1, 1.0, 10.0])),
        density=draw(st.sampled_from([0.05, 0.2, 0.5])),
        layout=draw(st.integers(0, 2)),
        special=special and draw(st.booleans()),
        memory=memory,
    )
