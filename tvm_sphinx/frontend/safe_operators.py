"""Rewrite the operators of a Relax module that TVM's kernels do not define for all values. [TVM]

A module comes from an importer or from the user; either way this runs before anything is lowered or
folded. Kernels that are there already (``call_tir``) are the user's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from tvm.relax.expr_functor import PyExprMutator, mutator

from .._tvm import relax, tvm
from ..errors import ModelError
from . import (
    bounded_indices,
    bounded_scatters,
    double_norms,
    float_division,
    half_functions,
    open_broadcasts,
    open_slices,
    whole_numbers,
)

# Types of fewer bits than are known here: floats of 4 to 8, and whole numbers of 2 and 4.
_NARROW = re.compile(r"float[468]_.*|u?int[24]")

#: Returns what takes the place of a call, or None where it may stay.
Rewrite = Callable[[bounded_indices.Emit, Any], Any]


def _found(emit: bounded_indices.Emit, call: Any) -> Any:
    """Rewrite ``argmax`` and ``argmin``: TVM's kernel finds -1 where all are infinite.

    It starts from the least finite number, which no infinity exceeds; the first element is right then.
    Of bfloat16 and bools, of which it does not compile, it looks at wider types.
    """
    wide = {"bfloat16": "float32", "bool": "int8"}.get(str(call.args[0].ty.dtype))
    place = emit(call if wide is None else half_functions.operand_in(emit, call, wide))
    return relax.op.maximum(place, relax.const(0, str(place.ty.dtype)))


def _negated(truth: Any) -> Any:
    """Return the opposite of bools: TVM turns a negated comparison round, as if there were no NaN."""
    return relax.op.logical_xor(truth, relax.const(np.asarray(True), "bool"))


def _not(_: bounded_indices.Emit, call: Any) -> Any:
    """Rewrite ``logical_not`` of bools."""
    (operand,) = call.args
    return _negated(operand) if str(getattr(operand.ty, "dtype", "")) == "bool" else None


def _ordered(emit: bounded_indices.Emit, call: Any) -> Any:
    """Rewrite comparisons of bools, of which TVM has no code: they are ordered as 0 and 1."""
    if any(str(getattr(operand.ty, "dtype", "")) != "bool" for operand in call.args):
        return None
    return relax.Call(call.op, [emit(relax.op.astype(each, "int8")) for each in call.args], call.attrs)


def _compared(emit: bounded_indices.Emit, call: Any) -> Any:
    """Rewrite comparisons of floats: a NaN differs from all numbers and itself, for TVM from none."""
    left, right = call.args
    if str(getattr(left.ty, "dtype", "")) == "bool":
        return _ordered(emit, call)
    is_equal = str(call.op.name) == "relax.equal"
    if "float" not in str(getattr(left.ty, "dtype", "")):
        return None
    if left.same_as(right):
        is_nan = relax.op.isnan(left)
        half = half_functions.asked_in_single(emit, is_nan)
        is_nan = is_nan if half is None else half
        return _negated(emit(is_nan)) if is_equal else is_nan
    return None if is_equal else _negated(emit(relax.op.equal(left, right)))


def _filled(_: bounded_indices.Emit, call: Any) -> Any:
    """Rewrite ``full`` and its like of an infinity, NaN or bfloat16, which TVM's kernel cannot make."""
    of, value = call.args
    dtype = str(call.ty.dtype)
    if not isinstance(value, tvm.ir.GenericConst):
        return None
    if dtype != "bfloat16" and np.isfinite(value.value.numpy().astype(float)):
        return None
    shape = of if isinstance(of, relax.ShapeExpr) else of.ty.shape
    if shape is None or "float" not in dtype:
        return None
    number = value if str(value.ty.dtype) == dtype else relax.op.astype(value, dtype)
    return relax.op.broadcast_to(number, shape)


def _constant(value: float) -> Rewrite:
    """Return the rewrite of ``zeros``, ``ones`` and their like in bfloat16, which TVM mistypes."""

    def rewrite(_: bounded_indices.Emit, call: Any) -> Any:
        dtype, shape = str(getattr(call.ty, "dtype", "")), getattr(call.ty, "shape", None)
        if dtype != "bfloat16" or not isinstance(shape, relax.ShapeExpr):
            return None
        return relax.op.broadcast_to(relax.op.astype(relax.const(value, "float32"), dtype), shape)

    return rewrite


def _of_truth(emit: bounded_indices.Emit, call: Any) -> Any:
    """Rewrite ``max`` and ``min`` of bools, which TVM does not know the bounds of."""
    if str(getattr(call.args[0].ty, "dtype", "")) != "bool":
        return None
    return relax.op.astype(emit(half_functions.operand_in(emit, call, "int8")), "bool")


def _clipped(emit: bounded_indices.Emit, call: Any) -> Any:
    """Rewrite ``clip`` of whole numbers with one bound, and any whose bounds are the wrong way round.

    No whole number is TVM's infinity, and its kernel gives the lower bound where torch, ONNX and NumPy
    give the upper one.
    """
    data, *bounds = call.args
    dtype = str(getattr(data.ty, "dtype", ""))
    values: list[Any] = [getattr(bound, "value", None) for bound in bounds]
    if None in values:
        return None
    low, high = map(float, values)
    is_whole = "int" in dtype
    is_open = is_whole and not (np.isfinite(low) and np.isfinite(high))
    if not is_open and low <= high:
        return None
    made = data
    for value, function in zip(values, (relax.op.maximum, relax.op.minimum), strict=True):
        if np.isfinite(float(value)) or not is_whole:
            number = int(value) if is_whole else float(value)
            made = emit(function(made, relax.const(number, dtype)))
    return made


def _sign(emit: bounded_indices.Emit, call: Any) -> Any:
    """Rewrite ``sign`` of whole numbers without one, of which TVM asks whether they are -1."""
    (data,) = call.args
    dtype = str(getattr(data.ty, "dtype", ""))
    if not dtype.startswith("uint"):
        return None
    return relax.op.astype(emit(relax.op.not_equal(data, relax.const(0, dtype))), dtype)


# Types that TVM's sort does not know, or takes for whole numbers, and such as hold all their values.
_SORTED_AS = {
    "bfloat16": "float32",
    **dict.fromkeys(("bool", "int8", "uint8", "int16", "uint16"), "int32"),
    "uint32": "int64",
}
_LOWEST = -(2**63)


def _sorted(emit: bounded_indices.Emit, call: Any) -> Any:
    """Rewrite ``sort``, ``argsort`` and ``topk`` of such types."""
    data, *others = call.args
    dtype = str(getattr(data.ty, "dtype", ""))
    if dtype == "uint64":
        # From the least to the largest, as whole numbers with a sign.
        wide = emit(relax.op.bitwise_xor(emit(relax.op.astype(data, "int64")), _least()))
    elif dtype in _SORTED_AS:
        wide = emit(relax.op.astype(data, _SORTED_AS[dtype]))
    else:
        return None

    def narrow(values: Any) -> Any:
        back = emit(relax.op.bitwise_xor(values, _least())) if dtype == "uint64" else values
        return relax.op.astype(back, dtype)

    name = str(call.op.name).removeprefix("relax.")
    made = relax.Call(call.op, [wide, *others], call.attrs)
    if name == "argsort" or getattr(call.attrs, "ret_type", "") == "indices":
        return made
    found = emit(made)
    if name == "sort" or call.attrs.ret_type == "values":
        return narrow(found)
    values, places = (emit(relax.TupleGetItem(found, place)) for place in (0, 1))
    return relax.Tuple([emit(narrow(values)), places])


def _median(emit: bounded_indices.Emit, call: Any) -> Any:
    """Rewrite ``median`` of types that TVM's sort does not know."""
    dtype = str(getattr(call.args[0].ty, "dtype", ""))
    if dtype not in _SORTED_AS:
        return None
    found = emit(half_functions.operand_in(emit, call, _SORTED_AS[dtype]))
    if not isinstance(found.ty, relax.TupleType):
        return relax.op.astype(found, dtype)
    values, places = (emit(relax.TupleGetItem(found, place)) for place in (0, 1))
    return relax.Tuple([emit(relax.op.astype(values, dtype)), places])


def _least() -> Any:
    return relax.const(_LOWEST, "int64")


def _either(first: Rewrite, second: Rewrite) -> Rewrite:
    """Return the first of two rewrites that knows the type of a call."""

    def rewrite(emit: bounded_indices.Emit, call: Any) -> Any:
        made = first(emit, call)
        return second(emit, call) if made is None else made

    return rewrite


def _root_mean_square(emit: bounded_indices.Emit, call: Any) -> Any:
    """Rewrite ``rms_norm`` over all axes: TVM's kernel needs one that stays."""
    data, weight = call.args
    axes = {int(axis) % int(data.ty.ndim) for axis in call.attrs.axes}
    if len(axes) < int(data.ty.ndim):
        return half_functions.in_single(emit, call)
    wide = emit(relax.op.expand_dims(data, 0))
    inner = [axis + 1 for axis in sorted(axes)]
    norm = relax.op.nn.rms_norm(wide, weight, inner, float(call.attrs.epsilon))
    half = half_functions.in_single(emit, norm)
    return relax.op.squeeze(emit(norm if half is None else half), [0])


#: By the operator's name without ``relax.``.
REWRITES: dict[str, Rewrite] = {
    "take": bounded_indices.take,
    "gather_elements": bounded_indices.gather_elements,
    "gather_nd": bounded_indices.gather_nd,
    "index_tensor": bounded_indices.index_tensor,
    "scatter_elements": bounded_scatters.scatter_elements,
    "scatter_nd": bounded_scatters.scatter_nd,
    "index_put": bounded_scatters.index_put,
    "slice_scatter": bounded_scatters.slice_scatter,
    "strided_slice": open_slices.strided_slice,
    "clip": _clipped,
    "full": _filled,
    "full_like": _filled,
    "argmax": _found,
    "argmin": _found,
    "equal": _compared,
    "not_equal": _compared,
    **dict.fromkeys(("less", "less_equal", "greater", "greater_equal"), _ordered),
    "logical_not": _not,
    "divide": whole_numbers.divide,
    "floor_divide": _either(float_division.divide, whole_numbers.divide),
    "mod": _either(half_functions.in_single, whole_numbers.remainder),
    "power": half_functions.in_single,
    **dict.fromkeys(("isnan", "isinf", "isfinite"), half_functions.asked_in_single),
    "sign": _sign,
    "floor_mod": _either(float_division.remainder, whole_numbers.remainder),
    **dict.fromkeys((*half_functions.FUNCTIONS, *half_functions.MEANS), half_functions.through_single),
    "nn.instance_norm": half_functions.in_single,
    "nn.layer_norm": _either(half_functions.in_single, double_norms.layer_norm),
    "nn.group_norm": _either(half_functions.in_single, double_norms.group_norm),
    "nn.rms_norm": _root_mean_square,
    **dict.fromkeys(("sort", "argsort", "topk"), _sorted),
    "median": _median,
    **dict.fromkeys(("max", "min"), _of_truth),
    **dict.fromkeys(("zeros", "zeros_like"), _constant(0)),
    **dict.fromkeys(("ones", "ones_like"), _constant(1)),
}


def make_safe(mod: Any) -> Any:
    """Return a module whose operators touch no foreign memory and do not trap, whatever their inputs.

    Parameters
    ----------
    mod
        Relax IRModule; it is not changed.

    Raises
    ------
    ModelError
        If a constant index is out of range, or an operator is of a form that cannot be made safe.
    """
    mutator_ = _Rewriter(mod)
    for var, function in mod.functions_items():
        if isinstance(function, relax.Function) and not _belongs_to_backend(function):
            updated = mutator_.visit_expr(function)
            if not updated.same_as(function):
                mutator_.builder_.update_func(var, relax.analysis.remove_all_unused(updated))
    return mutator_.builder_.get()


def _check_types(name: str, call: Any) -> None:
    """Refuse to compute with types that TVM's code gets wrong; what is constant is folded without it.

    It has a float of 8 bits that is 0 come out as 2^-7 or NaN as a number, and reads tensors of whole
    numbers of fewer bits, two to a byte, in which runtimes have one.
    """
    if all(isinstance(operand, tvm.ir.GenericConst) for operand in call.args):
        return
    for dtype in filter(None, map(_dtype_of, (*call.args, call))):
        if _NARROW.fullmatch(dtype):
            raise ModelError(
                f"Operator {name!r} reads or makes {dtype}, of which TVM has no right code. Expected "
                f"bool, whole numbers of 8 to 64 bits, or floats of 16 to 64."
            )


def _dtype_of(expr: Any) -> str:
    ty = getattr(expr, "ty", None)
    return str(ty.dtype) if isinstance(ty, relax.TensorType) else ""


def _belongs_to_backend(function: Any) -> bool:
    attrs = function.attrs or {}
    return bool(attrs.get("Primitive", 0)) or "Codegen" in attrs


@mutator
class _Rewriter(PyExprMutator):  # type: ignore[misc]
    """Applies `REWRITES` to every call."""

    def visit_call_(self, call: Any) -> Any:
        """Return what takes the place of a call."""
        call = super().visit_call_(call)
        if not isinstance(call.op, tvm.ir.Op):
            return call
        name = str(call.op.name).removeprefix("relax.")
        _check_types(name, call)
        if name in open_broadcasts.BROADCASTING:
            call = open_broadcasts.with_equal_extents(self.builder_, self.builder_.normalize(call))
        rewrite = REWRITES.get(name)
        replaced = rewrite(self.builder_.emit, call) if rewrite else None
        return call if replaced is None else replaced
