"""Read the loops, operations and accesses of a scheduled kernel. [TVM]"""

from __future__ import annotations

from typing import Any

from ..._tvm import tirx, tvm, tvm_ffi
from ...kernels.compute import ROLE
from .indices import DIVISIONS, LoopIndices, operands
from .nest import OPERATIONS, Access, Buffer, Loop, Nest, Statement

_KINDS = {0: "serial", 1: "parallel", 2: "vectorized", 3: "unrolled"}
_BIT_CALLS = ("shift", "bitwise", "reinterpret")
_ROOT_CALLS = ("sqrt", "floor", "ceil", "round", "trunc", "fabs", "nearbyint")


def read_nest(function: Any) -> Nest:
    """Return the statements of a scheduled PrimFunc of static shapes.

    Loops and blocks are followed from the outside in; the values of block iterators are put in for
    them, so that every index is affine in the loops (see `tvm_sphinx.cost.model.indices`).
    """
    return _Reader(function).nest


class _Reader:
    def __init__(self, function: Any) -> None:
        self.nest = Nest([], [])
        self.loops: list[Loop] = []
        self.indices = LoopIndices(self.loops)
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
        self.indices.bind(node.loop_var, {len(self.loops): 1.0})
        self.analyzer.bind(node.loop_var, tvm.ir.Range.from_min_extent(node.min, node.extent))
        self.loops.append(Loop(self.num_loops, extent, _KINDS.get(int(node.kind), "serial")))
        self.num_loops += 1
        self._visit(node.body)
        self.loops.pop()

    def _block(self, node: Any) -> None:
        before_divisions = dict(self.divisions)
        for variable, value in zip(node.block.iter_vars, node.iter_values, strict=True):
            self.indices.bind(variable.var, self.indices.affine(value))
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
        return self.analyzer.simplify(value) if self.indices.lane_divisions(value) else value

    def _passing(self, predicate: Any) -> float:
        """Return the share of the iterations in which a guard holds."""
        if type(predicate) is tirx.And:
            return self._passing(predicate.a) * self._passing(predicate.b)
        if type(predicate) is tirx.LT and isinstance(predicate.b, tirx.IntImm):
            affine = self.indices.affine(predicate.a)
            passing = min(1.0, int(predicate.b) / self.indices.reach(affine))
            if self.indices.lanes(affine):
                self.lane_share *= passing
            return passing
        return 1.0

    def _store(self, node: Any) -> None:
        statement = Statement(tuple(self.loops), self.share, dict.fromkeys(OPERATIONS, 0))
        statement.lane_share = self.lane_share
        statement.operations["index"] += self.divisions["index"]
        self._access(statement, node.buffer, node.indices, True)
        self._count(statement, node.value)
        self.nest.statements.append(statement)

    def _access(self, statement: Statement, buffer: Any, indices: Any, is_write: bool) -> None:
        outer, self.gathers = self.gathers, False
        dims = tuple(self.indices.affine(index) for index in indices)
        for index in indices:
            self._count_index(statement, index)
        number = self._number(buffer)
        access = Access(number, dims, is_write, self.gathers)
        if self.divisions["lane_index"] or any(map(self.indices.lane_divisions, indices)):
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
            statement.operations[self.indices.kind_of_quotient(node)] += 1
        elif name is not None:
            statement.operations[name] += 1
        elif kind is tvm.ir.Call:
            statement.operations[self._kind_of_call(statement, node)] += 1
        if kind is tirx.Cast and not self.indices.varies_in_vector(node.value):
            return  # such as the size of a pool's window: worked out once for a vector
        for operand in operands(node):
            self._count(statement, operand)

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
        left = self.indices.lane_divisions(place)
        statement.operations["lane_index"] += left
        statement.is_scalar |= left > 0
        if not left:
            access.flat = self.indices.affine(place)

    def _count_divisions(self, node: Any) -> None:
        """Count the divisions in the value of a block's iterator."""
        if type(node) in DIVISIONS:
            self.divisions[self.indices.kind_of_quotient(node)] += 1
        for operand in operands(node):
            self._count_divisions(operand)

    def _kind_of_call(self, statement: Statement, node: Any) -> str:
        called = str(getattr(node.op, "name", ""))
        if called.endswith("if_then_else"):
            statement.is_scalar |= self.indices.varies_in_vector(node.args[0])
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
        if kind in DIVISIONS and self.indices.kind_of_quotient(node) == "index":
            statement.operations["index"] += 1
        for operand in operands(node):
            self._count_index(statement, operand)


def _common(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    shared = 0
    while shared < min(len(left), len(right)) and left[shared] == right[shared]:
        shared += 1
    return left[:shared]


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
