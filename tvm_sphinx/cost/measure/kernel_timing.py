"""Build kernels for a device at hand and time them as they will run. [TVM]"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..._tvm import relax, tvm, tvm_ffi
from ...errors import NoCodeError, SphinxError, UnsupportedError, cause_of
from ...frontend.dataflow import tensor_bytes
from ...frontend.extract import Kernel, is_memory_bound
from ...kernels import condition_operands, loop_limit
from ...kernels.implement import implement_kernel
from ...platform import Device
from ...platform.targets import device_target, runtime_device
from ...runtime.kernels import generate_code
from .divisors import divisor_operands
from .gpu_timing import CacheState, GpuCall, build_for_gpu, sample_on_gpu
from .hosts import Host, LocalHost
from .lane_timing import Call, load_for_lanes, sample_in_lane
from .rotation import Turn
from .sampling import Goal, Samples, collect_samples

# Of TVM's time evaluator: samples that the least time of a kernel consists of, each the mean of some
# calls, and how many of them one request brings.
_SAMPLES, _SAMPLES_PER_REQUEST = 16, 4
# Conditions of a kernel that are tried in both states, all of them together.
_MOST_CONDITIONS = 3
# Steps that a loop is timed with, whose number the network computes.
_ITERATIONS = 16
# Numbers that are drawn for a tensor; those of a larger one recur: to draw all would take too long.
_MOST_DRAWN = 1 << 16


@dataclass(frozen=True)
class MeasureConfig:
    """How long to measure each kernel, and where.

    Parameters
    ----------
    sample_ms
        Calls of a kernel are timed until they sum up to a quarter of this and the median is known as
        well as ``half_width`` says; no more once they sum up to three times this.
    half_width
        Half of the 95 % confidence interval of the median that is aimed at, as a share of it.
    under_load
        Whether to measure how much kernels slow each other down that run side by side.
    rpc_tracker
        ``"HOST:PORT"`` of TVM's RPC tracker, through which devices with an ``rpc_key`` are measured.
    """

    sample_ms: float = 20.0
    half_width: float = 0.02
    under_load: bool = True
    rpc_tracker: str | None = None

    def __post_init__(self) -> None:
        for name in ("sample_ms", "half_width"):
            if not 0 < getattr(self, name) < math.inf:
                raise SphinxError(f"Expected {name} > 0; got {name} = {getattr(self, name)}.")

    @property
    def goal(self) -> Goal:
        """When a kernel has been timed enough."""
        unit_ns = 1e6 * self.sample_ms
        return Goal(self.half_width, max(1, round(unit_ns / 4)), max(1, round(3 * unit_ns)))


class Bench(Protocol):
    """Where the kernels of one device are built and timed; ``host`` is the device's machine."""

    host: Host

    def build(self, functions: Mapping[str, Any]) -> Any:
        """Return a built module of PrimFuncs by symbol.

        Raises
        ------
        NoCodeError
            If TVM refuses one of them for the device.
        SphinxError
            If anything else fails.
        """

    def time(self, module: Any, symbol: str, kernel: Kernel, goal: Goal) -> Samples:
        """Time one of them until a goal is met; without samples if it cannot run on the device."""

    def turn(self, module: Any, symbol: str, kernel: Kernel, goal: Goal) -> Turn | None:
        """Return one of them as to be timed in turn with others; None where it is timed by itself."""


class LocalBench:
    """A device of this machine: kernels run in its lanes; where there are none they are timed by TVM."""

    def __init__(self, device: Device, config: MeasureConfig) -> None:
        self.device = device
        self.config = config
        self.host: Host = LocalHost()

    def build(self, functions: Mapping[str, Any]) -> Any:
        """Compile kernels; those of a CPU device for the lanes, as they will run."""
        if self.device.is_cpu:
            return load_for_lanes(functions)
        if self.device.runtime.startswith("cuda:"):
            return build_for_gpu(functions)
        return generate_code(functions, device_target(self.device))

    def time(self, module: Any, symbol: str, kernel: Kernel, goal: Goal) -> Samples:
        """Time a kernel, with its weights as far away as ``Kernel.reuse_bytes`` puts them."""
        function = None
        if kernel.is_external:
            function = tvm_ffi.get_global_func(kernel.function, allow_missing=True)
            if function is None or not self.device.is_cpu:
                return NO_SAMPLES
        elif self.device.is_cpu:
            function = module.get_function(symbol)
        if self.device.runtime.startswith("cuda:"):
            host = runtime_device("cpu:0")
            call = GpuCall(module, symbol, draws_of(kernel, host)[0], self.device)
            # What runs around it may hide how a kernel begins: in a model none takes less than when it
            # is called again and again.
            return slowest(
                sample_on_gpu(
                    call,
                    goal,
                    self.host.switches,
                    cold=kernel.weights,
                    reuse_bytes=kernel.reuse_bytes,
                    state=state,
                )
                for state in (CacheState.MODEL, CacheState.WARM)
            )
        runtime = runtime_device(self.device.runtime)

        def sample(operands: Sequence[Any]) -> Samples:
            if not self.device.is_cpu:
                return evaluate(module, symbol, operands, runtime, goal, self.host.switches)
            return sample_in_lane(
                self._call(function, operands, kernel),
                goal,
                cold=kernel.weights if kernel.reuse_bytes else (),
                reuse_bytes=kernel.reuse_bytes,
            )

        return slowest(map(sample, draws_of(kernel, runtime)))

    def _call(self, function: Any, operands: Sequence[Any], kernel: Kernel) -> Call:
        # Only cores of unlike speeds share out their loops by it.
        has_speeds = bool(self.device.core_memory_speeds)
        bound = has_speeds and is_memory_bound(kernel.function, operand_bytes(kernel))
        return Call(function, operands, self.device, bound)

    def turn(self, module: Any, symbol: str, kernel: Kernel, goal: Goal) -> Turn | None:
        """Return a kernel as one of several to be timed in turn; None where that has no use.

        It has a use on a CPU, for kernels whose weights other kernels put out of the caches.
        """
        if not self.device.is_cpu or kernel.is_external or not (kernel.weights and kernel.reuse_bytes):
            return None
        if condition_operands(kernel.function) or loop_limit(kernel.function) is not None:
            return None
        (operands,) = draws_of(kernel, runtime_device(self.device.runtime))
        call = self._call(module.get_function(symbol), operands, kernel)
        return Turn(call, kernel.weights, kernel.reuse_bytes, goal)


#: Of a kernel that cannot run.
NO_SAMPLES = Samples((), math.inf, 0.0)


def evaluate(
    module: Any,
    symbol: str,
    operands: Sequence[Any],
    runtime: Any,
    goal: Goal,
    switches: Callable[[], int],
    **options: Any,
) -> Samples:
    """Time a kernel by TVM's time evaluator, which times a GPU with events, until a goal is met.

    Parameters
    ----------
    module, symbol, operands, runtime
        What to call with which tensors of a TVM device, possibly a remote one.
    goal, switches
        See `tvm_sphinx.cost.measure.sampling.collect_samples`.
    options
        More arguments of the time evaluator, such as what to do before each sample.
    """

    def sample(number: int, repeat: int) -> list[int]:
        evaluator = module.time_evaluator(symbol, runtime, number=number, repeat=repeat, **options)
        return [round(1e9 * float(seconds)) for seconds in evaluator(*operands).results]

    sample(1, 1)  # first touch of code and data
    once_ns = max(1, sample(1, 1)[0])
    # What is done before each sample holds for one call only.
    number = 1 if options else max(1, goal.min_ns // (_SAMPLES * once_ns))
    repeat = min(_SAMPLES_PER_REQUEST, max(1, goal.min_ns // (number * once_ns)))
    return collect_samples(lambda: sample(number, repeat), goal.of_means(number), switches)


class BuiltKernels(NamedTuple):
    """The module of each symbol that could be built, and why there is no code for each of the others."""

    modules: dict[str, Any]
    refused: dict[str, str]


def build_kernels(bench: Bench, functions: Mapping[str, Any], device: Device) -> BuiltKernels:
    """Build kernels together, which is fast; if TVM refuses one, each alone.

    Raises
    ------
    SphinxError
        If it is not the kernels that are at fault: nothing can be said of any of them.
    """
    named = {key: function for key, function in functions.items() if function is not None}
    built = BuiltKernels({}, {})
    if not named:
        return built
    try:
        return BuiltKernels(dict.fromkeys(named, bench.build(named)), {})
    except NoCodeError:  # which kernel is at fault shows when each is built alone
        pass
    for key, function in named.items():
        try:
            built.modules[key] = bench.build({key: function})
        except NoCodeError as error:
            built.refused[key] = str(error)
    if built.refused:
        _check_toolchain(bench, device)
    return built


def _check_toolchain(bench: Bench, device: Device) -> None:
    """Check that the plainest kernel can be built: TVM's error is the same where a compiler fails it."""
    source = tvm.te.placeholder((64,), name="source")
    copied = tvm.te.compute((64,), lambda i: source[i], name="copied")
    function = tvm.te.create_prim_func([source, copied])
    try:
        bench.build({"plainest": implement_kernel(function, device_target(device))})
    except NoCodeError as error:
        raise UnsupportedError(
            f"No kernel at all can be built for device {device.name!r}: {cause_of(error)}"
        ) from error


def kernel_symbol(key: str) -> str:
    """Return a C identifier for a kernel's id."""
    return "kernel_" + "".join(char if char.isalnum() else "_" for char in key)


def kernel_of(function: Any, name: str, weights: tuple[int, ...] = (), reuse_bytes: int = 0) -> Kernel:
    """Return a PrimFunc that belongs to no model as a kernel of this id."""
    types = tuple(relax.TensorType(list(p.shape), str(p.dtype)) for p in function.params)
    return Kernel(name, function, types, None, weights, reuse_bytes)


def operand_bytes(kernel: Kernel) -> int:
    """Return the bytes of all operands of a kernel."""
    return sum(tensor_bytes(ty) for ty in kernel.argument_types)


def draws_of(kernel: Kernel, device: Any) -> list[list[Any]]:
    """Return the operands to time a kernel with: drawn once, or once for each way that it may take.

    A kernel that chooses what to run by its operands (the branches of an ``if``) is timed with each of
    the first few of them true and false; what it computes itself is as the other operands make it. A
    loop is timed with `_ITERATIONS` steps at most: how many there will be nobody knows before.

    Parameters
    ----------
    kernel
    device
        Of TVM's runtime.
    """
    conditions, limit = condition_operands(kernel.function), loop_limit(kernel.function)
    chosen = conditions[:_MOST_CONDITIONS]
    draws = []
    for values in itertools.product((False, True), repeat=len(chosen)):
        operands = random_operands(kernel.argument_types, divisor_operands(kernel.function), device)
        for position, value in zip(chosen, values, strict=True):
            operands[position] = tvm.runtime.tensor(np.array(value), device)
        if limit is not None:
            operands[0] = tvm.runtime.tensor(np.array(True), device)
            operands[limit] = tvm.runtime.tensor(np.array(_ITERATIONS), device)
        draws.append(operands)
    return draws


def slowest(found: Iterable[Samples]) -> Samples:
    """Return those of several ways through a kernel that took the longest: a schedule counts on them."""
    return max(found, key=lambda samples: samples.median_ns)


def random_operands(types: Sequence[Any], divisors: Collection[int], device: Any) -> list[Any]:
    """Return a tensor for each type, see `random_tensor`: ones where integers are divided by.

    Parameters
    ----------
    types
        Relax types of a kernel's arguments.
    divisors
        Their positions, see `tvm_sphinx.cost.measure.divisors.divisor_operands`.
    device
        Of TVM's runtime.
    """
    return [random_tensor(ty, device, int(number in divisors)) for number, ty in enumerate(types)]


def random_tensor(ty: Any, device: Any, integer: int = 0) -> Any:
    """Return a tensor of a Relax type: floats in [0.5, 1], so that none is denormal; integers are 0.

    Zero is a valid index into any tensor, so kernels that gather stay inside their operands.
    """
    shape = [int(extent) for extent in ty.shape.values]
    dtype = str(ty.dtype)
    if dtype.startswith("float"):
        drawn = np.random.default_rng(0).uniform(0.5, 1.0, min(math.prod(shape), _MOST_DRAWN))
        return tvm.runtime.tensor(np.resize(drawn.astype(dtype), shape), device)
    tensor = tvm.runtime.empty(shape, dtype, device)
    tensor.copyfrom(np.full(shape, integer, dtype="uint8" if dtype == "bool" else dtype).astype(dtype))
    return tensor


def shape_texts(kernel: Kernel) -> tuple[str, ...]:
    """Return the operands of a kernel as records have them, such as ``"float32[1, 64]"``."""
    return tuple(
        f"{ty.dtype}[{', '.join(str(int(extent)) for extent in ty.shape.values)}]"
        for ty in kernel.argument_types
    )
