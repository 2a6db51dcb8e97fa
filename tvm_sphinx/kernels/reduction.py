"""The rules for reductions: pooling, means, softmax, layer norm.

A reduction that keeps the contiguous axis (pooling and global means over channels-last tensors) is
vectorized over that axis. One that consumes it is split into as many partial results as a vector has
lanes. Kernels of several reductions run row by row, so that a row stays in the cache.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from tvm import s_tir, tirx
from tvm.s_tir.schedule import LoopRV, SBlockRV
from tvm.target import Target

from .blocks import (
    PARTITION_HINT,
    PRIMITIVE_ERRORS,
    extent_of,
    fuse_all,
    is_output,
    is_reduction,
    move_consumer,
    root_blocks,
    try_inline,
    vectorize_last,
)
from .injective import schedule_injective
from .target_info import ELEMENTS_PER_NS, CpuInfo

_REDUCED = tirx.IterVar.CommReduce
_MIN_LANES = 4  # fewer partial results than this are not worth a vector


@dataclass(frozen=True)
class _Part:
    """A block of a kernel that runs row by row.

    Attributes
    ----------
    block
        The block.
    per_lane
        Whether it holds the partial results of a reduction, one per vector lane.
    """

    block: SBlockRV
    per_lane: bool = False


class Reduction:
    """Schedules kernels that hold at least one reduction, in dlight's form."""

    def __init__(self, info: CpuInfo) -> None:
        self.info = info

    def apply(self, func: tirx.PrimFunc, _target: Target, _tunable: bool) -> s_tir.Schedule | None:
        """Return the schedule, or None where no plan fits."""
        for plan in (self._single, self._rows, self._whole):
            sch = s_tir.Schedule(func)
            reductions = [block for block in root_blocks(sch) if is_reduction(sch, block)]
            if not reductions or any(_is_of_truth_values(sch, block) for block in reductions):
                return None  # before anything is inlined, which takes milliseconds for each block
            blocks = _inline_around_reductions(sch)
            try:
                if plan(sch, blocks):
                    return sch
            except PRIMITIVE_ERRORS:
                continue
        return None

    def _single(self, sch: s_tir.Schedule, blocks: list[SBlockRV]) -> bool:
        """One reduction that keeps the contiguous axis, with at most one consumer."""
        found = [block for block in blocks if is_reduction(sch, block)]
        position = blocks.index(found[0])
        if len(found) != 1 or len(blocks) - position > 2:
            return False
        block = found[0]
        axis = _kept_axis(sch, block)
        if axis is None:
            return False
        epilogue = blocks[position + 1] if len(blocks) - position == 2 else None
        if epilogue is None:
            epilogue = sch.cache_write(block, 0, "global")
            # The copy out is the consumer; the reduction itself now fills a local buffer.
        self._vectorize_kept(sch, block, epilogue, axis)
        for before in blocks[:position]:
            schedule_injective(sch, before, self.info)
        return True

    def _vectorize_kept(
        self, sch: s_tir.Schedule, block: SBlockRV, epilogue: SBlockRV, axis: int
    ) -> None:
        loops = sch.get_loops(block)
        kinds = [it.iter_type for it in sch.get(block).iter_vars]
        spatial = [loop for loop, kind in zip(loops, kinds, strict=True) if kind != _REDUCED]
        reduced = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == _REDUCED]
        work = math.prod(extent_of(sch, loop) for loop in loops)
        kept = loops[axis]
        outer = [loop for position, loop in enumerate(loops) if position != axis and loop in spatial]
        extent, lanes = extent_of(sch, kept), self.info.lanes(4)
        group = next((g for g in (4, 2, 1) if extent % (g * lanes) == 0), 1)
        chunk, several, lane = sch.split(kept, [None, group, min(lanes, extent)])
        sch.reorder(*outer, chunk, *reduced, several, lane)
        move_consumer(sch, epilogue, chunk)
        sch.vectorize(lane)
        sch.unroll(several)
        _vectorize_copy(sch, epilogue, chunk, lanes)
        if extent % min(lanes, extent):
            sch.annotate(chunk, PARTITION_HINT, True)
        if self.info.shares(work / ELEMENTS_PER_NS):
            rows = math.prod(extent_of(sch, loop) for loop in outer)
            sch.parallel(fuse_all(sch, outer) if rows >= self.info.cores else chunk)
        sch.decompose_reduction(block, reduced[0])

    def _rows(self, sch: s_tir.Schedule, blocks: list[SBlockRV]) -> bool:
        """Several blocks that share their leading axes run row by row."""
        apart = []
        while len(blocks) > 1 and not _walks_rows(sch, blocks[-1], _shared_lead(sch, blocks)):
            apart.append(blocks.pop())  # say, a shift or a border: a nest of its own
        lead = _shared_lead(sch, blocks)
        if any(is_reduction(sch, block) for block in apart):
            return False
        if not all(_walks_rows(sch, block, lead) for block in blocks):
            return False
        for block in apart:
            schedule_injective(sch, block, self.info)
        self._nest(sch, blocks, lead)
        return True

    def _whole(self, sch: s_tir.Schedule, blocks: list[SBlockRV]) -> bool:
        """Several blocks one after another: leading axes may have equal extents and be others."""
        self._nest(sch, blocks, 0)
        return True

    def _nest(self, sch: s_tir.Schedule, blocks: list[SBlockRV], lead: int) -> None:
        """Nest blocks under their first `lead` axes; with none, each has loops of its own."""
        work = max(_volume(sch, block) for block in blocks)
        parts = [part for block in blocks for part in self._partial(sch, block)]
        if lead == 0:
            for part in parts:
                self._inner(sch, part, 0)
            return
        row = fuse_all(sch, sch.get_loops(parts[-1].block)[:lead])
        for part in reversed(parts[:-1]):
            sch.compute_at(part.block, row)
        if self.info.shares(work / ELEMENTS_PER_NS):
            sch.parallel(row)
        for part in parts:
            self._inner(sch, part, 1)

    def _partial(self, sch: s_tir.Schedule, block: SBlockRV) -> list[_Part]:
        """Split a reduction over the contiguous axis into one partial result per lane."""
        if not is_reduction(sch, block):
            return [_Part(block)]
        loop = sch.get_loops(block)[-1]
        extent = extent_of(sch, loop)
        lanes = _dividing_lanes(extent, self.info.lanes(4))
        scalar = not sch.get(block).writes[0].region
        if scalar or sch.get(block).iter_vars[-1].iter_type != _REDUCED or lanes < _MIN_LANES:
            return [_Part(block)]
        _, lane = sch.split(loop, [None, lanes])
        partial = sch.rfactor(lane, len(sch.get(block).writes[0].region))
        return [_Part(partial, per_lane=True), _Part(block)]

    def _inner(self, sch: s_tir.Schedule, part: _Part, depth: int) -> None:
        """Vectorize what is left of a block below its row."""
        block = part.block
        loops = sch.get_loops(block)[depth:]
        if not loops:
            return
        if not is_reduction(sch, block):
            vectorize_last(sch, block, self.info.lanes(4))
            return
        if part.per_lane:
            if depth:  # moving a block under a row puts its spatial axes, the lane first, ahead
                loops = [*loops[1:], loops[0]]
                sch.reorder(*loops)
            sch.vectorize(loops[-1])
        sch.decompose_reduction(block, loops[0])


def _dividing_lanes(extent: int, lanes: int) -> int:
    """Return how many partial results divide a reduction evenly, at most two vectors of them.

    An uneven split would need a condition on the last step, and `compute_at` drops the one that
    `rfactor` leaves (TVM 0.27).
    """
    if extent < 2 * lanes:
        return 1
    if extent % lanes == 0:
        return lanes
    return max(d for d in range(1, 2 * lanes + 1) if extent % d == 0)


def _inline_around_reductions(sch: s_tir.Schedule) -> list[SBlockRV]:
    """Inline every map that is not computed twice by that; return the blocks that remain."""
    remaining = []
    for block in root_blocks(sch):
        keep = is_reduction(sch, block) or is_output(sch, block)
        if not keep:
            consumers = list(sch.get_consumers(block))
            reducing = [c for c in consumers if is_reduction(sch, c)]
            once = len(consumers) == 1 and _volume(sch, consumers[0]) == _volume(sch, block)
            keep = (bool(reducing) and not once) or not try_inline(sch, block)
        if keep:
            remaining.append(block)
    return remaining


def _is_of_truth_values(sch: s_tir.Schedule, block: SBlockRV) -> bool:
    """Whether a reduction writes booleans, whose vectors TVM 0.27 stores as those of int8, and fails."""
    return str(sch.get(block).writes[0].source.dtype) == "bool"


def _volume(sch: s_tir.Schedule, block: SBlockRV) -> int:
    return math.prod(int(it.dom.extent) for it in sch.get(block).iter_vars)


def _shared_lead(sch: s_tir.Schedule, blocks: list[SBlockRV]) -> int:
    """Count the leading spatial axes that all blocks have in common."""
    shapes = []
    for block in blocks:
        axes = list(sch.get(block).iter_vars)
        spatial = itertools.takewhile(lambda it: it.iter_type != _REDUCED, axes)
        shapes.append([int(it.dom.extent) for it in spatial])
    columns = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*shapes, strict=False))
    return len(list(columns))


def _walks_rows(sch: s_tir.Schedule, block: SBlockRV, lead: int) -> bool:
    """Whether a block reads what other blocks write at its own leading indices only."""
    params = sch.mod["main"].params
    stmt = sch.get(block)
    axes = [it.var for it in list(stmt.iter_vars)[:lead]]
    for region in stmt.reads:
        if any(region.source.same_as(param) for param in params):
            continue
        indices = [dim.min for dim in list(region.region)[:lead]]
        unit = [int(extent) == 1 for extent in list(region.source.shape)[:lead]]
        for index, axis, single in zip(indices, axes, unit, strict=False):
            if not single and not index.same_as(axis):
                return False
    return True


def _kept_axis(sch: s_tir.Schedule, block: SBlockRV) -> int | None:
    """Return the axis that is contiguous both in the result and in an operand, if there is one."""
    stmt = sch.get(block)
    if not stmt.writes[0].region:
        return None
    last = stmt.writes[0].region[-1].min
    position = next((p for p, it in enumerate(stmt.iter_vars) if it.var.same_as(last)), None)
    if position is None or int(stmt.iter_vars[position].dom.extent) == 1:
        return None
    for region in stmt.reads:
        if not region.region:
            continue  # an operand of one number
        index = region.region[-1].min
        terms = (index.a, index.b) if isinstance(index, tirx.Add) else (index,)
        if any(term.same_as(last) for term in terms):
            return position
    return None


def _vectorize_copy(sch: s_tir.Schedule, epilogue: SBlockRV, chunk: LoopRV, lanes: int) -> None:
    """Vectorize the consumer that runs once per chunk of the kept axis."""
    loops = sch.get_loops(epilogue)
    depth = next(p for p, loop in enumerate(loops) if sch.get(loop).same_as(sch.get(chunk)))
    if depth + 1 < len(loops):
        vectorize_last(sch, epilogue, lanes)
