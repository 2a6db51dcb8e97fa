"""Run a pass of TVM's on a module whose large weights are hidden from it. [TVM]

Passes that look for equal expressions read every byte of every weight, several times: two fifths of the
time in which BERT was lowered. What is hidden counts as different from everything else.
"""

from __future__ import annotations

import math
from typing import Any

from tvm.relax.expr_functor import PyExprMutator, mutator

from .._tvm import relax, tvm

# In elements. A pass shall see that masks and tables are equal.
_LARGE = 1 << 18


@tvm.transform.module_pass(opt_level=0, name="WithoutWeights")
class WithoutWeights:
    """Apply a pass for Relax functions with parameters for their large weights, and put these back.

    Parameters
    ----------
    inner
        A pass that keeps the parameters of functions, and their order.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def transform_module(self, mod: Any, _ctx: Any) -> Any:
        """Return the module as the pass would."""
        weights: dict[str, list[Any]] = {}
        bare = mod.clone()
        for var, function in mod.functions_items():
            # What is private is called within the module, with as many arguments as it has parameters.
            if isinstance(function, relax.Function) and "global_symbol" in function.attrs:
                bare[var], weights[var.name_hint] = _hide(mod, function)
        changed = self.inner(bare)
        for name, hidden in weights.items():
            if hidden:
                params = changed[name].params[-len(hidden) :]
                changed[name] = changed[name].bind_params(dict(zip(params, hidden, strict=True)))
        return changed


def _hide(mod: Any, function: Any) -> tuple[Any, list[Any]]:
    """Return a function with further parameters, and the weights that they stand for."""
    hider = _Hider(mod)
    updated = hider.visit_expr(function)
    if not hider.params:
        return function, []
    params = [*updated.params, *hider.params.values()]
    bare = relax.Function(params, updated.body, updated.ret_ty, updated.is_pure, updated.attrs)
    return bare, list(hider.params)


@mutator
class _Hider(PyExprMutator):  # type: ignore[misc]  # TVM ships no types
    """Puts parameters in the place of the large weights of a function."""

    def __init__(self, mod: Any) -> None:
        super().__init__(mod)
        self.params: dict[Any, Any] = {}  # by weight

    def visit_generic_const_(self, op: Any) -> Any:
        """Return the parameter that stands for a weight, if it is large."""
        if math.prod(op.value.shape) < _LARGE:
            return op
        if op not in self.params:
            self.params[op] = relax.Var(f"weight{len(self.params)}", op.ty)
        return self.params[op]
