"""CUDA's driver through ctypes, for programs that use a GPU as a lane does."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

_TYPES: dict[type, Any] = {int: ctypes.c_uint64, float: ctypes.c_float}


class CudaError(Exception):
    """A call returned an error; ``code`` is its number."""

    def __init__(self, call: str, code: int) -> None:
        super().__init__(f"{call} returned {code}")
        self.code = code


class _KernelNode(ctypes.Structure):
    _fields_ = (
        ("function", ctypes.c_void_p),
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_uint),
        ("params", ctypes.c_void_p),
        ("extra", ctypes.c_void_p),
        ("kernel", ctypes.c_void_p),
        ("context", ctypes.c_void_p),
    )


class Cuda:
    """The driver with device 0 current. Handles and addresses are integers.

    Any function of the driver can be called by its name without ``cu``; arguments are ints.
    """

    def __init__(self, library: Any = "libcuda.so.1") -> None:
        self.library = ctypes.CDLL(library) if isinstance(library, str) else library
        self.call("Init", 0)
        self.contexts = [self.made("DevicePrimaryCtxRetain", device) for device in range(self.count())]
        self.use(0)

    def status(self, name: str, *arguments: Any) -> int:
        """Call a function and return its error."""
        given = [_TYPES[type(a)](a) if type(a) in _TYPES else a for a in arguments]
        return int(getattr(self.library, f"cu{name}")(*given))

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function that must not fail."""
        code = self.status(name, *arguments)
        if code:
            raise CudaError(f"cu{name}", code)

    def made(self, name: str, *arguments: Any) -> int:
        """Call a function whose first argument is where to put a handle; return it."""
        place = ctypes.c_uint64(0)
        self.call(name, ctypes.byref(place), *arguments)
        return place.value

    def count(self) -> int:
        """Return how many devices there are."""
        place = ctypes.c_int(0)
        self.call("DeviceGetCount", ctypes.byref(place))
        return place.value

    def use(self, device: int) -> None:
        """Make a device this thread's current one."""
        self.call("CtxSetCurrent", self.contexts[device])

    def stream(self, blocking: bool = False) -> int:
        return self.made("StreamCreate", 0 if blocking else 1)

    def event(self) -> int:
        return self.made("EventCreate", 0)

    def memory(self, count: int) -> int:
        """Return device memory for so many float32."""
        return self.made("MemAlloc_v2", 4 * count)

    def pinned(self, values: Sequence[float]) -> Any:
        """Return pinned memory with values, a ctypes array of float32."""
        address = self.made("MemHostAlloc", 4 * len(values), 0)
        array = (ctypes.c_float * len(values)).from_address(address)
        array[:] = list(values)
        return array

    def flag(self) -> Any:
        """Return a word of pinned memory, 0."""
        word = ctypes.c_uint32.from_address(self.made("MemHostAlloc", 64, 0))
        word.value = 0
        return word

    def module(self, image: bytes) -> int:
        return self.made("ModuleLoadData", image)

    def function(self, module: int, name: str) -> int:
        return self.made("ModuleGetFunction", module, name.encode())

    def launch(
        self, function: int, stream: int, *arguments: int, grid: int = 1, block: int = 32
    ) -> None:
        """Launch a kernel on pointers (int) and numbers (a ctypes value)."""
        params, _kept = _params(arguments)
        self.call(
            "LaunchKernel", function, grid, 1, 1, block, 1, 1, ctypes.c_uint(0), stream, params, None
        )

    def kernel_node(
        self, graph: int, before: Sequence[int], function: int, *arguments: int, block: int = 32
    ) -> int:
        """Add a kernel to a graph; return the node."""
        params, _kept = _params(arguments)
        node = _KernelNode(function, (1, 1, 1), (block, 1, 1), 0, ctypes.cast(params, ctypes.c_void_p))
        edges = (ctypes.c_uint64 * max(1, len(before)))(*before)
        return self.made(
            "GraphAddKernelNode_v2", graph, edges if before else None, len(before), ctypes.byref(node)
        )

    def made_by_capture(self, stream: int) -> int:
        """End a capture and return its graph."""
        graph = ctypes.c_uint64(0)
        self.call("StreamEndCapture", stream, ctypes.byref(graph))
        return graph.value

    def instantiate(self, graph: int) -> int:
        return self.made("GraphInstantiateWithFlags", graph, 0)

    def read(self, address: int, count: int) -> list[float]:
        """Return values of device memory, after all that was issued."""
        self.call("CtxSynchronize")
        values = (ctypes.c_float * count)()
        self.call("MemcpyDtoH_v2", values, address, 4 * count)
        return list(values)


def _params(arguments: Sequence[Any]) -> tuple[Any, list[Any]]:
    kept = [ctypes.c_uint64(a) if isinstance(a, int) else a for a in arguments]
    pointers = (ctypes.c_void_p * max(1, len(kept)))(*(ctypes.addressof(value) for value in kept))
    return pointers, kept
