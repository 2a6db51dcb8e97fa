"""Operators that write at indices, rewritten so that TVM's kernels compute what they should. [TVM]

TVM's kernels for them are right for some shapes only: ``scatter_elements`` takes the shape of the
indices for that of the data, ``index_put`` adds to one element from several threads at once, and
``slice_scatter`` reads behind its source.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._tvm import relax
from ..errors import ModelError
from .bounded_indices import Emit, bounded, bounded_tuples, extent_value, extents_of, fields_of
from .half_functions import through_single

_op = relax.op


def scatter_elements(emit: Emit, call: Any) -> Any:
    """Rewrite ``relax.scatter_elements``."""
    data, indices, updates = call.args
    extents = extents_of(emit, data)
    if any(extent_value(extent) == 0 for extent in (*extents, *indices.ty.shape)):
        return data  # nothing is written
    axis, reduction = int(call.attrs.axis) % len(extents), str(call.attrs.reduction)
    safe = bounded(emit, indices, [extents[axis]], f"scatter_elements along axis {axis}")
    shapes = [
        [extent_value(extent) for extent in extents_of(emit, each)] for each in (data, safe, updates)
    ]
    of_data, of_indices, of_updates = shapes
    if of_updates != of_indices:
        updates = _leading_part(emit, updates, of_indices)
    if _keeps_places(of_data, of_indices, axis):
        return _in_single(emit, _op.scatter_elements(data, safe, updates, axis, reduction))
    places = [
        safe if number == axis else relax.const(_coordinate(of_indices, number), str(safe.ty.dtype))
        for number in range(len(of_indices))
    ]
    return scatter_flat(emit, data, places, updates, reduction)


def _in_single(emit: Emit, scatter: Any) -> Any:
    """Return a scatter whose half floats are added or multiplied in single precision.

    A sum of halves stops growing at 256 ones (bfloat16) or 2048 (float16).
    """
    computes = str(scatter.attrs.reduction) in ("add", "mul")
    wide = through_single(emit, scatter) if computes else None
    return scatter if wide is None else wide


def _keeps_places(data: list[int | None], indices: list[int | None], axis: int) -> bool:
    """Whether the axes before and after, joined, have the same steps in the indices as in the data."""
    inner = [number for number in range(len(data)) if number not in (0, axis, axis + 1)]
    return all(data[number] == indices[number] for number in inner)


def _leading_part(emit: Emit, tensor: Any, shape: list[int | None]) -> Any:
    if None in shape:
        raise ModelError("Expected updates of the indices' shape in scatter_elements of unknown shape.")
    axes, zeros = list(range(len(shape))), [0] * len(shape)
    return emit(_op.strided_slice(tensor, axes, zeros, shape))


def _coordinate(shape: list[int | None], axis: int) -> Any:
    if None in shape:
        raise ModelError("Expected known shapes where indices and data of scatter_elements differ.")
    return np.indices([extent for extent in shape if extent is not None], dtype="int64", sparse=True)[
        axis
    ]


def scatter_flat(emit: Emit, data: Any, places: list[Any], updates: Any, reduction: str) -> Any:
    """Scatter into the flattened data, one update after the other; places are one for each axis."""
    extents = [extent_value(extent) for extent in extents_of(emit, data)]
    if None in extents:
        raise ModelError("Expected data of known shape to scatter into by indices of another shape.")
    if 0 in extents or 0 in map(extent_value, (*updates.ty.shape, *places[0].ty.shape)):
        return data  # nothing is written
    step, flat = 1, None
    for place, extent in reversed(list(zip(places, extents, strict=True))):
        if str(place.ty.dtype) != "int64":
            place = emit(_op.astype(place, "int64"))
        part = emit(_op.multiply(place, relax.const(step, "int64"))) if step != 1 else place
        flat = part if flat is None else emit(_op.add(part, flat))
        step *= extent or 0
    assert flat is not None
    if not _same_shape(flat, updates):
        shape = _broadcast_shape(flat, updates)
        flat, updates = (emit(_op.broadcast_to(each, shape)) for each in (flat, updates))
    line, index, update = (emit(_op.reshape(each, (-1,))) for each in (data, flat, updates))
    written = emit(_in_single(emit, _op.scatter_elements(line, index, update, 0, reduction)))
    return _op.reshape(written, [extent for extent in extents if extent is not None])


def _same_shape(left: Any, right: Any) -> bool:
    return [*map(extent_value, left.ty.shape)] == [*map(extent_value, right.ty.shape)]


def _broadcast_shape(left: Any, right: Any) -> list[int]:
    shapes = [[extent_value(extent) for extent in each.ty.shape] for each in (left, right)]
    if any(None in shape for shape in shapes):
        raise ModelError("Expected indices and values of index_put of known shape, or of the same one.")
    return list(np.broadcast_shapes(*(tuple(e for e in shape if e is not None) for shape in shapes)))


def scatter_nd(emit: Emit, call: Any) -> Any:
    """Rewrite ``relax.scatter_nd``."""
    data, indices, updates = call.args
    safe = bounded_tuples(emit, data, indices, 0, "scatter_nd")
    return _in_single(emit, _op.scatter_nd(data, safe, updates, str(call.attrs.reduction)))


def index_put(emit: Emit, call: Any) -> Any:
    """Rewrite ``relax.index_put``: one tensor of indices for each axis, broadcast together."""
    data, indices, values = call.args
    extents = extents_of(emit, data)
    fields = fields_of(indices)
    if len(fields) != len(extents):
        raise ModelError(
            f"Expected index_put with indices for all {len(extents)} axes; got {len(fields)} of them."
        )
    places = [
        bounded(emit, field, [extents[axis]], f"index_put on axis {axis}")
        for axis, field in enumerate(fields)
    ]
    return scatter_flat(emit, data, places, values, "add" if call.attrs.accumulate else "update")


def slice_scatter(emit: Emit, call: Any) -> Any:
    """Rewrite ``relax.slice_scatter`` as one ``take`` of data and source put end to end."""
    data, source, *bounds = call.args
    axis = int(call.attrs.axis) % data.ty.ndim
    extent = extent_value(data.ty.shape[axis])
    numbers = [extent_value(getattr(bound, "value", bound)) for bound in bounds]
    if extent is None or None in numbers:
        raise ModelError(f"Expected slice_scatter of known bounds and extent; got {call.args[2:]}.")
    places = np.arange(extent, dtype="int64")
    replaced = places[slice(*numbers)]
    if extent_value(source.ty.shape[axis]) != len(replaced):
        raise ModelError(
            f"Expected a source of {len(replaced)} elements along axis {axis} in slice_scatter; "
            f"got {source.ty}."
        )
    places[slice(*numbers)] = extent + np.arange(len(replaced))
    if len(replaced) == extent and (numbers[2] or 1) > 0:
        return source
    both = emit(_op.concat([data, source], axis))
    return _op.take(both, relax.const(places, "int64"), axis, mode="clip")
