"""The rule for the packed kernels of `compute.py`: convolution and matrix product.

The shape of every schedule here: panels of weights outermost (a group of panels stays in the second
level cache while all rows pass it), then rows, then the reduction, and innermost a register tile of
rows x panels, unrolled and vectorized. The consumers are merged into one epilogue that runs at the
register tile; padding and packing run ahead.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from tvm import s_tir, tirx
from tvm.s_tir.schedule import LoopRV, SBlockRV
from tvm.target import Target

from .blocks import (
    PARTITION_HINT,
    PRIMITIVE_ERRORS,
    bind_once,
    extent_of,
    inline_consumers,
    is_output,
    move_consumer,
    role_of,
    root_blocks,
    simplify_in_ranges,
    simplify_indices,
    try_inline,
    vectorize_last,
)
from .injective import schedule_injective
from .target_info import MULTIPLY_ADDS_PER_NS, PANEL_LANES, WEIGHT_BYTES_PER_NS, CpuInfo
from .tiling import Tile, choose_tile

_ACCUMULATORS = ("conv2d", "depthwise_conv2d", "matmul", "batch_matmul", "pixels")
# Loops of an epilogue over images, rows, columns, groups, and the channels of each.
_SPLIT_LOOPS = 5


class PackedKernel:
    """Schedules one packed kernel with its prologue and epilogue, in dlight's form."""

    def __init__(self, info: CpuInfo) -> None:
        self.info = info

    def apply(self, func: tirx.PrimFunc, _target: Target, _tunable: bool) -> s_tir.Schedule | None:
        """Return the schedule, or None where the function holds no packed kernel."""
        for merged in (True, False):
            try:
                sch = self._schedule(func, merged)
            except PRIMITIVE_ERRORS:
                continue  # a primitive cannot invert the epilogue's indices
            if sch is not None:
                return sch
        return None

    def _schedule(self, func: tirx.PrimFunc, merged: bool) -> s_tir.Schedule | None:
        """Schedule with the consumers merged into the tile, or apart; None where that fails."""
        sch = s_tir.Schedule(func)
        blocks = root_blocks(sch)
        found = [block for block in blocks if role_of(sch, block) in _ACCUMULATORS]
        if len(found) != 1:
            return None
        acc = found[0]
        if self.info.cores > 1 and not self.info.shares(_work_ns(sch, acc)):
            return PackedKernel(replace(self.info, cores=1))._schedule(func, merged)
        position = blocks.index(acc)
        after = blocks[position + 1 :]
        epilogue = inline_consumers(sch, acc, after) if merged else None
        if merged and epilogue is None:
            return None
        if not merged:
            epilogue = sch.cache_write(acc, 0, "global")
            for block in [b for b in after if is_output(sch, b) or not try_inline(sch, b)]:
                schedule_injective(sch, block, self.info)
        role = role_of(sch, acc)
        flatten = {"matmul": _flatten_rows, "pixels": _flatten_pixels, "conv2d": _split_groups}.get(role)
        if merged and flatten and flatten(sch, acc, epilogue):
            simplify = simplify_in_ranges if role == "conv2d" else simplify_indices
            return self._schedule(simplify(bind_once(sch.mod["main"])), merged)
        if role == "pixels" and not merged:
            return None
        plan = {
            "conv2d": self._conv2d,
            "depthwise_conv2d": self._depthwise,
            "matmul": self._matmul,
            "batch_matmul": self._batch_matmul,
            "pixels": self._pixels,
        }[role]
        fits = plan(sch, acc, epilogue)
        self._ahead(sch, blocks[:position])
        return sch if fits else None

    # -- one plan per kind of kernel

    def _conv2d(self, sch: s_tir.Schedule, acc: SBlockRV, epilogue: SBlockRV) -> bool:
        n, h, w, g, o, i, kh, kw, ic = sch.get_loops(acc)
        panel = math.prod(extent_of(sch, loop) for loop in (kh, kw, ic)) * 4 * PANEL_LANES
        tile = choose_tile(
            extent_of(sch, w), extent_of(sch, o), _pixel_bytes(sch, acc, 2), self.info, panel
        )
        # One loop over the channels of all groups would run on into the next group.
        if _partial_group(sch, acc, epilogue) and len(sch.get_loops(epilogue)) < _SPLIT_LOOPS:
            return False
        wo, wi = sch.split(w, [None, tile.rows])
        oo, oi = sch.split(o, [None, tile.panels])
        outer = [n, h, g, oo] if self._shares_rows(sch, acc, h) else [n, g, oo, h]
        sch.reorder(*outer, wo, kh, kw, ic, wi, oi, i)
        fits = _attach(sch, epilogue, wo, tile)
        self._finish(sch, epilogue, wo, wo, (wi, oi, i))
        self._parallel(sch, outer[: outer.index(h) + 1])
        sch.decompose_reduction(acc, kh)
        return fits

    def _depthwise(self, sch: s_tir.Schedule, acc: SBlockRV, epilogue: SBlockRV) -> bool:
        n, h, w, o, i, kh, kw = sch.get_loops(acc)
        tile = choose_tile(extent_of(sch, w), extent_of(sch, o), 64, self.info, 64)
        wo, wi = sch.split(w, [None, tile.rows])
        oo, oi = sch.split(o, [None, tile.panels])
        outer = [n, h, wo, oo] if self._streams(sch, acc) else [n, oo, h, wo]
        sch.reorder(*outer, kh, kw, wi, oi, i)
        fits = _attach(sch, epilogue, outer[-1], tile)
        self._finish(sch, epilogue, outer[-1], wo, (wi, oi, i))
        self._parallel(sch, outer[: outer.index(h) + 1])
        sch.decompose_reduction(acc, kh)
        return fits

    def _matmul(self, sch: s_tir.Schedule, acc: SBlockRV, epilogue: SBlockRV) -> bool:
        m, o, i, k = sch.get_loops(acc)
        stride = extent_of(sch, k) * 4
        tile = choose_tile(
            extent_of(sch, m), extent_of(sch, o), stride, self.info, extent_of(sch, k) * 4 * PANEL_LANES
        )
        mo, mi = sch.split(m, [None, tile.rows])
        oo, oi = sch.split(o, [None, tile.panels])
        by_rows = self._shares_rows(sch, acc, mo)
        outer = [mo, oo] if by_rows else [oo, mo]
        sch.reorder(*outer, k, mi, oi, i)
        fits = _attach(sch, epilogue, outer[-1], tile)
        self._finish(sch, epilogue, outer[-1], mo, (mi, oi, i))
        is_serial = by_rows or self.info.cores == 1
        if is_serial and _channels(sch, epilogue) % (tile.panels * PANEL_LANES):
            # A condition on the last panel would index the accumulators by a variable, and so keep
            # all of them in memory.
            sch.annotate(oo, PARTITION_HINT, True)
        if by_rows:
            sch.parallel(mo)
        else:
            self._parallel_rows(sch, oo, mo)
        sch.decompose_reduction(acc, k)
        return fits

    def _batch_matmul(self, sch: s_tir.Schedule, acc: SBlockRV, epilogue: SBlockRV) -> bool:
        *batch, m, o, i, k = sch.get_loops(acc)
        stride = extent_of(sch, k) * 4
        tile = choose_tile(
            extent_of(sch, m), extent_of(sch, o), stride, self.info, extent_of(sch, k) * 4 * PANEL_LANES
        )
        mo, mi = sch.split(m, [None, tile.rows])
        oo, oi = sch.split(o, [None, tile.panels])
        sch.reorder(*batch, oo, mo, k, mi, oi, i)
        fits = _attach(sch, epilogue, mo, tile)
        self._finish(sch, epilogue, mo, mo, (mi, oi, i))
        self._parallel(sch, batch if batch else [oo])
        sch.decompose_reduction(acc, k)
        return fits

    def _pixels(self, sch: s_tir.Schedule, acc: SBlockRV, epilogue: SBlockRV) -> bool:
        """Schedule weights times panels of pixels, whose last one may be filled in part."""
        n, f, o, i, c = sch.get_loops(acc)
        depth = extent_of(sch, c) * 4
        tile = choose_tile(extent_of(sch, f), extent_of(sch, o), depth, self.info, depth * PANEL_LANES)
        fo, fi = sch.split(f, [None, tile.rows])
        oo, oi = sch.split(o, [None, tile.panels])
        sch.reorder(n, oo, fo, c, fi, oi, i)
        fits = _attach(sch, epilogue, fo, tile)
        sch.vectorize(i)
        sch.unroll(oi)
        sch.unroll(fi)
        *others, pixel = _loops_below(sch, epilogue, fo)
        chunk, lane = sch.split(pixel, [None, PANEL_LANES])
        sch.vectorize(lane)
        for loop in (*others, chunk):
            if 1 < extent_of(sch, loop) <= PANEL_LANES:
                sch.unroll(loop)
        sch.annotate(fo, PARTITION_HINT, True)
        if self.info.cores > 1:
            sch.parallel(sch.fuse(n, oo))
        else:
            sch.annotate(oo, PARTITION_HINT, True)
        sch.decompose_reduction(acc, c)
        return fits

    # -- shared steps

    def _streams(self, sch: s_tir.Schedule, acc: SBlockRV) -> bool:
        """Whether to read an image pixel by pixel with all channels, instead of panel by panel.

        A panel of a pixel is one cache line; those of one panel lie far apart. That does no harm where
        the image is in the core's own cache, and is what no prefetcher follows where it is not: because
        it is too large, or another core has written it.
        """
        return self.info.cores > 1 or _bytes(sch.get(acc).reads[0].source) > self.info.l2_bytes

    def _finish(
        self,
        sch: s_tir.Schedule,
        epilogue: SBlockRV,
        tiles: LoopRV,
        rows: LoopRV,
        tile: tuple[LoopRV, LoopRV, LoopRV],
    ) -> None:
        """Vectorize and unroll the register tile, and the epilogue at the innermost loop over tiles.

        Of the loop over tiles of rows, the last and partial step is split off.
        """
        inner, panels, lane = tile
        sch.vectorize(lane)
        sch.unroll(panels)
        sch.unroll(inner)
        _vectorize_epilogue(sch, epilogue, tiles)
        sch.annotate(rows, PARTITION_HINT, True)

    def _shares_rows(self, sch: s_tir.Schedule, acc: SBlockRV, rows: LoopRV) -> bool:
        """Whether to share out the rows of an image or a matrix, each with all channels.

        Kernels that all share out rows find most of what they read in their own core's cache, where the
        one before them has written it; shared out by channels, half of it has to come from another
        core's. In return each core reads all weights, for each row again, so they have to stay near.
        """
        weights = _bytes(sch.get(acc).reads[-1].source)
        return 1 < self.info.cores <= extent_of(sch, rows) and weights <= self.info.l2_bytes

    def _parallel(self, sch: s_tir.Schedule, loops: list[LoopRV]) -> None:
        if self.info.cores > 1:
            sch.parallel(sch.fuse(*loops) if len(loops) > 1 else loops[0])

    def _parallel_rows(self, sch: s_tir.Schedule, panels: LoopRV, rows: LoopRV) -> None:
        """Share out panels, or rows where there are too few panels to balance the cores.

        Call it before the reduction is decomposed: its two halves both write the accumulator,
        which the primitive takes for a race.
        """
        cores = self.info.cores
        if cores == 1:
            return
        count = extent_of(sch, panels)
        if count % cores == 0 or count >= 4 * cores or extent_of(sch, rows) < cores:
            sch.parallel(panels)
            return
        sch.parallel(rows) if count == 1 else sch.parallel(panels)

    def _ahead(self, sch: s_tir.Schedule, before: list[SBlockRV]) -> None:
        """Schedule the blocks that run ahead of the kernel: padding, packing."""
        for block in before:
            loops = sch.get_loops(block)
            if not loops:
                continue  # it computes a single number
            vectorize_last(sch, block, self.info.lanes(4))
            self._parallel(sch, sch.get_loops(block)[: max(1, len(loops) - 2)])


def _work_ns(sch: s_tir.Schedule, acc: SBlockRV) -> float:
    """Estimate the time of an accumulating block on one core: its arithmetic, or reading its weights."""
    block = sch.get(acc)
    products = math.prod(int(it.dom.extent) for it in block.iter_vars)
    weight_bytes = _bytes(block.reads[-1].source)
    return max(products / MULTIPLY_ADDS_PER_NS, weight_bytes / WEIGHT_BYTES_PER_NS)


def _bytes(tensor: Any) -> int:
    """Return the size of a tensor."""
    return math.prod(int(extent) for extent in tensor.shape) * int(tensor.dtype.bits) // 8


def _pixel_bytes(sch: s_tir.Schedule, acc: SBlockRV, axis: int) -> int:
    """Return the distance in bytes of the pixels that neighbouring output columns read."""
    read = sch.get(acc).reads[0].source
    return int(math.prod(int(extent) for extent in read.shape[axis + 1 :])) * 4


def _flatten_rows(sch: s_tir.Schedule, acc: SBlockRV, epilogue: SBlockRV) -> bool:
    """Give the epilogue one loop over all rows, as the accumulating block has; tell if it had more."""
    rows = extent_of(sch, sch.get_loops(acc)[0])
    extents = [extent_of(sch, loop) for loop in sch.get_loops(epilogue)]
    lead = extents[:-1]
    if len(lead) < 2 or rows == 1 or math.prod(lead) != rows:
        return False

    def flatten(*indices: Any) -> list[Any]:
        flat: Any = 0
        for index, extent in zip(indices[:-1], lead, strict=True):
            if extent > 1:
                flat = index if isinstance(flat, int) else flat * extent + index
        return [flat, indices[-1]]

    index_map = tirx.IndexMap.from_func(flatten, ndim=len(extents), index_dtype="int64")
    sch.transform_block_layout(epilogue, index_map)
    return True


def _flatten_pixels(sch: s_tir.Schedule, _acc: SBlockRV, epilogue: SBlockRV) -> bool:
    """Give the epilogue one loop over the pixels of an image, channels first; tell if it had two."""
    extents = [extent_of(sch, loop) for loop in sch.get_loops(epilogue)]
    if len(extents) != 4:
        return False
    width = extents[-1]
    index_map = tirx.IndexMap.from_func(
        lambda n, f, y, x: [n, f, y * width + x], ndim=4, index_dtype="int64"
    )
    sch.transform_block_layout(epilogue, index_map)
    return True


def _split_groups(sch: s_tir.Schedule, acc: SBlockRV, epilogue: SBlockRV) -> bool:
    """Give the epilogue a loop over groups and one over their channels; tell if it had one over both.

    Of a group whose channels fill no panel it would else write a whole one, and so channels of the next
    groups, which another core may have finished.
    """
    each = _partial_group(sch, acc, epilogue)
    if each == 0 or len(sch.get_loops(epilogue)) != 4 or _channels(sch, epilogue) % each:
        return False
    index_map = tirx.IndexMap.from_func(
        lambda n, y, x, c: [n, y, x, c // each, c % each], ndim=4, index_dtype="int64"
    )
    sch.transform_block_layout(epilogue, index_map)
    return True


def _partial_group(sch: s_tir.Schedule, acc: SBlockRV, epilogue: SBlockRV) -> int:
    """Return the channels of a group where there are several that fill no panel, else 0."""
    n, h, w, groups = (extent_of(sch, loop) for loop in sch.get_loops(acc)[:4])
    written = math.prod(extent_of(sch, loop) for loop in sch.get_loops(epilogue))
    each = written // (n * h * w * groups)
    return each if groups > 1 and each % PANEL_LANES else 0


def _attach(sch: s_tir.Schedule, epilogue: SBlockRV, tiles: LoopRV, tile: Tile) -> bool:
    """Move the epilogue to the tile; tell whether it then covers no more than the tile."""
    move_consumer(sch, epilogue, tiles)
    inner = _loops_below(sch, epilogue, tiles)
    covered = math.prod(extent_of(sch, loop) for loop in inner)
    return covered <= tile.rows * tile.panels * PANEL_LANES


def _loops_below(sch: s_tir.Schedule, block: SBlockRV, loop: LoopRV) -> list[LoopRV]:
    loops: list[LoopRV] = list(sch.get_loops(block))
    depth = next(p for p, found in enumerate(loops) if sch.get(found).same_as(sch.get(loop)))
    return list(loops[depth + 1 :])


def _vectorize_epilogue(sch: s_tir.Schedule, epilogue: SBlockRV, tiles: LoopRV) -> None:
    inner = _loops_below(sch, epilogue, tiles)
    if not inner:
        return
    *others, channel = inner
    extent = extent_of(sch, channel)
    lanes = math.gcd(extent, _channels(sch, epilogue))
    lanes = math.gcd(lanes, PANEL_LANES)
    if lanes >= 4:
        chunk, lane = sch.split(channel, [None, lanes])
        sch.vectorize(lane)
        others.append(chunk)
    else:
        others.append(channel)
    for loop in others:
        if 1 < extent_of(sch, loop) <= PANEL_LANES:
            sch.unroll(loop)


def _channels(sch: s_tir.Schedule, epilogue: SBlockRV) -> int:
    return int(sch.get(epilogue).writes[0].source.shape[-1])
