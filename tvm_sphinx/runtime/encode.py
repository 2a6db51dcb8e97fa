"""Hand a plan to the native lanes, and call them. [TVM]

The words and opcodes here are those of ``lanes_words.h`` and ``_lanes.c``.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from enum import IntEnum
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import numpy as np

from .._tvm_runtime import tvm_ffi
from ..errors import EnvironmentMismatchError, GpuError
from ..platform.machine import allowed_cores
from ..platform.slow_cores import slow_cores
from .gpu_encode import gpu_arguments
from .gpu_parts import GpuParts
from .gpu_plan import Feed, make_feeds
from .plan import LanePlan
from .program import HOST, PINNED, TensorView
from .tensors import aligned_bytes

_VERSION = 3
# Speeds of a team's workers are handed over as whole numbers.
_SPEED_UNIT = 1000
_NOTHING, _CALL, _COPY, _FEED = 0, 1, 2, 3


class Opcode(IntEnum):
    """First argument of the native lanes."""

    RUN = 0
    RUN_TRACED = 1
    TIME = 2
    SET_DELAYS = 3
    SET_SPIN = 4
    TIME_GPUS = 5
    SLOW_DOWN = 6


@functools.cache
def library_path() -> Path:
    """Return the file of the native lanes.

    Raises
    ------
    EnvironmentMismatchError
        If the package was installed without it.
    """
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).parent / f"_lanes{suffix}"
        if path.is_file():
            return path
    raise EnvironmentMismatchError(
        f"Expected _lanes{EXTENSION_SUFFIXES[0]} in {Path(__file__).parent}; it is missing. "
        f"Reinstall tvm-sphinx with a C compiler at hand."
    )


@functools.cache
def _library() -> Any:
    tvm_ffi.register_error("GpuError", GpuError)
    return tvm_ffi.load_module(str(library_path()))


def give_parallel_loops(kernel_library: str) -> None:
    """Let the parallel loops of a loaded kernel library run on the lanes' teams.

    TVM's generated code calls ``TVMBackendParallelLaunch`` through a pointer in its own library; TVM's
    thread pool would put threads of its own beside the lanes.
    """
    lanes = ctypes.CDLL(str(library_path()))
    kernels = ctypes.CDLL(kernel_library)
    # Parts that meet at a barrier have to run at once; all others run as the workers come.
    meet = _set_pointer(kernels, "__TVMBackendParallelBarrier", lanes.lanes_parallel_barrier)
    launch = lanes.lanes_parallel_launch_together if meet else lanes.lanes_parallel_launch
    _set_pointer(kernels, "__TVMBackendParallelLaunch", launch)


def _set_pointer(library: ctypes.CDLL, name: str, function: Any) -> bool:
    """Set a pointer variable of a library to a function; return whether the library has it."""
    try:
        pointer = ctypes.c_void_p.in_dll(library, name)
    except ValueError:
        return False
    pointer.value = ctypes.cast(function, ctypes.c_void_p).value
    return True


def make_lanes(
    plan: LanePlan,
    functions: dict[tuple[str, str], Any],
    weights: Any,
    bind: bool,
    gpu: GpuParts | None = None,
    use_graphs: bool = True,
) -> Any:
    """Start the lanes of a plan.

    Parameters
    ----------
    plan
    functions
        The ``tvm_ffi.Function`` of each (kind, name) that a step of a CPU calls.
    weights
        Tensor of ``plan.weight_bytes`` bytes, uint8.
    bind
        Whether each worker is bound to its core.
    gpu
        What the steps of GPUs need.
    use_graphs
        Whether what a GPU does between two waits of its feeder is launched as one CUDA graph.

    Returns
    -------
    function
        ``f(Opcode, ...)``. It owns the threads and the arena.

    Raises
    ------
    GpuError
        If a GPU is not there, or lacks memory, or cannot run the kernels.
    """
    arena = aligned_bytes(plan.arena_bytes)
    feeds = make_feeds(plan)
    words = tvm_ffi.from_dlpack(np.array(encode(plan, list(functions), bind, feeds), dtype=np.int64))
    for_gpus = gpu_arguments(plan, feeds, gpu or GpuParts()) if feeds else []
    core_lists = [tvm_ffi.convert([str(core)]) for core in plan.cores]
    core_lists += [tvm_ffi.convert([]) for _ in feeds]
    configure = tvm_ffi.get_global_func("runtime.config_threadpool")
    fixed = (words, arena, weights, configure, len(for_gpus), int(use_graphs))
    lanes = _library().lanes_create(*fixed, *for_gpus, *core_lists, *functions.values())
    for core, factor in slow_cores().items():
        if core in plan.cores:
            lanes(int(Opcode.SLOW_DOWN), plan.cores.index(core), round(1000 * factor))
    return lanes


def encode(
    plan: LanePlan,
    functions: Sequence[tuple[str, str]],
    bind: bool = True,
    feeds: Sequence[Feed] = (),
) -> list[int]:
    """Return a plan as int64 words; ``functions`` numbers the (kind, name) pairs that steps call.

    Behind the steps of the program stand the segments of the feeders, as steps of their own.
    """
    program, places = plan.program, plan.places
    num_slots = len(program.space_buffers("input")) + len(program.space_buffers("output"))
    spaces = _space_keys(plan)
    words = [_VERSION, len(spaces), *(plan.sizes.get(key, 0) for key in spaces)]
    words += [num_slots, len(functions), len(program.tensors)]
    for tensor in program.tensors:
        words += _encode_tensor(plan, tensor, spaces)
    segments = [segment for feed in feeds for segment in feed.segments]
    words.append(len(program.steps) + len(segments))
    numbers = {function: number for number, function in enumerate(functions)}
    for index, step in enumerate(program.steps):
        if step.kind == "nothing" or places.feeder(plan.leader(index)) is not None:
            words += [_NOTHING, 0]
        elif step.kind == "copy":
            words += [_COPY, 2, step.operands[1], step.operands[0]]
        else:
            words += [_CALL, numbers[step.kind, step.function], len(step.operands), *step.operands]
    for number in range(len(segments)):
        words += [_FEED, number, 0]
    words += [places.num_workers, len(plan.teams), len(places.gpus), len(places.streams)]
    feeder_cores = spare_cores(plan, len(places.gpus))
    words += [core if bind else -1 for core in (*plan.cores, *feeder_cores)]
    for workers, speeds in plan.teams:
        words += [len(workers), *workers, len(speeds), *(round(_SPEED_UNIT * speed) for speed in speeds)]
    for entries in plan.entries:
        words.append(len(entries))
        for entry in entries:
            words += [entry.step, entry.team, entry.member, int(entry.publishes)]
            words += _encode_waits(entry.waits)
    first = len(program.steps)
    for feed in feeds:
        words.append(len(feed.segments))
        for number, segment in enumerate(feed.segments):
            words += [first + number, -1, 0, 0, *_encode_waits(segment.waits)]
        first += len(feed.segments)
    return words


def spare_cores(plan: LanePlan, count: int) -> list[int]:
    """Return cores of this machine that no worker has, for the feeders; -1 where there is none left."""
    spare = sorted(set(allowed_cores()) - set(plan.cores), reverse=True)
    return (spare + [-1] * count)[:count]


def _encode_waits(waits: Sequence[tuple[int, int]]) -> list[int]:
    return [len(waits), *(word for wait in waits for word in wait)]


def _space_keys(plan: LanePlan) -> list[tuple[str, str]]:
    """Return the (space, memory) pairs in the order of their numbers."""
    keys = [("arena", HOST), ("weights", HOST), ("arena", PINNED)]
    return keys + [(space, gpu) for gpu in plan.places.gpus for space in ("arena", "weights")]


def _encode_tensor(plan: LanePlan, tensor: TensorView, spaces: list[tuple[str, str]]) -> list[int]:
    buffer = plan.program.buffers[tensor.buffer]
    if buffer.space in ("arena", "weights"):
        space = spaces.index((buffer.space, buffer.memory))
    else:
        num_inputs = len(plan.program.space_buffers("input"))
        space = len(spaces) + buffer.index + (num_inputs if buffer.space == "output" else 0)
    dtype = tvm_ffi.dtype(tensor.dtype)
    words = [space, plan.offsets[tensor.buffer], dtype.type_code, dtype.bits, dtype.lanes]
    return [*words, len(tensor.shape), *tensor.shape]
