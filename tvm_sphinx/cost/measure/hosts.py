"""What the operating system of a device's machine tells while kernels are timed there. [TVM]"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from ..._tvm import tirx, tvm
from .sampling import cpu_ticks, host_load, involuntary_switches, load_in, ticks_in

# Of the path and of the text that are passed for a file; what is read here is shorter.
_PATH_BYTES, _TEXT_BYTES = 256, 4096
# struct rusage of 64-bit systems: two times of two words each, then 14 words, of which this is the last.
_USAGE_WORDS, _SWITCHES = 32, 17


class Host(Protocol):
    """The machine that a device is of."""

    def switches(self) -> int:
        """Return how often a core was taken from the process that runs kernels; 0 if unknown."""

    def load(self) -> float | None:
        """Return the load average of the last minute, None if unknown."""

    def ticks(self) -> tuple[int, ...]:
        """Return the ticks of all cores, see `cpu_ticks`; empty if unknown."""


class LocalHost:
    """This machine."""

    def switches(self) -> int:
        """As in `Host`."""
        return involuntary_switches()

    def load(self) -> float | None:
        """As in `Host`."""
        return host_load()

    def ticks(self) -> tuple[int, ...]:
        """As in `Host`."""
        return cpu_ticks()


class RemoteHost:
    """Another 64-bit machine, whose C library is asked through RPC.

    What is not there, such as /proc on another system than Linux, is unknown.

    Parameters
    ----------
    send
        Builds PrimFuncs by name for a processor of that machine, and returns the module over there.
    memory
        TVM device of that machine's memory.
    reaching
        Context, told what is done, in which a lost machine is one error of the device.

    Raises
    ------
    SphinxError
        If the functions that ask cannot be built here, or the machine is lost.
    """

    def __init__(
        self,
        send: Callable[[Mapping[str, Any]], Any],
        memory: Any,
        reaching: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        self.memory, self._reaching = memory, reaching
        module = send({"read_file": _read_file(), "get_usage": _get_usage()})
        self._read_file, self._get_usage = module["read_file"], module["get_usage"]

    def switches(self) -> int:
        """As in `Host`."""
        with self._reaching("it was asked for its load"):
            usage = tvm.runtime.tensor(np.zeros(_USAGE_WORDS, dtype=np.int64), self.memory)
            self._get_usage(usage)
            return int(usage.numpy()[_SWITCHES])

    def load(self) -> float | None:
        """As in `Host`."""
        return load_in(self._text("/proc/loadavg"))

    def ticks(self) -> tuple[int, ...]:
        """As in `Host`."""
        return ticks_in(self._text("/proc/stat"))

    def _text(self, path: str) -> str:
        """Return the begin of a file over there, empty if it cannot be read."""
        name = np.frombuffer(path.encode().ljust(_PATH_BYTES, b"\0"), dtype=np.uint8)
        with self._reaching("it was asked for its load"):
            text = tvm.runtime.empty((_TEXT_BYTES,), "uint8", self.memory)
            result = tvm.runtime.empty((2,), "int64", self.memory)
            self._read_file(tvm.runtime.tensor(name, self.memory), text, result)
            return bytes(text.numpy()[: max(0, int(result.numpy()[1]))]).decode(errors="replace")


def _read_file() -> Any:
    """Return ``f(path, text, result)``, where result is [file descriptor, bytes that were read]."""
    path = tirx.decl_buffer((_PATH_BYTES,), "uint8", "path")
    text = tirx.decl_buffer((_TEXT_BYTES,), "uint8", "text")
    result = tirx.decl_buffer((2,), "int64", "result")
    opened = tirx.BufferLoad(result, [0]).astype("int32")
    size = tirx.const(_TEXT_BYTES, "int64")
    steps = [
        tirx.BufferStore(result, tirx.call_extern("int32", "open", path.data, 0).astype("int64"), [0]),
        tirx.BufferStore(result, tirx.call_extern("int64", "read", opened, text.data, size), [1]),
        tirx.Evaluate(tirx.call_extern("int32", "close", opened)),
    ]
    return tirx.PrimFunc([path, text, result], tirx.SeqStmt(steps))


def _get_usage() -> Any:
    """Return ``f(usage)``, which writes what getrusage(2) tells of the process."""
    usage = tirx.decl_buffer((_USAGE_WORDS,), "int64", "usage")
    return tirx.PrimFunc([usage], tirx.Evaluate(tirx.call_extern("int32", "getrusage", 0, usage.data)))
