"""Keep indices inside their tensors: operators that gather and scatter, rewritten on Relax. [TVM]

TVM's kernels read and write whatever lies at an index, before the tensor and behind it. Here a negative
index counts from the end, as in NumPy and ONNX. One that is out of range is refused where it is a
constant, and counts on round the axis where it is known at run time only: the source frameworks raise an
error there (torch) or leave the result undefined (ONNX). An input that is read with as it is
is held against its range before a run, see `tvm_sphinx.frontend.index_ranges`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._tvm import relax, tirx, tvm
from ..errors import ModelError

#: Emits an expression and returns the variable that it is bound to.
Emit = Callable[[Any], Any]

_op = relax.op


def bounded(emit: Emit, indices: Any, extents: Sequence[Any], where: str) -> Any:
    """Return indices that count from the start and are in range.

    Parameters
    ----------
    emit
        Emits an expression, see `Emit`.
    indices
        Tensor of integers.
    extents
        The extent of the axis that they index, or one for each element of the last axis of ``indices``;
        numbers or expressions.
    where
        What to call it in an error.

    Raises
    ------
    ModelError
        If a constant index is out of range, or the axis is empty.
    """
    known = [extent_value(extent) for extent in extents]
    if 0 in known and _elements(indices) != 0:
        raise ModelError(f"Expected an axis of one element or more for {where}; got an empty one.")
    if isinstance(indices, tvm.ir.GenericConst) and None not in known:
        return _bounded_constant(indices, [extent for extent in known if extent is not None], where)
    indices = _widened(emit, indices)
    dtype = str(indices.ty.dtype)
    indices = emit(_op.floor_mod(indices, _extent_tensor(emit, extents, dtype)))
    wanted = "int32" if _is_small(known) else "int64"
    return indices if dtype == wanted else emit(_op.astype(indices, wanted))


def _widened(emit: Emit, indices: Any) -> Any:
    """Return indices in a type that holds extents."""
    narrow = str(indices.ty.dtype) in ("int8", "int16", "uint8", "uint16", "bool")
    return emit(_op.astype(indices, "int32")) if narrow else indices


def _is_small(extents: Sequence[int | None]) -> bool:
    """Whether int32 holds all indices: TVM vectorizes no loop that reads at an int64 from memory."""
    return None not in extents and all(extent < 2**31 for extent in extents if extent is not None)


def extent_value(extent: Any) -> int | None:
    """Return an extent as a number; None where it is not known."""
    if isinstance(extent, int):
        return extent
    return int(extent) if isinstance(extent, tirx.IntImm) else None


def extents_of(emit: Emit, tensor: Any) -> list[Any]:
    """Return the extents of a tensor of known rank; those of unknown shape are scalar tensors."""
    ty = tensor.ty
    if ty.shape is not None and hasattr(ty.shape, "values"):
        return list(ty.shape.values)
    if ty.ndim < 0:
        raise ModelError(f"Expected a tensor of known rank to be indexed; got one of type {ty}.")
    shape = emit(_op.shape_to_tensor(emit(_op.shape_of(tensor))))
    places = [relax.const(np.asarray(axis), "int64") for axis in range(ty.ndim)]
    return [emit(_op.take(shape, place, 0, mode="clip")) for place in places]


def _extent_tensor(emit: Emit, extents: Sequence[Any], dtype: str) -> Any:
    known = [extent_value(extent) for extent in extents]
    if None not in known:
        return relax.const(np.asarray(known if len(known) > 1 else known[0], dtype), dtype)
    if all(isinstance(extent, relax.Expr) and _is_tensor(extent) for extent in extents):
        tensor = emit(_op.stack(relax.Tuple(list(extents)), 0)) if len(extents) > 1 else extents[0]
    else:
        tensor = emit(_op.shape_to_tensor(relax.ShapeExpr(list(extents))))
        if len(extents) == 1:
            tensor = emit(_op.reshape(tensor, ()))
    return tensor if dtype == "int64" else emit(_op.astype(tensor, dtype))


def _bounded_constant(indices: Any, extents: Sequence[int], where: str) -> Any:
    values = indices.value.numpy()
    extent = np.asarray(extents if len(extents) > 1 else extents[0], "int64")
    wrong = (values < -extent) | (values >= extent)
    if wrong.any():
        place = tuple(np.argwhere(wrong)[0])
        most = int(np.broadcast_to(extent, values.shape)[place])
        raise ModelError(
            f"Expected indices of {where} in {-most}..{most - 1}; got the constant {values[place]}."
        )
    dtype = "int32" if _is_small(extents) else "int64"
    counted = np.where(values < 0, values.astype("int64") + extent, values)
    return relax.const(counted.astype(dtype), dtype)


def _elements(tensor: Any) -> int | None:
    values = [extent_value(extent) for extent in getattr(tensor.ty.shape, "values", [None])]
    return None if None in values else math.prod(value for value in values if value is not None)


def _is_tensor(expr: Any) -> bool:
    return isinstance(expr.ty, relax.TensorType)


def take(emit: Emit, call: Any) -> Any:
    """Rewrite ``relax.take``; modes ``wrap`` and ``nan`` define all indices and stay."""
    data, indices = call.args
    if str(call.attrs.mode) in ("wrap", "nan") or not _is_tensor(indices):
        return None
    axis = call.attrs.axis
    extents = extents_of(emit, data)
    number = 0 if axis is None else int(axis) % len(extents)
    if not isinstance(indices, tvm.ir.GenericConst) and extent_value(extents[number]) != 0:
        return _op.take(data, _widened(emit, indices), axis, mode="wrap")  # one kernel: no other task
    safe = bounded(emit, indices, [extents[number]], f"take along axis {number}")
    return _op.take(data, safe, axis, mode="clip")


def gather_elements(emit: Emit, call: Any) -> Any:
    """Rewrite ``relax.gather_elements``."""
    data, indices = call.args
    extents = extents_of(emit, data)
    axis = int(call.attrs.axis) % len(extents)
    safe = bounded(emit, indices, [extents[axis]], f"gather_elements along axis {axis}")
    return _op.gather_elements(data, safe, axis)


def gather_nd(emit: Emit, call: Any) -> Any:
    """Rewrite ``relax.gather_nd``, whose last axis of indices holds one for each axis of the data."""
    data, indices = call.args
    batch = int(call.attrs.batch_dims)
    safe = bounded_tuples(emit, data, indices, batch, "gather_nd")
    count = extent_value(extents_of(emit, indices)[-1]) or 0
    if not count:
        return None
    batches = [extent_value(extent) for extent in extents_of(emit, data)[:batch]]
    if None in batches:
        return _op.gather_nd(data, emit(_op.astype(safe, "int64")), batch)
    rank = safe.ty.ndim
    columns = []
    for number, extent in enumerate(batches):
        places = np.arange(extent or 0, dtype="int32")
        columns.append(relax.const(places.reshape([-1] + [1] * (rank - 2 - number)), "int32"))
    for number in range(count):
        column = emit(_op.strided_slice(safe, [rank - 1], [number], [number + 1]))
        columns.append(emit(_op.squeeze(column, [rank - 1])))
    return _op.index_tensor(data, columns)


def bounded_tuples(emit: Emit, data: Any, indices: Any, batch: int, name: str) -> Any:
    """Return indices as tuples along the last axis, counted from the start and in range.

    ``batch`` axes of data and indices run together, ahead of those that are indexed; errors as of
    `bounded`.
    """
    count = extent_value(extents_of(emit, indices)[-1])
    if count is None:
        raise ModelError(f"Expected indices of {name} whose last extent is known; got {indices.ty}.")
    extents = extents_of(emit, data)[batch : batch + count]
    return bounded(emit, indices, extents, name) if count else indices


def index_tensor(emit: Emit, call: Any) -> Any:
    """Rewrite ``relax.index_tensor``: a tensor of indices for each leading axis."""
    data, indices = call.args
    fields = fields_of(indices)
    extents = extents_of(emit, data)
    safe = [
        bounded(emit, field, [extent], f"indexing axis {axis}")
        for axis, (field, extent) in enumerate(zip(fields, extents, strict=False))
    ]
    return _op.index_tensor(data, safe)


def fields_of(indices: Any) -> list[Any]:
    """Return the fields of a tuple expression, or the single tensor."""
    if isinstance(indices, relax.Tuple):
        return list(indices.fields)
    if isinstance(indices.ty, relax.TupleType):
        return [relax.TupleGetItem(indices, number) for number in range(len(indices.ty.fields))]
    return [indices]
