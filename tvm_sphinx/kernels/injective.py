"""The rule for chains of elementwise, broadcast and injective operators."""

from __future__ import annotations

import math

from tvm import s_tir, tirx
from tvm.s_tir.schedule import LoopRV, SBlockRV
from tvm.target import Target

from .blocks import (
    extent_of,
    fuse_all,
    is_output,
    is_reduction,
    root_blocks,
    try_inline,
    vectorize_last,
)
from .collapse import collapse_trailing_axes
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
        sch = s_tir.Schedule(collapse_trailing_axes(sch.mod["main"]))
        for block in root_blocks(sch):
            schedule_injective(sch, block, self.info)
        return sch


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
