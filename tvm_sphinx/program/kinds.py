"""The two kinds of program that a model compiles to: for our lanes, and for the stock Relax VM. [TVM]"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from .._tvm_runtime import tvm_ffi
from ..errors import ArtifactError, PlatformError, known_choices
from ..runtime.devices import exists, open_device
from ..runtime.executable import ConcurrentExecutable
from ..runtime.image import Image, release
from ..runtime.processor import Processor, check_processor
from ..runtime.tensors import to_array, to_tensor

_DL_CPU = 1  # DLPack's number for the host
_POOLED = 2  # TVM's number for allocators that keep what is given back

Array = npt.NDArray[Any]


class Program(Protocol):
    """Something that runs one inference, and that can be written to a file and read back."""

    def open(self) -> Callable[[Sequence[Array]], Any]:
        """Return a function from the model's inputs to its (nested) outputs."""

    def manifest(self) -> dict[str, Any]:
        """Return all but the binary parts, JSON-serialisable, with its ``kind``."""

    def members(self) -> dict[str, bytes]:
        """Return the binary parts by name."""


@dataclass(frozen=True)
class LaneProgramFile:
    """A program for the concurrent runtime."""

    image: Image

    KIND = "lanes"

    @cached_property
    def executable(self) -> ConcurrentExecutable:
        """The program with its threads; they start when it is first asked for."""
        return ConcurrentExecutable(self.image)

    def open(self) -> Callable[[Sequence[Array]], Any]:
        """Return a function from the model's inputs to its (nested) outputs."""
        return self.executable.run

    def manifest(self) -> dict[str, Any]:
        """Return all but the binary parts, JSON-serialisable, with its ``kind``."""
        return {"kind": self.KIND, **self.image.manifest()}

    def members(self) -> dict[str, bytes]:
        """Return the binary parts by name."""
        return self.image.members()


@dataclass(frozen=True)
class StockProgram:
    """A program for the stock Relax VM: what to open it with, and where its weights come from.

    Parameters
    ----------
    library
        The executable as a shared library.
    devices
        Runtime devices by name, in the order of the module's ``vdevice`` list.
    function, weights_function
        The function to call; the one that places its weights, or ``""`` where they are constants.
    processors
        What its kernels take for granted of processors, by the names of devices of the platform.
    """

    library: bytes
    devices: tuple[str, ...]
    function: str
    weights_function: str = ""
    processors: Mapping[str, Processor] = field(default_factory=dict)

    KIND = "stock-vm"

    def open(self) -> Callable[[Sequence[Array]], Any]:
        """Return a function from the model's inputs to its (nested) outputs; weights are placed once.

        Raises
        ------
        PlatformError
            If this machine lacks one of the devices, or instructions that their kernels use.
        """
        devices = [open_device(name) for name in self.devices]
        absent = [name for name, device in zip(self.devices, devices, strict=True) if not exists(device)]
        if absent:
            raise PlatformError(
                f"Expected a machine with {', '.join(self.devices)}; {absent[0]} is not at hand."
            )
        for device, processor in self.processors.items():
            check_processor(device, processor)
        # The file may go as soon as the library is mapped: the mapping keeps what it needs.
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / LIBRARY
            path.write_bytes(self.library)
            machine = _open_machine(str(path), devices)
        weights = list(machine[self.weights_function]()) if self.weights_function else []
        entry, home = machine[self.function], input_device(devices)
        return lambda arrays: entry(*(to_tensor(array, home) for array in arrays), *weights)

    def manifest(self) -> dict[str, Any]:
        """Return all but the binary parts, JSON-serialisable, with its ``kind``."""
        return {
            "kind": self.KIND,
            "tvm": release("apache-tvm"),
            "devices": list(self.devices),
            "function": self.function,
            "weights_function": self.weights_function,
            "processors": {name: p.to_json() for name, p in self.processors.items()},
        }

    def members(self) -> dict[str, bytes]:
        """Return the binary parts by name."""
        return {LIBRARY: self.library}


#: Member, and file, of a program for the VM.
LIBRARY = "program.so"


def input_device(devices: Sequence[Any]) -> Any:
    """Return the device on which a program for these devices of the VM expects its inputs.

    A program of one device has everything there. In others all CPU devices are the first of them, see
    `tvm_sphinx.program.stock_vm.UseOneHostDevice`.
    """
    if len(devices) == 1:
        return devices[0]
    on_host = [device for device in devices if device.dlpack_device_type() == _DL_CPU]
    return on_host[0] if on_host else tvm_ffi.device("cpu", 0)


def _open_machine(library: str, devices: Sequence[Any]) -> Any:
    """Return a virtual machine, as ``tvm.relax.VirtualMachine`` does, with pooled allocators."""
    machine = tvm_ffi.load_module(library)["vm_load_executable"]()
    # What computes shapes runs on a CPU, which has to be the last device.
    is_last = devices[-1].dlpack_device_type() == _DL_CPU
    every = [*devices, *([] if is_last else [tvm_ffi.device("cpu", 0)])]
    numbers = [(d.dlpack_device_type(), d.index, _POOLED) for d in every]
    machine["vm_initialization"](*(number for triple in numbers for number in triple))
    return machine


def restore_program(manifest: Mapping[str, Any], members: Mapping[str, bytes], where: str) -> Program:
    """Rebuild a program from its manifest and its members, whose digests have been checked.

    Raises
    ------
    ArtifactError
        If it is of an unknown kind, or was written with another version; the message names ``where``.
    """
    kind = manifest.get("kind")
    if kind == LaneProgramFile.KIND:
        return LaneProgramFile(Image.restore(manifest, members, where))
    if kind != StockProgram.KIND:
        kinds = (LaneProgramFile.KIND, StockProgram.KIND)
        raise ArtifactError(known_choices(f"kind of program in {where}:", kind, kinds))
    if manifest["tvm"] != release("apache-tvm"):
        raise ArtifactError(
            f"Expected {where} to be written with TVM {release('apache-tvm')}; got {manifest['tvm']}. "
            f"Compile the model again."
        )
    devices = tuple(manifest["devices"])
    functions = manifest["function"], manifest["weights_function"]
    # Files of before have none.
    processors = manifest.get("processors", {}).items()
    known = {name: Processor.from_json(processor) for name, processor in processors}
    return StockProgram(members[LIBRARY], devices, *functions, known)


def flatten_outputs(value: Any) -> list[Array]:
    """Return the tensors of a (nested) result of the VM as arrays, in order."""
    if isinstance(value, tvm_ffi.Tensor):
        return [to_array(value)]
    return [array for field_ in value for array in flatten_outputs(field_)]
