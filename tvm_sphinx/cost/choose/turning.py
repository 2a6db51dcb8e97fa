"""What it takes to turn images that stand otherwise on CPUs than on other devices. [TVM]"""

from __future__ import annotations

import math

import numpy as np

from ...frontend.dataflow import tensor_bytes
from ...frontend.extract import Extraction, Kernel, channels_last_type, takes_channels_last
from ...frontend.image_layouts import extents_of
from ...kernels import turn
from ...platform import Device, Platform
from ...platform.device import one_of_each_class
from ...platform.targets import is_absent
from ...progress import Progress
from ...scheduling.graph import Operand
from ..measure.kernel_timing import MeasureConfig
from ..measure.links import ESTIMATED_COPY
from ..measure.roofline import moving_ns
from ..records.store import RecordStore
from .assemble import Turns
from .kernel_costs import KernelCost, read_kernel_costs
from .measuring import measure_missing


def cost_turns(
    extraction: Extraction,
    platform: Platform,
    records: RecordStore,
    config: MeasureConfig,
    progress: Progress | None = None,
    end_s: float = math.inf,
) -> Turns | None:
    """Return what turning costs, None where nothing is turned.

    The device that has images as the model has them turns what goes to CPUs and what comes from there.
    Its kernels are measured, or on record; of a device that is not at hand, and once
    ``time.monotonic()`` has reached ``end_s``, they are else estimated, by its bandwidth if the platform
    tells it.
    """
    devices = platform.devices
    others = [device for device in devices if not takes_channels_last(device)]
    if not extraction.channels_last or not others or len(others) == len(devices):
        return None
    kernels = {
        (operand, is_back): _kernel(extraction, operand, is_back)
        for operand in sorted(extraction.channels_last)
        for is_back in (False, True)
    }
    by_id = {kernel.id: kernel for kernel in kernels.values()}
    costs = read_kernel_costs(by_id.values(), one_of_each_class(others), records)
    at_hand = [cost.rule for cost in costs.values() if not is_absent(cost.rule.device)]
    measure_missing(at_hand, records, config, progress, end_s)
    turn_ns = np.zeros((extraction.graph.num_tasks, len(devices), len(devices)), dtype=np.int64)
    is_other = np.array([device in others for device in devices])
    for (operand, is_back), kernel in kernels.items():
        for place in np.flatnonzero(is_other).tolist():
            device: Device = devices[place]
            time_ns = _time_ns(costs[kernel.id, device.cost_class])
            of_task = turn_ns[operand.producer]
            row = of_task.T if is_back else of_task
            row[place, ~is_other] += time_ns
    turned_bytes = np.zeros(extraction.graph.num_tasks, dtype=np.int64)
    for operand in extraction.channels_last:
        task = extraction.graph.tasks[operand.producer]
        turned_bytes[operand.producer] += task.output_bytes[operand.output]
    return Turns(turn_ns, turned_bytes)


def _kernel(extraction: Extraction, operand: Operand, is_back: bool) -> Kernel:
    """Return what turns a result of a task, channels last or back."""
    ty = extraction.dataflow.calls[operand.producer].outputs[operand.output]
    extents, dtype = extents_of(ty), str(ty.dtype)
    types = (ty, channels_last_type(ty))
    name = "x".join(map(str, extents))
    return Kernel(
        f"turn{'-back' if is_back else ''}-{name}-{dtype}",
        turn(extents, dtype, is_back=is_back),
        types[::-1] if is_back else types,
    )


def _time_ns(cost: KernelCost) -> int:
    rule = cost.rule
    if rule.is_measured and rule.time_ns >= 0:
        return rule.time_ns
    num_bytes = 2 * tensor_bytes(rule.kernel.argument_types[0])
    found = moving_ns(num_bytes, rule.device)
    if found is None:
        found = ESTIMATED_COPY.latency_ns + num_bytes * 1e9 / ESTIMATED_COPY.bandwidth_bytes_per_s
    return int(np.ceil(found))
