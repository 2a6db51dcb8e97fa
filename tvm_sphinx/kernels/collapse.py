"""Trailing axes that all accesses of a map walk alike become one, over views of the parameters.

A loop over fused axes leaves indices such as ``x // 44 % 28`` and ``x % 44``. TVM 0.27 simplifies each
of them by itself, the sum of the strides no longer becomes ``x`` again, and the vector store turns
into scalar ones wherever a vector's lanes divide the fused extent but not the last axis. Over a view,
a declared buffer on the parameter's own memory, there is one index and nothing to simplify.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import tvm_ffi
from tvm import tirx
from tvm.ir.expr import TensorLoad

from .maps import Map, Views, loads_of


def collapse_trailing_axes(whole: Map, views: Views, part: int = 0) -> Map:
    """Join as many trailing axes of a map as all of its accesses walk alike; with none, return it as is.

    Parameters
    ----------
    whole
        The map; axes that it shares with others stay apart.
    views
        Takes the views that this needs.
    part
        The number of the view to write through, see `Views.of`.
    """
    for count in range(len(whole.axes) - whole.num_shared, 1, -1):
        joined = _join(whole, count, views, part)
        if joined is not None:
            return joined
    return whole


@dataclass(frozen=True)
class _Joint:
    """The trailing axes of a map that become one: their variables and extents, and the new variable."""

    axes: list[Any]
    extents: list[int]
    flat: Any

    def walks(self, tensor: Any, indices: Sequence[Any]) -> bool:
        """Whether an access ends in exactly these axes."""
        count = len(self.axes)
        if [int(extent) for extent in tensor.shape][-count:] != self.extents:
            return False
        return all(
            index.same_as(axis) or (extent == 1 and _is_zero(index))
            for index, axis, extent in zip(list(indices)[-count:], self.axes, self.extents, strict=True)
        )


def _is_zero(index: Any) -> bool:
    return isinstance(index, tirx.IntImm) and int(index) == 0


def _join(whole: Map, count: int, views: Views, part: int) -> Map | None:
    """Return the map with its last `count` axes joined, or None where an access forbids it."""
    tail = whole.axes[-count:]
    extents = [extent for _, extent in tail]
    if sum(extent > 1 for extent in extents) < 2:
        return None
    flat = tirx.Var("v_flat", tail[-1][0].ty)
    joint = _Joint([axis for axis, _ in tail], extents, flat)
    walked = [load.source for load in loads_of(whole.value) if joint.walks(load.source, load.indices)]
    if not joint.walks(whole.buffer, whole.indices) or _used_elsewhere(whole, joint):
        return None
    if not all(views.can_show(tensor) for tensor in [whole.buffer, *walked]):
        return None

    def rewrite(load: TensorLoad) -> Any:
        if not joint.walks(load.source, load.indices):
            return load
        indices = (*list(load.indices)[:-count], flat)
        return views.of(load.source, count)[indices]

    return replace(
        whole,
        axes=(*whole.axes[:-count], (flat, math.prod(extents))),
        buffer=views.of(whole.buffer, count, part),
        indices=(*whole.indices[:-count], flat),
        value=tvm_ffi.structural_map(whole.value, (TensorLoad, rewrite)),
    )


def _used_elsewhere(whole: Map, joint: _Joint) -> bool:
    """Whether a joined axis has a use of its own: in another index, a condition or a value."""
    count = len(joint.axes)

    def drop(load: TensorLoad) -> Any:
        if not joint.walks(load.source, load.indices):
            return load
        indices = (*list(load.indices)[:-count], *[0] * count)
        return load.source[indices]

    rest = [tvm_ffi.structural_map(whole.value, (TensorLoad, drop)), *whole.indices[:-count]]
    found: list[Any] = []
    for expression in rest:
        tvm_ffi.structural_walk(expression, (tirx.Var, found.append))
    return any(var.same_as(axis) for var in found for axis in joint.axes)
