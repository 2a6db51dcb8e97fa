"""Kernels that run others one after another, and choose what to run: branches, and loops.

A stage is a block with the annotation `STAGE`: the root block of a PrimFunc, on buffers of the kernel
that it is a part of. So the schedule rules see each stage as the function that it was (`with_stages`),
and the whole is one PrimFunc, which is compiled, measured and run like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import tvm_ffi
from tvm import s_tir, tirx
from tvm.ir import Range, Var
from tvm.ir.expr import TensorLoad

from .schedule import RULE

#: Annotation of the block of a stage.
STAGE = "sphinx.stage"
_RULE_NAME = "Stages"
# Attribute of a loop: the position of the parameter that says how many steps there are at most.
_LIMIT = "sphinx.limit"


@dataclass(frozen=True)
class Stage:
    """A PrimFunc and the buffers that it is called with: what it reads, then what it writes."""

    function: Any
    operands: tuple[Any, ...]
    num_outputs: int = 1


@dataclass
class Stages:
    """Stages in their order, and the buffers that only they use."""

    stages: list[Stage] = field(default_factory=list)
    buffers: list[Any] = field(default_factory=list)


def branch_kernel(
    condition: Any, inputs: Sequence[Any], outputs: Sequence[Any], then: Stages, otherwise: Stages
) -> tirx.PrimFunc:
    """Return a PrimFunc that runs one of two lists of stages, as a scalar says.

    Parameters
    ----------
    condition
        Buffer of one bool, without axes.
    inputs, outputs
        Further buffers of the kernel. Its parameters are the condition, these, and those.
    then, otherwise
        What runs where the condition is true, and where it is false. Each writes all outputs.
    """
    params = [condition, *inputs, *outputs]
    chosen = tirx.IfThenElse(
        tirx.BufferLoad(condition, []), _sequence(then, params), _sequence(otherwise, params)
    )
    block = s_tir.SBlock([], _whole([condition, *inputs]), _whole(outputs), "if", chosen)
    root = s_tir.SBlock([], [], [], "root", _realize(block))
    body = tirx.PrimFunc(params, _realize(root))
    return body.with_attrs({"s_tir": True, "tirx.noalias": True})


def loop_kernel(
    state: Sequence[Any],
    inputs: Sequence[Any],
    most: Any,
    outputs: Sequence[Any],
    first: Sequence[Stage],
    step: Stages,
    again: Any,
) -> tirx.PrimFunc:
    """Return a PrimFunc that runs stages again and again, for as long as a scalar says.

    Its parameters are one bool, whether there is a first step, and then ``state``, ``inputs``, ``most``
    and ``outputs``.

    Parameters
    ----------
    state
        Buffers of the state at the start.
    inputs
        Buffers that the stages read.
    most
        Buffer of one int64: how often the stages run at most.
    outputs
        Buffers of the state, which the stages read and write.
    first
        Stages that make the outputs of the state at the start.
    step
        The stages.
    again
        Buffer of one bool that they write: whether they run once more.
    """
    begins = tirx.decl_buffer((), "bool", "begins", layout=None)
    count = tirx.decl_buffer((), "int64", "count", layout=None)
    params = [begins, *state, *inputs, most, *outputs]

    def load(buffer: Any) -> Any:
        return tirx.BufferLoad(buffer, [])

    def store(buffer: Any, value: Any) -> Any:
        return tirx.BufferStore(buffer, value, [])

    one, none = tirx.const(1, "int64"), tirx.const(0, "int64")
    loop = tirx.While(
        tirx.And(load(again), load(count) < load(most)),
        tirx.SeqStmt([_sequence(step, [*params, again]), store(count, load(count) + one)]),
    )
    statements = [*map(_spliced, first), store(again, load(begins)), store(count, none), loop]
    block = s_tir.SBlock(
        [],
        _whole([begins, *state, *inputs, most]),
        _whole(outputs),
        "loop",
        tirx.SeqStmt(statements),
        alloc_buffers=[again, count],
    )
    root = s_tir.SBlock([], [], [], "root", _realize(block))
    made = tirx.PrimFunc(params, _realize(root))
    limit = next(number for number, param in enumerate(params) if param.same_as(most))
    return made.with_attrs({"s_tir": True, "tirx.noalias": True, _LIMIT: limit})


def loop_limit(function: Any) -> int | None:
    """Return the position of the parameter that says how many steps a loop has at most; None of others.

    The first parameter says whether there is a first one.
    """
    attrs = getattr(function, "attrs", None)
    return int(attrs[_LIMIT]) if attrs and _LIMIT in attrs else None


def _sequence(parts: Stages, params: Sequence[Any]) -> Any:
    """Return the stages in a block that owns their buffers."""
    statements = [_spliced(stage) for stage in parts.stages]
    body = statements[0] if len(statements) == 1 else tirx.SeqStmt(statements)
    reads = [b for stage in parts.stages for b in stage.operands if _is_in(b, params)]
    region = _whole(list(dict.fromkeys(reads)))
    return _realize(s_tir.SBlock([], region, region, "root", body, alloc_buffers=parts.buffers))


def _is_in(buffer: Any, buffers: Sequence[Any]) -> bool:
    return any(buffer.same_as(other) for other in buffers)


def _spliced(stage: Stage) -> Any:
    """Return the root block of a stage's function on its operands, with variables of its own."""
    operands = list(stage.operands)
    known = dict(zip(stage.function.params, operands, strict=True))

    def renamed(var: Any) -> Any:
        if var not in known:
            known[var] = Var(str(var.name), var.ty)
        return known[var]

    body = tvm_ffi.structural_map(stage.function.body, (tirx.Var, renamed))
    first = len(operands) - stage.num_outputs
    return _stage_block(body, operands[:first], operands[first:])


def _stage_block(body: Any, reads: Sequence[Any], writes: Sequence[Any]) -> Any:
    inner = body.block
    block = s_tir.SBlock(
        [],
        _whole(list(dict.fromkeys(reads))),
        _whole(writes),
        "root",
        inner.body,
        alloc_buffers=list(inner.alloc_buffers),
        annotations={**dict(inner.annotations), STAGE: 1},
    )
    return _realize(block)


def _realize(block: Any) -> Any:
    return s_tir.SBlockRealize([], True, block)


def _whole(buffers: Sequence[Any]) -> list[Any]:
    return [
        tirx.BufferRegion(buffer, [Range.from_min_extent(0, extent) for extent in buffer.shape])
        for buffer in buffers
    ]


def is_staged(function: Any) -> bool:
    """Return whether a PrimFunc is a kernel of stages."""
    return isinstance(function, tirx.PrimFunc) and bool(_stages(function.body))


def _stages(statement: Any) -> list[Any]:
    """Return the outermost blocks of stages in a statement."""
    found: list[Any] = []

    def visit(node: Any) -> None:
        if isinstance(node, s_tir.SBlockRealize):
            if STAGE in node.block.annotations:
                found.append(node)
            else:
                visit(node.block.body)
        elif isinstance(node, tirx.SeqStmt):
            for child in node:
                visit(child)
        elif isinstance(node, tirx.While):
            visit(node.body)
        elif isinstance(node, tirx.IfThenElse):
            visit(node.then_case)
            if node.else_case is not None:
                visit(node.else_case)

    visit(statement)
    return found


def with_stages(function: Any, change: Callable[[Any], Any]) -> Any:
    """Return a kernel of stages with each stage as ``change`` makes it, a PrimFunc to a PrimFunc.

    What is made computes the same on the same parameters.
    """
    changed = {realize: _changed(realize, change) for realize in _stages(function.body)}

    def visit(node: Any) -> Any:
        if node in changed:
            return changed[node]
        if isinstance(node, s_tir.SBlockRealize):
            return _with_body(node, visit(node.block.body))
        if isinstance(node, tirx.SeqStmt):
            return tirx.SeqStmt([visit(child) for child in node])
        if isinstance(node, tirx.While):
            return tirx.While(node.condition, visit(node.body))
        if isinstance(node, tirx.IfThenElse):
            other = None if node.else_case is None else visit(node.else_case)
            return tirx.IfThenElse(node.condition, visit(node.then_case), other)
        return node

    made = function.with_body(visit(function.body))
    return made.with_attrs({"tirx.is_scheduled": True, RULE: _RULE_NAME})


def _with_body(realize: Any, body: Any) -> Any:
    block = realize.block
    made = s_tir.SBlock(
        block.iter_vars,
        block.reads,
        block.writes,
        block.name_hint,
        body,
        alloc_buffers=list(block.alloc_buffers),
        annotations=block.annotations,
    )
    return s_tir.SBlockRealize(realize.iter_values, realize.predicate, made)


def _changed(realize: Any, change: Callable[[Any], Any]) -> Any:
    block = realize.block
    reads = [region.source for region in block.reads]
    writes = [region.source for region in block.writes]
    annotations = {name: value for name, value in dict(block.annotations).items() if name != STAGE}
    root = s_tir.SBlock(
        [], [], [], "root", block.body, alloc_buffers=list(block.alloc_buffers), annotations=annotations
    )
    alone = tirx.PrimFunc([*reads, *writes], _realize(root))
    made = change(alone.with_attrs({"s_tir": True, "tirx.noalias": True}))
    return _spliced(Stage(made, (*reads, *writes), len(writes)))


def condition_operands(function: Any) -> tuple[int, ...]:
    """Return the positions of the parameters by which a kernel of stages chooses what to run.

    A condition that a stage computes is none of them; the name of an external function has none.
    """
    if not is_staged(function):
        return ()
    tested: list[Any] = []

    def visit(statement: Any) -> None:
        load = statement.condition
        if isinstance(load, TensorLoad):
            tested.append(load.source)

    tvm_ffi.structural_walk(function.body, (tirx.IfThenElse, visit))
    return tuple(number for number, param in enumerate(function.params) if _is_in(param, tested))
