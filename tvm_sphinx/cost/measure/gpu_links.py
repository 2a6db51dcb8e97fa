"""Measure how long tensors take to a GPU and back, and from one of its streams to another. [TVM]

All of it is measured in the lanes: a crossing holds the launch by the feeder, the copy to or from pinned
memory, and the wait for it on the other side.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..._tvm import tvm
from ...kernels.implement import implement_kernel
from ...platform import Device, Platform
from ...platform.machine import usable_cores
from ...platform.targets import device_target, host_target
from ...runtime.executable import ConcurrentExecutable
from ...runtime.gpu_parts import GpuParts
from ...runtime.image import Image
from ...runtime.program import PINNED, Buffer, LaneProgram, Step, TensorView
from ...runtime.tensors import aligned_bytes
from .gpu_timing import GpuModule, build_for_gpu

_ROUNDS = 12
_RUNS = 12
# Calls of a small kernel in a graph, in one stream or in two in turn.
_CALLS = 64
_TINY, _TINY_BYTES = 32, 128


def crossing_samples(src: Device, dst: Device, size: int) -> tuple[float, ...]:
    """Return how long ``size`` bytes take between a CPU device and a GPU, in ns, for each of some runs.

    Each is the median over crossings there and back in turn: from the end of a step of the CPU until a
    copy to the GPU has ended, or from there until a CPU's step begins that reads what came back.
    """
    cpu, gpu = (src, dst) if src.is_cpu else (dst, src)
    executable = ConcurrentExecutable(
        Image(
            _there_and_back(gpu.runtime, size),
            Platform((cpu, gpu)),
            None,
            aligned_bytes(0),
            b"",
            GpuParts(),
        )
    )
    found = []
    for _ in range(_RUNS + 1):
        _, trace = executable.run_traced([])
        steps = trace.steps
        if src.is_cpu:
            times = [steps[i + 1].end_ns - steps[i].end_ns for i in range(0, 3 * _ROUNDS, 3)]
        else:
            times = [steps[i + 3].begin_ns - steps[i + 1].end_ns for i in range(0, 3 * _ROUNDS, 3)]
        found.append(max(1.0, float(np.median(times))))
    return tuple(found[1:])  # in the first, events are new


def _there_and_back(gpu: str, size: int) -> LaneProgram:
    """Return empty steps of device 0, and between them copies to device 1 and back."""
    buffers = [Buffer("arena", 0, size, PINNED)]
    tensors = [TensorView(0, (size,), "uint8")]
    steps = [Step("begin", "nothing", 0, "", (0,), 1)]
    for number in range(_ROUNDS):
        last = len(tensors) - 1
        for memory in (gpu, PINNED, PINNED):
            buffers.append(Buffer("arena", len(buffers), size, memory))
            tensors.append(TensorView(len(buffers) - 1, (size,), "uint8"))
        steps += [
            Step(f"in{number}", "copy", 1, "", (last, last + 1), 1),
            Step(f"out{number}", "copy", 1, "", (last + 1, last + 2), 1),
            Step(f"turn{number}", "nothing", 0, "", (last + 2, last + 3), 1),
        ]
    return LaneProgram(tuple(buffers), tuple(tensors), tuple(steps), (), (), (), [])


def stream_samples(first: Device, second: Device) -> tuple[float, ...]:
    """Return how much longer a small kernel waits for one in another stream of its GPU, in ns.

    The difference between steps in two streams in turn and as many in one, in a graph, for each of some
    runs; at least 0.
    """
    module = build_for_gpu({"tiny": _tiny(first)})
    alone, in_turn = (_turns(module, devices) for devices in ((first, first), (first, second)))
    samples = []
    for _ in range(_RUNS):
        durations = [int(executable.gpu_durations_ns([]).sum()) for executable in (alone, in_turn)]
        samples.append(max(0.0, (durations[1] - durations[0]) / _CALLS))
    return tuple(samples)


def _tiny(device: Device) -> Any:
    source = tvm.te.placeholder((_TINY,), name="source")
    function = tvm.te.create_prim_func([source, tvm.te.compute((_TINY,), lambda i: source[i] + 1.0)])
    return implement_kernel(function, device_target(device))


def _turns(module: GpuModule, devices: tuple[Device, Device]) -> ConcurrentExecutable:
    """Return steps on two streams in turn, each of which reads what the last has written."""
    memory = devices[0].runtime
    buffers = [Buffer("weights", 0, _TINY_BYTES, memory)]
    buffers += [Buffer("arena", number, _TINY_BYTES, memory) for number in range(1, _CALLS + 1)]
    tensors = [TensorView(number, (_TINY,), "float32") for number in range(_CALLS + 1)]
    steps = [
        Step(f"turn{number}", "kernel", 1 + number % 2, "tiny", (number, number + 1), 1)
        for number in range(_CALLS)
    ]
    program = LaneProgram(tuple(buffers), tuple(tensors), tuple(steps), (), (), (), [])
    host = Device("host", host_target(), "cpu:0", usable_cores()[:1])
    streams = [replace(device, name=f"stream{number}") for number, device in enumerate(devices)]
    if devices[0] == devices[1]:
        streams = streams[:1]
        program = replace(program, steps=tuple(replace(step, device=1) for step in steps))
    parts = GpuParts(module.images, module.functions, {memory: aligned_bytes(_TINY_BYTES)})
    platform = Platform((host, *streams))
    return ConcurrentExecutable(Image(program, platform, None, aligned_bytes(0), b"", parts))
