"""The two kinds of program that a model compiles to: for our lanes, and for the stock Relax VM. [TVM]"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from .._tvm import relax, tvm
from ..errors import ArtifactError, PlatformError, UnsupportedError, known_choices
from ..platform import Platform
from ..platform.targets import host_target, runtime_device
from ..relax_pass import WEIGHTS_ATTR
from ..runtime.build import build_image
from ..runtime.executable import ConcurrentExecutable
from ..runtime.image import Image
from ..runtime.kernels import find_linker, linking
from ..scheduling.schedule import Schedule
from .stock_vm import build_executable

_DL_CPU = 1  # DLPack's number for the host

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
    """

    library: bytes
    devices: tuple[str, ...]
    function: str
    weights_function: str = ""

    KIND = "stock-vm"

    def open(self) -> Callable[[Sequence[Array]], Any]:
        """Return a function from the model's inputs to its (nested) outputs; weights are placed once.

        Raises
        ------
        PlatformError
            If this machine lacks one of the devices.
        """
        devices = [runtime_device(name) for name in self.devices]
        absent = [name for name, device in zip(self.devices, devices, strict=True) if not device.exist]
        if absent:
            raise PlatformError(
                f"Expected a machine with {', '.join(self.devices)}; {absent[0]} is not at hand."
            )
        # The file may go as soon as the library is mapped: the mapping keeps what it needs.
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / _LIBRARY
            path.write_bytes(self.library)
            machine = relax.VirtualMachine(tvm.runtime.load_module(str(path)), devices)
        weights = list(machine[self.weights_function]()) if self.weights_function else []
        entry, home = machine[self.function], input_device(devices)
        return lambda arrays: entry(*(tvm.runtime.tensor(array, home) for array in arrays), *weights)

    def manifest(self) -> dict[str, Any]:
        """Return all but the binary parts, JSON-serialisable, with its ``kind``."""
        return {
            "kind": self.KIND,
            "tvm": str(tvm.__version__),
            "devices": list(self.devices),
            "function": self.function,
            "weights_function": self.weights_function,
        }

    def members(self) -> dict[str, bytes]:
        """Return the binary parts by name."""
        return {_LIBRARY: self.library}


_LIBRARY = "program.so"


def input_device(devices: Sequence[Any]) -> Any:
    """Return the device on which a program for these devices of the VM expects its inputs.

    A program of one device has everything there. In others all CPU devices are the first of them, see
    `tvm_sphinx.program.stock_vm.UseOneHostDevice`.
    """
    if len(devices) == 1:
        return devices[0]
    on_host = [device for device in devices if device.dlpack_device_type() == _DL_CPU]
    return on_host[0] if on_host else tvm.cpu()


def library_bytes(executable: Any) -> bytes:
    """Return a ``relax.VMExecutable`` as the bytes of a shared library.

    Raises
    ------
    UnsupportedError
        If this machine cannot link it: no compiler, no space.
    """
    compiler = find_linker(tvm.target.Target(host_target()))
    with linking(f"{compiler!r} cannot link the program"), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / _LIBRARY
        executable.export_library(str(path), cc=compiler)
        return path.read_bytes()


def build_program(
    annotated: Any, platform: Platform, schedule: Schedule, function: str
) -> tuple[Program, str]:
    """Return the program of a scheduled module for our lanes, or for the stock VM and the reason why."""
    try:
        return LaneProgramFile(build_image(annotated, platform, schedule)), ""
    except UnsupportedError as error:
        note = f"{error} It runs on the stock VM, where CPU devices take turns."
        return build_stock_program(annotated, platform, function), note


def build_stock_program(annotated: Any, platform: Platform, function: str) -> StockProgram:
    """Return a scheduled module compiled for the stock VM."""
    library = library_bytes(build_executable(annotated))
    attrs = annotated[function].attrs
    weights = str(attrs[WEIGHTS_ATTR]) if attrs and WEIGHTS_ATTR in attrs else ""
    return StockProgram(library, tuple(d.runtime for d in platform.devices), function, weights)


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
    if manifest["tvm"] != str(tvm.__version__):
        raise ArtifactError(
            f"Expected {where} to be written with TVM {tvm.__version__}; got {manifest['tvm']}. "
            f"Compile the model again."
        )
    devices = tuple(manifest["devices"])
    return StockProgram(members[_LIBRARY], devices, manifest["function"], manifest["weights_function"])


def flatten_outputs(value: Any) -> list[Array]:
    """Return the tensors of a (nested) result of the VM as arrays, in order."""
    if hasattr(value, "numpy"):
        return [value.numpy()]
    return [array for field_ in value for array in flatten_outputs(field_)]
