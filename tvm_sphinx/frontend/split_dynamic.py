"""Split a function: what has known shapes, and what depends on a tensor whose shape has not. [TVM]

The static part can be scheduled. The dynamic part comes after it as a whole: whatever depends on a
tensor of unknown shape is of it, also where its own shape is known again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .._tvm import relax, tirx, tvm
from .dataflow import PACKED_CALLS, is_static
from .origins import Origins, belonging
from .record_origins import holds_tensors
from .wire import DYNAMIC, INPUT, STATIC, Wire

# Its type counts the boxes that there are, and it returns those that it has selected.
_SELECTION = "relax.vision.all_class_non_max_suppression"


@dataclass(frozen=True)
class DynamicSplit:
    """A function as two: the static part runs first, and the dynamic part takes what that has computed.

    Parameters
    ----------
    static
        IRModule; its function has all arguments of the whole, and returns a tuple: what the dynamic part
        takes, and those outputs of the whole that do not depend on that.
    dynamic
        IRModule; its function returns a tuple.
    reads, outputs
        Where each argument of the dynamic part, and each output of the whole, comes from.
    operators
        The operators of the dynamic part, as the source calls them, in its order.
    reason
        Why the first of them is no task; its subject is that operator.
    """

    static: Any
    dynamic: Any
    reads: tuple[Wire, ...]
    outputs: tuple[Wire, ...]
    operators: tuple[str, ...]
    reason: str


def split_dynamic(module: Any, entry: str) -> DynamicSplit | None:
    """Return a function in two parts; None where one of them would be empty.

    Parameters
    ----------
    module
        Relax IRModule as `tvm_sphinx.frontend.load.load_model` returns it; it is not changed.
    entry
        Name of the function. One with an argument of open shape has no static part.
    """
    if not all(is_static(param.ty) for param in module[entry].params):
        return None
    passes = [
        relax.transform.DeadCodeElimination([entry]),
        relax.transform.ToNonDataflow(),
    ]
    module = tvm.transform.Sequential(passes)(module)
    if not isinstance(module[entry].body, relax.SeqExpr):
        return None
    return _Splitter(module, entry).split()


class _Splitter:
    """Sorts the bindings of a function, and writes two functions of them."""

    def __init__(self, module: Any, entry: str) -> None:
        self.module = module
        self.entry = entry
        self.function = module[entry]
        self.bindings = [b for block in self.function.body.blocks for b in block.bindings]
        self.values = {binding.var: binding.value for binding in self.bindings}
        self.params = {param: number for number, param in enumerate(self.function.params)}
        # Which variable is bound where an extent becomes known.
        self.extents = {
            extent: binding.var
            for binding in reversed(self.bindings)
            if isinstance(binding, relax.MatchCast)
            for extent in _extents(binding.var.ty)
        }
        self.dynamic: set[Any] = set()
        # What depends on no argument: each part has its own.
        self.constant: set[Any] = set()
        for binding in self.bindings:
            self._sort(binding)
        # What the static part returns, and the fields of its tuples among that.
        self.returned: dict[Any, int] = {}
        self.fields: list[Any] = []

    def _sort(self, binding: Any) -> None:
        read = relax.analysis.free_vars(self._field(binding.value))
        if any(self._is_dynamic(var) for var in read) or why_dynamic(binding):
            self.dynamic.add(binding.var)
        elif all(var in self.constant for var in read):
            self.constant.add(binding.var)

    def _field(self, value: Any) -> Any:
        """Return the field that a value takes out of a tuple, where that is known; else the value."""
        if isinstance(value, relax.TupleGetItem):
            whole = self.values.get(value.tuple_value)
            if isinstance(whole, relax.Tuple):
                return whole.fields[int(value.index)]
        return value

    def _is_dynamic(self, expr: Any) -> bool:
        """Return whether an expression is of the dynamic part, or an extent known there alone."""
        is_free = isinstance(expr, relax.Var) and expr not in self.values and expr not in self.params
        return is_free or expr in self.dynamic

    def split(self) -> DynamicSplit | None:
        """Return both parts."""
        results = list(self._leaves(self.function.body.body))
        own = {leaf: None for leaf in results if self._is_dynamic(leaf)}
        if not own:
            return None
        kept, arguments = self._dynamic_part(list(own))
        reads = [
            Wire(INPUT, self.params[argument])
            if argument in self.params
            else Wire(STATIC, self._return(argument))
            for argument in arguments
        ]
        places = {leaf: number for number, leaf in enumerate(own)}
        outputs = [
            Wire(DYNAMIC, places[leaf]) if leaf in own else Wire(STATIC, self._return(leaf))
            for leaf in results
        ]
        if not self.returned:
            return None
        static = [binding for binding in self.bindings if binding.var not in self.dynamic]
        first = next(binding for binding in kept if binding.var in self.dynamic)
        return DynamicSplit(
            self._module(self.function.params, [*static, *self.fields], list(self.returned)),
            self._module(arguments, kept, list(own)),
            tuple(reads),
            tuple(outputs),
            self._operators(kept),
            why_dynamic(first) or "depends on a tensor whose shape is known only at run time",
        )

    def _return(self, leaf: Any) -> int:
        """Let the static part return a tensor; return its place."""
        return self.returned.setdefault(leaf, len(self.returned))

    def _leaves(self, expr: Any) -> Iterator[Any]:
        """Return the tensors of a result, in order."""
        if isinstance(expr, relax.Tuple):
            for field in expr.fields:
                yield from self._leaves(field)
        elif not isinstance(expr.ty, relax.TupleType):
            yield expr
        elif isinstance(self.values.get(expr), relax.Tuple):
            yield from self._leaves(self.values[expr])
        else:
            for number, ty in enumerate(expr.ty.fields):
                item = relax.Var(f"{getattr(expr, 'name', 'item')}_{number}", ty)
                binding = relax.VarBinding(item, relax.TupleGetItem(expr, number))
                self.values[item] = binding.value
                if self._is_dynamic(expr):
                    self.dynamic.add(item)
                    self.bindings.append(binding)
                else:
                    self.fields.append(binding)
                yield from self._leaves(item)

    def _dynamic_part(self, results: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Return the bindings that the dynamic outputs need, and the tensors that these take."""
        needed = set(results)
        kept: list[Any] = []
        arguments: dict[Any, None] = {}
        for binding in reversed(self.bindings):
            var = binding.var
            if var not in needed:
                continue
            if var not in self.dynamic and holds_tensors(var.ty) and var not in self.constant:
                if isinstance(var.ty, relax.TupleType):
                    leaves = list(self._leaves(var))
                    arguments.update(dict.fromkeys(leaves))
                    kept.append(relax.VarBinding(var, _nested(var.ty, iter(leaves))))
                else:
                    arguments[var] = None
                continue
            if var not in self.dynamic and isinstance(var.ty, relax.ShapeType):
                binding = relax.VarBinding(var, relax.ShapeExpr(var.ty.values))
            kept.append(binding)
            read = [*relax.analysis.free_vars(binding.value), *_extents(var.ty)]
            needed.update(self.extents.get(one, one) for one in read)
        params = [param for param in self.params if param in needed]
        return kept[::-1], [*params, *reversed(arguments)]

    def _operators(self, kept: Sequence[Any]) -> tuple[str, ...]:
        """Return the operators of the dynamic part, by the source's names where it has any."""
        known, numbers = Origins.of(self.function).operators, belonging(self.function)
        found: dict[str, None] = {}
        for binding in kept:
            if binding.var not in self.dynamic or not isinstance(binding.value, (relax.Call, relax.If)):
                continue  # it only gives a name
            number = numbers.get(binding.var, len(known))
            if number < len(known):
                found[known[number].text] = None
            elif not known:
                found[f"{_callee(binding.value)} {binding.var.name!s}"] = None
        return tuple(found)

    def _module(self, params: Sequence[Any], bindings: Sequence[Any], results: Sequence[Any]) -> Any:
        """Return the module with a function of these bindings in the place of the whole."""
        result = relax.Var("parts", relax.TupleType([leaf.ty for leaf in results]))
        block = relax.BindingBlock([*bindings, relax.VarBinding(result, relax.Tuple(results))])
        returned = relax.analysis.erase_to_well_defined(result.ty)
        body = relax.SeqExpr([block], result)
        function = relax.Function(
            list(params), body, returned, self.function.is_pure, self.function.attrs
        )
        module = self.module.clone()
        module[self.entry] = function
        passes = [relax.transform.Normalize(), relax.transform.DeadCodeElimination([self.entry])]
        return tvm.transform.Sequential(passes)(module)


def why_dynamic(binding: Any) -> str:
    """Return why no task can take the place of a binding, for itself alone; empty if one might."""
    value = binding.value
    for ty in (value.ty, binding.var.ty):
        if not _is_known(ty):
            return "has a result whose shape is known only at run time"
    if isinstance(value, relax.Call):
        callee = _callee(value)
        if callee == _SELECTION and str(value.attrs.output_format) == "onnx":
            return "has a result whose shape is known only at run time"
        if callee in PACKED_CALLS or isinstance(value.op, relax.ExternFunc):
            return "is a function that is called by name, and no kernel"
    return ""


def _is_known(ty: Any) -> bool:
    """Return whether a type tells all extents that it has."""
    if isinstance(ty, relax.TupleType):
        return all(map(_is_known, ty.fields))
    if isinstance(ty, relax.ShapeType):
        return ty.values is not None and all(isinstance(extent, tirx.IntImm) for extent in ty.values)
    return not isinstance(ty, (relax.TensorType, relax.AnyType)) or is_static(ty)


def _extents(ty: Any) -> list[Any]:
    """Return the open extents in a type."""
    return list(relax.analysis.tir_vars_in_type(ty))


def _callee(call: Any) -> str:
    if isinstance(call, relax.If):
        return "if"
    return str(getattr(call.op, "name", None) or getattr(call.op, "global_symbol", call.op))


def _nested(ty: Any, leaves: Iterator[Any]) -> Any:
    """Return leaves as a (nested) tuple of a type."""
    if isinstance(ty, relax.TupleType):
        return relax.Tuple([_nested(field, leaves) for field in ty.fields])
    return next(leaves)
