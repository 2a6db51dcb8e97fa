"""Time kernels on a GPU as its lane runs them: one after the other in a CUDA graph. [TVM]

What a kernel takes there is what the schedule adds up: with the gap between two nodes of a graph, and
without the time of the host to launch it, of which a graph has one for all.
"""

from __future__ import annotations

import enum
import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...platform import Device, Platform
from ...platform.machine import usable_cores
from ...platform.targets import host_target
from ...runtime.executable import ConcurrentExecutable
from ...runtime.gpu_compile import compile_for_gpus
from ...runtime.gpu_launch import GpuFunction
from ...runtime.gpu_parts import GpuParts, with_workspaces
from ...runtime.image import Image
from ...runtime.plan import make_plan
from ...runtime.program import Buffer, LaneProgram, Step, TensorView
from ...runtime.tensors import aligned_bytes
from .cache_state import num_bytes
from .gpu_surroundings import CODE, DATA, NUM_TURNS, Surroundings, bytes_between, surroundings
from .sampling import Goal, Samples, collect_samples

# Calls in one graph; of slow kernels; and of those without surroundings, where what comes before the
# first call is spread over all.
_CALLS, _SLOW_CALLS, _SLOW_NS, _WARM_CALLS = NUM_TURNS, 2, 1_000_000, 32
# Runs of a graph of surroundings without calls.
_RUNS_ALONE = 9
# Copies of cold operands take no more memory than this.
_MOST_COLD_BYTES = 256 << 20
# Runs of calls in one stream and in several; what they take about, in one stream, and how many at most.
_RUNS_BESIDE, _BESIDE_NS, _MOST_BESIDE = 5, 250_000, 64


class CacheState(enum.Enum):
    """What a call finds in the caches of a GPU."""

    WARM = "warm"  # its code, and weights as many as the graph has turns of
    CODE = "other code"  # other code has run
    MODEL = "as in a model"  # and other weights were read


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
    state: CacheState = CacheState.MODEL,
) -> Samples:
    """Time a kernel on a GPU until a goal is met; each sample is the mean over the calls of one graph.

    By default other code runs and other memory is read before each call, as in a model (see
    `tvm_sphinx.cost.measure.gpu_surroundings`); what that takes by itself is measured too, and is not
    in the samples. The gap between two nodes of a graph is.

    Parameters
    ----------
    call
    goal, switches
        See `tvm_sphinx.cost.measure.sampling.collect_samples`.
    cold
        Positions of operands that a model reads once in each inference, such as weights: the calls take
        turns with copies of them.
    reuse_bytes
        What a model reads of weights between two uses of one.
    state
        How much of a model's surroundings to make; for comparison.
    """
    plain = state is CacheState.WARM
    num_calls = _WARM_CALLS if plain else _CALLS
    runs, around_ns = _runs(call, num_calls, cold, reuse_bytes, state)
    if runs.duration_ns() > num_calls * _SLOW_NS:
        num_calls = _SLOW_CALLS
        runs, around_ns = _runs(call, num_calls, cold, reuse_bytes, state)
        runs.duration_ns()

    def sample() -> list[int]:
        return [max(1, round((runs.duration_ns() - around_ns) / num_calls))]

    return collect_samples(sample, goal.of_means(num_calls), switches)


def _runs(
    call: GpuCall, num_calls: int, cold: Sequence[int], reuse_bytes: int, state: CacheState
) -> tuple[GpuRuns, float]:
    """Return a graph of calls in their surroundings, and how long it takes without the calls, in ns."""
    if state is CacheState.WARM:
        return GpuRuns([(call, num_calls)], cold=cold, reuse_bytes=reuse_bytes), 0.0
    size = sum(num_bytes(call.operands[position]) for position in cold)
    between = bytes_between(reuse_bytes, size) if size and state is CacheState.MODEL else 0
    around = surroundings(call.device, between)
    runs = GpuRuns([(call, num_calls)], cold=cold, reuse_bytes=reuse_bytes, around=around)
    return runs, _alone_ns(call.device, between, num_calls)


@functools.lru_cache(maxsize=64)
def _alone_ns(device: Device, data_bytes: int, count: int) -> float:
    """Return the median time of a graph of surroundings without calls in ns."""
    runs = GpuRuns([], around=surroundings(device, data_bytes), count=count, device=device)
    runs.duration_ns()
    return statistics.median(runs.duration_ns() for _ in range(_RUNS_ALONE))


class GpuRuns:
    """A graph of repeated calls, of one kernel in each stream of a GPU, to run again and again.

    Parameters
    ----------
    calls
        For each stream the call, and how often it is made; all are on one GPU.
    cold, reuse_bytes
        See `sample_on_gpu`; of the first stream.
    around
        What runs before each call of the first stream; ``count`` times on ``device`` if there are no
        calls.
    """

    def __init__(
        self,
        calls: Sequence[tuple[GpuCall, int]],
        *,
        cold: Sequence[int] = (),
        reuse_bytes: int = 0,
        around: Surroundings | None = None,
        count: int = 0,
        device: Device | None = None,
    ) -> None:
        self.buffers: list[Buffer] = []
        self.tensors: list[TensorView] = []
        self.steps: list[Step] = []
        self.contents: list[Any] = []
        self.images: list[bytes] = []
        self.functions: dict[str, tuple[int, GpuFunction]] = {}
        devices = [call.device for call, _ in calls] or ([] if device is None else [device])
        self.memory = devices[0].runtime
        self._surround(around)
        for number in range(0 if calls else count):
            self._add_surroundings(number)
        for stream, (call, repeats) in enumerate(calls):
            image, function = call.module.functions[call.symbol]
            name = f"call{stream}"
            code = -1 if image < 0 else self._image(call.module.images[image])
            self.functions[name] = code, function
            turns = self._turns(call, repeats, () if stream else cold, reuse_bytes)
            for number in range(repeats):
                if not stream:
                    self._add_surroundings(number)
                operands = turns[number % len(turns)]
                self.steps.append(Step(f"{name}.{number}", "kernel", 1 + stream, name, operands, 0))
        streams = [Device(f"stream{i}", one.target, self.memory) for i, one in enumerate(devices)]
        host = Device("host", host_target(), "cpu:0", usable_cores()[:1])
        self.executable = self._open(Platform((host, *streams)))

    def _surround(self, around: Surroundings | None) -> None:
        """Add the kernels and the memory of what runs before each call."""
        self.around: list[tuple[str, tuple[int, ...]]] = []
        if around is None:
            return
        image = self._image(around.image)
        self.functions.update({name: (image, found) for name, found in around.functions.items()})
        state, turn = self._add(around.state), self._add(around.turn)
        self.around.append((CODE, (state, turn)))
        if around.data_bytes:
            self.buffers.append(Buffer("arena", len(self.buffers), around.data_bytes, self.memory))
            self.tensors.append(TensorView(len(self.buffers) - 1, (around.data_bytes,), "uint8"))
            self.around.append((DATA, (turn, len(self.tensors) - 1)))

    def _add_surroundings(self, number: int) -> None:
        for name, operands in self.around:
            # The first to go through the memory is what the plan takes for its writer.
            outputs = int(name == DATA and number == 0)
            self.steps.append(Step(f"{name}.{number}", "kernel", 1, name, operands, outputs))

    def _image(self, image: bytes) -> int:
        self.images.append(image)
        return len(self.images) - 1

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

    def _open(self, platform: Platform) -> ConcurrentExecutable:
        program = LaneProgram(
            tuple(self.buffers), tuple(self.tensors), tuple(self.steps), (), (), (), []
        )
        functions = {name: function for name, (_, function) in self.functions.items()}
        program = with_workspaces(program, functions)
        plan = make_plan(program, platform)
        weights = aligned_bytes(plan.sizes.get(("weights", self.memory), 0))
        held = [number for number, buffer in enumerate(self.buffers) if buffer.space == "weights"]
        for buffer, content in zip(held, self.contents, strict=True):
            place = weights._create_view(content.shape, content.dtype, plan.offsets[buffer])
            content.copyto(place)
        parts = GpuParts(tuple(self.images), self.functions, {self.memory: weights})
        return ConcurrentExecutable(Image(program, platform, None, aligned_bytes(0), b"", parts))


def side_by_side_on_gpu(call: GpuCall, count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return how long a call takes in a stream alone, and beside as many in each of some more, in ns.

    Parameters
    ----------
    call
    count
        Number of streams, each of which makes the same calls with operands of its own.
    """
    runs = GpuRuns([(call, _CALLS)])
    runs.duration_ns()
    # Long enough that it does not matter how streams are forked and joined.
    calls = min(_MOST_BESIDE, max(_SLOW_CALLS, round(_BESIDE_NS * _CALLS / runs.duration_ns())))
    alone, together = (GpuRuns([(call, calls)] * streams) for streams in (1, count))
    alone.duration_ns()
    together.duration_ns()
    in_turn = [(alone.duration_ns(), together.duration_ns()) for _ in range(_RUNS_BESIDE)]
    mine, ours = zip(*in_turn, strict=True)
    return (
        tuple(max(1, round(time / calls)) for time in mine),
        tuple(max(1, round(time / calls)) for time in ours),
    )
