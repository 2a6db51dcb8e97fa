"""Loops that go on for as long as a tensor says, as Relax has them: by recursion. [TVM]

``loop(goes_on, state..., read...)`` returns the state where ``goes_on`` is false, and else what it
returns after one more step. TVM's virtual machine runs it as it is, and `outline_branches` makes a task
of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tvm_ffi

from .._tvm import relax, tvm
from ..errors import ModelError
from .dataflow import is_static

#: From the state to whether the loop goes on after the step, and to the state then.
Step = Callable[[Sequence[Any]], tuple[Any, Sequence[Any]]]


def emit_loop(builder: Any, label: str, goes_on: Any, state: Sequence[Any], step: Step) -> list[Any]:
    """Bind what a loop makes of its state; return the variables of the last state.

    Parameters
    ----------
    builder
        ``relax.BlockBuilder`` in a function.
    label
        What errors call the loop.
    goes_on
        Bool tensor without axes: whether there is a first step.
    state
        Tensors, one at least.
    step
        What it needs besides the state it takes from around the loop.

    Raises
    ------
    ModelError
        If a tensor has not the shape and type after a step that it has before, or has open extents.
    """
    variables = [relax.Var(f"state{number}", one.ty) for number, one in enumerate(state)]
    builder._begin_binding_block()
    try:
        again, after = step(variables)
    finally:
        block = builder._end_block()
    _check(label, variables, after)
    results = [again, *after]
    read = [
        var
        for var in relax.analysis.free_vars(relax.SeqExpr([block], relax.Tuple(results)))
        if not any(var.same_as(own) for own in variables)
    ]
    begins = relax.Var("goes_on", relax.TensorType((), "bool"))
    params = [begins, *variables, *read]
    returned = relax.TupleType([var.ty for var in variables])
    name = f"loop_{len(builder.get().functions)}"
    # A builder takes functions that are alike for one, so that a stub needs a mark of its own.
    stub = relax.Function(params, relax.SeqExpr([], relax.Tuple(variables)), returned)
    callee = builder.add_func(relax.utils.copy_with_new_vars(stub).with_attr("sphinx.stub", name), name)
    rest = relax.Var("rest", returned)
    call = builder.normalize(relax.Call(callee, [*results, *read]))
    more = relax.SeqExpr([block, relax.BindingBlock([relax.VarBinding(rest, call)])], rest)
    chosen = builder.normalize(relax.If(begins, more, relax.SeqExpr([], relax.Tuple(variables))))
    last = relax.Var("last", returned)
    body = relax.SeqExpr([relax.BindingBlock([relax.VarBinding(last, chosen)])], last)
    function = relax.utils.copy_with_new_vars(relax.Function(params, body, returned))
    builder.update_func(callee, function)
    made = builder.emit(relax.Call(callee, [goes_on, *state, *read]))
    return [builder.emit(relax.TupleGetItem(made, number)) for number in range(len(state))]


def _check(label: str, before: Sequence[Any], after: Sequence[Any]) -> None:
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        if not is_static(old.ty):
            raise ModelError(f"{label}: expected known shapes in a loop; value {number} is {old.ty}.")
        if not tvm_ffi.structural_equal(old.ty, new.ty):
            raise ModelError(
                f"{label}: expected that a step leaves the shapes and types of what it hands on; value "
                f"{number} is {old.ty} before it and {new.ty} after it."
            )


def is_loop(module: Any, name: str) -> bool:
    """Return whether a function of a module is one of `emit_loop`'s form."""
    function = module[name]
    if not isinstance(function, relax.Function) or not function.body.blocks:
        return False
    (*_, binding) = function.body.blocks[-1].bindings
    chosen = getattr(binding, "value", None)
    if not isinstance(chosen, relax.If) or not chosen.cond.same_as(function.params[0]):
        return False
    return _own_call(module, name, chosen) is not None


def _own_call(module: Any, name: str, chosen: Any) -> Any:
    """Return the call of a function by itself that ends the branch of its ``if``; None without one."""
    if not isinstance(chosen.true_branch, relax.SeqExpr) or not chosen.true_branch.blocks:
        return None
    (*_, last) = chosen.true_branch.blocks[-1].bindings
    call: Any = getattr(last, "value", None)
    is_own = isinstance(call, relax.Call) and isinstance(call.op, tvm.ir.GlobalVar)
    return call if is_own and str(call.op.name_hint) == name else None


def step_function(module: Any, name: str) -> Any:
    """Return one step of a loop: from state and what it reads to ``(goes_on, state...)``."""
    function = module[name]
    (*_, binding) = function.body.blocks[-1].bindings
    call = _own_call(module, name, binding.value)
    num_state = len(function.ret_ty.fields)
    blocks = list(binding.value.true_branch.blocks)
    bindings = list(blocks.pop().bindings)[:-1]
    if bindings:
        blocks.append(relax.BindingBlock(bindings))
    result = relax.Tuple(list(call.args)[: 1 + num_state])
    returned = relax.TupleType([one.ty for one in result.fields])
    made = relax.Function(list(function.params)[1:], relax.SeqExpr(blocks, result), returned)
    return relax.utils.copy_with_new_vars(made)
