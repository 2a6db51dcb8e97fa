"""Kernels that a library can compute: one product, with what follows it. [TVM]

A sum of products over any axes is a product of matrices where its axes fall into four groups: rows,
which the left operand has, columns, which the right one has, a batch, which both have, and what is
summed; and where each group goes through memory in steps of one size. What follows is a bias and an
activation that a library computes by the same definition, or else a kernel of ours for the rest.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
import tvm_ffi
from tvm import tirx

from .maps import Map, read_map, root_nests, with_root_nests
from .products import Product, extents_of, is_var, read_product, without_copies
from .staged import is_staged

# Attribute of a PrimFunc that a library is to compute: the fields of `LibraryMark`.
_LIBRARY = "sphinx.library"
_TYPES = ("float32", "float16")
# Larger matrices than this no library takes, nor does any model have them.
_MOST_EXTENT = 1 << 31
# Where functions of an element are compared, and how near they have to be. The two forms of GELU are up
# to 5e-4 apart; their constants come rounded to the precision of float32.
# The last one, where nothing is added, tells a scale.
_POINTS = np.concatenate(
    [np.linspace(-8, 8, 401), [-1e5, -300.0, -20.0, -1e-2, -1e-4, 1e-4, 1e-2, 20.0, 300.0, 1e5, 1.0]]
)
_NEAR = 2e-6

FloatArray = npt.NDArray[np.float64]
# A bias and a residual at the points: other numbers than the sum, and nothing at the last.
_POINTS_ADDED: dict[str, FloatArray] = {
    "bias": np.append(np.roll(_POINTS[:-1], 137), 0.0),
    "residual": np.append(np.roll(_POINTS[:-1], 251), 0.0),
}


@dataclass(frozen=True)
class LibraryFactor:
    """A matrix column by column: parameter, whether it is taken transposed, strides in elements.

    ``leading`` is between columns, ``stride`` between the matrices of a batch.
    """

    param: int
    transposed: bool
    leading: int
    stride: int


@dataclass(frozen=True)
class LibraryProduct:
    """``D = activation(scale A B + C + bias)`` as BLAS has it, and what is left to a kernel of ours.

    Parameters
    ----------
    left, right, result
        A, B and D; parameters count from 0, and the one behind the last is a buffer between D and
        ``rest``, which reads it as its last parameter.
    rows, columns, depth, batch
        D has ``rows`` times ``columns`` elements.
    dtype
        Of all matrices.
    bias
        Parameter with an element for each row, -1 without one.
    residual
        Parameter C, which lies in memory as D does, -1 without one.
    activation
        ``"linear"``, ``"relu"``, or ``"gelu_tanh"``.
    scale
        A number of float32.
    rest
        PrimFunc of what follows, None if that is nothing.
    """

    left: LibraryFactor
    right: LibraryFactor
    result: LibraryFactor
    rows: int
    columns: int
    depth: int
    batch: int
    dtype: str
    bias: int = -1
    residual: int = -1
    activation: str = "linear"
    scale: float = 1.0
    rest: Any = None

    @property
    def result_bytes(self) -> int:
        """Size of D."""
        return self.rows * self.columns * self.batch * int(np.dtype(self.dtype).itemsize)


@dataclass(frozen=True)
class LibraryMark:
    """What a PrimFunc is marked with that a library is to compute.

    Parameters
    ----------
    choice
        The library, as it is asked for.
    version
        Of the library.
    is_fused
        Whether the library computes what follows the product, too, as far as it can.
    """

    choice: str
    version: str
    is_fused: bool = True


def for_library(func: Any, mark: LibraryMark) -> Any:
    """Return a PrimFunc marked to be computed by a library, where there is one to call.

    Its body stays what it was: where nothing calls libraries, as in TVM's own VM, it is scheduled like
    any other.
    """
    return func.with_attr(_LIBRARY, {**asdict(mark), "is_fused": int(mark.is_fused)})


def library_of(func: Any) -> LibraryMark | None:
    """Return how a library computes a PrimFunc, None for one that is compiled."""
    if not func.attrs or _LIBRARY not in func.attrs:
        return None
    found = func.attrs[_LIBRARY]
    return LibraryMark(str(found["choice"]), str(found["version"]), bool(int(found["is_fused"])))


def find_library_product(func: Any, *, is_fused: bool = True) -> LibraryProduct | None:
    """Return the product that an unscheduled PrimFunc is, None where a library cannot compute it.

    Unless ``is_fused``, all that follows the product is left to a kernel of ours.
    """
    if not isinstance(func, tirx.PrimFunc) or is_staged(func) or not _is_plain(func):
        return None
    func = without_copies(func)
    if not isinstance(func.body, tvm.s_tir.SBlockRealize) or func.body.block.annotations:
        return None
    nests = root_nests(func)
    found = [(at, one) for at, nest in enumerate(nests) if (one := read_product(nest, _TYPES))]
    if len(found) != 1:
        return None
    ((at, product),) = found
    others = [*nests[:at], *nests[at + 1 :]]
    made = _matrices(func, product)
    if made is None:
        return None
    if not others:
        is_result = product.out.same_as(func.params[-1])
        return made.product if is_result else None
    if not _follow(func, product, others):
        return None
    ended = _with_epilogue(func, made, others) if is_fused else None
    return ended or _with_rest(func, made.product, product, others)


def _is_plain(func: Any) -> bool:
    """Return whether a function is not scheduled, and all its shapes are known."""
    shapes = [getattr(param, "shape", None) for param in func.params]
    is_known = all(
        shape is not None and all(isinstance(extent, tirx.IntImm) for extent in shape)
        for shape in shapes
    )
    return is_known and not (func.attrs and func.attrs.get("tirx.is_scheduled", 0))


def _follow(func: Any, product: Product, others: Sequence[Any]) -> bool:
    """Return whether what else a function does writes its last parameter alone, and none before."""
    if _position(func, product.out) is not None:
        return False
    own = list(func.body.block.alloc_buffers)
    writes = [buffer for nest in others for buffer in _stored(nest)]
    last = func.params[-1]
    is_known = all(any(one.same_as(buffer) for buffer in [*own, last]) for one in writes)
    return is_known and any(one.same_as(last) for one in writes)


def _stored(nest: Any) -> list[Any]:
    found: list[Any] = []
    tvm_ffi.structural_walk(nest, (tirx.BufferStore, lambda store: found.append(store.buffer)))
    return found


def _position(func: Any, buffer: Any) -> int | None:
    return next((at for at, param in enumerate(func.params) if param.same_as(buffer)), None)


# --- matrices ---


@dataclass(frozen=True)
class _Axis:
    """An axis of a product: its number, its extent, and its steps in left, right and result."""

    number: int
    extent: int
    steps: tuple[int, int, int]


@dataclass(frozen=True)
class _Group:
    """Axes that are gone through as one, and the size of its steps in left, right and result."""

    axes: tuple[_Axis, ...]
    steps: tuple[int, int, int]

    @property
    def extent(self) -> int:
        return math.prod(axis.extent for axis in self.axes)


@dataclass(frozen=True)
class _Matrices:
    """A product, and the steps of its result, and of a bias for its rows, by each axis of the result."""

    product: LibraryProduct
    result_steps: tuple[int, ...]
    bias_steps: tuple[int, ...]


def _matrices(func: Any, product: Product) -> _Matrices | None:
    """Return a product as one of matrices; what follows it is not in that."""
    left, right = _position(func, product.left), _position(func, product.right)
    axes = [*product.spatial, *product.reduced]
    if left is None or right is None or any(not 0 < extent < _MOST_EXTENT for _, extent in axes):
        return None
    of_left = _steps(product.left, product.left_indices, axes)
    of_right = _steps(product.right, product.right_indices, axes)
    of_result = _steps(product.out, [var for var, _ in product.spatial], axes)
    if of_left is None or of_right is None or of_result is None:
        return None
    steps = zip(of_left, of_right, of_result, strict=True)
    numbered = [_Axis(at, axes[at][1], each) for at, each in enumerate(steps)]
    groups = _groups([axis for axis in numbered if axis.extent > 1], len(product.spatial))
    if groups is None:
        return None
    result = _position(func, product.out)
    place = (left, right, len(func.params) if result is None else result)
    made = _as_blas(*groups, place, product.dtype)
    if made is None:
        return None
    rows = {axis.number: axis.steps[2] for axis in made[1].axes}
    places = range(len(product.spatial))
    return _Matrices(
        made[0], tuple(of_result[at] for at in places), tuple(rows.get(at, 0) for at in places)
    )


def _steps(
    buffer: Any, indices: Sequence[Any], axes: Sequence[tuple[Any, int]]
) -> tuple[int, ...] | None:
    """Return by how many elements each axis moves on in a buffer, None where it does in no such way."""
    extents = extents_of(buffer)
    if len(indices) != len(extents):
        return None
    place: Any = tirx.const(0, "int64")
    for index, extent in zip(indices, extents, strict=True):
        place = place * extent + index
    found = tvm.sym.detect_linear_equation(place, [var for var, _ in axes])
    if len(found) != len(axes) + 1 or not all(isinstance(part, tirx.IntImm) for part in found):
        return None
    *steps, first = (int(part.value) for part in found)
    return tuple(steps) if first == 0 and min(steps, default=0) >= 0 else None


def _groups(axes: Sequence[_Axis], num_spatial: int) -> tuple[_Group, _Group, _Group, _Group] | None:
    """Return rows, columns, batch and depth of a product."""
    rows: list[_Axis] = []
    columns: list[_Axis] = []
    batch: list[_Axis] = []
    depth: list[_Axis] = []
    for axis in axes:
        left, right, result = axis.steps
        is_spatial = axis.number < num_spatial
        if is_spatial != (result > 0) or not (left or right) or not (is_spatial or (left and right)):
            return None
        group = (batch if left and right else rows if left else columns) if is_spatial else depth
        group.append(axis)
    # Rows of a matrix in several pieces, each farther away than the last, may be a batch.
    for one in (rows, columns):
        if not batch and _collapsed(one) is None:
            outer = max(one, key=lambda axis: axis.steps[2])
            one.remove(outer)
            batch.append(outer)
    groups = [made for one in (rows, columns, batch, depth) if (made := _collapsed(one)) is not None]
    return (groups[0], groups[1], groups[2], groups[3]) if len(groups) == 4 else None


def _collapsed(axes: Sequence[_Axis]) -> _Group | None:
    """Return axes as one, None where their steps do not fit together."""
    ordered = sorted(axes, key=lambda axis: axis.steps, reverse=True)
    for outer, inner in itertools.pairwise(ordered):
        if any(o != inner.extent * i for o, i in zip(outer.steps, inner.steps, strict=True)):
            return None
    return _Group(tuple(ordered), ordered[-1].steps if ordered else (0, 0, 0))


def _as_blas(
    rows: _Group,
    columns: _Group,
    batch: _Group,
    depth: _Group,
    place: tuple[int, int, int],
    dtype: str,
) -> tuple[LibraryProduct, _Group] | None:
    """Return a product column by column, and its rows; where it stands row by row, sides change.

    ``place`` are the parameters of left, right and result.
    """
    if max(rows.extent, columns.extent, depth.extent, batch.extent) >= _MOST_EXTENT:
        return None
    first, second, of_a, of_b = rows, columns, 0, 1
    is_by_column = rows.steps[2] == 1 or rows.extent == 1
    if not is_by_column or (columns.steps[2] == 1 and columns.extent > 1):
        first, second, of_a, of_b = columns, rows, 1, 0
    result = _factor(first.steps[2], second.steps[2], first.extent, second.extent)
    a = _factor(first.steps[of_a], depth.steps[of_a], first.extent, depth.extent)
    b = _factor(depth.steps[of_b], second.steps[of_b], depth.extent, second.extent)
    if result is None or result[0] or a is None or b is None:
        return None
    made = LibraryProduct(
        LibraryFactor(place[of_a], *a, batch.steps[of_a]),
        LibraryFactor(place[of_b], *b, batch.steps[of_b]),
        LibraryFactor(place[2], *result, batch.steps[2]),
        first.extent,
        second.extent,
        depth.extent,
        batch.extent,
        dtype,
    )
    return made, first


def _factor(row_step: int, column_step: int, rows: int, columns: int) -> tuple[bool, int] | None:
    """Return whether a matrix stands transposed, and the step from column to column as it stands."""
    if row_step == 1 or rows == 1:
        leading = column_step if columns > 1 else rows
        if leading >= rows:
            return False, leading
    if column_step == 1 or columns == 1:
        leading = row_step if rows > 1 else columns
        if leading >= columns:
            return True, leading
    return None


# --- what follows ---


def _with_rest(
    func: Any, made: LibraryProduct, product: Product, others: Sequence[Any]
) -> LibraryProduct:
    """Return a product that leaves what follows to a kernel of ours."""
    kept = [one for one in func.body.block.alloc_buffers if not one.same_as(product.out)]
    body = with_root_nests(func, others, kept).body
    attrs = {key: value for key, value in dict(func.attrs or {}).items() if str(key) != _LIBRARY}
    rest = tirx.PrimFunc([*func.params, product.out], body, func.ret_type).with_attrs(attrs)
    return replace(made, rest=rest)


def _with_epilogue(func: Any, made: _Matrices, others: Sequence[Any]) -> LibraryProduct | None:
    """Return a product with bias and activation, None where what follows is another thing."""
    maps = [read_map(nest) for nest in others]
    if not all(one is not None and _is_whole(one) for one in maps):
        return None
    chain = [one for one in maps if one is not None]
    result = func.params[-1]
    if not chain[-1].buffer.same_as(result) or str(result.dtype) != made.product.dtype:
        return None
    epilogue = _Epilogue(func, made, [one.buffer for one in chain])
    values: dict[Any, FloatArray] = {}
    try:
        for one in chain:
            values[one.buffer] = epilogue.value(one, values)
    except _UnknownError:
        return None
    found = _activation(values[chain[-1].buffer], epilogue.added())
    if found is None:
        return None
    last = replace(made.product.result, param=len(func.params) - 1)
    return replace(
        made.product,
        result=last,
        bias=epilogue.terms["bias"],
        residual=epilogue.terms["residual"],
        activation=found[0],
        scale=found[1],
    )


def _is_whole(one: Map) -> bool:
    """Return whether a map writes each element of its buffer, by its axes in order."""
    axes = [var for var, _ in one.axes]
    same = len(axes) == len(one.indices) and all(map(is_var, one.indices, axes))
    return same and one.extents == extents_of(one.buffer)


class _UnknownError(Exception):
    """Something that is computed otherwise than element by element, of sums and known functions."""


class _Epilogue:
    """What becomes of a sum x, with a bias b and a residual r, computed at many points (x, b, r)."""

    def __init__(self, func: Any, matrices: _Matrices, made: Sequence[Any]) -> None:
        self.func, self.made, self.dtype = func, list(made), matrices.product.dtype
        self.steps = {"bias": matrices.bias_steps, "residual": matrices.result_steps}
        #: Parameters that are added, -1 for none.
        self.terms = dict.fromkeys(self.steps, -1)

    def added(self) -> FloatArray:
        """What is added to the sum at each point."""
        made = np.zeros_like(_POINTS)
        for name, param in self.terms.items():
            if param >= 0:
                made += _POINTS_ADDED[name]
        return made

    def value(self, one: Map, values: Mapping[Any, FloatArray]) -> FloatArray:
        """Return what a map stores, from what those before it have stored."""

        def read(load: Any) -> FloatArray:
            for buffer, known in values.items():
                if load.source.same_as(buffer):
                    return self._same_place(one, load, known)
            position = _position(self.func, load.source)
            if position is not None:
                return self._term(one, load, position)
            if any(load.source.same_as(buffer) for buffer in self.made):
                raise _UnknownError
            return self._same_place(one, load, _POINTS)  # the product

        return _evaluate(one.value, read, self.dtype)

    def _term(self, one: Map, load: Any, position: int) -> FloatArray:
        """Return the values of a parameter that is the bias or the residual, one of each at most."""
        if str(load.source.dtype) != self.dtype:
            raise _UnknownError
        steps = _steps(load.source, load.indices, list(one.axes))
        for name, wanted in self.steps.items():
            if steps is None or len(steps) != len(wanted) or self.terms[name] not in (-1, position):
                continue
            pairs = zip(steps, wanted, one.extents, strict=True)
            if all(found == want for found, want, extent in pairs if extent > 1):
                self.terms[name] = position
                return _POINTS_ADDED[name]
        raise _UnknownError

    def _same_place(self, one: Map, load: Any, values: FloatArray) -> FloatArray:
        """Return values of a buffer that is read where the map writes."""
        extents = extents_of(load.source)
        for index, extent, (var, whole) in zip(load.indices, extents, one.axes, strict=True):
            is_zero = isinstance(index, tirx.IntImm) and int(index) == 0
            if extent != whole or not (is_var(index, var) or (is_zero and extent == 1)):
                raise _UnknownError
        return values


def _activation(values: FloatArray, added: FloatArray) -> tuple[str, float] | None:
    """Return the activation, and the scale of the sum, whose values these are."""
    for name, function in ACTIVATIONS.items():
        for scale in (1.0, float(np.float32(values[-1]))):
            wanted = function(scale * _POINTS + added)
            if scale and np.all(np.abs(values - wanted) <= _NEAR * (1.0 + np.abs(wanted))):
                return name, scale
    return None


def _gelu_tanh(x: FloatArray) -> FloatArray:
    made: FloatArray = 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))
    return made


#: What libraries compute of each element. cuBLASLt's GELU is the approximation by tanh, which torch
#: documents its use of (pull request 104061), not the one by the error function.
ACTIVATIONS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0.0),
    "gelu_tanh": _gelu_tanh,
}


_BINARY: dict[type, Callable[[FloatArray, FloatArray], FloatArray]] = {
    tirx.Add: np.add,
    tirx.Sub: np.subtract,
    tirx.Mul: np.multiply,
    tirx.Div: np.divide,
    tirx.Max: np.maximum,
    tirx.Min: np.minimum,
}
_FUNCTIONS: dict[str, Callable[..., FloatArray]] = {
    "tanh": np.tanh,
    "exp": np.exp,
    "sqrt": np.sqrt,
    "pow": np.power,
    "erf": np.vectorize(math.erf),
    "sigmoid": lambda x: 1.0 / (1.0 + np.exp(-x)),
}


def _evaluate(value: Any, read: Callable[[Any], FloatArray], dtype: str) -> FloatArray:
    """Return an expression of floats at many points, where ``read`` gives what it loads.

    A library computes what follows a product of halves in float32, and rounds once: that it may be
    rounded in between too, or not, is no other function. One of float32 is rounded nowhere.

    Raises
    ------
    _UnknownError
        If there is anything in it but sums, products and known functions.
    """
    if isinstance(value, tvm.ir.expr.TensorLoad):
        return read(value)
    if isinstance(value, tirx.FloatImm):
        return np.full_like(_POINTS, float(value.value))
    if isinstance(value, tirx.Cast) and dtype == "float16" and str(value.ty).startswith("float"):
        return _evaluate(value.value, read, dtype)
    with np.errstate(all="ignore"):
        if type(value) in _BINARY:
            return _BINARY[type(value)](_evaluate(value.a, read, dtype), _evaluate(value.b, read, dtype))
        if isinstance(value, tvm.ir.Call):
            name = str(getattr(value.op, "name", "")).rpartition(".")[2]
            if name in _FUNCTIONS:
                return _FUNCTIONS[name](*(_evaluate(argument, read, dtype) for argument in value.args))
    raise _UnknownError
