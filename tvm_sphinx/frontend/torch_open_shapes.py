"""Converters for torch operators whose results have a shape that is known only at run time. [TVM]"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._tvm import relax, tirx
from ..errors import ModelError

_op = relax.op


def places_of(builder: Any, data: Any) -> Any:
    """Return where a tensor is not zero, int64 (rank, found); the number found is an extent."""
    found = builder.emit(_op.nonzero(data))
    return _named(builder, found, [data.ty.ndim, tirx.Var("found", "int64")])


def _named(builder: Any, expr: Any, shape: list[Any]) -> Any:
    """Return a tensor of unknown shape with names for the extents that are open."""
    return builder.match_cast(expr, relax.TensorType(shape, expr.ty.dtype))


def nonzero(importer: Any, node: Any) -> Any:
    """Convert ``nonzero``, which has a row for each element that is not zero."""
    (data,) = importer.retrieve_args(node)
    if not data.ty.ndim:
        raise ModelError("nonzero of a tensor without axes has no counterpart in TVM.")
    builder = importer.block_builder
    return builder.emit(_op.permute_dims(places_of(builder, data)))


def masked_select(importer: Any, node: Any) -> Any:
    """Convert ``masked_select``: what a mask holds of, flat."""
    data, mask = importer.retrieve_args(node)
    emit = importer.block_builder.emit
    shapes = (tuple(int(extent) for extent in each.ty.shape.values) for each in (data, mask))
    shape = list(np.broadcast_shapes(*shapes))
    data, mask = (emit(_op.broadcast_to(each, shape)) for each in (data, mask))
    return select(importer.block_builder, data, mask, 0)


def select(builder: Any, data: Any, mask: Any, axis: int) -> Any:
    """Return what a mask holds of; it lies over the axes of the data from ``axis`` on."""
    extents = list(data.ty.shape.values)
    end = axis + mask.ty.ndim
    merged = [*extents[:axis], math.prod(extents[axis:end]), *extents[end:]]
    rows = builder.emit(_op.reshape(data, merged))
    flat = builder.emit(_op.reshape(mask, [math.prod(mask.ty.shape.values)]))
    places = places_of(builder, flat)
    found = places.ty.shape.values[1]
    return builder.emit(_op.take(rows, builder.emit(_op.reshape(places, [found])), axis, mode="clip"))


def unique(importer: Any, node: Any) -> Any:
    """Convert ``unique`` of all elements, and where each is met and how often."""
    args = list(importer.retrieve_args(node))
    # Whether they are sorted is a promise alone: they are.
    inverse, counts = (len(args) > place and bool(args[place]) for place in (2, 3))
    data = args[0]
    builder = importer.block_builder
    made = builder.emit(_op.unique(data, True, False, inverse, counts, axis=None))
    found = tirx.Var("found", "int64")
    parts = [made]
    if inverse or counts:
        parts = [builder.emit(relax.TupleGetItem(made, n)) for n in range(1 + inverse + counts)]
    values = _named(builder, parts.pop(0), [found])
    where = times = relax.const(np.zeros(0, "int64"), "int64")
    if inverse:
        elements = [math.prod(data.ty.shape.values)]
        where = builder.emit(_op.reshape(_named(builder, parts.pop(0), elements), data.ty.shape))
    if counts:
        times = _named(builder, parts.pop(0), [found])
    return builder.emit(relax.Tuple([values, where, times]))
