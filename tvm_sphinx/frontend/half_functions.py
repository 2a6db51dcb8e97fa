"""Elementary functions of half floats, in single precision: TVM has no code for others. [TVM]"""

from __future__ import annotations

from typing import Any

from .._tvm import relax
from .bounded_indices import Emit

_HALVES = ("float16", "bfloat16")

#: By the operator's name without ``relax.``.
FUNCTIONS = ("sinh", "cosh", "asinh", "acosh", "atanh", "asin", "acos", "atan", "tan")


def through_single(emit: Emit, call: Any) -> Any:
    """Rewrite a function of one operand that is of half floats."""
    (operand,) = call.args
    dtype = str(operand.ty.dtype)
    if dtype not in _HALVES:
        return None
    wide = emit(relax.op.astype(operand, "float32"))
    return relax.op.astype(emit(relax.Call(call.op, [wide], call.attrs)), dtype)
