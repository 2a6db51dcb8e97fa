"""Spatial nests of one store as values, and the function of them written anew.

What the rules of maps do to a nest before it is scheduled: `split.py` cuts it where its conditions turn,
`collapse.py` joins axes. Both need views: buffers declared on the memory of a parameter.
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


@dataclass(frozen=True)
class Map:
    """One store over spatial axes.

    Attributes
    ----------
    name
        Name of its block.
    axes
        Variable and extent of each axis, outermost first.
    buffer, indices, value
        What is stored where.
    annotations
        Those of its block.
    num_shared
        Leading axes whose loops it shares with the maps beside it, as parts of one whole.
    """

    name: str
    axes: tuple[tuple[Any, int], ...]
    buffer: Any
    indices: tuple[Any, ...]
    value: Any
    annotations: Any = None
    num_shared: int = 0

    @property
    def extents(self) -> tuple[int, ...]:
        """Extents of the axes."""
        return tuple(extent for _, extent in self.axes)

    @property
    def volume(self) -> int:
        """Elements that it stores."""
        return math.prod(self.extents)


class Views:
    """The views of a function's parameters that its maps use."""

    def __init__(self, params: Sequence[Any]) -> None:
        self._params = list(params)
        self._views: dict[tuple[int, int, int], Any] = {}

    def _position(self, tensor: Any) -> int:
        found = (at for at, param in enumerate(self._params) if param.same_as(tensor))
        return next(found, -1)

    def can_show(self, tensor: Any) -> bool:
        """Whether a tensor is a parameter, and so has memory to look at."""
        return self._position(tensor) >= 0

    def of(self, tensor: Any, count: int = 1, part: int = 0) -> Any:
        """Return the view of a parameter with its last `count` axes joined.

        Parts of one whole write through views of their own, `part`: the schedule primitives take several
        writers of one buffer for a race.
        """
        if count == 1 and part == 0:
            return tensor
        place = (self._position(tensor), count, part)
        if place not in self._views:
            shape = [int(extent) for extent in tensor.shape]
            joined = (*shape[:-count], math.prod(shape[-count:]))
            name = f"{tensor.name}_{len(joined)}d_{part}"
            self._views[place] = tirx.decl_buffer(joined, tensor.dtype, name, layout=None)
        return self._views[place]

    def declarations(self) -> list[Any]:
        """Return the statements that declare the views."""
        return [
            tirx.DeclBuffer(view, data=self._params[position].data)
            for (position, _, _), view in self._views.items()
        ]


def read_map(nest: Any) -> Map | None:
    """Return the map that a nest of loops around one block is; None of another form."""
    leaf = nest
    while isinstance(leaf, tirx.For):
        leaf = leaf.body
    if not isinstance(leaf, s_tir.SBlockRealize):
        return None
    block = leaf.block
    if any(it.iter_type != _SPATIAL for it in block.iter_vars) or block.init is not None:
        return None
    if not isinstance(block.body, tirx.BufferStore):
        return None
    store = block.body
    axes = tuple((it.var, int(it.dom.extent)) for it in block.iter_vars)
    return Map(
        str(block.name_hint), axes, store.buffer, tuple(store.indices), store.value, block.annotations
    )


def write_maps(func: tirx.PrimFunc, nests: Sequence[Any], views: Views) -> tirx.PrimFunc:
    """Return a function with other nests in its root: statements, and lists of maps that share loops."""
    written = [_shared_nest(nest) if isinstance(nest, list) else nest for nest in nests]
    statements = [*views.declarations(), *written]
    return with_root_nests(func, statements)


def root_nests(func: tirx.PrimFunc) -> list[Any]:
    """Return the statements in a function's root block, in order."""
    body = func.body.block.body
    return list(body) if isinstance(body, tirx.SeqStmt) else [body]


def with_root_nests(
    func: tirx.PrimFunc, nests: Sequence[Any], buffers: Sequence[Any] | None = None
) -> tirx.PrimFunc:
    """Return a function with other statements in its root block, and other buffers if given."""
    root = func.body.block
    block = s_tir.SBlock(
        root.iter_vars,
        root.reads,
        root.writes,
        root.name_hint,
        tirx.SeqStmt(list(nests)) if len(nests) > 1 else nests[0],
        alloc_buffers=root.alloc_buffers if buffers is None else list(buffers),
        annotations=root.annotations,
    )
    return func.with_body(s_tir.SBlockRealize(func.body.iter_values, func.body.predicate, block))


def axis_range(axis: Any, extent: int) -> Range:
    """Return the range from 0 of an axis, in the type of its variable."""
    dtype = str(axis.ty)
    return Range(tirx.const(0, dtype), tirx.const(extent, dtype))


def loads_of(value: Any) -> list[Any]:
    """Return the loads in an expression."""
    found: list[Any] = []
    tvm_ffi.structural_walk(value, (TensorLoad, found.append))
    return found


def _shared_nest(parts: list[Map]) -> Any:
    """Return the nest of maps that share their leading loops, one after another inside of them."""
    count = parts[0].num_shared
    shared = [_loop(axis, extent) for axis, extent in parts[0].axes[:count]]
    inner = [_nest(part, shared) for part in parts]
    nest: Any = tirx.SeqStmt(inner) if len(inner) > 1 else inner[0]
    return _around(nest, shared)


def _loop(axis: Any, extent: int) -> tuple[Any, int]:
    return tirx.Var(f"{axis.name.removeprefix('v_')}_loop", axis.ty), extent


def _around(body: Any, loops: list[tuple[Any, int]]) -> Any:
    for var, extent in reversed(loops):
        span = axis_range(var, extent)
        body = tirx.For(var, span.min, span.extent, tirx.ForKind.SERIAL, body)
    return body


def _nest(part: Map, shared: list[tuple[Any, int]]) -> Any:
    """Return the block of a map with the loops that are its own."""
    own = [_loop(axis, extent) for axis, extent in part.axes[len(shared) :]]
    iters = [tirx.IterVar(axis_range(axis, extent), axis, _SPATIAL) for axis, extent in part.axes]
    reads = [_element(load.source, load.indices) for load in loads_of(part.value)]
    block = s_tir.SBlock(
        iters,
        reads,
        [_element(part.buffer, part.indices)],
        part.name,
        tirx.BufferStore(part.buffer, part.value, list(part.indices)),
        annotations=part.annotations,
    )
    realize = s_tir.SBlockRealize([var for var, _ in [*shared, *own]], True, block)
    return _around(realize, own)


def _element(buffer: Any, indices: Sequence[Any]) -> Any:
    """Return the region of one element."""
    return tirx.BufferRegion(buffer, [Range.from_min_extent(index, 1) for index in indices])
