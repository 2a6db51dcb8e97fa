"""Read a lowered Relax function as kernel calls and the tensors between them. [TVM]"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .._tvm import relax, tirx, tvm
from ..errors import UnsupportedError
from ..scheduling.graph import FROM_CONSTANT, FROM_INPUT, Operand

#: What calls functions that make tensors themselves and may return anything; no kernel of ours takes
#: their place.
PACKED_CALLS = ("relax.call_pure_packed", "relax.call_inplace_packed", "relax.call_py_func")
#: What a lowered function calls kernels with.
KERNEL_CALLS = ("relax.call_tir", "relax.call_dps_packed")
#: Attribute of a Relax function whose weights lie as the model has them, for devices of unlike layouts:
#: a kernel that wants one packed gets it packed for itself.
PLAIN_WEIGHTS = "sphinx.plain_weights"
_VIEW_OPS = ("relax.reshape", "relax.memory.view", "relax.memory.ensure_zero_offset")


@dataclass(frozen=True)
class KernelCall:
    """One kernel call: the variable it is bound to and the call itself.

    ``callee`` is the PrimFunc, or the name of an external function; ``arguments`` are its tensor
    operands in order; ``outputs`` are the types of its output tensors.
    """

    var: Any
    call: Any
    callee: Any
    arguments: tuple[Any, ...]
    outputs: tuple[Any, ...]

    @property
    def is_external(self) -> bool:
        """Whether a packed function outside of TVM's code generation computes it."""
        return isinstance(self.callee, str)


class Dataflow:
    """A Relax function as straight-line code.

    Attributes
    ----------
    function : relax.Function
    calls : tuple of KernelCall
        In the order of the function.
    definitions : dict
        What each variable is bound to.
    result : relax.Expr
        What the function returns.

    Raises
    ------
    UnsupportedError
        If the function has control flow, dynamic shapes, or operations that are neither kernel calls
        nor views; the message says which.
    """

    def __init__(self, module: Any, name: str) -> None:
        self.module = module
        self.name = name
        self.function = module[name]
        self.definitions: dict[Any, Any] = {}
        self._task_of: dict[Any, int] = {}
        calls: list[KernelCall] = []
        for param in self.function.params:
            _require_static_tensor(param.ty, f"argument {param.name!r}")
        body = self.function.body
        if not isinstance(body, relax.SeqExpr):
            raise UnsupportedError(f"Function {name!r} is not in A-normal form.")
        for block in body.blocks:
            for binding in block.bindings:
                call = self._read(binding)
                if call is not None:
                    self._task_of[binding.var] = len(calls)
                    calls.append(call)
        self.calls = tuple(calls)
        self.result = body.body

    @cached_property
    def params(self) -> dict[Any, int]:
        """Position of each parameter of the function."""
        return {param: index for index, param in enumerate(self.function.params)}

    @cached_property
    def _constants(self) -> dict[Any, int]:
        return {}

    @property
    def constants(self) -> list[Any]:
        """The constants that operands were asked for, by their numbers."""
        return list(self._constants)

    def _read(self, binding: Any) -> KernelCall | None:
        """Record one binding; return its kernel call, or None if it only renames tensors."""
        where = f"variable {binding.var.name!r}"
        if not isinstance(binding, relax.VarBinding):
            raise UnsupportedError(f"Dynamic shapes: {where} is bound by match_cast.")
        value = binding.value
        self.definitions[binding.var] = value
        if isinstance(value, (relax.Var, relax.Tuple, relax.TupleGetItem, tvm.ir.GenericConst)):
            return None
        if isinstance(value, (relax.ShapeExpr, tvm.ir.StringImm)):
            return None
        if isinstance(value, relax.If):
            raise UnsupportedError(f"Control flow: {where} is bound to an if.")
        if not isinstance(value, relax.Call):
            raise UnsupportedError(f"Expected kernel calls and views; {where} is bound to {value}.")
        return self._read_call(binding.var, value, where)

    def _read_call(self, var: Any, call: Any, where: str) -> KernelCall | None:
        operator = call.op.name if isinstance(call.op, tvm.ir.Op) else None
        if operator in _VIEW_OPS:
            _require_static_tensor(call.ty, where)
            return None
        if operator in PACKED_CALLS:
            raise UnsupportedError(
                f"Dynamic shapes: {where} is made by a function whose result has a shape that the "
                f"network computes."
            )
        if operator not in KERNEL_CALLS:
            shown = (
                operator
                or getattr(call.op, "name_hint", None)
                or getattr(call.op, "global_symbol", call.op)
            )
            if str(shown).endswith("assert_op"):
                raise UnsupportedError(
                    f"The program asserts something of what it computes ({where}), which TVM's virtual "
                    f"machine checks and the lanes do not."
                )
            raise UnsupportedError(f"Expected kernel calls and views; {where} calls {shown}.")
        if len(call.args) > 2:
            raise UnsupportedError(f"Dynamic shapes: {where} passes shape variables to its kernel.")
        callee: Any
        if operator == "relax.call_tir":
            callee = self.module[call.args[0]]
            if not isinstance(callee, tirx.PrimFunc):
                raise UnsupportedError(f"Expected a PrimFunc; {where} calls {call.args[0]}.")
        else:
            callee = str(call.args[0].global_symbol)
        types = call.ty.fields if isinstance(call.ty, relax.TupleType) else [call.ty]
        for output in types:
            _require_static_tensor(output, where)
        arguments = tuple(
            call.args[1].fields if isinstance(call.args[1], relax.Tuple) else [call.args[1]]
        )
        return KernelCall(var, call, callee, arguments, tuple(types))

    def task_of(self, var: Any) -> int | None:
        """Return the id of the kernel call that a variable is bound to, None for other variables."""
        return self._task_of.get(var)

    def tensors(self, expr: Any) -> list[Operand]:
        """Return the tensors that an expression stands for, in order, seen through views and tuples."""
        if isinstance(expr, relax.Tuple):
            return [operand for field in expr.fields for operand in self.tensors(field)]
        if isinstance(expr, tvm.ir.GenericConst):
            number = self._constants.setdefault(expr, len(self._constants))
            return [Operand(FROM_CONSTANT, number)]
        if isinstance(expr, relax.TupleGetItem):
            return [self._item(expr.tuple_value, int(expr.index))]
        if isinstance(expr, relax.Call):  # a view, by construction
            return self.tensors(expr.args[0])
        if not isinstance(expr, relax.Var):
            return []  # shapes and immediate values carry no tensor
        if expr in self.params:
            return [Operand(FROM_INPUT, self.params[expr])]
        task = self.task_of(expr)
        if task is None:
            return self.tensors(self.definitions[expr])
        return [Operand(task, output) for output in range(len(self.calls[task].outputs))]

    def made_by(self, expr: Any) -> Operand | None:
        """Return the output of a kernel that an expression is; None of a view of one, or another."""
        index = 0
        while True:
            if isinstance(expr, relax.TupleGetItem):
                expr, index = expr.tuple_value, int(expr.index)
            elif isinstance(expr, relax.Tuple):
                expr, index = expr.fields[index], 0
            elif isinstance(expr, relax.Var) and expr in self.definitions and self.task_of(expr) is None:
                expr = self.definitions[expr]
            else:
                break
        task = self.task_of(expr) if isinstance(expr, relax.Var) else None
        return None if task is None else Operand(task, index)

    def _item(self, value: Any, index: int) -> Operand:
        while isinstance(value, relax.Var) and self.task_of(value) is None:
            value = self.definitions[value]
        if isinstance(value, relax.Tuple):
            (operand,) = self.tensors(value.fields[index])
            return operand
        return self.tensors(value)[index]


def is_lowered(module: Any, name: str) -> bool:
    """Return whether a function calls nothing but kernels and views; others are not looked into."""
    body = module[name].body
    if not isinstance(body, relax.SeqExpr):
        return False
    values = [getattr(binding, "value", None) for block in body.blocks for binding in block.bindings]
    if any(isinstance(value, relax.If) for value in values):
        return False
    calls = [value for value in values if isinstance(value, relax.Call)]
    return all(
        isinstance(call.op, tvm.ir.Op) and call.op.name in (*KERNEL_CALLS, *_VIEW_OPS) for call in calls
    )


def tensor_bytes(ty: Any) -> int:
    """Return the size of a static tensor type in bytes."""
    dtype = tvm.DataType(str(ty.dtype))
    elements = math.prod(int(extent) for extent in ty.shape.values)
    return elements * ((int(dtype.bits) * int(dtype.lanes) + 7) // 8)


def is_static(ty: Any) -> bool:
    """Return whether a type is that of a tensor all of whose extents are known."""
    shape = getattr(ty, "shape", None)
    return isinstance(shape, relax.ShapeExpr) and all(isinstance(e, tirx.IntImm) for e in shape.values)


def first_empty(function: Any) -> Any | None:
    """Return the first variable of a Relax function that is a tensor without elements, else None."""
    variables = [
        *function.params,
        *(binding.var for block in function.body.blocks for binding in block.bindings),
    ]
    for var in variables:
        extents = getattr(getattr(var.ty, "shape", None), "values", None) or []
        if any(isinstance(extent, tirx.IntImm) and int(extent) == 0 for extent in extents):
            return var
    return None


def _require_static_tensor(ty: Any, where: str) -> None:
    if not isinstance(ty, relax.TensorType):
        raise UnsupportedError(f"Expected tensors; {where} is of type {ty}.")
    if not is_static(ty):
        raise UnsupportedError(f"Dynamic shapes: {where} is of type {ty}.")
    if ty.vdevice is not None:
        raise UnsupportedError(f"Already placed: {where} is on {ty.vdevice}.")
