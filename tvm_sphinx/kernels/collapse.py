"""Maps over tensors whose trailing axes are walked as one: views of parameters with those axes joined.

A loop over fused axes leaves indices such as ``x // 44 % 28`` and ``x % 44``. TVM 0.27 simplifies each
of them by itself, the sum of the strides no longer becomes ``x`` again, and the vector store turns
into scalar ones wherever a vector's lanes divide the fused extent but not the last axis. Over a view,
a declared buffer on the parameter's own memory, there is one index and nothing to simplify.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tvm_ffi
from tvm import s_tir, tirx
from tvm.ir import Range
from tvm.ir.expr import TensorLoad

_SPATIAL = tirx.IterVar.DataPar


def collapse_trailing_axes(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Join, in every spatial nest, as many trailing axes as all of its accesses walk alike.

    Parameters
    ----------
    func
        A function of blocks in one root that has not been scheduled: nests of one block each.

    Returns
    -------
    The function over views of its parameters; the same function where nothing can be joined.
    """
    realize = func.body
    root = realize.block
    nests = list(root.body) if isinstance(root.body, tirx.SeqStmt) else [root.body]
    views = _Views(func.params)
    joined = [_collapse_nest(nest, views) for nest in nests]
    declarations = views.declarations()
    if not declarations:
        return func
    body = tirx.SeqStmt([*declarations, *joined])
    block = s_tir.SBlock(
        root.iter_vars,
        root.reads,
        root.writes,
        root.name_hint,
        body,
        alloc_buffers=root.alloc_buffers,
        annotations=root.annotations,
    )
    return func.with_body(s_tir.SBlockRealize(realize.iter_values, realize.predicate, block))


class _Views:
    """The views used so far: of each parameter, one for each number of joined axes."""

    def __init__(self, params: Sequence[Any]) -> None:
        self._params = list(params)
        self._views: dict[tuple[int, int], Any] = {}

    def _position(self, tensor: Any) -> int:
        found = (at for at, param in enumerate(self._params) if param.same_as(tensor))
        return next(found, -1)

    def can_show(self, tensor: Any) -> bool:
        """Whether a tensor is a parameter, and so has memory to look at."""
        return self._position(tensor) >= 0

    def of(self, tensor: Any, count: int) -> Any:
        """Return the view of a parameter with its last `count` axes joined."""
        place = (self._position(tensor), count)
        if place not in self._views:
            shape = [int(extent) for extent in tensor.shape]
            joined = (*shape[:-count], math.prod(shape[-count:]))
            name = f"{tensor.name}_flat{count}"
            self._views[place] = tirx.decl_buffer(joined, tensor.dtype, name, layout=None)
        return self._views[place]

    def declarations(self) -> list[Any]:
        """Return the statements that declare the views."""
        return [
            tirx.DeclBuffer(view, data=self._params[position].data)
            for (position, _), view in self._views.items()
        ]


@dataclass(frozen=True)
class _Joint:
    """The trailing axes of one block that become one.

    Attributes
    ----------
    axes
        Variables of the axes, outermost first.
    extents
        Their extents.
    flat
        The variable of the joined axis.
    """

    axes: list[Any]
    extents: list[int]
    flat: Any

    @property
    def length(self) -> int:
        return math.prod(self.extents)

    def walks(self, access: Any) -> bool:
        """Whether an access ends in exactly these axes."""
        source = _tensor(access)
        count = len(self.axes)
        shape = [int(extent) for extent in source.shape]
        if shape[-count:] != self.extents:
            return False
        return all(
            index.same_as(axis) or (extent == 1 and _is_zero(index))
            for index, axis, extent in zip(
                list(access.indices)[-count:], self.axes, self.extents, strict=True
            )
        )


def _is_zero(index: Any) -> bool:
    return isinstance(index, tirx.IntImm) and int(index) == 0


def _collapse_nest(nest: Any, views: _Views) -> Any:
    leaf = nest
    while isinstance(leaf, tirx.For):
        leaf = leaf.body
    if not isinstance(leaf, s_tir.SBlockRealize):
        return nest
    block = leaf.block
    axes = list(block.iter_vars)
    plain = all(it.iter_type == _SPATIAL for it in axes) and isinstance(block.body, tirx.BufferStore)
    if not plain or block.init is not None:
        return nest
    for count in range(len(axes), 1, -1):
        joined = _join(block, axes, count, views)
        if joined is not None:
            return joined
    return nest


def _join(block: Any, axes: list[Any], count: int, views: _Views) -> Any | None:
    """Return the nest with its last `count` axes joined, or None where an access forbids it."""
    lead, tail = axes[:-count], axes[-count:]
    extents = [int(it.dom.extent) for it in tail]
    if sum(extent > 1 for extent in extents) < 2:
        return None
    joint = _Joint([it.var for it in tail], extents, tirx.Var("v_flat", tail[-1].var.ty))
    store = block.body
    loads = _loads(store.value)
    walked = [access for access in loads if joint.walks(access)]
    if not joint.walks(store) or not all(views.can_show(_tensor(a)) for a in [store, *walked]):
        return None
    if _used_elsewhere(store, joint):
        return None

    def rewrite(load: TensorLoad) -> Any:
        if not joint.walks(load):
            return load
        indices = (*list(load.indices)[:-count], joint.flat)
        return views.of(load.source, count)[indices]

    value = tvm_ffi.structural_map(store.value, (TensorLoad, rewrite))
    indices = [*list(store.indices)[:-count], joint.flat]
    return _nest(block, lead, joint, tirx.BufferStore(views.of(store.buffer, count), value, indices))


def _nest(block: Any, lead: list[Any], joint: _Joint, store: tirx.BufferStore) -> Any:
    """Return loops over the leading axes and the joined one around a block that stores."""
    dtype = str(joint.flat.ty)
    extent = Range(tirx.const(0, dtype), tirx.const(joint.length, dtype))
    flat = tirx.IterVar(extent, joint.flat, _SPATIAL)
    axes = [*lead, flat]
    reads = [_element(load) for load in _loads(store.value)]
    body = s_tir.SBlock(
        axes, reads, [_element(store)], block.name_hint, store, annotations=block.annotations
    )
    loops = [tirx.Var(f"i{position}", axis.var.ty) for position, axis in enumerate(axes)]
    nest: Any = s_tir.SBlockRealize(loops, True, body)
    for loop, axis in zip(reversed(loops), reversed(axes), strict=True):
        nest = tirx.For(loop, axis.dom.min, axis.dom.extent, tirx.ForKind.SERIAL, nest)
    return nest


def _element(access: Any) -> Any:
    """Return the region of one element that an access reads or writes."""
    return tirx.BufferRegion(_tensor(access), [Range.from_min_extent(i, 1) for i in access.indices])


def _tensor(access: Any) -> Any:
    return access.buffer if isinstance(access, tirx.BufferStore) else access.source


def _loads(value: Any) -> list[Any]:
    found: list[Any] = []
    tvm_ffi.structural_walk(value, (TensorLoad, found.append))
    return found


def _used_elsewhere(store: tirx.BufferStore, joint: _Joint) -> bool:
    """Whether a joined axis has a use of its own: in another index, a condition or a value."""

    def drop(load: TensorLoad) -> Any:
        if not joint.walks(load):
            return load
        count = len(joint.axes)
        indices = (*list(load.indices)[:-count], *[0] * count)
        return load.source[indices]

    rest = [tvm_ffi.structural_map(store.value, (TensorLoad, drop))]
    rest += list(store.indices)[: -len(joint.axes)]
    found: list[Any] = []
    for part in rest:
        tvm_ffi.structural_walk(part, (tirx.Var, found.append))
    return any(var.same_as(axis) for var in found for axis in joint.axes)
