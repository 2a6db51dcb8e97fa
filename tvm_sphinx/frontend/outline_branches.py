"""Take branches and loops out of a function; the rest is straight-line code. [TVM]

An ``if`` becomes a call of an external function that does not exist yet, and each of its branches a
function of its own, which goes through the same passes as the rest. `BranchKernels` then makes one
kernel of both (`tvm_sphinx.kernels.staged`), which takes the place of the external function. So does a
loop (`tvm_sphinx.frontend.while_loops`) with the function of one step.

To compute both branches and to select would be simpler; it would run what the model would not: a branch
that is there to save time, or to keep a value away from an operator that cannot take it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tvm_ffi
from tvm.relax.expr_functor import PyExprMutator, mutator

from .._tvm import relax, tvm
from ..errors import UnsupportedError
from .dataflow import is_static
from .origins import Origins
from .while_loops import is_loop, step_function

#: What the names of functions and kernels of branches and loops begin with.
PREFIX = "sphinx_flow"


@dataclass(frozen=True)
class Outlined:
    """An ``if`` or a loop that was taken out of the function ``caller``.

    ``symbol`` is what is called in its place, with the condition and what the ``functions`` read. These
    are the two branches of an ``if``, or the step of a loop; they take all but the condition. ``label``
    is what the source calls it.
    """

    symbol: str
    caller: str
    functions: tuple[str, ...]
    label: str

    @property
    def is_loop(self) -> bool:
        """Whether it is a loop; else it is an ``if``."""
        return len(self.functions) == 1


def holds_branches(module: Any) -> bool:
    """Return whether a Relax function of the module holds an ``if``; each loop does."""
    found: list[Any] = []
    for function in module.functions.values():
        if isinstance(function, relax.Function):
            tvm_ffi.structural_walk(function.body, (relax.If, found.append))
    return bool(found)


def holds_loops(module: Any, entry: str) -> bool:
    """Return whether a function, or one that it calls, calls itself."""
    return any(name in _called(module[name]) for name in _reached(module, entry))


def outline_branches(module: Any, entry: str) -> tuple[Any, tuple[Outlined, ...]]:
    """Return a module whose entry function has no ``if`` and no loop, and what was taken out of it.

    What lies in another one comes after it.

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
        or have open ones; or if a function calls itself that is no loop.
    """
    if not holds_branches(module):
        return module, ()
    module = relax.transform.InlinePrivateFunctions()(_with_private_callees(module, entry))
    origins = Origins.of(module[entry])
    _check(module[entry], origins)
    loops = _loops(module, entry)
    found: list[Outlined] = []
    pending = [entry]
    while pending:
        name = pending.pop(0)
        outliner = _Outliner(module, name, origins, len(found), loops)
        updated = outliner.visit_expr(module[name])
        outliner.builder_.update_func(module.get_global_var(name), updated)
        module = outliner.builder_.get()
        found += outliner.found
        pending += [inner for one in outliner.found for inner in one.functions]
    for name in loops:
        del module[module.get_global_var(name)]
    return module, tuple(found)


def _loops(module: Any, entry: str) -> tuple[str, ...]:
    """Return the functions that call themselves among those that the entry function calls."""
    found = [name for name in _reached(module, entry) if name in _called(module[name])]
    for name in found:
        if not is_loop(module, name):
            raise UnsupportedError(f"Control flow: function {name!r} calls itself, and is no loop.")
    return tuple(found)


def _with_private_callees(module: Any, entry: str) -> Any:
    """Return a module in which what the entry function calls, and they in turn, is private."""
    reached = _reached(module, entry)
    functions = {
        var: function.without_attr("global_symbol")
        if var.name_hint in reached and "global_symbol" in (function.attrs or {})
        else function
        for var, function in module.functions_items()
    }
    return tvm.IRModule(functions, attrs=module.attrs, global_infos=module.global_infos)


def _reached(module: Any, entry: str) -> list[str]:
    """Return the Relax functions that a function calls, and they in turn, without itself."""
    reached: dict[str, None] = {}
    pending = [entry]
    while pending:
        for name in _called(module[pending.pop()]):
            function = module[name]
            is_ours = isinstance(function, relax.Function) and "Codegen" not in (function.attrs or {})
            if is_ours and name != entry and name not in reached:
                reached[name] = None
                pending.append(name)
    return list(reached)


def _called(function: Any) -> Iterator[str]:
    found: list[Any] = []
    tvm_ffi.structural_walk(function.body, (relax.Call, found.append))
    for call in found:
        if isinstance(call.op, tvm.ir.GlobalVar):
            yield str(call.op.name_hint)


@mutator
class _Outliner(PyExprMutator):  # type: ignore[misc]
    """Takes branches and loops out of one function."""

    def __init__(
        self, mod: Any, caller: str, origins: Origins, first: int, loops: Sequence[str]
    ) -> None:
        super().__init__(mod)
        self._module = mod
        self._caller = caller
        self._loops = loops
        self._origins = origins
        self._first = first
        self.found: list[Outlined] = []

    def visit_var_binding_(self, binding: Any) -> None:
        """Replace loops and ``if`` by calls, or by the branch that a constant condition chooses."""
        chosen = binding.value
        if self._is_loop(chosen):
            result = self._loop(binding.var, chosen)
            self.set_var_remap(binding.var, self.builder_.emit(result, str(binding.var.name)))
            return
        if not isinstance(chosen, relax.If):
            super().visit_var_binding_(binding)
            return
        if isinstance(chosen.cond, tvm.ir.GenericConst):
            result = self._inlined(chosen.true_branch if _is_true(chosen.cond) else chosen.false_branch)
        else:
            result = self._call(binding.var, chosen)
        self.set_var_remap(binding.var, self.builder_.emit(result, str(binding.var.name)))

    def _is_loop(self, value: Any) -> bool:
        is_call = isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.GlobalVar)
        return is_call and str(value.op.name_hint) in self._loops

    def _loop(self, var: Any, call: Any) -> Any:
        symbol = self._next_symbol()
        step = step_function(self._module, str(call.op.name_hint))
        return self._outlined(symbol, var, list(call.args), {f"{symbol}_step": step})

    def _next_symbol(self) -> str:
        return f"{PREFIX}{self._first + len(self.found)}"

    def _inlined(self, branch: Any) -> Any:
        if not isinstance(branch, relax.SeqExpr):
            return self.visit_expr(branch)
        for block in branch.blocks:
            for binding in block.bindings:
                self.visit_binding(binding)
        return self.visit_expr(branch.body)

    def _call(self, var: Any, chosen: Any) -> Any:
        branches = (chosen.true_branch, chosen.false_branch)
        read = list(dict.fromkeys(v for branch in branches for v in relax.analysis.free_vars(branch)))
        symbol = self._next_symbol()
        functions = {
            f"{symbol}_{name}": _function(read, branch)
            for name, branch in zip(("then", "else"), branches, strict=True)
        }
        return self._outlined(symbol, var, [chosen.cond, *read], functions)

    def _outlined(
        self, symbol: str, var: Any, operands: Sequence[Any], functions: Mapping[str, Any]
    ) -> Any:
        """Add functions, and return the call in the place of what they were taken from."""
        label = _label(self._origins, var, "if" if len(functions) > 1 else "loop")
        types = _tensor_types(var.ty)
        for name, function in functions.items():
            self.builder_.add_func(function.with_attr("global_symbol", name), name)
        self.found.append(Outlined(symbol, self._caller, tuple(functions), label))
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
        label, ty = _label(origins, binding.var, "if"), binding.value.cond.ty
        if str(getattr(ty, "dtype", "")) != "bool" or ty.ndim != 0:
            raise UnsupportedError(
                f"Control flow: expected the condition of {label} to be one bool; it is {ty}."
            )
        if not all(map(is_static, _tensor_types(binding.var.ty))):
            raise UnsupportedError(
                f"Control flow: expected the branches of {label} to give tensors of equal and known "
                f"shapes; they give {binding.var.ty}."
            )


def _label(origins: Origins, var: Any, word: str) -> str:
    operators = origins.operators_of(str(var.name))
    return operators[0].text if operators else f"{word} {str(var.name)!r}"


def _is_true(condition: Any) -> bool:
    return bool(condition.value.numpy().all())


def _function(read: Iterable[Any], branch: Any) -> Any:
    """Return a branch as a function of the variables that it reads."""
    body = branch if isinstance(branch, relax.SeqExpr) else relax.SeqExpr([], branch)
    return relax.utils.copy_with_new_vars(relax.Function(list(read), body, branch.ty))


def _tensor_types(ty: Any) -> list[Any]:
    """Return the types in a (nested) tuple type, in order."""
    if isinstance(ty, relax.TupleType):
        return [found for one in ty.fields for found in _tensor_types(one)]
    return [ty]


def _nested(ty: Any, items: Iterator[Any]) -> Any:
    if isinstance(ty, relax.TupleType):
        return relax.Tuple([_nested(one, items) for one in ty.fields])
    return next(items)
