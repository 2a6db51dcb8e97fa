"""The default schedule of a kernel: the first rule that fits, in dlight's form."""

from __future__ import annotations

import tvm
import tvm_ffi
from tvm import s_tir, tirx
from tvm.s_tir.dlight import ScheduleRule

from .blocks import PRIMITIVE_ERRORS
from .injective import Injective
from .packed import PackedKernel
from .reduction import Reduction
from .target_info import CpuInfo, cpu_info
from .vector_math import expand_functions

RULE = "sphinx.rule"  # attribute of a scheduled PrimFunc: the name of its rule

# What names a PrimFunc or says where it belongs, and does not change its schedule.
_NAMING_ATTRS = ("global_symbol", "target", "op_pattern")
_MOST_CACHED = 4096

# Schedules made in this process, by structural hash, target and cores: a kernel is scheduled to be
# measured, again for the program, and again for its reference.
_CACHE: dict[tuple[int, str, int], tuple[tirx.PrimFunc, tirx.PrimFunc | None]] = {}


def default_rules(info: CpuInfo) -> list[ScheduleRule]:
    """Return the rules in the order in which they are tried."""
    return [PackedKernel(info), Reduction(info), Injective(info)]


def schedule_kernel(func: tirx.PrimFunc, target: tvm.target.Target, cores: int) -> tirx.PrimFunc | None:
    """Schedule one kernel for a CPU target and a number of threads.

    Parameters
    ----------
    func
        A PrimFunc of blocks in one root, as LegalizeOps and FuseTIR leave it.
    target
        The target that it will be built for.
    cores
        Threads that it may use; with one, no parallel loop is emitted.

    Returns
    -------
    The scheduled PrimFunc, marked `tirx.is_scheduled` and with the rule's name as `RULE`, or None where
    no rule fits: not an LLVM target, a dynamic shape, already scheduled, or a form that no rule knows.
    Equal arguments give structurally equal results.

    Raises
    ------
    PlatformError
        If `cores` is below one.
    """
    if target.kind.name != "llvm" or not _is_schedulable(func):
        return None
    info = cpu_info(target, cores)
    attrs = {key: func.attrs[key] for key in _NAMING_ATTRS if func.attrs and key in func.attrs}
    bare = func
    for key in attrs:
        bare = bare.without_attr(key)
    place = (tvm_ffi.structural_hash(bare), str(target), cores)
    known = _CACHE.get(place)
    if known is None or not tvm_ffi.structural_equal(known[0], bare):
        if len(_CACHE) >= _MOST_CACHED:
            _CACHE.clear()
        known = _CACHE[place] = (bare, _apply_rules(bare, target, info))
    return None if known[1] is None else known[1].with_attrs(attrs)


def _apply_rules(func: tirx.PrimFunc, target: tvm.target.Target, info: CpuInfo) -> tirx.PrimFunc | None:
    expanded = expand_functions(func)
    for rule in default_rules(info):
        try:
            sch = rule.apply(expanded, target, False)
        except PRIMITIVE_ERRORS:
            continue  # a primitive refused this form: leave it to the next rule
        if sch is not None:
            scheduled: tirx.PrimFunc = sch.mod["main"]
            return scheduled.with_attrs({"tirx.is_scheduled": True, RULE: type(rule).__name__})
    return None


def rule_of(func: tirx.PrimFunc) -> str:
    """Return the name of the rule that scheduled a PrimFunc; empty where it has TVM's default loops."""
    attrs = func.attrs or {}
    if RULE in attrs:
        return str(attrs[RULE])
    return "given" if attrs.get("tirx.is_scheduled", 0) else ""


def _is_schedulable(func: tirx.PrimFunc) -> bool:
    if func.attrs is not None and func.attrs.get("tirx.is_scheduled", 0):
        return False
    if not isinstance(func.body, s_tir.SBlockRealize):
        return False
    shapes = [getattr(param, "shape", None) for param in func.params]
    return all(
        shape is not None and all(isinstance(extent, tirx.IntImm) for extent in shape)
        for shape in shapes
    )
