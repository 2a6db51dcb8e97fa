"""What kernels take for granted of a processor, and whether that of this machine has it."""

from __future__ import annotations

import functools
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import PlatformError

# Linux writes most names as LLVM does, but for the signs between their parts.
_OF_LINUX = {
    "sse3": "pni", "lzcnt": "abm", "bmi": "bmi1",
    "neon": "asimd", "dotprod": "asimddp", "fullfp16": "asimdhp", "lse": "atomics",
}  # fmt: skip


@dataclass(frozen=True)
class Processor:
    """A processor as LLVM knows it: its name, its architecture, and its instructions by LLVM's names."""

    name: str
    architecture: str
    instructions: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serialisable form."""
        return {
            "name": self.name,
            "architecture": self.architecture,
            "instructions": list(self.instructions),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Processor:
        """Rebuild a processor from `to_json`."""
        return cls(content["name"], content["architecture"], tuple(content["instructions"]))


def check_processor(device: str, wanted: Processor) -> None:
    """Check that this machine's processor has what the kernels of a device use.

    Raises
    ------
    PlatformError
        With the first instruction that it lacks; running such a kernel would kill the process.
    """
    here = platform.machine()
    if wanted.architecture != here:
        raise PlatformError(f"Device {device!r} is {wanted.architecture}; this machine is {here}.")
    present = _instructions_of_linux()
    missing = [name for name in wanted.instructions if _name_of_linux(name) not in present]
    if not missing:
        return
    # Linux may know fewer names than LLVM, which is slow to load.
    name, known = _host_of_llvm()
    for instruction in missing:
        if known.get(instruction) is False:
            raise PlatformError(
                f"Device {device!r} is built for {wanted.name}, which has {instruction}; this machine's "
                f"processor ({name}) lacks it."
            )


@functools.cache
def _instructions_of_linux() -> frozenset[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    lines = (line.partition(":") for line in text.splitlines())
    # Unlike cores may have unlike instructions: what counts is what all of them have.
    found = [
        frozenset(map(_without_signs, value.split()))
        for key, _, value in lines
        if key.strip().lower() in ("flags", "features")
    ]
    return frozenset.intersection(*found) if found else frozenset()


def _name_of_linux(instruction: str) -> str:
    return _OF_LINUX.get(instruction, _without_signs(instruction))


def _without_signs(name: str) -> str:
    return name.translate(str.maketrans("", "", "._-"))


@functools.cache
def _host_of_llvm() -> tuple[str, dict[str, bool]]:
    from .._tvm import tvm_ffi

    name = str(tvm_ffi.get_global_func("tvm.codegen.llvm.GetHostCPUName")())
    features = tvm_ffi.get_global_func("tvm.codegen.llvm.GetHostCPUFeatures")()
    return name, {str(feature): bool(has) for feature, has in features.items()}
