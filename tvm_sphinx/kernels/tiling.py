"""The choice of register tiles, by a small model of one core's inner loop."""

from __future__ import annotations

from dataclasses import dataclass

from .target_info import PANEL_LANES, CpuInfo

_FMA_LATENCY = 4  # cycles until a fused multiply-add can feed the next
_LOAD_COST = 0.5  # cycles per load of a vector or of a broadcast element
_STEP_COST = 0.6  # loop counter and branch of one step of the reduction
_PAGE_BYTES = 4096  # rows at multiples of this share one set of an L1 cache
_L1_WAYS = 8
_MAX_COLLIDING_PANELS = 3  # streams of weights that may run through the same set side by side
_ACCUMULATOR_BYTES = 4
# Weights that do not stay in the L1 cache are read again for each tile of rows. Bytes that come from the
# L2 cache while one vector is multiplied: measured on Zen 3, and where vectors have 512 bits.
_STREAM_BYTES, _STREAM_BYTES_512 = 5.3, 21.3
_L1_SHARE_OF_WEIGHTS = 0.5


@dataclass(frozen=True)
class Tile:
    """A register tile.

    Attributes
    ----------
    rows
        Rows (pixels of an output row, or rows of a matrix) that share one load of weights.
    panels
        Weight panels that share one broadcast of an input element.
    """

    rows: int
    panels: int


def _step_cycles(rows: int, vectors: int, stream: float) -> float:
    """Estimate the cycles of one reduction step over a tile of rows x vectors."""
    return max(rows * vectors, _FMA_LATENCY, (rows + vectors) * _LOAD_COST, stream) + _STEP_COST


def _tile_cycles(tile: Tile, extent: int, count: int, vectors: int, stream: float) -> float:
    full, rest = divmod(extent, tile.rows)
    cycles = full * _step_cycles(tile.rows, tile.panels * vectors, stream)
    if rest:
        cycles += _step_cycles(rest, tile.panels * vectors, stream)
    return cycles * (count // tile.panels)


def _stream_cycles(panels: int, panel_bytes: int, info: CpuInfo) -> float:
    """Estimate the cycles in which a reduction step gets its weights from the L2 cache."""
    if panels * panel_bytes <= _L1_SHARE_OF_WEIGHTS * info.l1_bytes:
        return 0.0
    rate = _STREAM_BYTES_512 if info.vector_bytes >= 64 else _STREAM_BYTES
    return panels * PANEL_LANES * _ACCUMULATOR_BYTES / rate


def _rows_collide(row_stride_bytes: int, rows: int) -> bool:
    """Whether rows of this distance crowd into too few sets of an L1 cache to stay there."""
    sets = {(row * row_stride_bytes % _PAGE_BYTES) // 64 for row in range(rows)}
    return -(-rows // len(sets)) >= _L1_WAYS


def choose_tile(extent: int, count: int, row_stride_bytes: int, info: CpuInfo, panel_bytes: int) -> Tile:
    """Return the register tile with the least estimated time.

    Parameters
    ----------
    extent
        Rows to cover.
    count
        Weight panels to cover; the tile's panels divide it.
    row_stride_bytes
        Distance of neighbouring rows in memory.
    info
        The target's parameters.
    panel_bytes
        Distance of neighbouring panels in memory.
    """
    vectors = max(1, PANEL_LANES * _ACCUMULATOR_BYTES // info.vector_bytes)
    budget = max(1, info.tile_vectors // vectors)
    best, best_cycles = Tile(1, 1), float("inf")
    for group in range(1, min(count, 8) + 1):
        if count % group or group > budget:
            continue
        if group > _MAX_COLLIDING_PANELS and panel_bytes % _PAGE_BYTES == 0:
            continue
        stream = _stream_cycles(group, panel_bytes, info)
        for rows in range(1, min(extent, budget // group) + 1):
            if _rows_collide(row_stride_bytes, rows):
                continue
            tile = Tile(rows, group)
            cycles = _tile_cycles(tile, extent, count, vectors, stream)
            if cycles < best_cycles * 0.999:
                best, best_cycles = tile, cycles
    return best
