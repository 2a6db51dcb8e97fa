"""Maps that interleave groups of a tensor's last axis, as a shuffle of channels does. [TVM]

Such a map reads at ``c % groups * extent + c // groups``: of a vector of c, TVM 0.27 computes that lane
by lane. With the axis as two, of place and group, and no vectors of ours, LLVM reads the groups side by
side and interleaves them in registers: 2.5 to 4.5 times as fast of 3 and 4 groups, no faster of 2.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir.expr import TensorLoad

from .compute import ROLE
from .maps import Map, axis_range, loads_of

#: Role of the block of such a map, whose innermost axis is the group.
INTERLEAVES = "interleave"
_FEWEST_GROUPS, _MOST_GROUPS = 3, 8


def interleaved(whole: Map) -> Map:
    """Return a map with its last axis as place and group where it interleaves groups; else as it is."""
    axis, extent = whole.axes[-1]
    groups = _groups(whole, axis)
    if groups is None or extent % groups or not whole.indices[-1].same_as(axis):
        return whole
    place, group = (tirx.Var(f"{axis.name}_{part}", axis.ty) for part in ("place", "group"))
    axes = (*whole.axes[:-1], (place, extent // groups), (group, groups))
    analyzer = tvm.sym.Analyzer()
    for var, length in axes:
        analyzer.bind(var, axis_range(var, length))
    channel = place * groups + group

    def put(expr: Any) -> Any:
        return tvm_ffi.structural_map(
            expr, (tirx.Var, lambda var: channel if var.same_as(axis) else var)
        )

    def read(load: Any) -> Any:
        return tirx.BufferLoad(load.source, [analyzer.simplify(put(index)) for index in load.indices])

    value = tvm_ffi.structural_map(whole.value, (TensorLoad, read))
    return replace(
        whole,
        axes=axes,
        indices=(*whole.indices[:-1], channel),
        value=put(value),
        annotations={**dict(whole.annotations or {}), ROLE: INTERLEAVES},
    )


def _groups(whole: Map, axis: Any) -> int | None:
    """Return how many groups a map interleaves along an axis; None where it does not, or too many."""
    found: set[int] = set()

    def of_remainder(node: Any) -> None:
        if node.a.same_as(axis) and isinstance(node.b, tirx.IntImm):
            found.add(int(node.b))

    for load in loads_of(whole.value):
        tvm_ffi.structural_walk(load.indices[-1], (tirx.FloorMod, of_remainder))
    is_one = len(found) == 1 and _FEWEST_GROUPS <= min(found) <= _MOST_GROUPS
    return found.pop() if is_one else None
