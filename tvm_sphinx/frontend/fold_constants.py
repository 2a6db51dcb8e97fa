"""Fold constant subexpressions of a Relax module with NumPy. [TVM]

TVM's `FoldConstant` legalizes every operator to see whether it can be folded, and compiles and loads one
LLVM module for each constant expression: a network whose batch norms are folded into its convolutions
has hundreds. NumPy computes the same values in a thousandth of the time; what it does not know here is
left to `FoldConstant`, which then runs only where something is left.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from tvm.relax.expr_functor import PyExprMutator, mutator

from .._tvm import relax, tirx, tvm
from .constant_ops import OPERATORS

# Larger results of operators without tensor operands stay operators, as in TVM's pass: they are cheap to
# compute and dear to store.
_MOST_CREATED = 1024


@tvm.transform.module_pass(opt_level=0, name="FoldConstants")
class FoldConstants:
    """Replace operators on constants by their values; see `fold_constants`."""

    def transform_module(self, mod: Any, _ctx: Any) -> Any:
        """Return the folded module."""
        return fold_constants(mod)


def fold_constants(mod: Any) -> Any:
    """Return a module whose dataflow blocks hold no operator on constants alone.

    Parameters
    ----------
    mod
        Relax IRModule; it is not changed. Results have the types that Relax infers, and the values of
        TVM's kernels up to the rounding of single operations.
    """
    folder = _Folder(mod)
    for var, function in mod.functions_items():
        if isinstance(function, relax.Function) and not function.attrs.get("Primitive", 0):
            updated = folder.visit_expr(function)
            folder.builder_.update_func(var, relax.analysis.remove_all_unused(updated))
    folded = folder.builder_.get()
    return relax.transform.FoldConstant()(folded) if folder.is_left else folded


@mutator
class _Folder(PyExprMutator):  # type: ignore[misc]
    """Folds one module; ``is_left`` tells whether it met what only TVM's pass can fold."""

    def __init__(self, mod: Any) -> None:
        super().__init__(mod)
        self._values: dict[Any, Any] = {}
        self._shapes: dict[Any, Any] = {}
        self._constants: dict[int, Any] = {}  # by the id of an array that is kept in `_values`
        self._computed: dict[Any, Any] = {}  # values by operator, attributes and operands
        self.is_left = False

    def visit_var_binding_(self, binding: Any) -> None:
        """Fold one binding of a dataflow block; later uses of its variable become the constant."""
        if isinstance(binding.var, relax.DataflowVar) and isinstance(binding.var.ty, relax.ShapeType):
            extents = _extents(binding.var.ty)
            if extents is not None:
                self._shapes[binding.var] = relax.ShapeExpr(extents)
                return
        value = self._evaluate(binding.value)
        if value is None or not isinstance(binding.var, relax.DataflowVar):
            super().visit_var_binding_(binding)
            return
        self._values[binding.var] = value
        if not isinstance(value, np.ndarray):
            super().visit_var_binding_(binding)  # a tuple: its fields fold where they are taken out

    def visit_dataflow_var_(self, op: Any) -> Any:
        """Return the constant, or the shape, that a variable stands for."""
        if op in self._shapes:
            return self._shapes[op]
        value = self._values.get(op)
        if not isinstance(value, np.ndarray):
            return super().visit_dataflow_var_(op)
        if id(value) not in self._constants:
            self._constants[id(value)] = relax.const(value, str(value.dtype))
        return self._constants[id(value)]

    def _is_constant(self, expr: Any) -> bool:
        """Whether a tensor, or each of a tuple of them, has a known value; shapes and numbers have."""
        if isinstance(expr, relax.Tuple):
            return all(map(self._is_constant, expr.fields))
        known = isinstance(expr, tvm.ir.GenericConst) or expr in self._values
        return known or not _is_tensor(expr)

    def _identity(self, expr: Any) -> Any:
        """Return a key that equal operands of a constant operator share."""
        if isinstance(expr, tvm.ir.GenericConst):
            return expr
        if isinstance(expr, relax.Var):
            return id(self._values[expr])
        if isinstance(expr, relax.Tuple):
            return tuple(map(self._identity, expr.fields))
        return str(expr)

    def _evaluate(self, expr: Any) -> Any:
        """Return an array, or a tuple of values; None where the expression is not constant."""
        if isinstance(expr, tvm.ir.GenericConst):
            return expr.value.numpy()
        if isinstance(expr, relax.Var):
            return self._values.get(expr)
        if isinstance(expr, relax.Tuple):
            fields = [self._evaluate(field) for field in expr.fields]
            return None if any(field is None for field in fields) else tuple(fields)
        if isinstance(expr, relax.TupleGetItem):
            whole = self._evaluate(expr.tuple_value)
            return None if whole is None else whole[int(expr.index)]
        if isinstance(expr, relax.Call) and isinstance(expr.op, tvm.ir.Op):
            return self._evaluate_call(expr)
        return None

    def _evaluate_call(self, call: Any) -> Any:
        name = str(call.op.name).removeprefix("relax.")
        if name == "shape_to_tensor":
            extents = _extents(call.args[0].ty)
            if extents is not None:
                return np.asarray(extents, "int64")
        if name in ("tensor_to_shape", "shape_to_tensor", "shape_of"):
            self.is_left = True
        if not all(map(self._is_constant, call.args)):
            return None
        if not any(map(_is_tensor, call.args)) and _elements(call.ty) > _MOST_CREATED:
            return None
        operator = OPERATORS.get(name)
        if operator is not None:
            place = (name, str(call.attrs), str(call.ty), *map(self._identity, call.args))
            if place in self._computed:
                return self._computed[place]
            arrays = [self._evaluate(arg) if _is_tensor(arg) else arg for arg in call.args]
            value = operator(call, arrays)
            if value is not None and _has_type(value, call.ty):
                self._computed[place] = value
                return value
        self.is_left = True
        return None


def _is_tensor(expr: Any) -> bool:
    if isinstance(expr, relax.Tuple):
        return any(_is_tensor(field) for field in expr.fields)
    return isinstance(expr.ty, (relax.TensorType, relax.TupleType))


def _extents(ty: Any) -> list[int] | None:
    """Return the extents of the type of a tensor or a shape, None where one is open."""
    values = getattr(getattr(ty, "shape", ty), "values", None)
    if values is None or not all(isinstance(extent, tirx.IntImm) for extent in values):
        return None
    return [int(extent) for extent in values]


def _elements(ty: Any) -> int:
    """Return how many elements a tensor type has, 0 if its shape is open or it is no tensor."""
    extents = _extents(ty) if isinstance(ty, relax.TensorType) else None
    return 0 if extents is None else math.prod(extents)


def _has_type(value: Any, ty: Any) -> bool:
    if isinstance(value, tuple):
        fields = getattr(ty, "fields", ())
        return len(fields) == len(value) and all(map(_has_type, value, fields))
    return _extents(ty) == list(value.shape) and str(value.dtype) == str(ty.dtype)
