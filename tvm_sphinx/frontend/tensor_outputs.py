"""Let functions return tensors alone: shapes and numbers as tensors, and nothing for None. [TVM]"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .._tvm import relax, tirx, tvm
from ..errors import ModelError


def with_tensor_outputs(module: Any) -> Any:
    """Return a module whose exported functions return a tensor, or a tuple of tensors.

    Parameters
    ----------
    module
        Relax IRModule; it is not changed, and returned as it is where nothing is to be done.

    Raises
    ------
    ModelError
        If a function returns nothing, or what is no tensor, shape or whole number.
    """
    updated = {
        var: _rewritten(str(var.name_hint), function)
        for var, function in module.functions_items()
        if isinstance(function, relax.Function)
        and "global_symbol" in (function.attrs or {})
        and isinstance(function.body, relax.SeqExpr)
        and not _returns_tensors(function.ret_ty)
    }
    if not updated:
        return module
    functions = {**dict(module.functions_items()), **updated}
    return tvm.IRModule(functions, attrs=module.attrs, global_infos=module.global_infos)


def _returns_tensors(ty: Any) -> bool:
    if isinstance(ty, relax.TupleType):
        return len(ty.fields) > 0 and all(_returns_tensors(field) for field in ty.fields)
    return isinstance(ty, relax.TensorType)


def _rewritten(name: str, function: Any) -> Any:
    definitions = {
        binding.var: binding.value
        for block in function.body.blocks
        for binding in block.bindings
        if isinstance(binding, relax.VarBinding)
    }
    bindings: list[Any] = []
    outputs = []
    for field, meaning in _fields(function.body.body, definitions):
        output = _tensor(field, meaning, bindings, name)
        outputs += [] if output is None else [output]
    if not outputs:
        raise ModelError(f"Expected function {name!r} to return a tensor; it returns none.")
    result = outputs[0] if len(outputs) == 1 else relax.Tuple(outputs)
    blocks = [*function.body.blocks, *([relax.BindingBlock(bindings)] if bindings else [])]
    types = [output.ty for output in outputs]
    returned = types[0] if len(types) == 1 else relax.TupleType(types)
    body = relax.SeqExpr(blocks, result)
    made = relax.Function(function.params, body, returned, function.is_pure, function.attrs)
    return relax.transform.Normalize()(tvm.IRModule({name: made}))[name]


def _fields(expr: Any, definitions: dict[Any, Any]) -> Iterator[tuple[Any, Any]]:
    """Return what a result consists of, nested tuples taken apart, each with what it is bound to."""
    meaning = expr
    while isinstance(meaning, relax.Var) and meaning in definitions:
        meaning = definitions[meaning]
    if isinstance(expr, relax.Tuple):
        for field in expr.fields:
            yield from _fields(field, definitions)
    elif isinstance(expr.ty, relax.TupleType):
        known = meaning.fields if isinstance(meaning, relax.Tuple) else []
        for number in range(len(expr.ty.fields)):
            item = relax.TupleGetItem(expr, number)
            inner = [found for _, found in _fields(known[number], definitions)] if known else []
            for place, (field, found) in enumerate(_fields(item, definitions)):
                yield field, inner[place] if inner else found
    else:
        yield expr, meaning


def _tensor(expr: Any, meaning: Any, bindings: list[Any], name: str) -> Any:
    """Return a field of a result as a tensor, bound where that takes an operator; None for None."""
    if isinstance(expr.ty, relax.TensorType):
        return expr
    if isinstance(expr.ty, relax.ShapeType):
        made = relax.Var(f"shape{len(bindings)}", relax.TensorType([expr.ty.ndim], "int64"))
        shape = meaning if isinstance(meaning, relax.ShapeExpr) else expr
        bindings.append(relax.VarBinding(made, relax.op.shape_to_tensor(shape)))
        return made
    if isinstance(meaning, (tirx.IntImm, tirx.FloatImm)):
        return relax.const(np.asarray(meaning.value, str(meaning.ty)), str(meaning.ty))
    if isinstance(expr.ty, relax.AnyType):
        return None
    raise ModelError(f"Expected tensors, shapes and known numbers of function {name!r}; got {expr.ty}.")
