"""Indices of a kernel as affine functions of its loops, and how they move within a vector. [TVM]"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from ..._tvm import tirx, tvm
from .nest import Affine, Loop

#: Integer divisions.
DIVISIONS = frozenset({tirx.FloorDiv, tirx.FloorMod})
_BOUNDS = frozenset({tirx.LT, tirx.LE, tirx.GT, tirx.GE})


class LoopIndices:
    """What indices are over the loops round a statement.

    Quotients and remainders by constants are taken for what they are over whole multiples, which is
    what splitting and fusing make of them.

    Parameters
    ----------
    loops
        The loops that are open, outermost first; whoever walks the kernel adds and takes away.
    """

    def __init__(self, loops: list[Loop]) -> None:
        self.loops = loops
        self._values: dict[Any, Affine] = {}

    def bind(self, variable: Any, value: Affine) -> None:
        """Set what a variable is over the loops."""
        self._values[variable] = value

    def affine(self, node: Any) -> Affine:
        """Return the coefficients of an index by position of the loop; none of what is constant."""
        rule = _AFFINE.get(type(node))
        return rule(self, node) if rule is not None else {}

    def _linear(self, node: Any, sign: float) -> Affine:
        total = dict(self.affine(node.a))
        for loop, factor in self.affine(node.b).items():
            total[loop] = total.get(loop, 0.0) + sign * factor
        return total

    def _product(self, node: Any) -> Affine:
        for factor, other in ((node.a, node.b), (node.b, node.a)):
            if isinstance(factor, tirx.IntImm):
                return {loop: int(factor) * c for loop, c in self.affine(other).items()}
        return {**self.affine(node.a), **self.affine(node.b)}

    def _quotient(self, node: Any) -> Affine:
        inner = self.affine(node.a)
        if not isinstance(node.b, tirx.IntImm) or int(node.b) == 0:
            return inner
        divisor = abs(int(node.b))
        if self.reach(inner) <= divisor:
            return {}
        return {loop: c / divisor for loop, c in inner.items() if self._moves(loop, c) >= divisor}

    def _remainder(self, node: Any) -> Affine:
        inner = self.affine(node.a)
        if not isinstance(node.b, tirx.IntImm) or int(node.b) == 0:
            return inner
        return {loop: c for loop, c in inner.items() if c % int(node.b)}

    def _moves(self, loop: int, factor: float) -> float:
        return abs(factor) * self.loops[loop].extent

    def reach(self, affine: Affine) -> float:
        """Return how many values an index may take if it starts at 0, steps of less than 1 included."""
        return 1.0 + sum(abs(c) * (self.loops[loop].extent - 1) for loop, c in affine.items())

    def lanes(self, affine: Affine) -> int:
        """Return the extent of the vectorized loops that an index moves with, 0 for none."""
        extents = [self.loops[loop].extent for loop in affine if self.loops[loop].kind == "vectorized"]
        return math.prod(extents) if extents else 0

    def kind_of_quotient(self, node: Any) -> str:
        """Return whether an integer division is the same for all elements of a vector."""
        lanes = self.lanes(self.affine(node.a))
        if not lanes or (isinstance(node.b, tirx.IntImm) and int(node.b) % lanes == 0):
            return "index"
        return "lane_index"

    def lane_divisions(self, node: Any) -> int:
        """Count the divisions in an index that differ between the elements of a vector."""
        own = type(node) in DIVISIONS and self.kind_of_quotient(node) == "lane_index"
        return int(own) + sum(self.lane_divisions(operand) for operand in operands(node))

    def varies_in_vector(self, condition: Any) -> bool:
        """Return whether a condition may differ between the elements of a vector.

        A bound that is a multiple of the vector's length does not divide one.
        """
        if type(condition) is tvm.ir.TensorLoad:
            return True
        if type(condition) is tirx.Var:
            return bool(self.lanes(self._values.get(condition, {})))
        if type(condition) in _BOUNDS:
            for index, bound in ((condition.a, condition.b), (condition.b, condition.a)):
                if type(index) is tirx.Var and isinstance(bound, tirx.IntImm):
                    lanes = self.lanes(self._values.get(index, {}))
                    return bool(lanes and int(bound) % lanes)
        return any(self.varies_in_vector(operand) for operand in operands(condition))


def operands(node: Any) -> Iterator[Any]:
    """Yield what an expression is made of; nothing for variables and numbers."""
    kind = type(node)
    if kind in (tirx.Var, tirx.IntImm, tirx.FloatImm):
        return
    if kind is tvm.ir.Call:
        yield from node.args
    elif kind is tirx.Let:
        yield node.value
        yield node.body
    elif kind is tirx.Select:
        yield node.condition
        yield node.true_value
        yield node.false_value
    elif kind is tvm.ir.TensorLoad:
        yield from node.indices
    else:
        for name in ("a", "b", "value"):
            operand = getattr(node, name, None)
            if operand is not None:
                yield operand


_AFFINE: dict[Any, Callable[[LoopIndices, Any], Affine]] = {
    tirx.Var: lambda indices, node: indices._values.get(node, {}),
    tirx.Add: lambda indices, node: indices._linear(node, 1.0),
    tirx.Sub: lambda indices, node: indices._linear(node, -1.0),
    tirx.Mul: LoopIndices._product,
    tirx.FloorDiv: LoopIndices._quotient,
    tirx.FloorMod: LoopIndices._remainder,
    tirx.Cast: lambda indices, node: indices.affine(node.value),
    tirx.Max: lambda indices, node: indices._linear(node, 1.0),
    tirx.Min: lambda indices, node: indices._linear(node, 1.0),
}
