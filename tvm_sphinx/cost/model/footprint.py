"""What the accesses of a statement touch: bytes, how far apart they are, and through which caches."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .nest import Access, Buffer, Loop, Statement

_LINE_BYTES = 64


def touched_bytes(access: Access, buffer: Buffer, loops: Sequence[Loop], first: int) -> float:
    """Return the bytes that an access touches while the loops from ``first`` on run once, in lines."""
    total = 1.0
    last = len(buffer.shape) - 1
    for number, (affine, extent) in enumerate(zip(access.dims, buffer.shape, strict=True)):
        reach = 1.0
        for loop, factor in affine.items():
            if loop >= first:
                reach += abs(factor) * (loops[loop].extent - 1)
        reach = min(reach, extent)
        if number == last:
            whole = min(buffer.bytes, _LINE_BYTES)
            return total * max(whole, reach * buffer.element_bytes)
        total *= reach
    return float(buffer.element_bytes)


def traffic_bytes(
    statement: Statement, buffers: Sequence[Buffer], capacities: Sequence[int]
) -> list[float]:
    """Return the bytes that move into a cache of each capacity while a statement runs.

    Data stays in a cache as long as all that a run of the inner loops touches fits into it (Wolf and
    Lam, PLDI 1991); what fits is fetched once for each iteration of the loops round it.
    """
    loops = statement.loops
    distinct: dict[tuple[object, ...], Access] = {}
    for access in statement.accesses:
        key = (access.buffer, *(tuple(sorted(affine.items())) for affine in access.dims))
        distinct.setdefault(key, access)
    accesses = list(distinct.values())
    shared = [shared_depth(statement, buffers[access.buffer]) for access in accesses]
    depth = len(loops)
    by_level = [
        [
            touched_bytes(access, buffers[access.buffer], loops, max(first, inner))
            for access, inner in zip(accesses, shared, strict=True)
        ]
        for first in range(depth + 1)
    ]
    results = []
    for capacity in capacities:
        first = depth
        while first > 0 and sum(by_level[first - 1]) <= capacity:
            first -= 1
        if first == 0:
            results.append(0.0)  # all of it is still there from the call before
            continue
        # What one run of the first loop that is too large touches; neighbouring iterations share lines.
        outer = math.prod(loop.extent for loop in loops[: first - 1]) * statement.share
        results.append(max(sum(by_level[first - 1]) * outer, sum(by_level[0])))
    return results


def shared_depth(statement: Statement, buffer: Buffer) -> int:
    """Return how many outer loops a temporary is made anew in: it is as small as what one run needs."""
    if buffer.parameter >= 0 or not buffer.shared_loops:
        return 0
    shared = set(buffer.shared_loops)
    if len(buffer.shared_loops) == len(statement.loops):
        return 0
    return sum(loop.id in shared for loop in statement.loops)


def stride_bytes(access: Access, buffers: Sequence[Buffer], position: int) -> float:
    """Return how far apart in memory two neighbouring iterations of a loop are."""
    buffer = buffers[access.buffer]
    if access.flat is not None:
        return abs(access.flat.get(position, 0.0)) * buffer.element_bytes
    total, below = 0.0, float(buffer.element_bytes)
    for affine, extent in zip(reversed(access.dims), reversed(buffer.shape), strict=True):
        total += abs(affine.get(position, 0.0)) * below
        below *= extent
    return total
