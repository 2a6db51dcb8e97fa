"""Whether TVM can generate code for a scheduled kernel. [TVM]

A rule may vectorize what TVM or LLVM cannot: a function that LLVM does not widen (``sinh``), a
remainder by a computed divisor, a read at an index of 64 bits from memory. Such a kernel has to be found
out before a schedule counts on it. Generating code for every kernel twice would double the time to
compile, so it is tried for those alone that hold something of the kind.
"""

from __future__ import annotations

from typing import Any

import tvm_ffi
from tvm.ir.expr import TensorLoad

from .._tvm import tirx, tvm
from .blocks import PARTITION_HINT
from .schedule import rule_of

# Called in kernels of all kinds, and known to compile in vectors of floats of 32 and 64 bits.
_KNOWN_CALLS = frozenset(
    """exp exp2 log log2 log10 log1p sqrt rsqrt floor ceil round trunc nearbyint fabs abs pow fma sin cos
    tan tanh erf sigmoid if_then_else likely reinterpret isnan isinf isfinite bitwise_and bitwise_or
    bitwise_xor bitwise_not shift_left shift_right ret large_uint_imm""".split()
)
_NARROW_FLOATS = ("float16", "bfloat16")
_MOST_CACHED = 4096
_DIVISIONS = (tirx.FloorMod, tirx.FloorDiv, tirx.Mod, tirx.Div)
# Of whole numbers that are computed, or of an index of one number of bits with one of another.
_COMPARISONS = (tirx.EQ, tirx.NE, tirx.LT, tirx.LE, tirx.GT, tirx.GE)

_CACHE: dict[tuple[int, str], bool] = {}


def is_compilable(function: Any, target: Any) -> bool:
    """Return whether TVM generates code for a scheduled PrimFunc that carries its target."""
    if _kills_the_compiler(function):
        return False
    if not _is_doubtful(function):
        return True
    key = (tvm_ffi.structural_hash(function), str(target))
    if key not in _CACHE:
        if len(_CACHE) >= _MOST_CACHED:
            _CACHE.clear()
        _CACHE[key] = _builds(function, target)
    return _CACHE[key]


def _kills_the_compiler(function: Any) -> bool:
    """Whether bfloat16 meets a function that is written out, which ends the process within TVM."""
    lets: list[Any] = []
    tvm_ffi.structural_walk(function.body, (tirx.Let, lets.append))
    if not lets:
        return False
    casts: list[Any] = []
    tvm_ffi.structural_walk(function.body, (tirx.Cast, casts.append))
    return any("bfloat16" in (str(cast.ty), str(cast.value.ty)) for cast in casts)


def _builds(function: Any, target: Any) -> bool:
    try:
        with target:
            tirx.build(
                tvm.IRModule({"kernel": function.with_attr("global_symbol", "kernel")}), target=target
            )
    except MemoryError:
        raise
    except Exception:  # TVM raises many types
        return False
    return True


def _is_cut_at_a_choice(function: Any) -> bool:
    """Whether TVM cuts a loop where a choice turns, for which it may compare unlike types of indices."""
    if rule_of(function) != "Injective":
        return False
    loops: list[Any] = []
    calls: list[Any] = []
    tvm_ffi.structural_walk(function.body, (tirx.For, loops.append))
    tvm_ffi.structural_walk(function.body, (tvm.ir.Call, calls.append))
    names = {str(getattr(call.op, "name", "")) for call in calls}
    return "prim.if_then_else" in names and any(PARTITION_HINT in loop.annotations for loop in loops)


def _is_doubtful(function: Any) -> bool:
    if _is_cut_at_a_choice(function):
        return True
    found: list[bool] = []
    kinds = (tvm.ir.Call, *_DIVISIONS, *_COMPARISONS, TensorLoad, tirx.BufferStore)
    for kind in kinds:
        tvm_ffi.structural_walk(
            function.body, (kind, lambda node: found.append(_is_doubtful_node(node)))
        )
    return any(found)


def _is_doubtful_node(node: Any) -> bool:
    if isinstance(node, tvm.ir.Call):
        name = str(getattr(node.op, "name", "")).rpartition(".")[2]
        return name not in _KNOWN_CALLS or str(node.ty).startswith(_NARROW_FLOATS)
    if isinstance(node, (TensorLoad, tirx.BufferStore)):
        return any(_reads_wide(index) for index in node.indices)
    if isinstance(node, _COMPARISONS):
        sides = (node.a, node.b)
        is_whole = not str(node.a.ty).startswith(("float", "bfloat"))
        return is_whole and not any(isinstance(side, (tirx.IntImm, tirx.FloatImm)) for side in sides)
    return not isinstance(node.b, (tirx.IntImm, tirx.FloatImm)) and not str(node.ty).startswith("float")


def _reads_wide(index: Any) -> bool:
    """Whether an index holds a load of 64 bits."""
    loads: list[Any] = []
    tvm_ffi.structural_walk(index, (TensorLoad, loads.append))
    return any(str(load.ty).endswith("64") for load in loads)
