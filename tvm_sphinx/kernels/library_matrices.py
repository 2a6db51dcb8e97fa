"""Sums of products as products of matrices, column by column, as BLAS has them. [TVM]

A sum of products over any axes is a product of matrices where its axes fall into four groups: rows,
which the left operand has, columns, which the right one has, a batch, which both have, and what is
summed; and where each group goes through memory in steps of one size.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import tirx

from .library_product import LibraryFactor, LibraryProduct
from .products import Product, extents_of

# Larger matrices than this no library takes, nor does any model have them.
_MOST_EXTENT = 1 << 31


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
class Matrices:
    """A product, and the steps of its result, and of a bias for its rows, by each axis of the result."""

    product: LibraryProduct
    result_steps: tuple[int, ...]
    bias_steps: tuple[int, ...]


def read_matrices(func: Any, product: Product) -> Matrices | None:
    """Return a product as one of matrices; what follows it is not in that."""
    left, right = position_of(func, product.left), position_of(func, product.right)
    axes = [*product.spatial, *product.reduced]
    if left is None or right is None or any(not 0 < extent < _MOST_EXTENT for _, extent in axes):
        return None
    of_left = steps_of(product.left, product.left_indices, axes)
    of_right = steps_of(product.right, product.right_indices, axes)
    of_result = steps_of(product.out, [var for var, _ in product.spatial], axes)
    if of_left is None or of_right is None or of_result is None:
        return None
    steps = zip(of_left, of_right, of_result, strict=True)
    numbered = [_Axis(at, axes[at][1], each) for at, each in enumerate(steps)]
    groups = _groups([axis for axis in numbered if axis.extent > 1], len(product.spatial))
    if groups is None:
        return None
    result = position_of(func, product.out)
    place = (left, right, len(func.params) if result is None else result)
    made = _as_blas(*groups, place, product.dtype)
    if made is None:
        return None
    rows = {axis.number: axis.steps[2] for axis in made[1].axes}
    places = range(len(product.spatial))
    return Matrices(
        made[0], tuple(of_result[at] for at in places), tuple(rows.get(at, 0) for at in places)
    )


def steps_of(
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


def position_of(func: Any, buffer: Any) -> int | None:
    """Return which parameter of a PrimFunc a buffer is, None if it is none."""
    return next((at for at, param in enumerate(func.params) if param.same_as(buffer)), None)
