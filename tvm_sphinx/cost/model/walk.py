"""Read the loops, operations and accesses of a scheduled kernel. [TVM]"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ..._tvm import tirx, tvm, tvm_ffi
from ...kernels.compute import ROLE

#: Coefficients of an index by the position of the loop in the nest; what is not affine is rounded so.
Affine = dict[int, float]

_KINDS = {0: "serial", 1: "parallel", 2: "vectorized", 3: "unrolled"}
#: Kinds of operations that are counted apart, because they cost unlike times.
OPERATIONS = (
    "add",
    "mul",
    "div",
    "max",
    "compare",
    "select",
    "branch",
    "root",
    "bit",
    "cast",
    "index",
    "library",
    "lane_index",
)
#: Those that are carried out for each element, also in vectorized loops.
BY_ELEMENT = frozenset({"library", "lane_index"})
_BIT_CALLS = ("shift", "bitwise", "reinterpret")
_ROOT_CALLS = ("sqrt", "floor", "ceil", "round", "trunc", "fabs", "nearbyint")


@dataclass(frozen=True)
class Loop:
    """One loop of a nest; ``id`` tells loops of one kernel apart."""

    id: int
    extent: int
    kind: str


@dataclass
class Access:
    """One read or write of an element; ``dims`` holds the index of each axis over the loops.

    ``flat`` is the place in memory over the loops where that is simpler than what the axes say.
    """

    buffer: int
    dims: tuple[Affine, ...]
    is_write: bool
    gathers: bool = False
    flat: Affine | None = None


@dataclass
class Buffer:
    """A tensor of a kernel, or a view of one.

    ``parameter`` is its position among the arguments, -1 for a temporary.
    """

    shape: tuple[int, ...]
    element_bytes: int
    parameter: int
    shared_loops: tuple[int, ...] | None = None

    @property
    def bytes(self) -> int:
        """Size in memory."""
        return math.prod(self.shape) * self.element_bytes


@dataclass
class Statement:
    """One store with the loops round it, outermost first.

    ``share`` is the part of the iterations that a guard lets pass; ``operations`` counts what one
    iteration computes. ``is_scalar`` tells that a vectorized loop runs element by element all the same,
    because a condition inside of it is not the same for all of them; ``lane_share`` is the share of a
    guard that moves with a vectorized loop.
    """

    loops: tuple[Loop, ...]
    share: float
    operations: dict[str, int]
    accesses: list[Access] = field(default_factory=list)
    is_scalar: bool = False
    lane_share: float = 1.0

    @property
    def iterations(self) -> float:
        """How often it runs."""
        return math.prod(loop.extent for loop in self.loops) * self.share


@dataclass
class Nest:
    """All statements of a kernel and the tensors that they touch."""

    statements: list[Statement]
    buffers: list[Buffer]
    roles: set[str] = field(default_factory=set)


def read_nest(function: Any) -> Nest:
    """Return the statements of a scheduled PrimFunc of static shapes.

    Loops and blocks are followed from the outside in; the values of block iterators are put in for
    them, so that every index is affine in the loops. Quotients and remainders by constants are taken
    for what they are over whole multiples, which is what splitting and fusing make of them.
    """
    return _Reader(function).nest


class _Reader:
    def __init__(self, function: Any) -> None:
        self.nest = Nest([], [])
        self.loops: list[Loop] = []
        self.env: dict[Any, Affine] = {}
        self.share = 1.0
        self.lane_share = 1.0
        self.divisions = {"index": 0, "lane_index": 0}
        self.numbers: dict[Any, int] = {}
        self.num_loops = 0
        self.gathers = False
        self.values: dict[Any, Any] = {}
        self.analyzer = tvm.sym.Analyzer()
        for position, param in enumerate(function.params):
            self._number(param, position)
        self._visit(function.body)

    def _number(self, buffer: Any, parameter: int = -1) -> int:
        if buffer not in self.numbers:
            self.numbers[buffer] = len(self.nest.buffers)
            shape = tuple(int(extent) for extent in buffer.shape)
            self.nest.buffers.append(Buffer(shape, max(1, int(buffer.dtype.bits) // 8), parameter))
        return self.numbers[buffer]

    # -- statements

    def _visit(self, node: Any) -> None:
        kind = type(node)
        if kind is tirx.SeqStmt:
            for part in node.seq:
                self._visit(part)
        elif kind is tirx.For:
            self._for(node)
        elif kind is tvm.s_tir.SBlockRealize:
            self._block(node)
        elif kind is tirx.BufferStore:
            self._store(node)
        elif kind is tirx.DeclBuffer:  # a view of a parameter, with some axes joined
            viewed = self.nest.buffers[self._number(node.data.args[0])]
            self._number(node.buffer, viewed.parameter)
        elif kind is tirx.IfThenElse:
            self._visit(node.then_case)
            if node.else_case is not None:
                self._visit(node.else_case)
        elif getattr(node, "body", None) is not None:
            self._visit(node.body)

    def _for(self, node: Any) -> None:
        extent = int(node.extent) if isinstance(node.extent, tirx.IntImm) else 1
        self.env[node.loop_var] = {len(self.loops): 1.0}
        self.analyzer.bind(node.loop_var, tvm.ir.Range.from_min_extent(node.min, node.extent))
        self.loops.append(Loop(self.num_loops, extent, _KINDS.get(int(node.kind), "serial")))
        self.num_loops += 1
        self._visit(node.body)
        self.loops.pop()

    def _block(self, node: Any) -> None:
        before_divisions = dict(self.divisions)
        for variable, value in zip(node.block.iter_vars, node.iter_values, strict=True):
            self.env[variable.var] = self._affine(value)
            self.values[variable.var] = self._simplified(value)
            self._count_divisions(value)
        role = node.block.annotations.get(ROLE)
        if role is not None:
            self.nest.roles.add(str(role))
        before, before_lanes = self.share, self.lane_share
        self.share *= self._passing(node.predicate)
        self._visit(node.block.body)
        self.share, self.lane_share = before, before_lanes
        self.divisions = before_divisions

    def _simplified(self, value: Any) -> Any:
        """Return the value of an iterator as TVM simplifies it, ahead of what is made of it."""
        return self.analyzer.simplify(value) if self._lane_divisions(value) else value

    def _passing(self, predicate: Any) -> float:
        """Return the share of the iterations in which a guard holds."""
        if type(predicate) is tirx.And:
            return self._passing(predicate.a) * self._passing(predicate.b)
        if type(predicate) is tirx.LT and isinstance(predicate.b, tirx.IntImm):
            affine = self._affine(predicate.a)
            passing = min(1.0, int(predicate.b) / self._reach(affine))
            if self._lanes(affine):
                self.lane_share *= passing
            return passing
        return 1.0

    def _reach(self, affine: Affine) -> float:
        return 1.0 + sum(abs(c) * (self.loops[loop].extent - 1) for loop, c in affine.items())

    def _store(self, node: Any) -> None:
        statement = Statement(tuple(self.loops), self.share, dict.fromkeys(OPERATIONS, 0))
        statement.lane_share = self.lane_share
        statement.operations["index"] += self.divisions["index"]
        self._access(statement, node.buffer, node.indices, True)
        self._count(statement, node.value)
        self.nest.statements.append(statement)

    def _access(self, statement: Statement, buffer: Any, indices: Any, is_write: bool) -> None:
        outer, self.gathers = self.gathers, False
        dims = tuple(self._affine(index) for index in indices)
        for index in indices:
            self._count_index(statement, index)
        number = self._number(buffer)
        access = Access(number, dims, is_write, self.gathers)
        if self.divisions["lane_index"] or any(self._divides_lanes(index) for index in indices):
            self._flatten(statement, access, indices)
        statement.accesses.append(access)
        self.gathers = outer
        ids = tuple(loop.id for loop in statement.loops)
        known = self.nest.buffers[number].shared_loops
        self.nest.buffers[number].shared_loops = ids if known is None else _common(known, ids)

    # -- expressions

    def _count(self, statement: Statement, node: Any) -> None:
        """Count the operations and accesses of a value."""
        kind = type(node)
        if kind is tvm.ir.TensorLoad:
            self._access(statement, node.source, node.indices, False)
            return
        name = _COUNTED.get(kind)
        if name == "index":
            statement.operations[self._kind_of_quotient(node)] += 1
        elif name is not None:
            statement.operations[name] += 1
        elif kind is tvm.ir.Call:
            statement.operations[self._kind_of_call(statement, node)] += 1
        if kind is tirx.Cast and not self._varies_in_vector(node.value):
            return  # such as the size of a pool's window: worked out once for a vector
        for operand in _operands(node):
            self._count(statement, operand)

    def _varies_in_vector(self, condition: Any) -> bool:
        """Return whether a condition may differ between the elements of a vector.

        A bound that is a multiple of the vector's length does not divide one.
        """
        if type(condition) is tvm.ir.TensorLoad:
            return True
        if type(condition) is tirx.Var:
            return bool(self._lanes(self.env.get(condition, {})))
        if type(condition) in _BOUNDS:
            for index, bound in ((condition.a, condition.b), (condition.b, condition.a)):
                if type(index) is tirx.Var and isinstance(bound, tirx.IntImm):
                    lanes = self._lanes(self.env.get(index, {}))
                    return bool(lanes and int(bound) % lanes)
        return any(self._varies_in_vector(operand) for operand in _operands(condition))

    def _flatten(self, statement: Statement, access: Access, indices: Any) -> None:
        """Count the divisions within vectors that are left in an access once TVM has simplified it.

        Splitting fused loops gives each axis a quotient and a remainder; in the place in memory they
        often cancel, and what is left is one vector.
        """
        place: Any = 0
        for index, extent in zip(indices, self.nest.buffers[access.buffer].shape, strict=True):
            inner = tvm_ffi.structural_map(index, (tirx.Var, lambda var: self.values.get(var, var)))
            place = inner if isinstance(place, int) else place * extent + inner
        if isinstance(place, int):
            return
        place = self.analyzer.simplify(place)
        left = self._lane_divisions(place)
        statement.operations["lane_index"] += left
        statement.is_scalar |= left > 0
        if not left:
            access.flat = self._affine(place)

    def _lane_divisions(self, node: Any) -> int:
        own = type(node) in _DIVISIONS and self._kind_of_quotient(node) == "lane_index"
        return int(own) + sum(self._lane_divisions(operand) for operand in _operands(node))

    def _divides_lanes(self, index: Any) -> bool:
        return self._lane_divisions(index) > 0

    def _count_divisions(self, node: Any) -> None:
        """Count the divisions in the value of a block's iterator."""
        if type(node) in _DIVISIONS:
            self.divisions[self._kind_of_quotient(node)] += 1
        for operand in _operands(node):
            self._count_divisions(operand)

    def _kind_of_quotient(self, node: Any) -> str:
        """Return whether an integer division is the same for all elements of a vector."""
        lanes = self._lanes(self._affine(node.a))
        if not lanes or (isinstance(node.b, tirx.IntImm) and int(node.b) % lanes == 0):
            return "index"
        return "lane_index"

    def _lanes(self, affine: Affine) -> int:
        """Return the extent of the vectorized loops that an index moves with, 0 for none."""
        extents = [self.loops[loop].extent for loop in affine if self.loops[loop].kind == "vectorized"]
        return math.prod(extents) if extents else 0

    def _kind_of_call(self, statement: Statement, node: Any) -> str:
        called = str(getattr(node.op, "name", ""))
        if called.endswith("if_then_else"):
            statement.is_scalar |= self._varies_in_vector(node.args[0])
            return "branch"
        if any(word in called for word in _BIT_CALLS):
            return "bit"
        if any(word in called for word in _ROOT_CALLS):
            return "root"
        if called.endswith("pow") and isinstance(node.args[1], tirx.FloatImm):
            exponent = float(node.args[1].value)  # LLVM makes products and roots of these
            if exponent in (2.0, -1.0, 1.0):
                return "mul"
            if exponent in (0.5, -0.5):
                return "root"
        return "library"

    def _count_index(self, statement: Statement, node: Any) -> None:
        """Count what is dear in an index: quotients, remainders, and elements that are looked up."""
        kind = type(node)
        if kind is tvm.ir.TensorLoad:
            self._access(statement, node.source, node.indices, False)
            self.gathers = True
            return
        if kind in _DIVISIONS and self._kind_of_quotient(node) == "index":
            statement.operations["index"] += 1
        for operand in _operands(node):
            self._count_index(statement, operand)

    def _affine(self, node: Any) -> Affine:
        rule = _AFFINE.get(type(node))
        return rule(self, node) if rule is not None else {}

    def _linear(self, node: Any, sign: float) -> Affine:
        total = dict(self._affine(node.a))
        for loop, factor in self._affine(node.b).items():
            total[loop] = total.get(loop, 0.0) + sign * factor
        return total

    def _product(self, node: Any) -> Affine:
        for factor, other in ((node.a, node.b), (node.b, node.a)):
            if isinstance(factor, tirx.IntImm):
                return {loop: int(factor) * c for loop, c in self._affine(other).items()}
        return {**self._affine(node.a), **self._affine(node.b)}

    def _quotient(self, node: Any) -> Affine:
        inner = self._affine(node.a)
        if not isinstance(node.b, tirx.IntImm) or int(node.b) == 0:
            return inner
        divisor = abs(int(node.b))
        if self._reach(inner) <= divisor:
            return {}
        return {loop: c / divisor for loop, c in inner.items() if self._moves(loop, c) >= divisor}

    def _remainder(self, node: Any) -> Affine:
        inner = self._affine(node.a)
        if not isinstance(node.b, tirx.IntImm) or int(node.b) == 0:
            return inner
        return {loop: c for loop, c in inner.items() if c % int(node.b)}

    def _moves(self, loop: int, factor: float) -> float:
        return abs(factor) * self.loops[loop].extent


def _operands(node: Any) -> Iterator[Any]:
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


def _common(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    shared = 0
    while shared < min(len(left), len(right)) and left[shared] == right[shared]:
        shared += 1
    return left[:shared]


_DIVISIONS = frozenset({tirx.FloorDiv, tirx.FloorMod})
_BOUNDS = frozenset({tirx.LT, tirx.LE, tirx.GT, tirx.GE})

_COUNTED: dict[Any, str] = {
    tirx.Add: "add",
    tirx.Sub: "add",
    tirx.Mul: "mul",
    tirx.Div: "div",
    tirx.Max: "max",
    tirx.Min: "max",
    tirx.Select: "select",
    tirx.Cast: "cast",
    tirx.FloorDiv: "index",
    tirx.FloorMod: "index",
    **dict.fromkeys(
        (tirx.LT, tirx.LE, tirx.GT, tirx.GE, tirx.EQ, tirx.NE, tirx.And, tirx.Or), "compare"
    ),
}

_AFFINE: dict[Any, Callable[[_Reader, Any], Affine]] = {
    tirx.Var: lambda reader, node: reader.env.get(node, {}),
    tirx.Add: lambda reader, node: reader._linear(node, 1.0),
    tirx.Sub: lambda reader, node: reader._linear(node, -1.0),
    tirx.Mul: _Reader._product,
    tirx.FloorDiv: _Reader._quotient,
    tirx.FloorMod: _Reader._remainder,
    tirx.Cast: lambda reader, node: reader._affine(node.value),
    tirx.Max: lambda reader, node: reader._linear(node, 1.0),
    tirx.Min: lambda reader, node: reader._linear(node, 1.0),
}
