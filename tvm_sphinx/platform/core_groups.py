"""Groups of cores worth scheduling on: moldable tasks choose among them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from .core_kinds import CoreKind
from .topology import Core

#: Groups that are offered at most: the search stays fast, and so does measuring each size.
MOST_GROUPS = 40


def core_groups(cores: Sequence[Core], kinds: Sequence[CoreKind]) -> tuple[tuple[int, ...], ...]:
    """Return groups of cores, without repeats, small groups first; each lists its fastest cores first.

    They are all cores, those of each socket, NUMA node, kind and cache domain, and aligned blocks of 1,
    2, 4, ... cores within each kind and domain, or node where a domain is smaller than the block. Where
    these are more than `MOST_GROUPS`, small blocks are left out, but one of each size and kind stays.
    """
    rank = {number: place for place, kind in enumerate(kinds) for number in kind.cores}
    order = sorted((core for core in cores), key=lambda core: (rank[core.number], core.number))
    groups: dict[tuple[int, ...], None] = {}
    cells = list(_partition(order, lambda core: (rank[core.number], core.domain)))
    areas = list(_partition(order, lambda core: (rank[core.number], core.node)))
    for group in [*_coarse(order, rank), *_chains(cells, rank), *_blocks(cells, areas)]:
        if len(groups) < MOST_GROUPS:
            groups[group] = None
    return tuple(sorted(groups, key=lambda group: (len(group), sorted(group))))


def _coarse(order: Sequence[Core], rank: dict[int, int]) -> Iterator[tuple[int, ...]]:
    """Yield all cores, and those that have a socket, a node, a kind or a cache in common."""
    yield tuple(core.number for core in order)
    yield from _partition(order, lambda core: core.socket)
    yield from _partition(order, lambda core: core.node)
    yield from _partition(order, lambda core: rank[core.number])
    yield from _partition(order, lambda core: core.domain)
    yield from _partition(order, lambda core: (rank[core.number], core.domain))


def _partition(order: Sequence[Core], key: Callable[[Core], object]) -> Iterator[tuple[int, ...]]:
    parts: dict[object, list[int]] = {}
    for core in order:
        parts.setdefault(key(core), []).append(core.number)
    yield from map(tuple, parts.values())


def _chains(cells: Iterable[tuple[int, ...]], rank: dict[int, int]) -> Iterator[tuple[int, ...]]:
    """Yield the first 1, 2, 4, ... cores of the largest cell of each kind."""
    largest: dict[int, tuple[int, ...]] = {}
    for cell in cells:
        if len(cell) > len(largest.get(rank[cell[0]], ())):
            largest[rank[cell[0]]] = cell
    for cell in largest.values():
        yield from (cell[:size] for size in _sizes(len(cell)))


def _blocks(
    cells: Sequence[tuple[int, ...]], areas: Sequence[tuple[int, ...]]
) -> Iterator[tuple[int, ...]]:
    """Yield the aligned blocks of each cell, and above their size those of each area; large first."""
    largest = max(map(len, cells), default=0)
    for size in sorted(_sizes(max(map(len, areas), default=0)), reverse=True):
        for cell in cells if size <= largest else areas:
            for begin in range(0, len(cell) - size + 1, size):
                yield cell[begin : begin + size]


def _sizes(count: int) -> list[int]:
    """Return the powers of two up to a number."""
    return [1 << exponent for exponent in range(count.bit_length())]
