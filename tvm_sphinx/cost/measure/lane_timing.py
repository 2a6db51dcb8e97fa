"""Time kernels as the lanes run them: on a device's own cores, with its own team. [TVM]

TVM's time evaluator runs parallel loops on TVM's thread pool, whose launch costs microseconds where that
of a team costs a tenth; costs measured with it would predict another runtime than the one in use.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..._tvm import tvm_ffi
from ...platform import Device, Platform
from ...runtime.encode import Opcode, make_lanes
from ...runtime.kernels import KernelPass, compile_kernels
from ...runtime.loading import load_kernels
from ...runtime.plan import make_plan
from ...runtime.program import Buffer, LaneProgram, Step, TensorView
from ...runtime.tensors import aligned_bytes
from ...scheduling.problem import Int64Array
from .cache_state import Reuse, copy_of, filled_bytes, num_bytes, pause, writer
from .sampling import Goal, Samples, collect_samples, involuntary_switches

# Calls in one run, each of which is a sample; a slow kernel is called once a run.
_MOST_CALLS_PER_RUN = 16
_MOST_SAMPLES = 16_000
# What is done between two calls takes less than this.
_BETWEEN_SPIN_NS = 100_000_000
# Calls in one run of a kernel that is timed beside a neighbour.
_CALLS_BESIDE = 4
# Rounds beside a neighbour are repeated this many times until enough were not disturbed.
_MOST_TRIES = 2
#: Functions that run between two calls.
PAUSE, WRITE = "pause", "write"


def load_for_lanes(kernels: Mapping[str, Any], kernel_pass: KernelPass | None = None) -> Any:
    """Compile PrimFuncs by name, each of which carries its CPU target, and load them for the lanes.

    Parameters and errors as in `tvm_sphinx.runtime.kernels.compile_kernels`; without a pass the kernels
    are compiled as they are.
    """
    return load_kernels(compile_kernels(kernels, kernel_pass or (lambda module: module)))


class Call(NamedTuple):
    """A kernel to time: a function of `load_for_lanes`, its operands, and the device that runs it.

    ``memory_bound`` is what `tvm_sphinx.frontend.extract.is_memory_bound` says of it.
    """

    function: Any
    operands: Sequence[Any]
    device: Device
    memory_bound: bool = False


def time_in_lane(
    function: Any,
    operands: Sequence[Any],
    device: Device,
    *,
    min_ns: int = 10_000_000,
    cold: Sequence[int] = (),
    reuse_bytes: int = 8 << 20,
) -> tuple[int, ...]:
    """Return how long single calls of a kernel take on a device, in ns.

    There are as many as sum up to ``min_ns``, at most some 16,000, however disturbed.

    The other parameters are those of `sample_in_lane`.
    """
    goal = Goal(0.0, min_ns, min_ns, max_wall_s=math.inf, max_samples=_MOST_SAMPLES)
    call = Call(function, operands, device)
    return _collect(call, goal, cold, reuse_bytes, switches=lambda: 0).ns


def sample_in_lane(
    call: Call, goal: Goal, *, cold: Sequence[int] = (), reuse_bytes: int = 8 << 20
) -> Samples:
    """Time single calls of a kernel on a device until a goal is met; the first run is not counted.

    Parameters
    ----------
    call
        A function of a module that `load_for_lanes` returns, or a packed function of TVM's registry;
        host tensors, inputs and outputs in the order of its arguments, aligned to 64 bytes; a CPU
        device of this machine.
    goal
    cold
        Positions of operands that a model reads once in each inference, such as weights: other memory is
        gone through and time passes before they are read again (`cache_state.Reuse`). All others are
        written anew before each call, each core its share, as the kernel before would. By default none
        is cold.
    reuse_bytes
        What is read of weights between two uses of a cold operand, as of all that the model has.
    """
    return _collect(call, goal, cold, reuse_bytes, switches=involuntary_switches)


def _collect(
    call: Call, goal: Goal, cold: Sequence[int], reuse_bytes: int, switches: Callable[[], int]
) -> Samples:
    timer = Timer(call, frozenset(cold))
    once_ns = max(1, timer.runs(1).sample()[0])
    if cold:
        timer.rotate(Reuse.after(reuse_bytes), once_ns)
    num_calls = min(_MOST_CALLS_PER_RUN, max(1, goal.min_ns // (2 * once_ns)))
    return collect_samples(timer.runs(num_calls).sample, goal, switches)


def time_beside(
    call: Call, neighbours: Sequence[Call | None], *, num_rounds: int = 6
) -> list[tuple[int, ...]]:
    """Return how long calls of a kernel take, in ns, while another device works without a pause.

    Calls that the neighbour was not there for from begin to end are left out, and so are runs that
    another process took a core from, as long as there are others.

    Parameters
    ----------
    call
        What is timed, in calls right after each other.
    neighbours
        What the other device does, on cores of its own; None leaves it idle. There is one result for
        each of them; all are timed in turn, so that what changes meanwhile is the same for all.
    num_rounds
        How often each has its turn.
    """
    runs = [_beside(call, neighbour) for neighbour in neighbours]
    for made in runs:
        made.sleep_when_idle()
    clean: list[list[int]] = [[] for _ in runs]
    disturbed: list[list[int]] = [[] for _ in runs]
    wanted = num_rounds * _CALLS_BESIDE
    for _ in range(_MOST_TRIES * num_rounds):
        for number, made in enumerate(runs):
            before = involuntary_switches()
            taken = _within(made.stamps())
            (clean if involuntary_switches() == before else disturbed)[number] += taken
        if min(map(len, clean)) >= wanted:
            break
    return [tuple(kept or rest) for kept, rest in zip(clean, disturbed, strict=True)]


def _within(stamps: Int64Array) -> list[int]:
    """Return how long each call took that the neighbour's calls enclose."""
    mine, others = stamps[:_CALLS_BESIDE], stamps[_CALLS_BESIDE:]
    within = np.ones(len(mine), dtype=np.bool_)
    if len(others):
        within = (mine[:, 0] >= others[0, 0]) & (mine[:, 1] <= others[-1, 1])
    durations: list[int] = (mine[within, 1] - mine[within, 0]).tolist()
    return durations


def _beside(call: Call, neighbour: Call | None) -> Runs:
    """Return runs of `_CALLS_BESIDE` calls on the first device, and enough on the other beside them."""
    operands = tuple(range(len(call.operands)))
    bound = call.memory_bound
    steps = [Step(f"call{i}", "kernel", 0, "timed", operands, 0, bound) for i in range(_CALLS_BESIDE)]
    if neighbour is None:
        return Runs({"timed": call.function}, call.operands, steps, (call.device,))
    alone_ns = [max(1, Timer(c, frozenset()).runs(2).sample()[1]) for c in (call, neighbour)]
    # Enough for a kernel that takes three times as long as alone, beside one that is not slowed.
    count = 2 + 3 * _CALLS_BESIDE * alone_ns[0] // alone_ns[1]
    tensors = [*call.operands, *neighbour.operands]
    operands = tuple(range(len(call.operands), len(tensors)))
    bound = neighbour.memory_bound
    steps += [Step(f"beside{i}", "kernel", 1, "beside", operands, 0, bound) for i in range(count)]
    functions = {"timed": call.function, "beside": neighbour.function}
    return Runs(functions, tensors, steps, (call.device, neighbour.device))


class Runs:
    """A program of steps on host tensors, to run again and again; making it runs it once.

    Steps know tensor i as i, and its bytes as i plus the number of tensors.
    """

    def __init__(
        self,
        functions: Mapping[str, Any],
        tensors: Sequence[Any],
        steps: Sequence[Step],
        devices: tuple[Device, ...],
    ) -> None:
        views = [
            TensorView(number, tuple(int(extent) for extent in tensor.shape), str(tensor.dtype))
            for number, tensor in enumerate(tensors)
        ]
        views += [
            TensorView(number, (num_bytes(tensor),), "uint8") for number, tensor in enumerate(tensors)
        ]
        numbers = tuple(range(len(tensors)))
        # Every tensor is an argument of the program: the lanes need not know which ones are written.
        buffers = tuple(Buffer("input", number, 0) for number in numbers)
        names = tuple(f"operand{number}" for number in numbers)
        program = LaneProgram(buffers, tuple(views), tuple(steps), names, numbers, (), [])
        called = {(step.kind, step.function): functions[step.function] for step in steps}
        self._lanes = make_lanes(make_plan(program, Platform(devices)), called, aligned_bytes(0), True)
        self._tensors = list(tensors)
        self._stamps = np.zeros((len(steps), 2), dtype=np.int64)
        self._shared = tvm_ffi.from_dlpack(self._stamps)
        self._is_call = np.array([step.function not in (PAUSE, WRITE) for step in steps])
        # In a schedule a team works without long pauses; between two calls it must not fall asleep, or
        # each would pay for waking it.
        self._lanes(int(Opcode.SET_SPIN), _BETWEEN_SPIN_NS, 0)
        self.stamps()

    def stamps(self) -> Int64Array:
        """Run once; return begin and end of each call of a kernel in ns, shape (calls, 2)."""
        self._lanes(int(Opcode.RUN_TRACED), self._shared, *self._tensors)
        called: Int64Array = self._stamps[self._is_call]
        return called

    def sleep_when_idle(self) -> None:
        """Let the workers sleep between runs: programs that take turns share cores."""
        self._lanes(int(Opcode.SET_SPIN), 500_000, 0)

    def sample(self) -> list[int]:
        """Run once; return how long each call of a kernel took, in ns."""
        stamps = self.stamps()
        durations: list[int] = (stamps[:, 1] - stamps[:, 0]).tolist()
        return durations


class Timer:
    """Makes programs of repeated calls of a kernel, each with the caches as a model leaves them."""

    def __init__(self, call: Call, cold: frozenset[int]) -> None:
        self.call, self.cold = call, cold
        self.tensors = list(call.operands)
        self.functions = {"timed": call.function, WRITE: writer(call.device)}
        # What calls take turns with: the operands, with a copy of their own of those that are cold.
        self.operands = [tuple(range(len(call.operands)))]
        # What is written before a call, as (from, to): results first, whose memory was in use before.
        self.written: list[tuple[int, int]] = []
        for number in reversed(range(len(call.operands))):
            if number not in cold and num_bytes(call.operands[number]):
                self.written.append((self._add(copy_of(call.operands[number])), number))

    def rotate(self, reuse: Reuse, once_ns: int) -> None:
        """Let calls, which take about ``once_ns``, come back to their cold operands as a model does."""
        size = sum(num_bytes(self.call.operands[number]) for number in self.cold)
        fitting = min(reuse.bytes // max(1, size), reuse.ns // once_ns)
        count = max(1, min(_MOST_CALLS_PER_RUN, fitting))
        self.take_turns(count)
        if (other := (reuse.bytes // count - size) // 2) > 0:
            self.written.insert(0, (self._add(filled_bytes(other)), self._add(filled_bytes(other))))
        self.functions[PAUSE] = pause(max(0, reuse.ns // count - once_ns))

    def take_turns(self, count: int) -> None:
        """Let calls take turns with so many copies of the cold operands."""
        for _ in range(1, count):
            own = {number: self._add(copy_of(self.call.operands[number])) for number in self.cold}
            self.operands.append(tuple(own.get(number, number) for number in self.operands[0]))

    def _add(self, tensor: Any) -> int:
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def runs(self, num_calls: int) -> Runs:
        """Return runs of some calls of the kernel, a multiple of those that take turns."""
        num_turns = len(self.operands)
        steps = []
        for number in range(-(-num_calls // num_turns) * num_turns):
            if PAUSE in self.functions:
                steps.append(Step(f"pause{number}", "external", 0, PAUSE, (0,), 0))
            for source, result in self.written:
                flat = source + len(self.tensors), result + len(self.tensors)
                steps.append(Step(f"write{number}", "kernel", 0, WRITE, flat, 0, True))
            operands = self.operands[number % num_turns]
            bound = self.call.memory_bound
            steps.append(Step(f"call{number}", "kernel", 0, "timed", operands, 0, bound))
        return Runs(self.functions, self.tensors, steps, (self.call.device,))
