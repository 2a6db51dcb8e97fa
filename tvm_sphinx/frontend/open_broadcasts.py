"""Operators on tensors whose open extents have to be equal, which TVM cannot tell. [TVM]

A detector adds boxes of all classes to offsets of all classes: as many rows each, but for TVM the sums
of unlike unknowns. The result then has no shape for it, and the operator no kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tvm.sym

from .._tvm import relax, tirx, tvm

#: Operators whose operands are broadcast to each other, by their names without ``relax.``.
BROADCASTING = frozenset(
    """add subtract multiply divide floor_divide mod floor_mod power maximum minimum equal not_equal
    less less_equal greater greater_equal logical_and logical_or logical_xor bitwise_and bitwise_or
    bitwise_xor left_shift right_shift where""".split()
)


def with_equal_extents(builder: Any, call: Any) -> Any:
    """Return a call whose result has a shape; as it is where it has one, or an operand has none.

    Open extents that stand for one axis are taken to be equal; the program raises an error where they
    are not. One that is 1 when it runs, beside others, is such a case: it is not broadcast.
    """
    types = [operand.ty for operand in call.args]
    if not all(isinstance(ty, relax.TensorType) for ty in (*types, call.ty)):
        return call
    if _extents(call.ty) is not None or any(_extents(ty) is None for ty in types):
        return call
    shapes = [_extents(ty) or [] for ty in types]
    wanted = [
        _common([shape[-back] for shape in shapes if len(shape) >= back]) for back in _axes(shapes)
    ]
    operands = []
    for operand, shape in zip(call.args, shapes, strict=True):
        target = [
            extent if isinstance(extent, tirx.IntImm) else wanted[len(wanted) - back]
            for back, extent in zip(range(len(shape), 0, -1), shape, strict=True)
        ]
        if all(map(_equal, target, shape)):
            operands.append(operand)
            continue
        operands.append(builder.match_cast(operand, relax.TensorType(target, operand.ty.dtype)))
    return builder.normalize(relax.Call(call.op, operands, call.attrs))


def _axes(shapes: Sequence[Sequence[Any]]) -> range:
    """Return the axes of the widest shape, counted from behind."""
    return range(max(map(len, shapes)), 0, -1)


def _common(extents: Sequence[Any]) -> Any:
    """Return the extent that several stand for: a known one, if there is any but 1, else the first."""
    wide = [e for e in extents if not (isinstance(e, tirx.IntImm) and int(e) == 1)]
    known = [extent for extent in wide if isinstance(extent, tirx.IntImm)]
    return next(iter(known or wide), tirx.IntImm("int64", 1))


def _equal(one: Any, other: Any) -> bool:
    return bool(tvm.sym.Analyzer().can_prove_equal(one, other))


def _extents(ty: Any) -> list[Any] | None:
    values = getattr(ty.shape, "values", None)
    return None if values is None else list(values)
