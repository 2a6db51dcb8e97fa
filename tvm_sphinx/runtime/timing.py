"""Time kernels as the lanes run them: on a device's own cores, with its own team. [TVM]

TVM's time evaluator runs parallel loops on TVM's thread pool, whose launch costs microseconds where that
of a team costs a tenth; costs measured with it would predict another runtime than the one in use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._tvm import tvm, tvm_ffi
from ..platform import Device, Platform
from .encode import Opcode, make_lanes
from .kernels import KernelPass, compile_kernels, load_kernels
from .plan import LanePlan, make_plan
from .program import Buffer, LaneProgram, Step, TensorView
from .tensors import aligned_bytes

# Calls in one run, each of which is a sample; a slow kernel is called once a run.
_MOST_CALLS_PER_RUN = 16
_MOST_RUNS = 1000
# Touching more than this between two calls empties the caches no further.
_MOST_SWEEP_BYTES = 64 << 20


def load_for_lanes(kernels: Mapping[str, Any], kernel_pass: KernelPass | None = None) -> Any:
    """Compile PrimFuncs by name, each of which carries its CPU target, and load them for the lanes.

    Parameters and errors as in `tvm_sphinx.runtime.kernels.compile_kernels`; without a pass the kernels
    are compiled as they are.
    """
    return load_kernels(compile_kernels(kernels, kernel_pass or (lambda module: module)))


def time_in_lane(
    function: Any,
    operands: Sequence[Any],
    device: Device,
    *,
    min_ns: int = 10_000_000,
    cold: Sequence[int] = (),
    footprint_bytes: int = 8 << 20,
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
    cold
        Positions of operands that are not in the core's own caches at a call, such as weights, which a
        model reads once in each inference; all others are. By default none is cold.
    footprint_bytes
        Memory that is touched between two uses of a cold operand: the size of the model's weights.
    """
    sweep_bytes = min(footprint_bytes, _MOST_SWEEP_BYTES) if cold else 0
    timer = _Timer(function, list(operands), device, frozenset(cold), sweep_bytes)
    once_ns = max(1, timer.sample(1, 0)[0])
    num_calls = min(_MOST_CALLS_PER_RUN, max(1, min_ns // (2 * once_ns)))
    return tuple(timer.sample(num_calls, min_ns))


class _Timer:
    """Runs programs of repeated calls; where operands are cold it sweeps the caches before each call."""

    def __init__(
        self,
        function: Any,
        operands: list[Any],
        device: Device,
        cold: frozenset[int],
        sweep_bytes: int,
    ) -> None:
        self.function = function
        self.device = device
        self.num_operands = len(operands)
        hot = [number for number in range(len(operands)) if number not in cold] if cold else []
        # Copies before each call, as (from, to): one that sweeps the caches, one for each hot operand.
        self.tensors = list(operands)
        self.copies: list[tuple[int, int]] = []
        if cold:
            self._add_copy(self._add(aligned_bytes(sweep_bytes // 2)))
        for number in hot:
            self._add_copy(number)

    def _add(self, tensor: Any) -> int:
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def _add_copy(self, source: int) -> None:
        tensor = self.tensors[source]
        self.copies.append((source, self._add(tvm.runtime.empty(tensor.shape, tensor.dtype))))

    def sample(self, num_calls: int, min_ns: int) -> list[int]:
        """Return how long each call of runs of ``num_calls`` took; the first run only warms up."""
        plan = self._plan(num_calls)
        lanes = make_lanes(plan, {("kernel", "timed"): self.function}, aligned_bytes(0), True)
        stamps = np.zeros((len(plan.program.steps), 2), dtype=np.int64)
        is_call = np.array([step.kind == "kernel" for step in plan.program.steps])
        shared = tvm_ffi.from_dlpack(stamps)
        samples: list[int] = []
        for run in range(_MOST_RUNS):
            lanes(int(Opcode.RUN_TRACED), shared, *self.tensors)
            if run:
                samples += (stamps[is_call, 1] - stamps[is_call, 0]).tolist()
            if samples and sum(samples) >= min_ns:
                break
        return samples

    def _plan(self, num_calls: int) -> LanePlan:
        """Return the plan of some calls of the kernel, all on the same operands."""
        views = [
            TensorView(number, tuple(int(extent) for extent in tensor.shape), str(tensor.dtype))
            for number, tensor in enumerate(self.tensors)
        ]
        numbers = tuple(range(len(self.tensors)))
        buffers = tuple(Buffer("input", number, 0) for number in numbers)
        # Every tensor is an argument of the program: the lanes need not know which ones are written.
        steps = []
        for call in range(num_calls):
            for source, target in self.copies:
                steps.append(Step(f"copy{call}", "copy", 0, "", (source, target), 0))
            steps.append(Step(f"call{call}", "kernel", 0, "timed", numbers[: self.num_operands], 0))
        names = tuple(f"operand{number}" for number in numbers)
        program = LaneProgram(buffers, tuple(views), tuple(steps), names, numbers, (), [])
        return make_plan(program, Platform((self.device,)))
