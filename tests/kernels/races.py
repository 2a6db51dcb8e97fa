"""Finds kernels whose parallel loops are races, whatever order this machine happens to run them in.

The parts of a loop that several cores share may run in any order and at the same time. Here they run
one by one, and each begins from the memory as it was before the loop; what it changed is noted and
taken back. Two parts that wrote to the same byte are a race. A part that read what another one wrote
has read what was there before: random bytes, since outputs and scratch memory begin as such, and its
result is wrong.

Small buffers that the compiler keeps on the stack of the function around the loop are not watched.
"""

from __future__ import annotations

import ctypes
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import tirx

MOST_PARTS = 24
_ALIGNMENT = 64


class _Group(ctypes.Structure):
    """What a part is told of its loop: `TVMParallelGroupEnv`."""

    _fields_ = (("sync_handle", ctypes.c_void_p), ("num_task", ctypes.c_int32))


_Part = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.POINTER(_Group), ctypes.c_void_p)
_Launch = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
_Allocate = ctypes.CFUNCTYPE(
    ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_uint64, ctypes.c_int, ctypes.c_int
)
_Free = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p)


def _aligned(num_bytes: int, rng: np.random.Generator) -> np.ndarray:
    """Return random bytes that begin where vectors may."""
    memory = rng.integers(0, 256, num_bytes + _ALIGNMENT, dtype="uint8")
    begin = -memory.ctypes.data % _ALIGNMENT
    return memory[begin : begin + num_bytes]


class RaceFinder:
    """A loaded kernel library whose parallel loops run part by part.

    Attributes
    ----------
    races : list of str
        What was found: two parts, and how many bytes both wrote.
    """

    def __init__(self, library: str) -> None:
        self.races: list[str] = []
        self._rng = np.random.default_rng(0)
        self._watched: list[np.ndarray] = []
        self._scratch: dict[int, np.ndarray] = {}
        self._is_inside = False
        loaded = ctypes.CDLL(library)
        assert not hasattr(loaded, "__TVMBackendParallelBarrier"), "its parts need one another"
        self._hooks = {
            "__TVMBackendParallelLaunch": _Launch(self._launch),
            "__TVMBackendAllocWorkspace": _Allocate(self._allocate),
            "__TVMBackendFreeWorkspace": _Free(self._free),
        }
        for name, hook in self._hooks.items():
            if hasattr(loaded, name):
                pointer = ctypes.c_void_p.in_dll(loaded, name)
                pointer.value = ctypes.cast(hook, ctypes.c_void_p).value

    def watch(self, array: np.ndarray) -> None:
        """Watch the memory of an array that the kernel takes."""
        self._watched.append(array.reshape(-1).view("uint8"))

    def _allocate(self, _type: int, _id: int, num_bytes: int, _code: int, _bits: int) -> int:
        memory = _aligned(num_bytes, self._rng)
        self._scratch[memory.ctypes.data] = memory
        return int(memory.ctypes.data)

    def _free(self, _type: int, _id: int, address: int) -> int:
        del self._scratch[address]
        return 0

    def _launch(self, address: int, data: int, num_parts: int) -> int:
        part = ctypes.cast(address, _Part)
        if self._is_inside:
            return int(part(0, ctypes.byref(_Group(None, 1)), data))
        num_parts = num_parts or MOST_PARTS
        group = _Group(None, num_parts)
        regions = [*self._watched, *self._scratch.values()]
        before = [region.copy() for region in regions]
        after = [region.copy() for region in regions]
        writers = [np.full(region.size, -1, "int32") for region in regions]
        self._is_inside = True
        for index in range(num_parts):
            if part(index, ctypes.byref(group), data) != 0:
                return -1
            for region, old, new, writer in zip(regions, before, after, writers, strict=True):
                written = np.flatnonzero(region != old)
                twice = written[writer[written] >= 0]
                if len(twice):
                    self.races.append(
                        f"parts {writer[twice[0]]} and {index} of {num_parts} wrote to {len(twice)} "
                        f"same bytes, first {twice[0]} of {region.size}"
                    )
                writer[written] = index
                new[written] = region[written]
                region[:] = old
        self._is_inside = False
        for region, new in zip(regions, after, strict=True):
            region[:] = new
        return 0


def arguments(func: tirx.PrimFunc, inputs: list[np.ndarray]) -> list[Any]:
    """Return the tensors that a PrimFunc takes: what it makes holds random bytes, so that gaps show."""
    rng = np.random.default_rng(1)
    tensors = [tvm.runtime.tensor(array) for array in inputs]
    for param in func.params[len(inputs) :]:
        shape = tuple(int(extent) for extent in param.shape)
        tensors.append(tvm.runtime.tensor(np.zeros(shape, str(param.dtype))))
        memory = np.from_dlpack(tensors[-1]).reshape(-1).view("uint8")
        memory[:] = rng.integers(0, 256, memory.size, dtype="uint8")
    return tensors


def run_apart(
    func: tirx.PrimFunc, inputs: list[np.ndarray], target: Any
) -> tuple[list[np.ndarray], list[str]]:
    """Build and call a PrimFunc, the parts of its parallel loops apart from one another.

    Returns
    -------
    outputs
        What its remaining parameters hold afterwards.
    races
        The races that were found.
    """
    with tempfile.TemporaryDirectory() as folder:
        library = str(Path(folder) / "kernel.so")
        tvm.build(tvm.IRModule({"main": func}), target=target).export_library(library)
        loaded = tvm.runtime.load_module(library)
        finder = RaceFinder(library)
    tensors = arguments(func, inputs)
    for tensor in tensors:
        finder.watch(np.from_dlpack(tensor))
    loaded["main"](*tensors)
    return [tensor.numpy() for tensor in tensors[len(inputs) :]], finder.races
