"""Views within a kernel seen through: what is only a tensor in another shape or order is read there.

A channel shuffle is a reshape, a transposition and a reshape, and each element of its result one of its
argument: the same pixel of another channel. That shows once the indices are put together. [TVM]
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir, tirx
from tvm.ir.expr import TensorLoad

from .maps import Map, Views, axis_range, loads_of, read_map, root_nests, with_root_nests, write_maps

_IMAGE_AXES = 4


def without_views(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return a function that reads what it views where it lies, where it views images in other shapes.

    A view is a buffer between statements, of more or fewer axes than an image, whose elements are copies
    of another's. A function without one, or that reads one in a sum, is returned as it is.
    """
    if not isinstance(func.body, s_tir.SBlockRealize) or func.body.block.annotations:
        return func
    own = list(func.body.block.alloc_buffers)
    views: dict[Any, Map] = {}
    kept: list[Any] = []
    for nest in root_nests(func):
        whole = read_map(nest)
        read = [load for load in loads_of(nest) if load.source in views]
        if whole is None:
            if read:
                return func
            kept.append(nest)
            continue
        made = _through(whole, views) if read else whole
        if any(made.buffer.same_as(buffer) for buffer in own) and _is_view(made):
            views[made.buffer] = made
        else:
            kept.append([made] if read else nest)
    if not views:
        return func
    written = write_maps(func, kept, Views(func.params))
    return with_root_nests(
        written, root_nests(written), [buffer for buffer in own if buffer not in views]
    )


def _is_view(whole: Map) -> bool:
    axes = [axis for axis, _ in whole.axes]
    is_whole = len(whole.indices) == len(axes) and all(
        index.same_as(axis) for index, axis in zip(whole.indices, axes, strict=True)
    )
    return is_whole and len(axes) != _IMAGE_AXES and isinstance(whole.value, TensorLoad)


def _through(whole: Map, views: dict[Any, Map]) -> Map:
    """Return a map that reads what views are of."""
    analyzer = tvm.sym.Analyzer()
    for axis, extent in whole.axes:
        analyzer.bind(axis, axis_range(axis, extent))

    def seen(load: Any) -> Any:
        view = views.get(load.source)
        if view is None:
            return load
        place = {axis: index for (axis, _), index in zip(view.axes, load.indices, strict=True)}
        indices = [
            analyzer.simplify(tvm_ffi.structural_map(index, (tirx.Var, lambda var: place.get(var, var))))
            for index in view.value.indices
        ]
        return tirx.BufferLoad(view.value.source, indices)

    return replace(whole, value=tvm_ffi.structural_map(whole.value, (TensorLoad, seen)))
