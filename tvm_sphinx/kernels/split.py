"""Cut a map where its conditions turn: a concatenation becomes copies, a padding its border and middle.

Joined operators arrive as nested ``if_then_else`` over one axis. TVM 0.27 evaluates them for every
vector, and lane by lane where a bound is no multiple of the lanes.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx

from .maps import Map, axis_range

_COMPARISONS = (tirx.LT, tirx.LE, tirx.GT, tirx.GE, tirx.EQ, tirx.NE)
_MOST_PARTS = 128
_LEAST_VOLUME = 16  # elements of a part, on average, below which its loop costs more than its conditions


def split_at_bounds(whole: Map) -> list[Map]:
    """Return maps that together store the same, without conditions that compare an axis to a constant.

    Where one axis alone is cut, the parts share the loops over the axes before it.
    """
    if not whole.axes or not _conditions(whole.value):
        return [whole]
    # An inlined reshape leaves quotients and remainders of axes that simplify to the axes.
    parts = _split(_part(whole, 0, 0, whole.extents[0]), _MOST_PARTS)
    if len(parts) == 1:
        return [whole]
    cut = {position for part in parts for position in _cut_axes(whole, part)}
    if len(cut) == 1:
        return [replace(part, num_shared=min(cut)) for part in parts]
    return parts


def _cut_axes(whole: Map, part: Map) -> list[int]:
    pairs = zip(whole.extents, part.extents, strict=True)
    return [position for position, (before, after) in enumerate(pairs) if before != after]


def _split(whole: Map, most: int) -> list[Map]:
    """Cut at the outermost axis that a condition compares to constants, then the parts in turn."""
    conditions = _conditions(whole.value)
    for position, (axis, extent) in enumerate(whole.axes):
        inside = sorted(bound for bound in _bounds(conditions, axis) if 0 < bound < extent)
        num_parts = len(inside) + 1
        if not inside or num_parts > most or whole.volume < num_parts * _LEAST_VOLUME:
            continue
        ends = itertools.pairwise([0, *inside, extent])
        parts = [_part(whole, position, begin, end) for begin, end in ends]
        return [smaller for part in parts for smaller in _split(part, most // num_parts)]
    return [whole]


def _bounds(conditions: list[Any], axis: Any) -> set[int]:
    """Return where on an axis conditions turn: the first index of each new side."""
    found: set[int] = set()

    def of_comparison(node: Any) -> None:
        for index, bound, flipped in ((node.a, node.b, False), (node.b, node.a, True)):
            if index.same_as(axis) and isinstance(bound, tirx.IntImm):
                found.update(_turns(type(node), int(bound), flipped))

    for condition in conditions:
        for kind in _COMPARISONS:
            tvm_ffi.structural_walk(condition, (kind, of_comparison))
    return found


def _conditions(value: Any) -> list[Any]:
    """Return the conditions in an expression."""
    found: list[Any] = []

    def of_call(call: tvm.ir.Call) -> None:
        if str(getattr(call.op, "name", "")) == "prim.if_then_else":
            found.append(call.args[0])

    tvm_ffi.structural_walk(value, (tvm.ir.Call, of_call))
    tvm_ffi.structural_walk(value, (tirx.Select, lambda select: found.append(select.condition)))
    return found


def _turns(kind: type, bound: int, flipped: bool) -> set[int]:
    """Return the indices at which ``index <kind> bound`` changes; flipped, ``bound <kind> index``."""
    if kind in (tirx.EQ, tirx.NE):
        return {bound, bound + 1}
    after = kind in ((tirx.LT, tirx.GE) if flipped else (tirx.LE, tirx.GT))
    return {bound + 1 if after else bound}


def _part(whole: Map, position: int, begin: int, end: int) -> Map:
    """Return the map over a range of one axis, its conditions simplified; its variables are its own."""
    extents = list(whole.extents)
    extents[position] = end - begin
    axes = [(tirx.Var(axis.name, axis.ty), e) for (axis, _), e in zip(whole.axes, extents, strict=True)]
    analyzer = tvm.sym.Analyzer()
    for axis, extent in axes:
        analyzer.bind(axis, axis_range(axis, extent))
    place = [axis for axis, _ in axes]
    place[position] = place[position] + tirx.const(begin, str(place[position].ty))

    def put(var: Any) -> Any:
        found = (new for (old, _), new in zip(whole.axes, place, strict=True) if var.same_as(old))
        return next(found, var)

    def moved(expression: Any) -> Any:
        return analyzer.simplify(tvm_ffi.structural_map(expression, (tirx.Var, put)))

    return replace(
        whole,
        axes=tuple(axes),
        indices=tuple(moved(index) for index in whole.indices),
        value=moved(whole.value),
    )
