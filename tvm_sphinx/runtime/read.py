"""Read a placed function as a lane program. [TVM]"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .._tvm import relax, tvm
from ..errors import UnsupportedError
from ..frontend.dataflow import tensor_bytes
from ..frontend.load import entry_function
from ..platform import Platform
from ..relax_pass import SCHEDULED_ATTR
from .program import Buffer, LaneProgram, Step, TensorView

_VIEW_OPS = ("relax.reshape", "relax.memory.ensure_zero_offset")


@dataclass(frozen=True)
class ReadProgram:
    """A lane program, the PrimFuncs that its kernel steps name, and the weights by buffer index."""

    program: LaneProgram
    kernels: dict[str, Any]
    weights: tuple[Any, ...]


def read_program(module: Any, platform: Platform) -> ReadProgram:
    """Return the lane program of a module that `tvm_sphinx.relax_pass.annotate_schedule` wrote.

    A tensor that is handed from one CPU device to another stays where it is.

    Raises
    ------
    UnsupportedError
        If the module is not scheduled, moves tensors to or from another memory than the host's, or
        calls anything but kernels and packed functions.
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
        self.buffers: list[Buffer] = []
        self.tensors: list[TensorView] = []
        self.steps: list[Step] = []
        self.values: dict[Any, Any] = {}
        self.kernels: dict[str, Any] = {}
        self.weights: list[Any] = []
        self.weight_tensors: dict[Any, int] = {}
        self.names: dict[str, int] = {}

    def read(self, function: Any) -> ReadProgram:
        inputs = []
        for index, param in enumerate(function.params):
            self._check_host(param.ty, f"argument {param.name!r}")
            inputs.append(self._new_tensor("input", index, param.ty))
            self.values[param] = inputs[-1]
        for block in function.body.blocks:
            for binding in block.bindings:
                self.values[binding.var] = self._bind(binding)
        outputs: list[int] = []
        structure = self._deliver(self.values[function.body.body], outputs)
        program = LaneProgram(
            tuple(self.buffers),
            tuple(self.tensors),
            tuple(self.steps),
            tuple(str(param.name) for param in function.params),
            tuple(inputs),
            tuple(outputs),
            structure,
        )
        return ReadProgram(program, self.kernels, tuple(self.weights))

    def _bind(self, binding: Any) -> Any:
        where = f"variable {binding.var.name!r}"
        value = getattr(binding, "value", None)
        if not isinstance(value, relax.Call):
            return self._value(value, where)
        operator = value.op.name if isinstance(value.op, tvm.ir.Op) else str(value.op)
        if operator == "relax.to_vdevice":
            self._check_host(value.ty, where)
            return self._value(value.args[0], where)
        if operator in _VIEW_OPS:
            tensor = self._value(value.args[0], where)
            return self._new_view(self.tensors[tensor].buffer, value.ty)
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

    def _weight(self, constant: Any) -> int:
        """Return the tensor of a weight; devices that share memory share it."""
        address = (constant.value.data_ptr(), str(constant.ty.shape), str(constant.ty.dtype))
        if address not in self.weight_tensors:
            self.weight_tensors[address] = self._new_tensor("weights", len(self.weights), constant.ty)
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
        if is_kernel:
            name = str(call.args[0].name_hint)
            self.kernels[name] = self.module[call.args[0]]
        else:
            name = str(call.args[0].global_symbol)
        outputs = [self._new_tensor("arena", len(self.buffers), ty) for ty in types]
        self._add_step(
            str(var.name), "kernel" if is_kernel else "external", device, name, operands, outputs
        )
        return outputs if is_tuple else outputs[0]

    def _add_step(
        self, name: str, kind: str, device: int, function: str, operands: list[int], outputs: list[int]
    ) -> None:
        count = self.names[name] = self.names.get(name, -1) + 1
        shown = f"{name}.{count}" if count else name
        self.steps.append(Step(shown, kind, device, function, (*operands, *outputs), len(outputs)))

    def _deliver(self, value: Any, outputs: list[int]) -> Any:
        """Move each result into a buffer that is the caller's; return the structure of the result."""
        if isinstance(value, list):
            return [self._deliver(field, outputs) for field in value]
        tensor = self.tensors[value]
        buffer = self.buffers[tensor.buffer]
        index = sum(other.space == "output" for other in self.buffers)
        if buffer.space == "arena":
            self.buffers[tensor.buffer] = Buffer("output", index, buffer.bytes)
        elif buffer.space in ("input", "weights"):
            # An argument or a weight is returned: as a copy, so that nobody can write into ours.
            self.buffers.append(Buffer("output", index, buffer.bytes))
            self.tensors.append(TensorView(len(self.buffers) - 1, tensor.shape, tensor.dtype))
            host = self.platform.host_index
            self._add_step("copy_result", "copy", host, "", [value], [len(self.tensors) - 1])
            value = len(self.tensors) - 1
        outputs.append(value)
        return len(outputs) - 1

    def _new_tensor(self, space: str, index: int, ty: Any) -> int:
        self.buffers.append(Buffer(space, index, tensor_bytes(ty)))
        return self._new_view(len(self.buffers) - 1, ty)

    def _new_view(self, buffer: int, ty: Any) -> int:
        shape = tuple(int(extent) for extent in ty.shape.values)
        dtype = str(ty.dtype.dtype if hasattr(ty.dtype, "dtype") else ty.dtype)
        self.tensors.append(TensorView(buffer, shape, dtype))
        return len(self.tensors) - 1

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
                raise UnsupportedError(f"Lanes run CPU devices; {where} is on {device.name!r}.")
