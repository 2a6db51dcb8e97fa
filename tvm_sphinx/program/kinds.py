"""The kinds of program that a model compiles to: for our lanes, for the stock VM, or of both. [TVM]"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from .._tvm_runtime import tvm_ffi
from ..errors import ArtifactError, ModelError, PlatformError, cause_of, known_choices
from ..frontend.wire import DYNAMIC, INPUT, STATIC, Wire
from ..runtime.artifact import Content
from ..runtime.devices import exists, open_device
from ..runtime.executable import ConcurrentExecutable
from ..runtime.image import Image, release
from ..runtime.packed_functions import register_functions
from ..runtime.processor import Processor, check_processor
from ..runtime.program import LaneProgram
from ..runtime.tensors import to_array, to_tensor

_DL_CPU = 1  # DLPack's number for the host
_POOLED = 2  # TVM's number for allocators that keep what is given back

Array = npt.NDArray[Any]


class Program(Protocol):
    """Something that runs one inference, and that can be written to a file and read back."""

    @property
    def lanes(self) -> LaneProgramFile | None:
        """What of it runs on the lanes, and can be traced; None if nothing does."""

    def open(self) -> Callable[[Sequence[Array]], Any]:
        """Return a function from the model's inputs to its (nested) outputs."""

    def complete(self, arrays: Sequence[Array], made: Any) -> Any:
        """Return the (nested) outputs from the model's inputs and what the lanes made of them."""

    def manifest(self) -> dict[str, Any]:
        """Return all but the binary parts, JSON-serialisable, with its ``kind``."""

    def members(self) -> dict[str, Content]:
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

    @property
    def lanes(self) -> LaneProgramFile:
        """All of it."""
        return self

    def complete(self, arrays: Sequence[Array], made: Any) -> Any:
        """Return what the lanes made: there is nothing else."""
        return made

    def open(self) -> Callable[[Sequence[Array]], Any]:
        """Return a function from the model's inputs to its (nested) outputs."""
        return self.executable.run

    def manifest(self) -> dict[str, Any]:
        """Return all but the binary parts, JSON-serialisable, with its ``kind``."""
        return {"kind": self.KIND, **self.image.manifest()}

    def members(self) -> dict[str, Content]:
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

    @property
    def lanes(self) -> None:
        """Nothing."""

    def complete(self, arrays: Sequence[Array], made: Any) -> Any:
        """Return what was made: nothing is made of it."""
        return made

    def open(self) -> Callable[[Sequence[Array]], Any]:
        """Return a function from the model's inputs to its (nested) outputs; weights are placed once.

        It raises a ModelError where computed shapes do not fit each other.

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
        register_functions()
        # The file may go as soon as the library is mapped: the mapping keeps what it needs.
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / LIBRARY
            path.write_bytes(self.library)
            machine = _open_machine(str(path), devices)
        weights = list(machine[self.weights_function]()) if self.weights_function else []
        entry, home = machine[self.function], input_device(devices)

        def run(arrays: Sequence[Array]) -> Any:
            try:
                return entry(*(_argument(array, home) for array in arrays), *weights)
            except ValueError as error:  # what kernels say of operands that do not fit
                raise ModelError(
                    f"These inputs lead to tensors whose shapes do not fit each other: {cause_of(error)}"
                ) from error

        return run

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

    def members(self) -> dict[str, Content]:
        """Return the binary parts by name."""
        return {LIBRARY: self.library}


@dataclass(frozen=True)
class SplitProgram:
    """A program in two parts: what has known shapes, and then what depends on a shape that is not known.

    Parameters
    ----------
    static
        Takes the model's inputs.
    dynamic
        Takes what ``reads`` names.
    reads, outputs
        Where each argument of the dynamic part, and each output of the model, comes from.
    """

    static: Program
    dynamic: StockProgram
    reads: tuple[Wire, ...]
    outputs: tuple[Wire, ...]

    KIND = "split"

    @property
    def lanes(self) -> LaneProgramFile | None:
        """What of it runs on the lanes: the static part, unless that is a program for the VM."""
        return self.static.lanes

    @cached_property
    def _run_dynamic(self) -> Callable[[Sequence[Array]], Any]:
        return self.dynamic.open()

    def open(self) -> Callable[[Sequence[Array]], Any]:
        """Return a function from the model's inputs to its outputs; errors as those of its parts."""
        run_static = self.static.open()
        _ = self._run_dynamic  # its errors come now
        return lambda arrays: self.complete(arrays, run_static(arrays))

    def complete(self, arrays: Sequence[Array], made: Any) -> Any:
        """Return the outputs from the model's inputs and what the static part made of them."""
        read = self.dynamic_arguments(arrays, made)
        known = {STATIC: flatten_tensors(made), DYNAMIC: flatten_tensors(self._run_dynamic(read))}
        return tuple(known[wire.source][wire.number] for wire in self.outputs)

    def dynamic_arguments(self, arrays: Sequence[Array], made: Any) -> list[Any]:
        """Return what the dynamic part takes, of the inputs and of what the static part made."""
        known = {INPUT: arrays, STATIC: flatten_tensors(made)}
        return [known[wire.source][wire.number] for wire in self.reads]

    def manifest(self) -> dict[str, Any]:
        """Return all but the binary parts, JSON-serialisable, with its ``kind``."""
        return {
            "kind": self.KIND,
            STATIC: self.static.manifest(),
            DYNAMIC: self.dynamic.manifest(),
            "reads": [list(wire) for wire in self.reads],
            "outputs": [list(wire) for wire in self.outputs],
        }

    def members(self) -> dict[str, Content]:
        """Return the binary parts by name."""
        parts = {STATIC: self.static, DYNAMIC: self.dynamic}
        return {
            f"{part}/{name}": content
            for part, program in parts.items()
            for name, content in program.members().items()
        }


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
    if kind == StockProgram.KIND:
        return _restore_stock(manifest, members, where)
    if kind != SplitProgram.KIND:
        kinds = (LaneProgramFile.KIND, StockProgram.KIND, SplitProgram.KIND)
        raise ArtifactError(known_choices(f"kind of program in {where}:", kind, kinds))
    static, dynamic = ((manifest[part], _members_of(part, members)) for part in (STATIC, DYNAMIC))
    reads, outputs = (tuple(Wire(*wire) for wire in manifest[name]) for name in ("reads", "outputs"))
    stock = _restore_stock(*dynamic, where)
    program = SplitProgram(restore_program(*static, where), stock, reads, outputs)
    if program.lanes is not None:
        _check_wires(program, program.lanes.image.program, where)
    return program


def _check_wires(program: SplitProgram, static: LaneProgram, where: str) -> None:
    known = {INPUT: len(static.inputs), STATIC: len(static.outputs)}
    wires = [wire for wire in (*program.reads, *program.outputs) if wire.source != DYNAMIC]
    if not all(0 <= wire.number < known.get(wire.source, 0) for wire in wires):
        raise ArtifactError(f"{where} holds no program in two parts: it reads what no part makes.")


def _members_of(part: str, members: Mapping[str, bytes]) -> dict[str, bytes]:
    begin = f"{part}/"
    return {key.removeprefix(begin): members[key] for key in members if key.startswith(begin)}


def _restore_stock(
    manifest: Mapping[str, Any], members: Mapping[str, bytes], where: str
) -> StockProgram:
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


def flatten_tensors(value: Any) -> list[Any]:
    """Return the tensors of a (nested) result, in order."""
    if isinstance(value, tvm_ffi.Tensor):
        return [value]
    return [tensor for field_ in value for tensor in flatten_tensors(field_)]


def flatten_outputs(value: Any) -> list[Array]:
    """Return the tensors of a (nested) result as arrays, in order."""
    return [to_array(tensor) for tensor in flatten_tensors(value)]


def _argument(value: Any, home: Any) -> Any:
    """Return a tensor on a device, copied there if it is an array or elsewhere."""
    if not isinstance(value, tvm_ffi.Tensor):
        return to_tensor(value, home)
    return value if value.device == home else to_tensor(to_array(value), home)
