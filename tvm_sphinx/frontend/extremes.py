"""Maxima and minima that start from infinity. [TVM]

TVM's start from the least or the greatest finite number, and pad windows with it: that is then what
comes out of a row or a window of infinities, such as one that a mask has left nothing of.
"""

from __future__ import annotations

from typing import Any

import tvm_ffi

from .._tvm import relax, tirx, tvm

_OPERATORS = (
    "relax.max",
    "relax.min",
    "relax.nn.max_pool1d",
    "relax.nn.max_pool2d",
    "relax.nn.max_pool3d",
)


def from_infinity(builder: Any, call: Any) -> Any:
    """Legalise one of these operators as TVM does, with infinity in the place of the extreme number.

    Such a kernel has no other numbers in it.
    """
    made = call.op.get_attr("FLegalize")(builder, call)
    if not isinstance(made, relax.Call) or not isinstance(made.args[0], tvm.ir.GlobalVar):
        return made
    callee = made.args[0]
    function = builder.get()[callee]
    builder.update_func(
        callee, function.with_body(tvm_ffi.structural_map(function.body, (tirx.FloatImm, _infinite)))
    )
    return made


def _infinite(number: Any) -> Any:
    dtype = str(number.ty)
    for extreme, infinity in ((tirx.min_value, float("-inf")), (tirx.max_value, float("inf"))):
        if number.value == extreme(dtype).value:
            return tirx.const(infinity, dtype)
    return number


LEGALISED = dict.fromkeys(_OPERATORS, from_infinity)
