"""Which operands of a kernel are whole numbers that it divides by. [TVM]

Integers are drawn as zeros to measure with, which are valid indices; a division by zero would kill the
process.
"""

from __future__ import annotations

from typing import Any

import tvm_ffi
from tvm.ir.expr import TensorLoad

from ..._tvm import tirx


def divisor_operands(function: Any) -> frozenset[int]:
    """Return the positions of the parameters of a PrimFunc that a divisor of integers is computed from.

    Parameters
    ----------
    function
        PrimFunc; the name of an external function has none that is known.
    """
    if isinstance(function, str):
        return frozenset()
    sources = _sources(function)
    reached: set[Any] = set()
    found: list[Any] = [load.source for divisor in _divisors(function) for load in _loads(divisor)]
    while found:
        buffer = found.pop()
        if buffer not in reached:
            reached.add(buffer)
            found += sources.get(buffer, [])
    return frozenset(number for number, param in enumerate(function.params) if param in reached)


def _divisors(function: Any) -> list[Any]:
    found: list[Any] = []
    for kind in (tirx.Div, tirx.Mod, tirx.FloorDiv, tirx.FloorMod):
        tvm_ffi.structural_walk(function.body, (kind, found.append))
    return [node.b for node in found if not str(node.ty).startswith("float")]


def _loads(expression: Any) -> list[Any]:
    found: list[Any] = []
    tvm_ffi.structural_walk(expression, (TensorLoad, found.append))
    return found


def _sources(function: Any) -> dict[Any, list[Any]]:
    """Return the buffers that each buffer's stores load from, by buffer."""
    stores: list[Any] = []
    tvm_ffi.structural_walk(function.body, (tirx.BufferStore, stores.append))
    sources: dict[Any, list[Any]] = {}
    for store in stores:
        loads = [load.source for load in _loads(store.value)]
        sources.setdefault(store.buffer, []).extend(loads)
    return sources
