"""The rule for chains of elementwise, broadcast and injective operators."""

from __future__ import annotations

import math
from dataclasses import replace

from tvm import s_tir, tirx
from tvm.s_tir.schedule import LoopRV, SBlockRV
from tvm.target import Target

from .blocks import (
    bind_once,
    extent_of,
    fuse_all,
    is_output,
    is_reduction,
    role_of,
    root_blocks,
    try_inline,
    vectorize_last,
)
from .collapse import collapse_trailing_axes
from .interleave import INTERLEAVES
from .maps import Map, Views, read_map, root_nests, write_maps
from .split import split_at_bounds
from .target_info import ELEMENTS_PER_NS, CpuInfo


class Injective:
    """Inlines a chain into its outputs, vectorizes the innermost axis, shares out the rest."""

    def __init__(self, info: CpuInfo) -> None:
        self.info = info

    def apply(self, func: tirx.PrimFunc, _target: Target, _tunable: bool) -> s_tir.Schedule | None:
        """Return the schedule, or None where the function holds a reduction."""
        sch = s_tir.Schedule(func)
        blocks = root_blocks(sch)
        if not blocks or any(is_reduction(sch, block) for block in blocks):
            return None
        for block in blocks:
            if not is_output(sch, block):
                try_inline(sch, block)
        sch = s_tir.Schedule(bind_once(cut_and_join_axes(sch.mod["main"], self.info.cores)))
        for parts in _by_outer_loop(sch):
            if len(parts) > 1:
                _schedule_parts(sch, parts, self.info)
            else:
                schedule_injective(sch, parts[0], self.info)
        return sch


def cut_and_join_axes(func: tirx.PrimFunc, cores: int) -> tirx.PrimFunc:
    """Rewrite the maps of a function: cut where their conditions turn, with trailing axes joined.

    Parameters
    ----------
    func
        A function of nests in one root block, not yet scheduled.
    cores
        Threads to share out; parts share their leading loops only if those are enough for all.
    """
    views = Views(func.params)
    nests = root_nests(func)
    written = [rewritten for nest in nests for rewritten in _rewrite_nest(nest, views, cores)]
    same = len(written) == len(nests) and all(a is b for a, b in zip(written, nests, strict=True))
    return func if same else write_maps(func, written, views)


def _rewrite_nest(nest: object, views: Views, cores: int) -> list[object]:
    whole = read_map(nest)
    if whole is None or not views.can_show(whole.buffer):
        return [nest]
    parts = split_at_bounds(whole)
    if len(parts) == 1:
        joined = collapse_trailing_axes(parts[0], views)
        return [nest if joined is whole else [joined]]
    shared = parts[0].num_shared
    if math.prod(whole.extents[:shared]) < max(2, cores):
        parts = [replace(part, num_shared=0) for part in parts]
    written = [_through_its_own_view(part, views, number) for number, part in enumerate(parts, 1)]
    return [written] if parts[0].num_shared else [[part] for part in written]


def _through_its_own_view(part: Map, views: Views, number: int) -> Map:
    joined = collapse_trailing_axes(part, views, number)
    return joined if joined is not part else replace(part, buffer=views.of(part.buffer, 1, number))


def _by_outer_loop(sch: s_tir.Schedule) -> list[list[SBlockRV]]:
    """Group blocks by their outermost loop; a block without loops is alone."""
    groups: list[tuple[object, list[SBlockRV]]] = []
    for block in root_blocks(sch):
        loops = sch.get_loops(block)
        outer = sch.get(loops[0]) if loops else None
        if groups and outer is not None and outer.same_as(groups[-1][0]):
            groups[-1][1].append(block)
        else:
            groups.append((outer, [block]))
    return [blocks for _, blocks in groups]


def _schedule_parts(sch: s_tir.Schedule, parts: list[SBlockRV], info: CpuInfo) -> None:
    """Schedule blocks that share their leading loops: vectors inside, the shared loops shared out."""
    loops = [list(sch.get_loops(block)) for block in parts]
    columns = zip(*[[sch.get(loop) for loop in nest] for nest in loops], strict=False)
    shared = sum(all(loop.same_as(column[0]) for loop in column) for column in columns)
    elements = sum(math.prod(extent_of(sch, loop) for loop in nest) for nest in loops)
    for block in parts:
        vectorize_last(sch, block, info.lanes(_element_bytes(sch, block)))
    if info.shares(elements / ELEMENTS_PER_NS):
        sch.parallel(fuse_all(sch, loops[0][:shared]))


def schedule_injective(sch: s_tir.Schedule, block: SBlockRV, info: CpuInfo) -> None:
    """Schedule one spatial block as a nest of its own."""
    loops = sch.get_loops(block)
    if not loops:
        return
    elements = math.prod(extent_of(sch, loop) for loop in loops)
    lanes = info.lanes(_element_bytes(sch, block))
    if _is_flat(sch, block):
        loops = [sch.fuse(*loops)] if len(loops) > 1 else loops
    outer, inner = _innermost(sch, loops)
    if outer:
        sch.reorder(*outer, inner)
    if role_of(sch, block) != INTERLEAVES:
        vectorize_last(sch, block, lanes)
    if info.shares(elements / ELEMENTS_PER_NS):
        shared = outer if outer else sch.get_loops(block)[:-1]
        if shared:
            sch.parallel(fuse_all(sch, shared))


def _innermost(sch: s_tir.Schedule, loops: list[LoopRV]) -> tuple[list[LoopRV], LoopRV]:
    """Split off the loop to vectorize: the last that is more than one long."""
    for position in range(len(loops) - 1, -1, -1):
        if extent_of(sch, loops[position]) > 1:
            return loops[:position] + loops[position + 1 :], loops[position]
    return loops[:-1], loops[-1]


def _element_bytes(sch: s_tir.Schedule, block: SBlockRV) -> int:
    stmt = sch.get(block)
    regions = [*stmt.writes, *stmt.reads]
    return max(4, *(int(region.source.dtype.bits) // 8 for region in regions))


def _is_flat(sch: s_tir.Schedule, block: SBlockRV) -> bool:
    """Whether every tensor is walked exactly as the output is, or holds one element."""
    stmt = sch.get(block)
    axes = [it.var for it in stmt.iter_vars]
    for region in [*stmt.writes, *stmt.reads]:
        indices = [dim.min for dim in region.region]
        if all(isinstance(index, tirx.IntImm) for index in indices):
            continue
        if len(indices) != len(axes):
            return False
        if not all(index.same_as(axis) for index, axis in zip(indices, axes, strict=True)):
            return False
    return True
