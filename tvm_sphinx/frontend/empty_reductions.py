"""Reductions over nothing give what they start from. [TVM]

A block starts within its loops: over an extent of zero it never does, and what comes out is whatever the
memory held. TVM's sums of known extents know that; its maxima and minima, and all reductions whose
extent is known only when they run, do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tvm_ffi
from tvm import s_tir

from .._tvm import tirx, tvm
from ..kernels.maps import root_nests, with_root_nests

_REDUCTION = tirx.IterVar.CommReduce


@tvm.transform.module_pass(opt_level=0, name="StartReductions")
class StartReductions:
    """Apply `start_reductions` to the kernels of a module that are not scheduled yet."""

    def transform_module(self, mod: Any, _ctx: Any) -> Any:
        """Return the module in which each kernel writes all of its results."""
        changed = {
            var: started
            for var, function in mod.functions_items()
            if isinstance(function, tirx.PrimFunc)
            and not (started := start_reductions(function)).same_as(function)
        }
        if not changed:
            return mod
        functions = {**dict(mod.functions_items()), **changed}
        return tvm.IRModule(functions, attrs=mod.attrs, global_infos=mod.global_infos)


def start_reductions(function: Any) -> Any:
    """Return a PrimFunc whose reductions over no element leave what they start from.

    One over an extent of zero is its start alone. One over an extent that is not known is cut in two:
    the start, and then the rest. Others, and functions that are scheduled, stay as they are.
    """
    attributes = function.attrs or {}
    if "tirx.is_scheduled" in attributes or not isinstance(function.body, s_tir.SBlockRealize):
        return function
    nests = root_nests(function)
    started = [part for nest in nests for part in _start(nest)]
    if len(started) == len(nests) and all(map(_is_same, started, nests)):
        return function
    return with_root_nests(function, started)


def _is_same(one: Any, other: Any) -> bool:
    return bool(one.same_as(other))


def _start(nest: Any) -> list[Any]:
    """Return the nests in the place of one."""
    loops, leaf = [], nest
    while isinstance(leaf, tirx.For):
        loops.append(leaf)
        leaf = leaf.body
    if not isinstance(leaf, s_tir.SBlockRealize) or leaf.block.init is None:
        return [nest]
    extents = [axis.dom.extent for axis in leaf.block.iter_vars if axis.iter_type == _REDUCTION]
    known = [int(extent) for extent in extents if isinstance(extent, tirx.IntImm)]
    if 0 in known:
        return [_beginning(loops, leaf)]
    if len(known) == len(extents):
        return [nest]
    block = leaf.block
    rest = s_tir.SBlock(
        block.iter_vars,
        [*block.writes, *block.reads],
        block.writes,
        block.name_hint,
        block.body,
        annotations=block.annotations,
    )
    return [
        _beginning(loops, leaf),
        _within(loops, s_tir.SBlockRealize(leaf.iter_values, leaf.predicate, rest)),
    ]


def _beginning(loops: Sequence[Any], realize: Any) -> Any:
    """Return a nest that does what a block starts with, over the axes that it does not reduce."""
    block = realize.block
    pairs = zip(block.iter_vars, realize.iter_values, strict=True)
    spatial = [(axis, value) for axis, value in pairs if axis.iter_type != _REDUCTION]
    kept = [loop for loop in loops if any(_mentions(value, loop.loop_var) for _, value in spatial)]
    names = {loop.loop_var: tirx.Var(loop.loop_var.name, loop.loop_var.ty) for loop in kept}
    names |= {axis.var: tirx.Var(axis.var.name, axis.var.ty) for axis, _ in spatial}

    def renamed(node: Any) -> Any:
        return tvm_ffi.structural_map(node, (tirx.Var, lambda var: names.get(var, var)))

    axes = [tirx.IterVar(axis.dom, names[axis.var], axis.iter_type) for axis, _ in spatial]
    start = s_tir.SBlock(
        axes,
        [],
        [renamed(region) for region in block.writes],
        f"{block.name_hint}_init",
        renamed(block.init),
    )
    values = [renamed(value) for _, value in spatial]
    return _within(kept, s_tir.SBlockRealize(values, tirx.const(True, "bool"), start), names)


def _within(loops: Sequence[Any], body: Any, names: Any = None) -> Any:
    """Return a body within loops, innermost last, over variables of other names if there are some."""
    for loop in reversed(loops):
        var = (names or {}).get(loop.loop_var, loop.loop_var)
        body = tirx.For(var, loop.min, loop.extent, loop.kind, body)
    return body


def _mentions(value: Any, var: Any) -> bool:
    found: list[Any] = []
    tvm_ffi.structural_walk(value, (tirx.Var, found.append))
    return any(one.same_as(var) for one in found)
