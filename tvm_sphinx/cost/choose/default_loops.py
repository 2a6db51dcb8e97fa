"""TVM's default loops as an implementation of a kernel, and when they cannot be the fastest. [TVM]"""

from __future__ import annotations

from typing import Any

from ..._tvm import tirx, tvm
from ...kernels import loop_limit

# A serial sum of floats takes at least two cycles a step, which no processor does in less than this.
_LEAST_NS_PER_STEP = 0.33
_REDUCTION = 2  # tirx.IterVar.CommReduce


def default_loops(function: Any, rule_ns: int) -> Any | None:
    """Return an unscheduled PrimFunc, to be compiled as it is.

    None where it cannot beat a kernel that takes ``rule_ns``, and of a loop: what another order of sums
    changes in a step may change how many there are.
    """
    if loop_limit(function) is not None or serial_sum_ns(function) >= rule_ns:
        return None
    return function.with_attr("tirx.is_scheduled", True)


def serial_sum_ns(function: Any) -> float:
    """Return a lower bound of an unscheduled PrimFunc's time: of its sums of floats, step after step.

    Where the innermost loop of a block runs over a reduction, each step adds to what the one before it
    has left, and LLVM keeps that order.
    """

    def visit(statement: Any, loops: list[Any]) -> float:
        if isinstance(statement, tirx.For):
            return visit(statement.body, [*loops, statement])
        if isinstance(statement, tirx.SeqStmt):
            return sum(visit(child, loops) for child in statement)
        if isinstance(statement, tirx.IfThenElse) and statement.else_case is not None:
            return max(visit(statement.then_case, loops), visit(statement.else_case, loops))
        if not isinstance(statement, tvm.s_tir.SBlockRealize):
            return 0.0
        block = statement.block
        bound = visit(block.body, []) if not loops else 0.0
        return max(bound, _serial_steps(statement, loops) * _LEAST_NS_PER_STEP)

    return float(visit(function.body, []))


def _serial_steps(realize: Any, loops: list[Any]) -> int:
    """Return the steps of a block that sums floats in its innermost loop, else 0."""
    store = realize.block.body
    if not loops or not isinstance(store, tirx.BufferStore) or not isinstance(store.value, tirx.Add):
        return 0
    if not str(store.buffer.dtype).startswith("float"):
        return 0
    reduced = [
        value
        for iter_var, value in zip(realize.block.iter_vars, realize.iter_values, strict=True)
        if int(iter_var.iter_type) == _REDUCTION
    ]
    if not any(loops[-1].loop_var.same_as(value) for value in reduced):
        return 0
    steps = 1
    for loop in loops:
        if not isinstance(loop.extent, tirx.IntImm):
            return 0
        steps *= int(loop.extent)
    return steps
