"""What a kernel makes a core do: instructions by kind, and bytes through each level of the caches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .footprint import shared_depth, stride_bytes, touched_bytes, traffic_bytes
from .nest import BY_ELEMENT, OPERATIONS, Access, Buffer, Loop, Nest, Statement

# TVM's LLVM backend keeps smaller temporaries on the stack, where LLVM promotes them to registers.
_REGISTER_TILE_BYTES = 1024
_ACCESSES = ("contiguous", "constant", "strided", "gather")
_LEVELS = ("l1", "l2", "l3")

_ROLES = ("conv2d", "depthwise_conv2d", "matmul", "batch_matmul", "pack", "pad")
# What it is the same as to the models, which know no other roles.
_KNOWN_AS = {"pixels": "batch_matmul"}
#: Sums over a kernel's statements, each on the thread that has the most to do.
TERM_NAMES = (
    *(f"vector_{name}" for name in OPERATIONS),
    *(f"scalar_{name}" for name in OPERATIONS),
    *(f"vector_read_{name}" for name in _ACCESSES),
    *(f"scalar_read_{name}" for name in _ACCESSES),
    *(f"vector_write_{name}" for name in _ACCESSES[:3]),
    *(f"scalar_write_{name}" for name in _ACCESSES[:3]),
    *(f"{level}_bytes" for level in _LEVELS),
    "loop_steps",
    "cold_bytes",
    "cold_bytes_per_thread",
    "input_bytes",
    "output_bytes",
    "temporary_bytes",
    "launches",
    "statements",
    "flops",
    "all_flops",
    "tile_vectors",
    "tile_rows",
    "vector_extent",
    "inner_extent",
    "innermost_steps",
    "reduction_extent",
    "parallel_extent",
    "imbalance",
    "guarded_share",
    "padded_share",
    "tile_statement_share",
    "window_bytes",
    "row_stride_bytes",
    "inner_stride_bytes",
    "inner_stride_alignment",
    "lane_guarded_share",
    "parameters",
    *(f"is_{role}" for role in _ROLES),
)


@dataclass(frozen=True)
class CoreShape:
    """What of a device decides how many instructions and bytes a kernel takes there."""

    vector_bytes: int
    cores: int
    cache_bytes: tuple[int, int, int]


def kernel_terms(nest: Nest, weights: Sequence[int], shape: CoreShape) -> list[float]:
    """Return the terms of a kernel, in the order of `TERM_NAMES`.

    Parameters
    ----------
    nest
        The kernel as `read_nest` returns it, scheduled for the device.
    weights
        Positions of the arguments that are constants, and so far from the core at a call.
    shape
        The device.
    """
    terms = dict.fromkeys(TERM_NAMES, 0.0)
    launched: set[int] = set()
    heaviest, most = None, -1.0
    for statement in nest.statements:
        share, launch = _share_of_thread(statement, shape.cores)
        if launch is not None:
            launched.add(launch)
        weight = _count_statement(terms, statement, nest.buffers, share, shape)
        if weight > most:
            heaviest, most = statement, weight
        for level, moved in zip(
            _LEVELS, traffic_bytes(statement, nest.buffers, shape.cache_bytes), strict=True
        ):
            terms[f"{level}_bytes"] += moved * share
    for role in {_KNOWN_AS.get(role, role) for role in nest.roles} & set(_ROLES):
        terms[f"is_{role}"] = 1.0
    terms["launches"] = float(len(launched))
    terms["statements"] = float(len(nest.statements))
    terms["parameters"] = float(
        len({buffer.parameter for buffer in nest.buffers if buffer.parameter >= 0})
    )
    _count_buffers(terms, nest, frozenset(weights), shape.cores if launched else 1)
    if heaviest is not None:
        _describe_heaviest(terms, heaviest, nest, shape)
        total = sum(terms[f"vector_{name}"] + terms[f"scalar_{name}"] for name in ("add", "mul"))
        terms["tile_statement_share"] = most / max(most, total, 1.0)
    return list(terms.values())


def _share_of_thread(statement: Statement, cores: int) -> tuple[float, int | None]:
    """Return the share of the iterations on the busiest thread, and the id of the parallel loop."""
    for loop in statement.loops:
        if loop.kind == "parallel" and cores > 1:
            return math.ceil(loop.extent / cores) / max(1, loop.extent), loop.id
    return 1.0, None


def _count_statement(
    terms: dict[str, float],
    statement: Statement,
    buffers: Sequence[Buffer],
    share: float,
    shape: CoreShape,
) -> float:
    """Add a statement's instructions to the terms; return how many there are in all."""
    iterations = statement.iterations * share
    extent = math.prod(loop.extent for loop in statement.loops if loop.kind == "vectorized")
    width = max(buffers[access.buffer].element_bytes for access in statement.accesses)
    is_vector = extent > 1 and not statement.is_scalar
    per_vector = math.ceil(extent * width / shape.vector_bytes) / extent if is_vector else 1.0
    instructions = iterations * per_vector
    prefix = "vector" if is_vector else "scalar"
    total = 0.0
    for name, count in statement.operations.items():
        times = count * (iterations if name in BY_ELEMENT else instructions)
        terms[f"{prefix}_{name}"] += times
        total += times
    arithmetic = sum(statement.operations[name] for name in ("add", "mul", "div", "max"))
    terms["flops"] += arithmetic * iterations
    terms["all_flops"] += arithmetic * statement.iterations
    innermost = statement.loops[-1] if statement.loops else None
    for access in statement.accesses:
        if _stays_in_registers(access, statement, buffers):
            continue
        how = _pattern(access, len(statement.loops) - 1, innermost)
        times = iterations if how in ("strided", "gather") else instructions
        times /= _sharing(access, statement)
        kind = "write" if access.is_write else "read"
        if kind == "write" and how == "gather":
            how = "strided"
        terms[f"{prefix}_{kind}_{how}"] += times
        total += times
    unrolled = math.prod(loop.extent for loop in statement.loops if loop.kind == "unrolled")
    terms["loop_steps"] += iterations / max(1, unrolled * extent)
    return total


def _stays_in_registers(access: Access, statement: Statement, buffers: Sequence[Buffer]) -> bool:
    """Return whether an access is to a register tile: a small temporary made anew in an inner loop."""
    depth = shared_depth(statement, buffers[access.buffer])
    if not depth:
        return False
    return touched_bytes(access, buffers[access.buffer], statement.loops, depth) <= _REGISTER_TILE_BYTES


def _sharing(access: Access, statement: Statement) -> int:
    """Return how many iterations of unrolled loops share one load into a register."""
    moving = {loop for affine in access.dims for loop, factor in affine.items() if factor}
    return math.prod(
        loop.extent
        for place, loop in enumerate(statement.loops)
        if loop.kind == "unrolled" and place not in moving
    )


def _pattern(access: Access, position: int, innermost: Loop | None) -> str:
    """Return how an access moves with the innermost loop."""
    if access.gathers:
        return "gather"
    if access.flat is not None:
        step = access.flat.get(position, 0.0)
        return {0.0: "constant", 1.0: "contiguous"}.get(step, "strided")
    moving = [number for number, affine in enumerate(access.dims) if affine.get(position)]
    if innermost is None or not moving:
        return "constant"
    last = len(access.dims) - 1
    return "contiguous" if moving == [last] and access.dims[last][position] == 1.0 else "strided"


def _count_buffers(terms: dict[str, float], nest: Nest, weights: frozenset[int], threads: int) -> None:
    """Add the bytes of the arguments that are touched, and of the temporaries."""
    touched: dict[int, float] = {}
    written: set[int] = set()
    for statement in nest.statements:
        for access in statement.accesses:
            whole = touched_bytes(access, nest.buffers[access.buffer], statement.loops, 0)
            touched[access.buffer] = max(touched.get(access.buffer, 0.0), whole)
            if access.is_write:
                written.add(access.buffer)
    for number, bytes_touched in touched.items():
        buffer = nest.buffers[number]
        if buffer.parameter < 0:
            terms["temporary_bytes"] += min(bytes_touched, buffer.bytes)
        elif buffer.parameter in weights:
            terms["cold_bytes"] += bytes_touched
        else:
            terms["output_bytes" if number in written else "input_bytes"] += bytes_touched
    terms["cold_bytes_per_thread"] = terms["cold_bytes"] / threads


def _describe_heaviest(
    terms: dict[str, float], statement: Statement, nest: Nest, shape: CoreShape
) -> None:
    """Add the loop structure of the statement that takes most instructions."""
    loops = statement.loops
    target = next(access for access in statement.accesses if access.is_write)
    moving = {loop for affine in target.dims for loop, factor in affine.items() if factor}
    reduced = [n for n in range(len(loops)) if n not in moving and loops[n].extent > 1]
    vector = math.prod(loop.extent for loop in loops if loop.kind == "vectorized")
    rows = math.prod(loop.extent for loop in loops if loop.kind == "unrolled")
    width = nest.buffers[target.buffer].element_bytes
    terms["vector_extent"] = float(vector)
    terms["tile_rows"] = float(rows)
    terms["tile_vectors"] = rows * math.ceil(vector * width / shape.vector_bytes)
    terms["reduction_extent"] = float(math.prod(loops[n].extent for n in reduced))
    terms["inner_extent"] = float(loops[-1].extent) if loops else 1.0
    steps = [loop.extent for loop in loops if loop.kind not in ("vectorized", "unrolled")]
    terms["innermost_steps"] = float(steps[-1]) if steps else 1.0
    parallel = [loop.extent for loop in loops if loop.kind == "parallel"]
    terms["parallel_extent"] = float(parallel[0]) if parallel else 0.0
    share, _ = _share_of_thread(statement, shape.cores)
    terms["imbalance"] = share * shape.cores if parallel else 1.0
    terms["guarded_share"] = statement.share
    shares = [other.share for other in nest.statements]
    terms["padded_share"] = min(shares)
    terms["lane_guarded_share"] = min(other.lane_share for other in nest.statements)
    body = [n for n, loop in enumerate(loops) if loop.kind in ("vectorized", "unrolled")]
    first = min([*body, *reduced], default=len(loops))
    terms["window_bytes"] = sum(
        touched_bytes(access, nest.buffers[access.buffer], loops, first) for access in statement.accesses
    )
    stride = max(stride_bytes(access, nest.buffers, len(loops) - 1) for access in statement.accesses)
    terms["inner_stride_bytes"] = stride
    terms["inner_stride_alignment"] = float(math.gcd(int(stride), 4096)) if stride else 0.0
    reads = [access for access in statement.accesses if not access.is_write]
    if reads and len(nest.buffers[reads[-1].buffer].shape) > 1:
        source = nest.buffers[reads[-1].buffer]
        terms["row_stride_bytes"] = float(source.shape[-1] * source.element_bytes)
