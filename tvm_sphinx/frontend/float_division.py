"""Floor division of floats and its remainder, exact where a quotient rounds, rewritten on Relax. [TVM]

TVM rounds the quotient before it takes the floor: 3 // 0.3 becomes 10, and a remainder by infinity NaN.
Here both are made of C's ``fmod``, which is exact, as torch and NumPy define them, but for the sign of a
quotient that is 0.
"""

from __future__ import annotations

from typing import Any

from .._tvm import relax
from .bounded_indices import Emit
from .half_functions import HALVES

_op = relax.op


def remainder(emit: Emit, call: Any) -> Any:
    """Rewrite ``relax.floor_mod`` of floats; None for other types."""
    return _through_single(emit, call, lambda left, right: _remainder(emit, left, right))


def divide(emit: Emit, call: Any) -> Any:
    """Rewrite ``relax.floor_divide`` of floats; None for other types."""
    return _through_single(emit, call, lambda left, right: _quotient(emit, left, right))


def _through_single(emit: Emit, call: Any, make: Any) -> Any:
    left, right = call.args
    dtype = str(getattr(left.ty, "dtype", ""))
    if dtype not in ("float32", "float64", *HALVES):
        return None
    if dtype not in HALVES:
        return make(left, right)
    wide = [emit(_op.astype(each, "float32")) for each in (left, right)]
    return _op.astype(emit(make(*wide)), dtype)


def _const(value: float, like: Any) -> Any:
    return relax.const(value, str(like.ty.dtype))


def _remainder(emit: Emit, left: Any, right: Any) -> Any:
    rest = emit(_op.mod(left, right))
    return _op.where(_is_opposed(emit, rest, right), emit(_op.add(rest, right)), rest)


def _is_opposed(emit: Emit, rest: Any, right: Any) -> Any:
    """Return where a remainder is not 0 and of the other sign than the divisor."""
    zero = _const(0, rest)
    signs = [emit(_op.less(each, zero)) for each in (rest, right)]
    return emit(_op.logical_and(emit(_op.not_equal(rest, zero)), emit(_op.logical_xor(*signs))))


def _quotient(emit: Emit, left: Any, right: Any) -> Any:
    zero, half, one = (_const(value, left) for value in (0, 0.5, 1))
    rest = emit(_op.mod(left, right))
    exact = emit(_op.divide(emit(_op.subtract(left, rest)), right))
    less = emit(_op.subtract(exact, one))
    exact = emit(_op.where(_is_opposed(emit, rest, right), less, exact))
    # It is a whole number but for its own rounding.
    below = emit(_op.floor(exact))
    is_more = emit(_op.greater(emit(_op.subtract(exact, below)), half))
    found = emit(_op.where(is_more, emit(_op.add(below, one)), below))
    # What is divided by 0 is the plain quotient.
    return _op.where(emit(_op.equal(right, zero)), emit(_op.divide(left, right)), found)
