"""Bits: shifted by any count, which a CPU takes modulo the width, and read as another type. [TVM]"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._tvm import relax, tirx, tvm
from .onnx_node import const, constant_value, dtype_of

_op = relax.op


def shift(emit: Callable[[Any], Any], x: Any, count: Any, *, left: bool) -> Any:
    """Return whole numbers shifted by counts of the same type, as torch and ONNX define it.

    By a count that is negative, or no less than the number of bits, nothing is left but the sign: -1 of
    a negative number that is shifted to the right, else 0.
    """
    dtype = dtype_of(x)
    operator = _op.left_shift if left else _op.right_shift
    bits, is_signed = np.iinfo(dtype).bits, not dtype.startswith("uint")
    known = constant_value(count)
    if known is not None and ((known >= 0) & (known < bits)).all():
        return emit(operator(x, count))
    is_out = emit(_op.greater_equal(count, const(bits, dtype)))
    if is_signed:
        is_out = emit(_op.logical_or(is_out, emit(_op.less(count, const(0, dtype)))))
        if not left:
            return emit(operator(x, emit(_op.where(is_out, const(bits - 1, dtype), count))))
    made = emit(operator(x, emit(_op.where(is_out, const(0, dtype), count))))
    return emit(_op.where(is_out, const(0, dtype), made))


def reinterpret(builder: Any, x: Any, dtype: str) -> Any:
    """Return a tensor whose bits are read as another type of as many.

    ``builder`` is a ``relax.BlockBuilder``, inside a function.
    """

    def compute(data: Any) -> Any:
        return tvm.te.compute(data.shape, lambda *at: tirx.reinterpret(dtype, data[at]), name="bits")

    return builder.emit(builder.call_te(compute, x, primfunc_name_hint="reinterpret"))
