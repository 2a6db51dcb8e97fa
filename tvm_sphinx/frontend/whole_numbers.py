"""Division of whole numbers that cannot kill the process, rewritten on Relax. [TVM]

A processor traps where an integer is divided by zero, or the least integer by -1. Here ``a / 0`` and the
remainder of it are 0, as in NumPy (torch raises an error, ONNX leaves it undefined), and the quotient
``least / -1`` wraps round to the least integer, as it does in NumPy and torch.
"""

from __future__ import annotations

from typing import Any

from .._tvm import relax, tvm
from .bounded_indices import Emit

_op = relax.op


def divide(emit: Emit, call: Any) -> Any:
    """Rewrite ``relax.divide`` and ``relax.floor_divide``, which differ in how they round."""
    return _guarded(emit, call, is_remainder=False)


def remainder(emit: Emit, call: Any) -> Any:
    """Rewrite ``relax.mod`` and ``relax.floor_mod``: the remainder by 1 stands for those that trap."""
    return _guarded(emit, call, is_remainder=True)


def _guarded(emit: Emit, call: Any, *, is_remainder: bool) -> Any:
    left, right = call.args
    dtype = str(right.ty.dtype)
    if not dtype.startswith(("int", "uint")) or not isinstance(right.ty, relax.TensorType):
        return None
    # A constant of one number becomes part of the kernel; any other is an operand, measured with zeros.
    if isinstance(right, tvm.ir.GenericConst) and right.ty.ndim == 0 and not _traps(right.value.numpy()):
        return None
    # Sums and products alone, whose numbers TVM puts into the kernel: what `where` chooses from would be
    # an operand, and a divisor of the caller's.
    is_zero = _flag(emit, right, 0)
    divisor, sign = emit(_op.add(right, is_zero)), emit(_op.subtract(relax.const(1, dtype), is_zero))
    if dtype.startswith("int"):
        twice = emit(_op.multiply(_flag(emit, right, -1), relax.const(2, dtype)))
        divisor, sign = emit(_op.add(divisor, twice)), emit(_op.subtract(sign, twice))
    quotient = relax.Call(call.op, [left, divisor], call.attrs)
    return quotient if is_remainder else _op.multiply(emit(quotient), sign)


def _flag(emit: Emit, tensor: Any, value: int) -> Any:
    """Return 1 where a tensor of whole numbers has the value, else 0, in its own type."""
    dtype = str(tensor.ty.dtype)
    return emit(_op.astype(emit(_op.equal(tensor, relax.const(value, dtype))), dtype))


def _traps(divisors: Any) -> bool:
    return bool((divisors == 0).any() or (divisors.dtype.kind == "i" and (divisors == -1).any()))
