"""Take the branches of ``if`` expressions out of a function; the rest is straight-line code. [TVM]

An ``if`` becomes a call of an external function that does not exist yet, and each of its branches a
function of its own, which goes through the same passes as the rest. `BranchKernels` then makes one
kernel of both (`tvm_sphinx.kernels.staged`), which takes the place of the external function.

To compute both branches and to select would be simpler; it would run what the model would not: a branch
that is there to save time, or to keep a value away from an operator that cannot take it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import tvm_ffi
from tvm.relax.expr_functor import PyExprMutator, mutator

from .._tvm import relax, tvm
from ..errors import UnsupportedError
from .dataflow import is_static
from .origins import Origins

#: What the names of functions and kernels of branches begin with.
PREFIX = "sphinx_if"


@dataclass(frozen=True)
class Outlined:
    """An ``if`` that was taken out of the function ``caller``.

    ``symbol`` is what is called in its place, with the condition and what the branches read; ``then``
    and ``otherwise`` are the functions of its branches, which take all but the condition. ``label`` is
    what the source calls it.
    """

    symbol: str
    caller: str
    then: str
    otherwise: str
    label: str


def holds_branches(module: Any) -> bool:
    """Return whether a Relax function of the module holds an ``if``."""
    found: list[Any] = []
    for function in module.functions.values():
        if isinstance(function, relax.Function):
            tvm_ffi.structural_walk(function.body, (relax.If, found.append))
    return bool(found)


def outline_branches(module: Any, entry: str) -> tuple[Any, tuple[Outlined, ...]]:
    """Return a module whose entry function has no ``if``, and what was taken out, the outer ones first.

    Parameters
    ----------
    module
        Relax IRModule; it is not changed. Functions that the entry function calls are inlined.
    entry
        Name of the function; others keep what they have.

    Raises
    ------
    UnsupportedError
        If a condition is no scalar bool, or the branches of an ``if`` differ in their shapes or types,
        or have open ones.
    """
    if not holds_branches(module):
        return module, ()
    module = relax.transform.InlinePrivateFunctions()(_with_private_callees(module, entry))
    origins = Origins.of(module[entry])
    _check(module[entry], origins)
    found: list[Outlined] = []
    pending = [entry]
    while pending:
        name = pending.pop(0)
        outliner = _Outliner(module, name, origins, len(found))
        updated = outliner.visit_expr(module[name])
        outliner.builder_.update_func(module.get_global_var(name), updated)
        module = outliner.builder_.get()
        found += outliner.found
        pending += [branch for one in outliner.found for branch in (one.then, one.otherwise)]
    return module, tuple(found)


def _with_private_callees(module: Any, entry: str) -> Any:
    """Return a module in which what the entry function calls, and they in turn, is private."""
    reached: set[str] = set()
    pending = [entry]
    while pending:
        for name in _called(module[pending.pop()]):
            function = module[name]
            is_ours = isinstance(function, relax.Function) and "Codegen" not in (function.attrs or {})
            if is_ours and name != entry and name not in reached:
                reached.add(name)
                pending.append(name)
    functions = {
        var: function.without_attr("global_symbol")
        if var.name_hint in reached and "global_symbol" in (function.attrs or {})
        else function
        for var, function in module.functions_items()
    }
    return tvm.IRModule(functions, attrs=module.attrs, global_infos=module.global_infos)


def _called(function: Any) -> Iterator[str]:
    found: list[Any] = []
    tvm_ffi.structural_walk(function.body, (relax.Call, found.append))
    for call in found:
        if isinstance(call.op, tvm.ir.GlobalVar):
            yield str(call.op.name_hint)


@mutator
class _Outliner(PyExprMutator):  # type: ignore[misc]
    """Takes the branches out of one function."""

    def __init__(self, mod: Any, caller: str, origins: Origins, first: int) -> None:
        super().__init__(mod)
        self._caller = caller
        self._origins = origins
        self._first = first
        self.found: list[Outlined] = []

    def visit_var_binding_(self, binding: Any) -> None:
        """Replace an ``if`` by a call, or by the branch that a constant condition chooses."""
        chosen = binding.value
        if not isinstance(chosen, relax.If):
            super().visit_var_binding_(binding)
            return
        if isinstance(chosen.cond, tvm.ir.GenericConst):
            result = self._inlined(chosen.true_branch if _is_true(chosen.cond) else chosen.false_branch)
        else:
            result = self._call(binding.var, chosen)
        self.set_var_remap(binding.var, self.builder_.emit(result, str(binding.var.name)))

    def _inlined(self, branch: Any) -> Any:
        if not isinstance(branch, relax.SeqExpr):
            return self.visit_expr(branch)
        for block in branch.blocks:
            for binding in block.bindings:
                self.visit_binding(binding)
        return self.visit_expr(branch.body)

    def _call(self, var: Any, chosen: Any) -> Any:
        label, types = _label(self._origins, var), _tensor_types(var.ty)
        branches = (chosen.true_branch, chosen.false_branch)
        read = list(dict.fromkeys(v for branch in branches for v in relax.analysis.free_vars(branch)))
        symbol = f"{PREFIX}{self._first + len(self.found)}"
        names = (f"{symbol}_then", f"{symbol}_else")
        for name, branch in zip(names, branches, strict=True):
            self.builder_.add_func(_function(read, branch, name), name)
        self.found.append(Outlined(symbol, self._caller, *names, label))
        operands = [chosen.cond, *read]
        arguments = relax.Tuple([self.visit_expr(operand) for operand in operands])
        call = self.builder_.normalize(relax.op.call_dps_packed(symbol, arguments, types))
        if tvm_ffi.structural_equal(call.ty, var.ty):
            return call
        made = self.builder_.emit(call, str(var.name))
        several = len(types) > 1
        items = [relax.TupleGetItem(made, i) if several else made for i in range(len(types))]
        return _nested(var.ty, iter(items))


def _check(function: Any, origins: Origins) -> None:
    """Refuse an ``if`` whose outputs or condition no kernel can have."""
    found: list[Any] = []
    tvm_ffi.structural_walk(function.body, (relax.VarBinding, found.append))
    for binding in found:
        if not isinstance(binding.value, relax.If):
            continue
        label, ty = _label(origins, binding.var), binding.value.cond.ty
        if str(getattr(ty, "dtype", "")) != "bool" or ty.ndim != 0:
            raise UnsupportedError(
                f"Control flow: expected the condition of {label} to be one bool; it is {ty}."
            )
        if not all(map(is_static, _tensor_types(binding.var.ty))):
            raise UnsupportedError(
                f"Control flow: expected the branches of {label} to give tensors of equal and known "
                f"shapes; they give {binding.var.ty}."
            )


def _label(origins: Origins, var: Any) -> str:
    operators = origins.operators_of(str(var.name))
    return operators[0].text if operators else f"if {str(var.name)!r}"


def _is_true(condition: Any) -> bool:
    return bool(condition.value.numpy().all())


def _function(read: Iterable[Any], branch: Any, name: str) -> Any:
    """Return a branch as a function of the variables that it reads."""
    body = branch if isinstance(branch, relax.SeqExpr) else relax.SeqExpr([], branch)
    made = relax.utils.copy_with_new_vars(relax.Function(list(read), body, branch.ty))
    return made.with_attr("global_symbol", name)


def _tensor_types(ty: Any) -> list[Any]:
    """Return the types in a (nested) tuple type, in order."""
    if isinstance(ty, relax.TupleType):
        return [found for one in ty.fields for found in _tensor_types(one)]
    return [ty]


def _nested(ty: Any, items: Iterator[Any]) -> Any:
    if isinstance(ty, relax.TupleType):
        return relax.Tuple([_nested(one, items) for one in ty.fields])
    return next(items)
