"""Time kernels on a GPU as its lane runs them: one after the other in a CUDA graph. [TVM]

What a kernel takes there is what the schedule adds up: with the gap between two nodes of a graph, and
without the time of the host to launch it, of which a graph has one for all.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...platform import Device, Platform
from ...platform.machine import usable_cores
from ...platform.targets import host_target
from ...runtime.executable import ConcurrentExecutable
from ...runtime.gpu_compile import compile_for_gpus
from ...runtime.gpu_kernels import GpuFunction
from ...runtime.gpu_parts import GpuParts, with_workspaces
from ...runtime.image import Image
from ...runtime.plan import make_plan
from ...runtime.program import Buffer, LaneProgram, Step, TensorView
from ...runtime.tensors import aligned_bytes
from .cache_state import num_bytes
from .sampling import Goal, Samples, collect_samples

# Calls in one graph: what comes before the first of them is spread over all.
_CALLS, _SLOW_CALLS, _SLOW_NS = 32, 4, 1_000_000
# Copies of cold operands take no more memory than this.
_MOST_COLD_BYTES = 256 << 20
# Runs of each graph beside a neighbour; calls of the kernel in it, at least and at most.
_RUNS_BESIDE, _LEAST_BESIDE, _MOST_BESIDE = 8, 8, 512


@dataclass(frozen=True)
class GpuModule:
    """Compiled kernels by symbol."""

    images: tuple[bytes, ...]
    functions: dict[str, tuple[int, GpuFunction]]


@dataclass(frozen=True)
class GpuCall:
    """A kernel to time: its module and symbol, its operands (host tensors of TVM), and the device."""

    module: GpuModule
    symbol: str
    operands: Sequence[Any]
    device: Device


def build_for_gpu(functions: Mapping[str, Any]) -> GpuModule:
    """Compile PrimFuncs by symbol, each of which carries its CUDA target.

    Raises as `tvm_sphinx.runtime.gpu_compile.compile_for_gpus`.
    """
    return GpuModule(*compile_for_gpus(functions))


def sample_on_gpu(
    call: GpuCall,
    goal: Goal,
    switches: Callable[[], int],
    *,
    cold: Sequence[int] = (),
    reuse_bytes: int = 0,
) -> Samples:
    """Time a kernel on a GPU until a goal is met; each sample is the mean over the calls of one graph.

    Parameters
    ----------
    call
    goal, switches
        See `tvm_sphinx.cost.measure.sampling.collect_samples`.
    cold
        Positions of operands that a model reads once in each inference, such as weights: the calls take
        turns with copies of them, ``reuse_bytes`` in all, as far as those are more than a few.
    """
    num_calls = _CALLS
    runs = GpuRuns([(call, num_calls)], cold=cold, reuse_bytes=reuse_bytes)
    if runs.duration_ns() > num_calls * _SLOW_NS:
        num_calls = _SLOW_CALLS
        runs = GpuRuns([(call, num_calls)], cold=cold, reuse_bytes=reuse_bytes)
        runs.duration_ns()
    return collect_samples(
        lambda: [round(runs.duration_ns() / num_calls)], goal.of_means(num_calls), switches
    )


class GpuRuns:
    """A graph of repeated calls, of one kernel in each stream of a GPU, to run again and again.

    Parameters
    ----------
    calls
        For each stream the call, and how often it is made; all are on one GPU.
    cold, reuse_bytes
        See `sample_on_gpu`; of the first stream.
    """

    def __init__(
        self, calls: Sequence[tuple[GpuCall, int]], *, cold: Sequence[int] = (), reuse_bytes: int = 0
    ) -> None:
        self.buffers: list[Buffer] = []
        self.tensors: list[TensorView] = []
        self.steps: list[Step] = []
        self.contents: list[Any] = []
        self.memory = calls[0][0].device.runtime
        images: list[bytes] = []
        functions: dict[str, tuple[int, GpuFunction]] = {}
        for stream, (call, count) in enumerate(calls):
            image, function = call.module.functions[call.symbol]
            images.append(call.module.images[image])
            functions[f"call{stream}"] = (stream, function)
            turns = self._turns(call, count, () if stream else cold, reuse_bytes)
            for number in range(count):
                operands = turns[number % len(turns)]
                step = Step(f"call{stream}.{number}", "kernel", 1 + stream, f"call{stream}", operands, 0)
                self.steps.append(step)
        devices = [
            Device(f"stream{i}", call.device.target, self.memory) for i, (call, _) in enumerate(calls)
        ]
        host = Device("host", host_target(), "cpu:0", usable_cores()[:1])
        self.executable = self._open(Platform((host, *devices)), tuple(images), functions)

    def duration_ns(self) -> int:
        """Run once; return how long the GPU took in ns."""
        return int(self.executable.gpu_durations_ns([]).sum())

    def _turns(
        self, call: GpuCall, count: int, cold: Sequence[int], reuse_bytes: int
    ) -> list[tuple[int, ...]]:
        """Return the operands that calls take turns with."""
        first = tuple(self._add(operand) for operand in call.operands)
        size = sum(self.buffers[self.tensors[first[position]].buffer].bytes for position in cold)
        if not size:
            return [first]
        num_turns = max(1, min(count, reuse_bytes // size, _MOST_COLD_BYTES // size))
        turns = [first]
        for _ in range(1, num_turns):
            own = {position: self._add(call.operands[position]) for position in cold}
            turns.append(tuple(own.get(position, tensor) for position, tensor in enumerate(first)))
        return turns

    def _add(self, operand: Any) -> int:
        """Add an operand's bytes as a weight: the lanes need not know which operands are written."""
        shape = tuple(int(extent) for extent in operand.shape)
        size = num_bytes(operand)
        self.buffers.append(Buffer("weights", len(self.contents), size, self.memory))
        self.tensors.append(TensorView(len(self.buffers) - 1, shape, str(operand.dtype)))
        self.contents.append(operand)
        return len(self.tensors) - 1

    def _open(
        self,
        platform: Platform,
        images: tuple[bytes, ...],
        functions: dict[str, tuple[int, GpuFunction]],
    ) -> ConcurrentExecutable:
        program = LaneProgram(
            tuple(self.buffers), tuple(self.tensors), tuple(self.steps), (), (), (), []
        )
        program = with_workspaces(program, {name: function for name, (_, function) in functions.items()})
        plan = make_plan(program, platform)
        weights = aligned_bytes(plan.sizes.get(("weights", self.memory), 0))
        for buffer, content in enumerate(self.contents):
            place = weights._create_view(content.shape, content.dtype, plan.offsets[buffer])
            content.copyto(place)
        parts = GpuParts(images, functions, {self.memory: weights})
        return ConcurrentExecutable(Image(program, platform, None, aligned_bytes(0), b"", parts))


def time_beside_on_gpu(call: GpuCall, neighbours: Sequence[GpuCall | None]) -> list[tuple[int, ...]]:
    """Return how long calls of a kernel take, in ns, while another stream of its GPU works.

    Two streams of one graph are given about the same time alone; how much longer they take together is
    taken for what the kernel loses.

    Parameters
    ----------
    call
    neighbours
        What the other stream does; None leaves it idle. There is one result for each of them.
    """
    alone_ns = _once_ns(call)
    found: list[tuple[int, ...]] = []
    for neighbour in neighbours:
        if neighbour is None:
            found.append((round(alone_ns),))
            continue
        other_ns = _once_ns(neighbour)
        count = min(_MOST_BESIDE, max(_LEAST_BESIDE, math.ceil(2 * other_ns / alone_ns)))
        other = max(1, round(count * alone_ns / other_ns))
        both = GpuRuns([(call, count), (neighbour, other)])
        apart_ns = max(count * alone_ns, other * other_ns)
        both.duration_ns()
        found.append(tuple(round(alone_ns * both.duration_ns() / apart_ns) for _ in range(_RUNS_BESIDE)))
    return found


def _once_ns(call: GpuCall) -> float:
    """Return the median time of a call among others of its kernel."""
    runs = GpuRuns([(call, _LEAST_BESIDE)])
    runs.duration_ns()
    return max(1.0, statistics.median(runs.duration_ns() for _ in range(_RUNS_BESIDE)) / _LEAST_BESIDE)
