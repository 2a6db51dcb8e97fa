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

from .._tvm import tvm_ffi
from ..errors import EnvironmentMismatchError
from .plan import LanePlan
from .program import TensorView
from .tensors import aligned_bytes

_VERSION = 1
_SPACES = {"arena": 0, "weights": 1}
_FIRST_SLOT = 2
_NOTHING, _CALL, _COPY = 0, 1, 2


class Opcode(IntEnum):
    """First argument of the native lanes."""

    RUN = 0
    RUN_TRACED = 1
    TIME = 2
    SET_DELAYS = 3
    SET_SPIN = 4


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


def make_lanes(plan: LanePlan, functions: dict[tuple[str, str], Any], weights: Any, bind: bool) -> Any:
    """Start the lanes of a plan.

    Parameters
    ----------
    plan
    functions
        The ``tvm_ffi.Function`` of each (kind, name) that a step calls.
    weights
        Tensor of ``plan.weight_bytes`` bytes, uint8.
    bind
        Whether each worker is bound to its core.

    Returns
    -------
    function
        ``f(Opcode, ...)``. It owns the threads and the arena.
    """
    arena = aligned_bytes(plan.arena_bytes)
    words = tvm_ffi.from_dlpack(np.array(encode(plan, list(functions), bind), dtype=np.int64))
    core_lists = [tvm_ffi.convert([str(core)]) for core in plan.cores]
    configure = tvm_ffi.get_global_func("runtime.config_threadpool")
    return _library().lanes_create(words, arena, weights, configure, *core_lists, *functions.values())


def encode(plan: LanePlan, functions: Sequence[tuple[str, str]], bind: bool = True) -> list[int]:
    """Return a plan as int64 words; ``functions`` numbers the (kind, name) pairs that steps call."""
    program = plan.program
    num_slots = len(program.space_buffers("input")) + len(program.space_buffers("output"))
    words = [_VERSION, num_slots, len(functions), len(program.tensors)]
    for tensor in program.tensors:
        words += _encode_tensor(plan, tensor)
    words.append(len(program.steps))
    numbers = {function: number for number, function in enumerate(functions)}
    for step in program.steps:
        if step.kind == "nothing":
            words += [_NOTHING, 0]
        elif step.kind == "copy":
            words += [_COPY, 2, step.operands[1], step.operands[0]]
        else:
            words += [_CALL, numbers[step.kind, step.function], len(step.operands), *step.operands]
    words += [len(plan.cores), len(plan.teams), *(core if bind else -1 for core in plan.cores)]
    for team in plan.teams:
        words += [len(team), *team]
    for entries in plan.entries:
        words.append(len(entries))
        for entry in entries:
            waits = [word for wait in entry.waits for word in wait]
            words += [entry.step, entry.team, entry.member, int(entry.publishes)]
            words += [len(entry.waits), *waits]
    return words


def _encode_tensor(plan: LanePlan, tensor: TensorView) -> list[int]:
    buffer = plan.program.buffers[tensor.buffer]
    if buffer.space in _SPACES:
        space = _SPACES[buffer.space]
    else:
        num_inputs = len(plan.program.space_buffers("input"))
        space = _FIRST_SLOT + buffer.index + (num_inputs if buffer.space == "output" else 0)
    dtype = tvm_ffi.dtype(tensor.dtype)
    words = [space, plan.offsets[tensor.buffer], dtype.type_code, dtype.bits, dtype.lanes]
    return [*words, len(tensor.shape), *tensor.shape]
