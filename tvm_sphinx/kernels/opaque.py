"""Kernels whose work does not show in their loops, so that no rule can schedule them."""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import tirx

#: Attribute of a PrimFunc whose loops end by the values that they meet.
HIDES_WORK = "sphinx.hides_work"
_CALL = "tirx.tvm_call_packed"


def hides_work(function: tirx.PrimFunc) -> bool:
    """Return whether a PrimFunc calls a packed function of TVM's runtime, such as a sort, or says so."""
    found = bool(function.attrs and HIDES_WORK in function.attrs)

    def visit(call: Any) -> None:
        nonlocal found
        found = found or (isinstance(call.op, tvm.ir.Op) and str(call.op.name) == _CALL)

    tvm_ffi.structural_walk(function.body, (tvm.ir.Call, visit))
    return found
