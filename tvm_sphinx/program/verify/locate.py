"""Find the first operator whose result is not the source's, by bisection over the import. [TVM]"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from ..._tvm import relax, tvm
from ...errors import UnsupportedError
from ...frontend.lower import lower_to_kernels
from ...frontend.origins import Operator, Origins
from ..kinds import flatten_outputs
from ..stock_vm import build_executable
from .source import RunnableSource
from .tolerance import Array, OutputCheck, compare, worst

#: Builds a module, whose function is ``main``, and returns what runs it.
Build = Callable[[Any], Callable[[Sequence[Array]], list[Array]]]


@dataclass(frozen=True)
class Culprit:
    """The first operator that differs, by how much, and whether TVM's own build of it does too."""

    operator: Operator
    check: OutputCheck
    by_import: bool

    def describe(self) -> str:
        """Return a sentence on it."""
        whose = "as TVM imports it" if self.by_import else "as tvm-sphinx lowers it"
        told = self.check.describe()
        return f"The first operator that differs is {self.operator.text}, {whose}: it {told}."


def find_culprit(
    function: Any, source: RunnableSource, inputs: Sequence[Array], target: Any
) -> Culprit | None:
    """Return the first operator of a function that differs, given right operands; None if none does.

    Between an operator before which all values that are still needed are right and one after which some
    are wrong there is always one that makes them so (the bisection keeps these two), though later ones
    may hide the difference for a while.
    """
    cuts = _Cuts(function, source.known_values())
    if not cuts.positions:
        return None
    ours = plain_build(target)

    def check(number: int, build: Build) -> OutputCheck | None:
        names, module = cuts.cut(number)
        theirs = source.values(inputs, names)
        found = build(module)(inputs)
        checks = [
            compare(name, mine, other, source.computed_dtypes)
            for name, mine, other in zip(names, found, theirs, strict=True)
        ]
        return worst([one for one in checks if not one.is_equal])

    right, wrong = -1, len(cuts.positions) - 1
    found = check(wrong, ours)
    if found is None:
        return None
    while wrong - right > 1:
        middle = (right + wrong) // 2
        one = check(middle, ours)
        right, wrong, found = (middle, wrong, found) if one is None else (right, middle, one)
    operator = cuts.operator(wrong)
    return Culprit(operator, found, check(wrong, stock_build(target)) is not None)


class _Cuts:
    """Where a function can be cut: after each variable that holds a value of the source."""

    def __init__(self, function: Any, known: Collection[str]) -> None:
        module = relax.transform.ToNonDataflow()(tvm.IRModule({"main": function}))
        self._function = function = module["main"]
        origins = Origins.of(function)
        self._makers = {value: operator for operator in origins.operators for value in operator.outputs}
        value_of = {variable: value for value, variable in origins.variables}
        self._bindings = [b for block in function.body.blocks for b in block.bindings]
        self._values = {
            binding.var: value_of[str(binding.var.name)]
            for binding in self._bindings
            if value_of.get(str(binding.var.name)) in self._makers
            and value_of[str(binding.var.name)] in known
            and isinstance(binding.var.ty, relax.TensorType)
        }
        self.positions = [i for i, binding in enumerate(self._bindings) if binding.var in self._values]

    def operator(self, number: int) -> Operator:
        """Return the operator that makes the value after which a cut is."""
        return self._makers[self._values[self._bindings[self.positions[number]].var]]

    def cut(self, number: int) -> tuple[list[str], Any]:
        """Return a module up to a cut that returns all values still needed, and their names."""
        position = self.positions[number]
        before, after = self._bindings[: position + 1], self._bindings[position + 1 :]
        needed = {var for binding in after for var in _read(binding)} | set(
            relax.analysis.free_vars(self._function.body.body)
        )
        last = before[-1].var
        kept = [b.var for b in before if b.var in self._values and (b.var in needed or b.var is last)]
        result = relax.Var("cut", relax.TupleType([var.ty for var in kept]))
        bindings = [*before, relax.VarBinding(result, relax.Tuple(kept))]
        body = relax.SeqExpr([relax.BindingBlock(bindings)], result)
        returned = relax.analysis.erase_to_well_defined(result.ty)
        function = relax.Function(self._function.params, body, returned)
        module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
        return [self._values[var] for var in kept], relax.transform.ConvertToDataflow()(module)


def _read(binding: Any) -> list[Any]:
    return list(relax.analysis.free_vars(binding.value))


def plain_build(target: Any) -> Build:
    """Return a build as ours, for one device: our lowering, the kernels of our rules, TVM's VM."""

    def build(module: Any) -> Callable[[Sequence[Array]], list[Array]]:
        try:
            lowered = lower_to_kernels(module, target, "main", targets=[target])
            for var, function in lowered.functions.items():
                if isinstance(function, tvm.tirx.PrimFunc):
                    lowered[var] = function.with_attr("target", target)
            return _opened(build_executable(lowered, target))
        except UnsupportedError:
            return stock_build(target)(module)

    return build


def stock_build(target: Any) -> Build:
    """Return TVM's own build for a target, with nothing of ours."""

    def build(module: Any) -> Callable[[Sequence[Array]], list[Array]]:
        pipeline = relax.get_default_pipeline(target)
        return _opened(tvm.compile(module, target=target, relax_pipeline=pipeline))

    return build


def _opened(executable: Any) -> Callable[[Sequence[Array]], list[Array]]:
    machine = relax.VirtualMachine(executable, tvm.cpu())
    return lambda arrays: flatten_outputs(machine["main"](*map(tvm.runtime.tensor, arrays)))
