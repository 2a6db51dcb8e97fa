"""Small steps on blocks and loops that several schedule rules share."""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir, tirx
from tvm.ir.expr import TensorLoad
from tvm.s_tir.schedule import LoopRV, SBlockRV, ScheduleError

from .compute import ROLE
from .maps import loads_of

# Splits off the last, partial step of a loop, so that all others run without a condition.
PARTITION_HINT = "pragma_loop_partition_hint"

# Nodes of an expression that is inlined more than once. TVM's passes take two minutes for a kernel of
# 2,000 nodes, as they copy the operands of a remainder or of a test for NaN once more.
_MOST_COPIED = 256
# Of an expression whose names are replaced by what they stand for.
_MOST_WRITTEN_OUT = 300_000

# What a primitive raises on a form that it cannot handle; index inversion fails with the latter two.
PRIMITIVE_ERRORS = (ScheduleError, tvm.error.InternalError, ValueError)


def root_blocks(sch: s_tir.Schedule) -> list[SBlockRV]:
    """Return the function's blocks in the order of the program."""
    root = sch.get_sblock(sch.mod["main"].body.block.name_hint)
    return list(sch.get_child_blocks(root))


def role_of(sch: s_tir.Schedule, block: SBlockRV) -> str:
    """Return the role that `compute.py` gave a block, or an empty string."""
    return str(sch.get(block).annotations.get(ROLE, ""))


def simplify_indices(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return a function whose sums of quotients and remainders are simplified.

    A change of layout leaves ``v // 13 * 13 + v % 13``; beside a condition, TVM does not see that this
    stays within a tile of v, and keeps the whole accumulator in memory.
    """
    analyzer = tvm.sym.Analyzer()

    def simplify(total: tirx.Add) -> Any:
        return analyzer.simplify(total) if str(total.ty).startswith("int") else total

    return func.with_body(tvm_ffi.structural_map(func.body, (tirx.Add, simplify)))


def simplify_in_ranges(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return a function whose quotients and remainders are simplified by the ranges of its blocks' axes.

    A change of layout leaves ``(v * 2 + w) // 2``, which is v where w is 0 or 1.
    """
    analyzer, blocks = tvm.sym.Analyzer(), list[Any]()
    tvm_ffi.structural_walk(func.body, (tvm.s_tir.SBlock, blocks.append))
    for axis in (axis for block in blocks for axis in block.iter_vars):
        analyzer.bind(axis.var, axis.dom)
    body = func.body
    for kind in (tirx.FloorDiv, tirx.FloorMod):
        body = tvm_ffi.structural_map(body, (kind, analyzer.simplify))
    return func.with_body(body)


def bind_once(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return a function that binds each variable once, as a schedule wants it.

    Inlining and cutting copy what `vector_math` binds.
    """
    return tirx.transform.ConvertSSA()(tvm.IRModule({"main": func}))["main"]


def extent_of(sch: s_tir.Schedule, loop: LoopRV) -> int:
    """Return a loop's extent.

    Raises
    ------
    ValueError
        If it depends on where the loops around it are, as where a tile is no box of what reads it.
    """
    extent = sch.get(loop).extent
    if not isinstance(extent, tirx.IntImm):
        raise ValueError(f"Expected a loop of constant extent; got {extent}.")
    return int(extent)


def is_reduction(sch: s_tir.Schedule, block: SBlockRV) -> bool:
    """Whether a block has a reduction axis."""
    return any(it.iter_type == tirx.IterVar.CommReduce for it in sch.get(block).iter_vars)


def try_inline(sch: s_tir.Schedule, block: SBlockRV) -> bool:
    """Inline a block into its consumers where that is legal; tell whether it was.

    One whose copies would have more than `_MOST_COPIED` nodes together stays apart: in a chain each link
    of which is read twice, an expression doubles with every link.
    """
    if _is_much_when_copied(sch, block):
        return False
    try:
        sch.compute_inline(block)
    except PRIMITIVE_ERRORS:
        return False
    return True


def _is_much_when_copied(sch: s_tir.Schedule, block: SBlockRV) -> bool:
    inlined = sch.get(block)
    if not inlined.writes or not isinstance(inlined.body, tirx.BufferStore):
        return False
    written = inlined.writes[0].source
    copies = sum(
        bool(load.source.same_as(written))
        for consumer in sch.get_consumers(block)
        for load in loads_of(sch.get(consumer).body)
    )
    if copies > 1 and copies * _num_nodes(inlined.body) > _MOST_COPIED:
        return True
    size = _written_out(inlined.body.value)
    return any(
        _written_out(sch.get(consumer).body.value, written, size) > _MOST_WRITTEN_OUT
        for consumer in sch.get_consumers(block)
        if isinstance(sch.get(consumer).body, tirx.BufferStore)
    )


def _written_out(expr: Any, written: Any = None, size: int = 1) -> int:
    """Return how many nodes an expression has once each name in it is replaced by what it stands for.

    TVM's code generator does that to prove things of indices. A load from ``written`` counts ``size``.
    """
    sizes: dict[Any, int] = {}

    def count(node: Any) -> int:
        if isinstance(node, tirx.Let):
            sizes[node.var] = count(node.value)
            return count(node.body)
        if isinstance(node, tirx.Var):
            return sizes.get(node, 1)
        if isinstance(node, TensorLoad):
            return size if written is not None and node.source.same_as(written) else 1
        return 1 + sum(count(operand) for operand in _operands(node))

    return count(expr)


def _operands(node: Any) -> list[Any]:
    if isinstance(node, tvm.ir.Call):
        return [operand for operand in node.args if isinstance(operand, tvm.ir.Expr)]
    names = ("a", "b", "value", "condition", "true_value", "false_value")
    found = (getattr(node, name, None) for name in names)
    return [operand for operand in found if isinstance(operand, tvm.ir.Expr)]


def _num_nodes(statement: Any) -> int:
    """Return how many nodes the expressions in a statement have."""
    count = 0

    def visit(_: Any) -> None:
        nonlocal count
        count += 1

    tvm_ffi.structural_walk(statement, (tvm.ir.Expr, visit))
    return count


def inline_consumers(sch: s_tir.Schedule, producer: SBlockRV, after: list[SBlockRV]) -> SBlockRV | None:
    """Merge the blocks after a producer into one; None where more than one remains."""
    if not after:
        return None
    remaining = [block for block in after[:-1] if not try_inline(sch, block)]
    if remaining or is_reduction(sch, after[-1]):
        return None
    consumers: list[Any] = list(sch.get_consumers(producer))
    return after[-1] if len(consumers) == 1 else None


def move_consumer(sch: s_tir.Schedule, block: SBlockRV, loop: LoopRV) -> None:
    """Move the last block into a loop of what it reads (`reverse_compute_at`).

    Raises
    ------
    ValueError
        If it would no longer write all that it did: TVM leaves out what reads nothing of the producer,
        such as the border of a padding.
    """
    sch.reverse_compute_at(block, loop)
    if not reaches_all(sch, block):
        raise ValueError(f"Moved into the loop, {sch.get(block).name_hint} does not write all.")


def reaches_all(sch: s_tir.Schedule, block: SBlockRV) -> bool:
    """Return whether the loops around a block reach all that it writes, axis by axis."""
    moved, analyzer = sch.get(block), tvm.sym.Analyzer()
    nest = [sch.get(each) for each in sch.get_loops(block)]
    if not nest:
        return True
    for each in nest:
        analyzer.bind(each.loop_var, tvm.ir.Range.from_min_extent(each.min, each.extent))
    beside = nest[-1].body.seq if isinstance(nest[-1].body, tirx.SeqStmt) else [nest[-1].body]
    found = (one for one in beside if isinstance(one, s_tir.SBlockRealize) and one.block.same_as(moved))
    realize = next(found, None)
    if realize is None:
        return True  # within another block, which no rule moves
    for axis, value in zip(moved.iter_vars, realize.iter_values, strict=True):
        extent = axis.dom.extent
        if axis.iter_type != tirx.IterVar.DataPar or not isinstance(extent, tirx.IntImm):
            continue
        reached, first = analyzer.const_int_bound(value), int(axis.dom.min)
        if reached.min_value > first or reached.max_value < first + int(extent) - 1:
            return False
    return True


def is_output(sch: s_tir.Schedule, block: SBlockRV) -> bool:
    """Whether a block writes a parameter of the function."""
    params = sch.mod["main"].params
    written = sch.get(block).writes
    return any(region.source.same_as(param) for region in written for param in params)


def fuse_all(sch: s_tir.Schedule, loops: list[LoopRV]) -> LoopRV:
    """Fuse loops into one; a single loop stays as it is."""
    return sch.fuse(*loops) if len(loops) > 1 else loops[0]


def vectorize_last(sch: s_tir.Schedule, block: SBlockRV, lanes: int) -> None:
    """Vectorize a block's innermost loop, if it has one; a remainder gets code of its own."""
    loops = sch.get_loops(block)
    if not loops:
        return  # it computes a single number
    loop = loops[-1]
    extent = extent_of(sch, loop)
    if extent < 2:
        return
    if extent <= lanes:
        sch.vectorize(loop)
        return
    if extent % lanes and (_rounds_an_index(sch, block) or _looks_an_index_up(sch, block)):
        return
    outer, inner = sch.split(loop, [None, lanes])
    sch.vectorize(inner)
    if extent % lanes:
        sch.annotate(outer, PARTITION_HINT, True)


def _rounds_an_index(sch: s_tir.Schedule, block: SBlockRV) -> bool:
    """Whether an index is rounded from a float, as a resize does.

    In the remainder of a vectorized loop, TVM 0.27 then compares int32 to int64, and the build fails.
    """
    found: list[Any] = []

    def of_cast(cast: tirx.Cast) -> None:
        if str(cast.ty).startswith("int") and str(cast.value.ty).startswith("float"):
            found.append(cast)

    for load in loads_of(sch.get(block).body):
        for index in load.indices:
            tvm_ffi.structural_walk(index, (tirx.Cast, of_cast))
    return bool(found)


def _looks_an_index_up(sch: s_tir.Schedule, block: SBlockRV) -> bool:
    """Whether an index is read at the place of the last loop, as ``gather`` reads one for each element.

    Or several are, wherever they stand. TVM 0.27 fails at the remainder as where an index is rounded.
    """
    last = sch.get(block).iter_vars[-1].var
    found: list[Any] = []
    read: list[TensorLoad] = []

    def of_inner(inner: TensorLoad) -> None:
        read.append(inner)
        for index in inner.indices:
            tvm_ffi.structural_walk(index, (tirx.Var, lambda var: found.append(var.same_as(last))))

    for load in loads_of(sch.get(block).body):
        for index in load.indices:
            tvm_ffi.structural_walk(index, (TensorLoad, of_inner))
    return any(found) or len(read) > 1
