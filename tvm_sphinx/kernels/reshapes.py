"""Move reshapes of matrix products below the elementwise operators that follow them.

An importer writes a linear layer on [batch, tokens, features] as a product on [batch * tokens, features]
between two reshapes. The activation and the residual sum after it then stand behind a reshape, where
fusion cannot reach them: they become kernels of their own, which read and write the whole tensor again.
Computed in the product's own shape they are part of its kernel; the reshapes that remain are views.
"""

from __future__ import annotations

import math
from typing import Any

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from .channels_last import BINARY, UNARY, typed_const

_VIEWS = ("reshape", "expand_dims", "squeeze", "permute_dims", "broadcast_to")


def sink_reshapes(mod: tvm.IRModule) -> tvm.IRModule:
    """Return the module with elementwise operators moved ahead of reshapes of matrix products.

    Parameters
    ----------
    mod
        A Relax module; it is not modified. Values stay bit by bit the same.
    """
    sinker = _Sinker(mod)
    for gvar, func in mod.functions_items():
        if isinstance(func, relax.Function) and not func.attrs.get("Primitive", 0):
            updated = sinker.visit_expr(func)
            sinker.builder_.update_func(gvar, relax.analysis.remove_all_unused(updated))
    return sinker.builder_.get()


def _extents(expr: Any) -> tuple[int, ...] | None:
    values = getattr(getattr(expr.ty, "shape", None), "values", None)
    if values is None or not all(isinstance(value, tvm.tirx.IntImm) for value in values):
        return None
    return tuple(int(value) for value in values)


def _is_view(name: str, call: Any) -> bool:
    """Whether an operator keeps its tensor's elements in their order: a reshape by any name."""
    source, target = _extents(call.args[0]), _extents(call)
    if source is None or target is None or math.prod(source) != math.prod(target):
        return False
    if name != "permute_dims":
        return True
    axes = call.attrs.axes
    order = [int(a) for a in axes] if axes is not None else list(range(len(source)))[::-1]
    moved = [axis % len(source) for axis in order if source[axis] != 1]
    return moved == sorted(moved)


@mutator
class _Sinker(PyExprMutator):  # type: ignore[misc]
    """Knows which tensors are products or made of them, and which are views of what."""

    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)
        self._products: set[Any] = set()  # new variables
        self._name = ""
        self._base: dict[Any, Any] = {}  # original variable -> new variable that it is a view of

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        """Rewrite a view, or an elementwise operator on a view of a product; note what it makes."""
        var, call = binding.var, binding.value
        self._name = str(var.name)
        op = str(getattr(call.op, "name", "")) if isinstance(call, relax.Call) else ""
        name = op.removeprefix("relax.")
        if not isinstance(var, relax.DataflowVar) or _extents(var) is None:
            super().visit_var_binding_(binding)
            return
        if name in _VIEWS and isinstance(call.args[0], relax.Var) and _is_view(name, call):
            self._bind_view(var, self._base.get(call.args[0], self.visit_expr(call.args[0])))
            return
        elementwise = name in UNARY or name in BINARY
        moved = self._moved(name, call) if elementwise else None
        if moved is not None:
            flat = self._emit(moved)
            self._products.add(flat)
            self._bind_view(var, flat)
            return
        super().visit_var_binding_(binding)
        new = self.visit_expr(var)
        if name == "matmul" or (elementwise and any(self._is_product(arg) for arg in call.args)):
            self._products.add(new)

    def _emit(self, value: Any) -> Any:
        """Bind a new value under the name of the binding at hand, which says where it comes from."""
        return self.builder_.emit(value, self._name)

    def _bind_view(self, var: Any, base: Any) -> None:
        self._base[var] = base
        shape = _extents(var)
        self.set_var_remap(
            var, base if _extents(base) == shape else self._emit(relax.op.reshape(base, shape))
        )

    def _is_product(self, arg: Any) -> bool:
        return isinstance(arg, relax.Var) and self.visit_expr(arg) in self._products

    def _moved(self, name: str, call: Any) -> Any:
        """Return the operator in the shape of the product, or None where it does not apply."""
        bases = [self._base[arg] for arg in call.args if arg in self._base]
        base = next((base for base in bases if base in self._products), None)
        shape = None if base is None else _extents(base)
        own = _extents(call)
        if base is None or shape is None or own is None or math.prod(shape) != math.prod(own):
            return None
        if name in UNARY:
            args = [base, *call.args[1:]]
            return relax.Call(call.op, args, call.attrs, call.ty_args)
        operands = [self._operand(arg, shape, own) for arg in call.args]
        if any(operand is None for operand in operands):
            return None
        return relax.Call(call.op, operands, call.attrs, call.ty_args)

    def _operand(self, arg: Any, shape: tuple[int, ...], own: tuple[int, ...]) -> Any:
        """Return an operand that broadcasts against the product's shape as it did against its own."""
        flat = self._base.get(arg)
        if flat is not None and _extents(flat) == shape:
            return flat
        if not isinstance(arg.ty, relax.TensorType):
            return arg  # a number
        extents = _extents(arg)
        if extents is None:
            return None
        if math.prod(extents) == 1 and len(extents) <= len(shape):
            return self.visit_expr(arg)
        if extents == own:
            if isinstance(arg, tvm.ir.GenericConst):
                return typed_const(arg.value.numpy().reshape(shape))
            return self._emit(relax.op.reshape(self.visit_expr(arg), shape))
        along_last = extents == own[-1:] == shape[-1:]
        return self.visit_expr(arg) if along_last else None
