"""Kernels whose work is hidden in a call of TVM's runtime, so that no rule can schedule them."""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import tirx

_CALL = "tirx.tvm_call_packed"


def calls_runtime(function: tirx.PrimFunc) -> bool:
    """Return whether a PrimFunc calls a packed function of TVM's runtime, such as a sort."""
    found = False

    def visit(call: Any) -> None:
        nonlocal found
        found = found or (isinstance(call.op, tvm.ir.Op) and str(call.op.name) == _CALL)

    tvm_ffi.structural_walk(function.body, (tvm.ir.Call, visit))
    return found
