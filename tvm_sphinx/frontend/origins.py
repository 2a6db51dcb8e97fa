"""Which operator of the source each value of a Relax function comes from. [TVM]

TVM's importers keep no origins, and of what could carry them little survives: `LegalizeOps` drops spans
and keeps the names of variables; `FuseOps` drops the name of what a group returns, and lets equal groups
share one function; after it names survive again. So importing names each variable by the operator that
it belongs to, and `FuseNamedOps` names groups.

What the operators are is an attribute of the function, `ATTR`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tvm.relax.expr_functor import PyExprMutator, mutator

from .._tvm import relax, tvm

#: Attribute of a Relax function: JSON of its `Origins`.
ATTR = "sphinx.origins"

# A variable of operators 3 and 7 is "n3_7x", or "n3_7x1" or "n3_7x_1" where that name is taken.
_NAME = re.compile(r"n(\d+(?:_\d+)*)x_?\d*$")
#: What variables of operators look like where TVM makes names of blocks from them.
NAME_PATTERN = r"n[\d_]+x_?\d*"
# A group of many operators is named by the first of them; the rest would make names of many lines.
_MOST_NAMED = 32


@dataclass(frozen=True)
class Operator:
    """An operator of the source: a short name, what people look it up by, and the values it makes."""

    label: str
    text: str
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Origins:
    """The operators of a source, in its order, and the variable that holds each of their values."""

    operators: tuple[Operator, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()

    def attach(self, module: Any, name: str) -> Any:
        """Return a module whose function of that name carries these origins."""
        content = [[op.label, op.text, list(op.outputs)] for op in self.operators]
        text = json.dumps([content, self.variables], separators=(",", ":"))
        changed = module.clone()
        changed[name] = module[name].with_attr(ATTR, text)
        return changed

    @classmethod
    def of(cls, function: Any) -> Origins:
        """Return the origins that a function carries, none if it was not imported by us."""
        if not function.attrs or ATTR not in function.attrs:
            return cls()
        operators, variables = json.loads(str(function.attrs[ATTR]))
        return cls(
            tuple(Operator(label, text, tuple(outputs)) for label, text, outputs in operators),
            tuple((value, variable) for value, variable in variables),
        )

    def operators_of(self, name: str) -> list[Operator]:
        """Return the operators that a variable belongs to, in the order of the source."""
        known = len(self.operators)
        return [self.operators[number] for number in numbers_of(name) if number < known]


def variable_name(numbers: Iterable[int]) -> str:
    """Return the name of a variable that belongs to these operators."""
    return f"n{'_'.join(map(str, sorted(set(numbers))[:_MOST_NAMED]))}x"


def numbers_of(name: str) -> list[int]:
    """Return the numbers of the operators that a variable of this name belongs to."""
    match = _NAME.match(name)
    return [int(number) for number in match[1].split("_")] if match else []


@tvm.transform.module_pass(opt_level=0, name="FuseNamedOps")
class FuseNamedOps:
    """`FuseOps`, after which the variables of groups are named by the operators in them.

    Groups of one structure share a function, so what is in a group shows only where it is called: its
    calls are followed from the arguments, and found again among those of before by what they compute.
    """

    def __init__(self, entry: str) -> None:
        self.entry = entry

    def transform_module(self, mod: Any, _ctx: Any) -> Any:
        """Return the module with its operators in groups."""
        fused = relax.transform.FuseOps()(mod)
        function = mod[self.entry]
        if not function.attrs or ATTR not in function.attrs:
            return fused
        numbers = belonging(function)
        values = _Values(function, fused)

        def name_of(binding: Any) -> str:
            made = values.follow(binding)
            found = [numbers[var] for var in made if var in numbers]
            return variable_name(found) if found else str(binding.var.name)

        return _renamed(fused, self.entry, name_of)


class _Values:
    """The values of a function before fusion, found again in the function after it."""

    def __init__(self, before: Any, fused: Any) -> None:
        self._fused = fused
        self._made: dict[Any, list[Any]] = {}
        self._stands_for: dict[Any, Any] = {}
        for binding in _bindings(before):
            key = self._key(binding.value, {})
            if isinstance(binding.value, (relax.Call, relax.TupleGetItem)):
                self._made.setdefault(key, []).append(binding.var)

    def follow(self, binding: Any) -> list[Any]:
        """Return the variables of before that a binding computes; bindings have to come in order."""
        computed: list[Any] = []
        resolved = self._resolve(binding.value, self._stands_for, computed)
        self._stands_for[binding.var] = resolved
        return computed

    def _resolve(self, value: Any, known: dict[Any, Any], computed: list[Any]) -> Any:
        """Return the variable of before that a value stands for; note what is computed for it."""
        if isinstance(value, relax.Var):
            return known.get(value, value)
        if isinstance(value, relax.Tuple):
            return tuple(self._resolve(field, known, computed) for field in value.fields)
        if isinstance(value, relax.TupleGetItem):
            whole = self._resolve(value.tuple_value, known, computed)
            if isinstance(whole, tuple):
                return whole[int(value.index)]
        if isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.GlobalVar):
            group = self._fused[value.op]
            if isinstance(group, relax.Function):
                inner = {
                    param: self._resolve(argument, known, computed)
                    for param, argument in zip(group.params, value.args, strict=True)
                }
                for binding in _bindings(group):
                    inner[binding.var] = self._resolve(binding.value, inner, computed)
                return self._resolve(group.body.body, inner, computed)
        if not isinstance(value, (relax.Call, relax.TupleGetItem)):
            return value
        same = self._made.get(self._key(value, known), [])
        if not same:
            return object()  # nothing of before: it equals itself alone
        made = same.pop(0) if len(same) > 1 else same[0]
        computed.append(made)
        return made

    def _key(self, value: Any, known: dict[Any, Any]) -> Any:
        """Return what two values share that compute the same of the same."""
        if isinstance(value, relax.Var):
            return known.get(value, value)
        if isinstance(value, relax.Tuple):
            return tuple(self._key(field, known) for field in value.fields)
        if isinstance(value, relax.TupleGetItem):
            return ("item", self._key(value.tuple_value, known), int(value.index))
        if isinstance(value, relax.Call):
            callee = str(getattr(value.op, "name", value.op))
            return (callee, *(self._key(argument, known) for argument in value.args))
        if isinstance(value, tvm.ir.GenericConst):
            return value
        return str(value)


def _bindings(function: Any) -> list[Any]:
    return [
        binding
        for block in function.body.blocks
        for binding in block.bindings
        if isinstance(binding, relax.VarBinding)
    ]


def belonging(function: Any) -> dict[Any, int]:
    """Return the operator of each variable: its own, or that of the first value made of it.

    What a pass computes on the way to a value of an operator belongs to that operator.
    """
    bindings = [binding for block in function.body.blocks for binding in block.bindings]
    origins = Origins.of(function)
    makers = {value: n for n, operator in enumerate(origins.operators) for value in operator.outputs}
    # What holds a value may have no name of ours, as what a match_cast binds.
    named = {variable: makers[value] for value, variable in origins.variables if value in makers}
    numbers: dict[Any, int] = {}
    for binding in reversed(bindings):
        name = str(binding.var.name)
        own = numbers_of(name)
        if own or name in named:
            numbers[binding.var] = own[0] if own else named[name]
        if binding.var not in numbers:
            continue
        for used in relax.analysis.free_vars(binding.value):
            if not numbers_of(str(used.name)):
                numbers[used] = numbers[binding.var]
    for binding in bindings:
        # Nothing named is made of it: it belongs to what it is made of.
        if binding.var not in numbers:
            made_of = [numbers[v] for v in relax.analysis.free_vars(binding.value) if v in numbers]
            if made_of:
                numbers[binding.var] = max(made_of)
    return numbers


@mutator
class _Renamer(PyExprMutator):  # type: ignore[misc]
    """Gives the variables of a function new names."""

    def __init__(self, mod: Any, name_of: Callable[[Any], str]) -> None:
        super().__init__(mod)
        self._name_of = name_of

    def visit_var_binding_(self, binding: Any) -> None:
        """Bind the same value to a variable of the new name."""
        name = self._name_of(binding)
        value = self.builder_.normalize(self.visit_expr(binding.value))
        kind = relax.DataflowVar if isinstance(binding.var, relax.DataflowVar) else relax.Var
        named = kind(name, value.ty)
        self.set_var_remap(binding.var, named)
        self.builder_.emit_normalized(relax.VarBinding(named, value))


def _renamed(mod: Any, entry: str, name_of: Callable[[Any], str]) -> Any:
    renamer = _Renamer(mod, name_of)
    renamer.builder_.update_func(mod.get_global_var(entry), renamer.visit_expr(mod[entry]))
    return renamer.builder_.get()
