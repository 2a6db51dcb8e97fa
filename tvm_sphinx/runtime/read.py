"""Read a placed function as a lane program. [TVM]"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .._tvm import relax, tvm
from ..errors import UnsupportedError
from ..frontend.dataflow import tensor_bytes
from ..frontend.extract import is_memory_bound
from ..frontend.load import entry_function
from ..kernels import is_turn
from ..platform import Platform
from ..relax_pass import SCHEDULED_ATTR, WEIGHTS_ATTR
from .crossings import Crossings, Tables, early_copies
from .program import HOST, Buffer, LaneProgram

_VIEW_OPS = ("relax.reshape", "relax.memory.ensure_zero_offset")


@dataclass(frozen=True)
class ReadProgram:
    """A lane program, the PrimFuncs that its kernel steps name, and the weights by buffer index.

    ``gpu_kernels`` are those of GPUs, ``kernels`` all others.
    """

    program: LaneProgram
    kernels: dict[str, Any]
    gpu_kernels: dict[str, Any]
    weights: tuple[Any, ...]


def read_program(module: Any, platform: Platform) -> ReadProgram:
    """Return the lane program of a module that `tvm_sphinx.relax_pass.annotate_schedule` wrote.

    A tensor that is handed from one CPU device to another, or from one stream of a GPU to another, stays
    where it is; one that crosses to another memory is copied there once.

    Raises
    ------
    UnsupportedError
        If the module is not scheduled, or calls anything but kernels and packed functions.
    """
    name = entry_function(module, None)
    function = module[name]
    if not function.attrs or SCHEDULED_ATTR not in function.attrs:
        raise UnsupportedError(f"Expected a scheduled function; {name!r} has no {SCHEDULED_ATTR!r}.")
    return _Reader(module, platform).read(function)


class _Reader:
    """Follows the bindings; a value is a tensor id, or a nested list of them for a tuple."""

    def __init__(self, module: Any, platform: Platform) -> None:
        self.module = module
        self.platform = platform
        self.vdevices = list(module.global_infos["vdevice"])
        self.tables = Tables()
        self.crossings = Crossings(self.tables, platform)
        self.values: dict[Any, Any] = {}
        self.kernels: dict[str, Any] = {}
        self.weights: list[Any] = []
        self.weight_tensors: dict[Any, int] = {}
        self.gpu_kernels: dict[str, Any] = {}

    def read(self, function: Any) -> ReadProgram:
        inputs = []
        constants = self._placed_weights(function)
        arguments = function.params[: len(function.params) - len(constants)]
        for index, param in enumerate(arguments):
            self._check_host(param.ty, f"argument {param.name!r}")
            inputs.append(self._new_tensor("input", index, param.ty))
            self.values[param] = inputs[-1]
        for param, constant in zip(function.params[len(arguments) :], constants, strict=True):
            device = self.platform.devices[self._device(param.ty, f"weight {param.name!r}")]
            self.values[param] = self._weight(constant, device.memory_space)
        for block in function.body.blocks:
            for binding in block.bindings:
                self.values[binding.var] = self._bind(binding)
        outputs: list[int] = []
        structure = self._deliver(self.values[function.body.body], outputs)
        program = LaneProgram(
            tuple(self.tables.buffers),
            tuple(self.tables.tensors),
            early_copies(self.tables),
            tuple(str(param.name) for param in arguments),
            tuple(inputs),
            tuple(outputs),
            structure,
        )
        return ReadProgram(program, self.kernels, self.gpu_kernels, tuple(self.weights))

    def _placed_weights(self, function: Any) -> list[Any]:
        """Return the constants that stand for the trailing arguments of a function."""
        if WEIGHTS_ATTR not in function.attrs:
            return []
        (block,) = self.module[str(function.attrs[WEIGHTS_ATTR])].body.blocks
        copies = [binding.value for binding in block.bindings]
        return [
            copy.args[0]
            for copy in copies
            if isinstance(copy, relax.Call) and copy.op.name == "relax.to_vdevice"
        ]

    def _bind(self, binding: Any) -> Any:
        where = f"variable {binding.var.name!r}"
        value = getattr(binding, "value", None)
        if not isinstance(value, relax.Call):
            return self._value(value, where)
        operator = value.op.name if isinstance(value.op, tvm.ir.Op) else str(value.op)
        if operator == "relax.to_vdevice":
            source = self._value(value.args[0], where)
            if not isinstance(source, int):
                raise UnsupportedError(f"Lanes know tensors; {where} is of type {value.ty}.")
            return self.crossings.bring(source, self._device(value.ty, where))
        if operator in _VIEW_OPS:
            tensor = self._value(value.args[0], where)
            return self._new_view(self.tables.tensors[tensor].buffer, value.ty)
        if operator in ("relax.call_tir", "relax.call_dps_packed") and len(value.args) == 2:
            return self._call(binding.var, value, operator == "relax.call_tir", where)
        raise UnsupportedError(f"Lanes run kernel calls and views; {where} calls {operator}.")

    def _value(self, expr: Any, where: str) -> Any:
        if isinstance(expr, relax.Var):
            return self.values[expr]
        if isinstance(expr, relax.Tuple):
            return [self._value(field, where) for field in expr.fields]
        if isinstance(expr, relax.TupleGetItem):
            return self._value(expr.tuple_value, where)[int(expr.index)]
        if isinstance(expr, tvm.ir.GenericConst) and isinstance(expr.ty, relax.TensorType):
            return self._weight(expr)
        raise UnsupportedError(f"Lanes know tensors and tuples; {where} holds {expr}.")

    def _weight(self, constant: Any, memory: str = HOST) -> int:
        """Return the tensor of a weight; devices that share memory share it."""
        address = (constant.value.data_ptr(), str(constant.ty.shape), str(constant.ty.dtype), memory)
        if address not in self.weight_tensors:
            index = len(self.weights)
            self.weight_tensors[address] = self._new_tensor("weights", index, constant.ty, memory)
            self.weights.append(constant.value)
        return self.weight_tensors[address]

    def _call(self, var: Any, call: Any, is_kernel: bool, where: str) -> Any:
        is_tuple = isinstance(call.ty, relax.TupleType)
        types = list(call.ty.fields) if is_tuple else [call.ty]
        arguments = call.args[1].fields if isinstance(call.args[1], relax.Tuple) else [call.args[1]]
        operands = [self._value(argument, where) for argument in arguments]
        if not types or not all(isinstance(operand, int) for operand in operands):
            raise UnsupportedError(f"Lanes pass tensors to kernels; {where} is bound to {call}.")
        device = self._device(types[0], where)
        memory = self.platform.devices[device].memory_space
        kind, name, memory_bound = "kernel" if is_kernel else "external", "", False
        if is_kernel:
            name = str(call.args[0].name_hint)
            kind = "turn" if is_turn(self.module[call.args[0]]) else kind
            kernels = self.kernels if memory == HOST else self.gpu_kernels
            kernels[name] = self.module[call.args[0]]
        else:
            name = str(call.args[0].global_symbol)
        outputs = [self._new_tensor("arena", len(self.tables.buffers), ty, memory) for ty in types]
        if is_kernel and self.platform.devices[device].core_memory_speeds:
            tensors = [self.tables.tensors[number] for number in (*operands, *outputs)]
            size = sum(self.tables.buffers[tensor.buffer].bytes for tensor in tensors)
            memory_bound = is_memory_bound(kernels[name], size)
        self.tables.add_step(str(var.name), kind, device, name, operands, outputs, memory_bound)
        return outputs if is_tuple else outputs[0]

    def _deliver(self, value: Any, outputs: list[int]) -> Any:
        """Move each result into a buffer that is the caller's; return the structure of the result."""
        if isinstance(value, list):
            return [self._deliver(field, outputs) for field in value]
        tables = self.tables
        number = tables.tensors[value].buffer
        buffer = tables.buffers[number]
        index = sum(other.space == "output" for other in tables.buffers)
        if buffer.space == "arena" and buffer.memory == HOST:
            tables.buffers[number] = Buffer("output", index, buffer.bytes)
        elif buffer.space != "output":
            # Of an argument, a weight or pinned memory a copy is returned: nobody can write into ours.
            value = self.crossings.deliver(value, index)
        outputs.append(value)
        return len(outputs) - 1

    def _new_tensor(self, space: str, index: int, ty: Any, memory: str = HOST) -> int:
        return self._new_view(self.tables.add_buffer(space, index, tensor_bytes(ty), memory), ty)

    def _new_view(self, buffer: int, ty: Any) -> int:
        shape = tuple(int(extent) for extent in ty.shape.values)
        dtype = str(ty.dtype.dtype if hasattr(ty.dtype, "dtype") else ty.dtype)
        return self.tables.add_tensor(buffer, shape, dtype)

    def _device(self, ty: Any, where: str) -> int:
        """Return the device of a placed type."""
        # By identity first: two devices may be written alike. (VDevice.same_as recurses for ever.)
        handles = [vdevice.__chandle__() for vdevice in self.vdevices]
        if ty.vdevice is not None and ty.vdevice.__chandle__() in handles:
            return handles.index(ty.vdevice.__chandle__())
        found = [i for i, vdevice in enumerate(self.vdevices) if str(vdevice) == str(ty.vdevice)]
        if len(found) != 1:
            raise UnsupportedError(
                f"Expected {where} on one of {len(self.vdevices)} devices; got {ty.vdevice}."
            )
        return found[0]

    def _check_host(self, ty: Any, where: str) -> None:
        if not isinstance(ty, relax.TensorType):
            raise UnsupportedError(f"Lanes know tensors; {where} is of type {ty}.")
        if ty.vdevice is not None:
            device = self.platform.devices[self._device(ty, where)]
            if not device.is_cpu:
                raise UnsupportedError(f"Expected {where} on the host; it is on {device.name!r}.")
