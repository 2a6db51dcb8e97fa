"""Division of whole numbers that cannot kill the process, rewritten on Relax. [TVM]

A processor traps where an integer is divided by zero, or the least integer by -1. Here ``a / 0`` and the
remainder of it are 0, as in NumPy (torch raises an error, ONNX leaves it undefined), and the quotient
``least / -1`` wraps round to the least integer, as it does in NumPy and torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._tvm import relax, tvm
from .bounded_indices import Emit

_op = relax.op


def divide(emit: Emit, call: Any) -> Any:
    """Rewrite ``relax.divide`` and ``relax.floor_divide``, which differ in how they round."""
    return _guarded(emit, call, is_remainder=False)


def remainder(emit: Emit, call: Any) -> Any:
    """Rewrite ``relax.mod`` and ``relax.floor_mod``."""
    return _guarded(emit, call, is_remainder=True)


def _guarded(emit: Emit, call: Any, *, is_remainder: bool) -> Any:
    left, right = call.args
    dtype = str(right.ty.dtype)
    if not dtype.startswith(("int", "uint")) or not isinstance(right.ty, relax.TensorType):
        return None
    signed = dtype.startswith("int")
    if isinstance(right, tvm.ir.GenericConst) and not _traps(right.value.numpy()):
        return None
    zero, one = relax.const(0, dtype), relax.const(1, dtype)
    by_zero = emit(_op.equal(right, zero))
    unsafe = by_zero
    if signed:
        by_minus_one = emit(_op.equal(right, relax.const(-1, dtype)))
        unsafe = emit(_op.logical_or(by_zero, by_minus_one))
    divisor = emit(_op.where(unsafe, one, right))
    quotient = emit(relax.Call(call.op, [left, divisor], call.attrs))
    if is_remainder:
        return _op.where(unsafe, zero, quotient)
    if signed:
        quotient = emit(_op.where(by_minus_one, emit(_op.subtract(zero, left)), quotient))
    return _op.where(by_zero, zero, quotient)


def _traps(divisors: Any) -> bool:
    return bool((divisors == 0).any() or (np.issubdtype(divisors.dtype, np.signedinteger) and (divisors == -1).any()))
