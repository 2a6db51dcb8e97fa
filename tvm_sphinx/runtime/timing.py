"""Time kernels as the lanes run them: on a device's own cores, with its own team. [TVM]

TVM's time evaluator runs parallel loops on TVM's thread pool, whose launch costs microseconds where that
of a team costs a tenth; costs measured with it would predict another runtime than the one in use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .._tvm import tvm_ffi
from ..platform import Device, Platform
from .encode import Opcode, make_lanes
from .kernels import KernelPass, compile_kernels, load_kernels
from .plan import LanePlan, make_plan
from .program import Buffer, LaneProgram, Step, TensorView
from .tensors import aligned_bytes

# Calls in one run, each of which is a sample; a slow kernel is called once a run.
_MOST_CALLS_PER_RUN = 16
_MOST_RUNS = 1000


def load_for_lanes(kernels: Mapping[str, Any], kernel_pass: KernelPass | None = None) -> Any:
    """Compile PrimFuncs by name, each of which carries its CPU target, and load them for the lanes.

    Parameters and errors as in `tvm_sphinx.runtime.kernels.compile_kernels`; without a pass the kernels
    are compiled as they are.
    """
    return load_kernels(compile_kernels(kernels, kernel_pass or (lambda module: module)))


def time_in_lane(
    function: Any, operands: Sequence[Any], device: Device, *, min_ns: int = 10_000_000
) -> tuple[int, ...]:
    """Return how long single calls of a kernel take on a device, in ns.

    Parameters
    ----------
    function
        Of a module that `load_for_lanes` returns, or a packed function of TVM's registry.
    operands
        Host tensors, inputs and outputs in the order of its arguments, aligned to 64 bytes.
    device
        A CPU device of this machine.
    min_ns
        Call it until the samples sum up to this; the first run is not counted.
    """
    once_ns = max(1, _sample(function, operands, device, 1, 0)[0])
    num_calls = min(_MOST_CALLS_PER_RUN, max(1, min_ns // (2 * once_ns)))
    return tuple(_sample(function, operands, device, num_calls, min_ns))


def _sample(
    function: Any, operands: Sequence[Any], device: Device, num_calls: int, min_ns: int
) -> list[int]:
    """Return how long each call of runs of ``num_calls`` took; the first run only warms up."""
    lanes = make_lanes(
        _repeat(operands, device, num_calls), {("kernel", "timed"): function}, aligned_bytes(0), True
    )
    stamps = np.zeros((num_calls, 2), dtype=np.int64)
    shared = tvm_ffi.from_dlpack(stamps)
    samples: list[int] = []
    for run in range(_MOST_RUNS):
        lanes(int(Opcode.RUN_TRACED), shared, *operands)
        if run:
            samples += (stamps[:, 1] - stamps[:, 0]).tolist()
        if samples and sum(samples) >= min_ns:
            break
    return samples


def _repeat(operands: Sequence[Any], device: Device, num_calls: int) -> LanePlan:
    """Return the plan of some calls of one kernel, all on the same operands."""
    views = [
        TensorView(number, tuple(int(extent) for extent in operand.shape), str(operand.dtype))
        for number, operand in enumerate(operands)
    ]
    buffers = [Buffer("input", number, 0) for number in range(len(operands))]
    numbers = tuple(range(len(operands)))
    # Every operand is an argument of the program: the lanes need not know which ones are written.
    step = Step("call", "kernel", 0, "timed", numbers, 0)
    steps = tuple(replace(step, name=f"call{number}") for number in range(num_calls))
    names = tuple(f"operand{number}" for number in numbers)
    program = LaneProgram(tuple(buffers), tuple(views), steps, names, numbers, (), [])
    return make_plan(program, Platform((device,)))
