"""Converters for torch's elementary functions that TVM's importer lacks. [TVM]"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ._tvm import relax

_op = relax.op


def hypot(importer: Any, node: Any) -> Any:
    """Convert the length of a vector of two components."""
    left, right = importer.retrieve_args(node)
    emit = importer.block_builder.emit
    squares = [emit(_op.multiply(each, each)) for each in (left, right)]
    return emit(_op.sqrt(emit(_op.add(*squares))))


def erfc(importer: Any, node: Any) -> Any:
    """Convert what is missing from the error function to one."""
    (x,) = importer.retrieve_args(node)
    emit = importer.block_builder.emit
    return emit(_op.subtract(relax.const(1.0, str(x.ty.dtype)), emit(_op.erf(x))))


def exp2(importer: Any, node: Any) -> Any:
    """Convert powers of two."""
    (x,) = importer.retrieve_args(node)
    emit = importer.block_builder.emit
    return emit(_op.exp(emit(_op.multiply(x, relax.const(math.log(2), str(x.ty.dtype))))))


def shift(operator: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Convert a shift by a number or a tensor."""

    def convert(importer: Any, node: Any) -> Any:
        x, count = importer.retrieve_args(node)
        dtype = str(x.ty.dtype)
        count = count if isinstance(count, relax.Expr) else relax.const(int(count), dtype)
        return importer.block_builder.emit(operator(x, count))

    return convert
