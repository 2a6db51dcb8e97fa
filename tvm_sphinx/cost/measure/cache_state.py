"""What a model does between two calls of a kernel, so that each finds the caches as there. [TVM]

Three things decide what a call costs beside its arithmetic, and a kernel that is called again and again
on the same operands shows none of them: weights come from far away, because other weights were read
since and because time has passed; inputs have just been written, by all cores of the device, each its
own share; the memory of results was in use some time ago.
"""

from __future__ import annotations

import functools
import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..._tvm import tirx, tvm, tvm_ffi
from ...platform import Device
from ...platform.targets import device_target
from ...runtime.kernels import compile_kernels
from ...runtime.loading import load_kernels
from ...runtime.tensors import aligned_bytes

# Going through more memory than this between two uses of a weight makes it no colder.
_MOST_BYTES = 64 << 20
# Lines of a last-level cache that many machines share are gone after some milliseconds, however large it
# is: weights of 4 MB in one of 480 MB took 1.0, 1.4 and 1.6 times as long after 2, 20 and 50 ms. Models
# take that long for an inference, one millisecond for each 2 MB of weights, from 1.3 (GoogLeNet) to 5
# (BERT).
_BYTES_PER_NS = 2.0
_MOST_NS = 20_000_000


@dataclass(frozen=True)
class Reuse:
    """What lies between two uses of a weight: the memory that is gone through, and the time."""

    bytes: int
    ns: int

    @classmethod
    def after(cls, read_bytes: int) -> Reuse:
        """Return the reuse of a weight where a model reads so many bytes of weights meanwhile."""
        pause_ns = min(_MOST_NS, int(read_bytes / _BYTES_PER_NS))
        return cls(min(_MOST_BYTES, read_bytes), pause_ns)


@functools.cache
def writer(device: Device) -> Any:
    """Return `writer_function`, compiled: so does a kernel write what the next one reads."""
    kernels = {"write": writer_function(device)}
    return load_kernels(compile_kernels(kernels, lambda module: module)).get_function("write")


def writer_function(device: Device) -> Any:
    """Return a PrimFunc that copies bytes on a device's cores, each its share: ``f(source, result)``."""
    cores = len(device.cores)
    size = tirx.Var("size", "int64")
    core, at = tirx.Var("core", "int64"), tirx.Var("at", "int64")
    source, result = (tirx.decl_buffer((size,), "uint8", name) for name in ("source", "result"))

    def whole(value: int) -> Any:
        return tirx.const(value, "int64")

    share = tirx.floordiv(size + whole(cores - 1), whole(cores))
    begin = core * share
    place = [begin + at]
    copy = tirx.BufferStore(result, tirx.BufferLoad(source, place), place)
    end = tirx.max(tirx.min(share, size - begin), whole(0))
    inner = tirx.For(at, whole(0), end, tirx.ForKind.SERIAL, copy)
    kind = tirx.ForKind.PARALLEL if cores > 1 else tirx.ForKind.SERIAL
    body = tirx.For(core, whole(0), whole(cores), kind, inner)
    function = tirx.PrimFunc([source, result], body).with_attr("tirx.noalias", True)
    return function.with_attr("target", device_target(device))


def pause(duration_ns: int) -> Any:
    """Return a function that keeps the core that calls it busy; its arguments do not matter."""

    def spin(*_: Any) -> None:
        end_ns = time.perf_counter_ns() + duration_ns
        while time.perf_counter_ns() < end_ns:
            pass

    return tvm_ffi.convert(spin)


def copy_of(tensor: Any) -> Any:
    """Return a host tensor of the same shape, type and contents."""
    copied = tvm.runtime.empty(tensor.shape, tensor.dtype)
    copied.copyfrom(tensor)
    return copied


def filled_bytes(size: int) -> Any:
    """Return a tensor of bytes in memory of its own; pages that nobody has written all lie in one."""
    tensor = aligned_bytes(size)
    np.from_dlpack(tensor)[:] = 1
    return tensor


def num_bytes(tensor: Any) -> int:
    """Return the size of a host tensor."""
    elements = math.prod(int(extent) for extent in tensor.shape)
    return elements * int(tvm_ffi.dtype(str(tensor.dtype)).itemsize)
