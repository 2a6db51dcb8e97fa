"""What weights take on each device, in the layouts of the kernels that were chosen. [TVM]"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...frontend.dataflow import tensor_bytes
from ...kernels import packed_weights
from ...platform import Platform
from ...scheduling.graph import FROM_CONSTANT, Task, TaskGraph
from ...scheduling.problem import Int64Array
from .kernel_costs import CostKey, Implementation, KernelCost


def held_weight_bytes(
    graph: TaskGraph, platform: Platform, costs: Mapping[CostKey, KernelCost]
) -> Int64Array | None:
    """Return the bytes of each task's weights on each device, shape (N, D), int64.

    A weight that a kernel takes packed counts as it is packed; one that it takes both ways counts twice.
    None where no kernel takes any packed.
    """
    best = {key: cost.best for key, cost in costs.items()}
    packing = {key: one for key, one in best.items() if packed_weights(one.candidate.function)}
    if not packing:
        return None
    plain = np.array([task.weight_bytes for task in graph.tasks], dtype=np.int64)
    held = np.repeat(plain[:, None], len(platform.devices), axis=1)
    for column, device in enumerate(platform.devices):
        for row, task in enumerate(graph.tasks):
            implemented = packing.get((task.kernel, device.cost_class))
            if implemented is not None:
                held[row, column] = _held_bytes(task, implemented)
    return held


def _held_bytes(task: Task, implemented: Implementation) -> int:
    function = implemented.candidate.function
    packings = packed_weights(function)
    types = implemented.kernel.as_implemented(function).argument_types
    # Outputs follow the operands.
    operands = zip(task.operands, types, strict=False)
    sizes = {
        (operand, packings.get(position)): tensor_bytes(ty)
        for position, (operand, ty) in enumerate(operands)
        if operand.producer == FROM_CONSTANT
    }
    return sum(sizes.values())
