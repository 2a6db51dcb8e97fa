"""TVM's own pipeline for one device, without what it gets wrong. [TVM]"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tvm.relax.expr_functor import PyExprMutator, mutator

from .._tvm import relax, tvm, tvm_ffi
from ..errors import UnsupportedError
from .branch_kernels import BranchKernels
from .dataflow import first_empty
from .legalise import legalise
from .load import public_functions
from .outline_branches import holds_branches, holds_loops, outline_branches
from .safe_operators import make_safe

#: Names of the functions of `tvm_sphinx.runtime.packed_functions`, by those of TVM's that they replace.
RUN_BY_NAME = {
    f"relax.run.{name}": f"tvm_sphinx.run.{name}" for name in ("nonzero", "unique", "shape_to_tensor")
}


def run_default_pipeline(module: Any, target: Any) -> Any:
    """Return a module lowered by TVM's pipeline for a target."""
    with target, without_broken_passes(module):
        return relax.get_default_pipeline(target)(_prepared(module, target))


def compile_default(module: Any, target: Any) -> Any:
    """Return the executable that TVM's pipeline for a target makes of a module.

    It needs no function of TVM's Python package (`RUN_BY_NAME`).
    """
    with target, without_broken_passes(module):
        pipeline = relax.get_default_pipeline(target)
        prepared = _with_own_functions(_prepared(module, target))
        return tvm.compile(prepared, target=target, relax_pipeline=pipeline)


@mutator
class _Namer(PyExprMutator):  # type: ignore[misc]
    """Calls our functions by name in the place of TVM's."""

    def visit_extern_func_(self, function: Any) -> Any:
        name = RUN_BY_NAME.get(str(function.global_symbol))
        return function if name is None else relax.ExternFunc(name)


def _with_own_functions(module: Any) -> Any:
    namer = _Namer(module)
    for var, function in module.functions_items():
        if isinstance(function, relax.Function):
            namer.builder_.update_func(var, namer.visit_expr(function))
    return namer.builder_.get()


def _prepared(module: Any, target: Any) -> Any:
    """Return a module with kernels in the place of its operators, and on a CPU in that of loops.

    Loops that are recursion, as Relax has them, use up the stack where they go on for long.
    """
    module = make_safe(module)
    entries = public_functions(module)
    is_cpu = target.kind.name == "llvm"
    if is_cpu and len(entries) == 1 and holds_loops(module, entries[0]):
        with suppress(UnsupportedError):  # a branch beside it may give tensors of unlike shapes
            outlined, taken = outline_branches(module, entries[0])
            passes = [legalise(), relax.transform.CanonicalizeBindings(), BranchKernels(taken, target)]
            return tvm.transform.Sequential(passes)(outlined)
    return legalise()(module)


def _computes_extents(function: Any) -> bool:
    """Return whether a function comes to know an extent on its way."""
    given = {var for param in function.params for var in relax.analysis.tir_vars_in_type(param.ty)}
    found: list[Any] = []
    tvm_ffi.structural_walk(function.body, (relax.MatchCast, found.append))
    return any(set(relax.analysis.tir_vars_in_type(one.var.ty)) - given for one in found)


@contextmanager
def without_broken_passes(module: Any) -> Iterator[None]:
    """Leave out the passes of TVM's pipeline that break a module of this kind.

    The memory planner lets a branch of an ``if`` use storage that the other branch allocates
    (apache/tvm#20191); such a module allocates each tensor by itself. A kernel without elements is taken
    for a reshape, in which an extent of 0 means that of the input. Fusing puts a group of operators
    where the first of them was, which may be before an extent of the last is known. Of a concatenation
    of many tensors of open extents, finding a smaller buffer takes the longer the more there are, a
    minute for 90, and there is none to find in default loops.
    """
    broken = ["StaticPlanBlockMemory"] if holds_branches(module) else []
    functions = [one for one in module.functions.values() if isinstance(one, relax.Function)]
    if any(first_empty(function) is not None for function in functions):
        broken.append("RewriteDataflowReshape")
    if any(map(_computes_extents, functions)):
        broken += ["FuseOps", "s_tir.CompactBufferAllocation"]
    if not broken:
        yield
        return
    now = tvm.transform.PassContext.current()
    disabled = [*(str(name) for name in now.disabled_pass), *broken]
    with tvm.transform.PassContext(
        opt_level=now.opt_level,
        required_pass=list(now.required_pass),
        disabled_pass=disabled,
        instruments=list(now.instruments),
        config=dict(now.config),
    ):
        yield
