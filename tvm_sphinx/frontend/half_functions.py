"""What TVM has no code for in half floats, or adds up in them, in single precision. [TVM]"""

from __future__ import annotations

from typing import Any

from .._tvm import relax
from .bounded_indices import Emit

#: Floats of 16 bits.
HALVES = ("float16", "bfloat16")

#: By the operator's name without ``relax.``.
FUNCTIONS = ("sinh", "cosh", "asinh", "acosh", "atanh", "asin", "acos", "atan", "tan")

#: What adds up windows, in the type of its data.
MEANS = tuple(f"nn.{kind}avg_pool{axes}d" for kind in ("", "adaptive_") for axes in (1, 2, 3))


def through_single(emit: Emit, call: Any) -> Any:
    """Rewrite an operator of half floats; operands of other types, such as indices, stay."""
    return _widened(emit, call) if str(call.args[0].ty.dtype) in HALVES else None


def in_single(emit: Emit, call: Any) -> Any:
    """Rewrite an operator of bfloat16, such as a norm, that TVM has in float16 and float32 alone."""
    return _widened(emit, call) if str(call.args[0].ty.dtype) == "bfloat16" else None


def asked_in_single(emit: Emit, call: Any) -> Any:
    """Rewrite a question about bfloat16, such as whether it is NaN."""
    return operand_in(emit, call, "float32") if str(call.args[0].ty.dtype) == "bfloat16" else None


def operand_in(emit: Emit, call: Any, dtype: str) -> Any:
    """Return a call whose first operand is cast to a type."""
    data, *others = call.args
    return relax.Call(call.op, [emit(relax.op.astype(data, dtype)), *others], call.attrs)


def _widened(emit: Emit, call: Any) -> Any:
    dtype = str(call.args[0].ty.dtype)
    wide = [
        emit(relax.op.astype(operand, "float32"))
        if isinstance(operand.ty, relax.TensorType) and str(operand.ty.dtype) in HALVES
        else operand
        for operand in call.args
    ]
    return relax.op.astype(emit(relax.Call(call.op, wide, call.attrs)), dtype)
