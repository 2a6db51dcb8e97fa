"""What a kernel computes on a GPU, for the host to look at. [TVM]"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...platform import Device, Platform
from ...platform.machine import usable_cores
from ...platform.targets import host_target
from ...runtime.crossings import Crossings, Tables
from ...runtime.executable import ConcurrentExecutable
from ...runtime.gpu_parts import GpuParts, with_workspaces
from ...runtime.image import Image
from ...runtime.plan import make_plan
from ...runtime.program import LaneProgram
from ...runtime.tensors import aligned_bytes
from .cache_state import num_bytes
from .gpu_timing import GpuCall


def results_on_gpu(call: GpuCall, runs: int = 2) -> list[npt.NDArray[Any]]:
    """Return what a kernel writes into its last operand, once for each of some runs of a CUDA graph.

    The other operands lie in the GPU's memory beforehand; nothing else may be written.
    """
    memory, tables = call.device.runtime, Tables()
    host = Device("host", host_target(), "cpu:0", usable_cores()[:1])
    platform = Platform((host, call.device))
    inputs = []
    for number, operand in enumerate(call.operands):
        is_result = number == len(call.operands) - 1
        buffer = tables.add_buffer(
            "arena" if is_result else "weights", number, num_bytes(operand), memory
        )
        shape = tuple(int(extent) for extent in operand.shape)
        inputs.append(tables.add_tensor(buffer, shape, str(operand.dtype)))
    tables.add_step("call", "kernel", 1, call.symbol, inputs[:-1], inputs[-1:])
    crossings = Crossings(tables, platform)
    result = crossings.deliver(crossings.bring(inputs[-1], 0), 0)
    program = LaneProgram(
        tuple(tables.buffers), tuple(tables.tensors), tuple(tables.steps), (), (), (result,), 0
    )
    functions = {call.symbol: call.module.functions[call.symbol]}
    program = with_workspaces(program, {name: made for name, (_, made) in functions.items()})
    plan = make_plan(program, platform)
    weights = aligned_bytes(plan.sizes.get(("weights", memory), 0))
    for buffer, content in zip(program.space_buffers("weights"), call.operands[:-1], strict=True):
        content.copyto(weights._create_view(content.shape, content.dtype, plan.offsets[buffer]))
    parts = GpuParts(call.module.images, functions, {memory: weights})
    executable = ConcurrentExecutable(Image(program, platform, None, aligned_bytes(0), b"", parts))
    return [np.array(np.from_dlpack(executable.run([]))) for _ in range(runs)]
