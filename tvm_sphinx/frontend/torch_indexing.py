"""Converters for torch operators that index by tensors. [TVM]"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._tvm import relax, tirx
from ..errors import ModelError
from .bounded_indices import bounded
from .bounded_scatters import scatter_flat
from .torch_open_shapes import select

_op = relax.op


def index(importer: Any, node: Any) -> Any:
    """Convert ``x[i, :, j]``: the axes that are indexed go together, as in NumPy."""
    data, indices = importer.retrieve_args(node)
    places = [number for number, each in enumerate(indices) if each is not None]
    if any(str(indices[place].ty.dtype) == "bool" for place in places):
        if len(places) > 1:
            raise ModelError("Indexing by a mask beside other indices has no counterpart in TVM.")
        return select(importer.block_builder, data, indices[places[0]], places[0])
    if len(places) < 2:
        return NotImplemented
    emit = importer.block_builder.emit
    tensors = _of_one_rank(emit, [indices[place] for place in places])
    rest = [axis for axis in range(data.ty.ndim) if axis not in places]
    moved = (
        data if places == list(range(len(places))) else emit(_op.permute_dims(data, [*places, *rest]))
    )
    taken = emit(_op.index_tensor(moved, tensors))
    before = places[0] if _are_adjacent(places) else 0
    if not before:
        return taken
    rank = tensors[0].ty.ndim
    order = [*range(rank, rank + before), *range(rank), *range(rank + before, rank + len(rest))]
    return emit(_op.permute_dims(taken, order))


def index_put(importer: Any, node: Any) -> Any:
    """Convert ``x[i, :, j] = v`` and ``x[i, :, j] += v``."""
    args = importer.retrieve_args(node)
    data, indices, values = args[:3]
    accumulate = args[3] if len(args) > 3 else node.kwargs.get("accumulate", False)
    emit = importer.block_builder.emit
    if str(values.ty.dtype) != str(data.ty.dtype):  # torch casts a single number
        values = emit(_op.astype(values, str(data.ty.dtype)))
    places = [number for number, each in enumerate(indices) if each is not None]
    read = [data, *(indices[place] for place in places)]
    if not all(isinstance(extent, tirx.IntImm) for each in read for extent in each.ty.shape):
        raise ModelError(
            "Assigning at as many places as the model finds has no counterpart in TVM; use torch.where."
        )
    shape = [int(extent) for extent in data.ty.shape]
    if len(places) == 1 and str(indices[places[0]].ty.dtype) == "bool":
        return _put_where(emit, data, indices[places[0]], places[0], values, accumulate)
    if any(
        not isinstance(extent, tirx.IntImm) for place in places for extent in indices[place].ty.shape
    ):
        raise ModelError(
            "Assigning at as many places as the model finds has no counterpart in TVM; use torch.where."
        )
    tensors = _of_one_rank(emit, [indices[place] for place in places])
    rest = [axis for axis in range(len(shape)) if axis not in places]
    looked_up = list(np.broadcast_shapes(*(tuple(int(e) for e in each.ty.shape) for each in tensors)))
    rank = len(looked_up)
    before = places[0] if _are_adjacent(places) else 0
    extents = [shape[axis] for axis in rest]
    values = emit(_op.broadcast_to(values, [*extents[:before], *looked_up, *extents[before:]]))
    if before:
        order = [*range(before, before + rank), *range(before), *range(before + rank, rank + len(rest))]
        values = emit(_op.permute_dims(values, order))
    coordinates: dict[int, Any] = {}
    for place, tensor in zip(places, tensors, strict=True):
        safe = bounded(emit, tensor, [shape[place]], f"indexing axis {place}")
        as_wide = [*(int(extent) for extent in safe.ty.shape), *[1] * len(rest)]
        coordinates[place] = emit(_op.reshape(safe, as_wide))
    for number, axis in enumerate(rest):
        ones = [1] * (len(rest) - 1 - number)
        coordinates[axis] = relax.const(np.arange(shape[axis]).reshape([-1, *ones]), "int64")
    ordered = [coordinates[axis] for axis in range(len(shape))]
    return emit(scatter_flat(emit, data, ordered, values, "add" if accumulate else "update"))


def _put_where(emit: Any, data: Any, mask: Any, axis: int, values: Any, accumulate: bool) -> Any:
    """Write one value where a mask of the data's shape holds."""
    if axis or accumulate or values.ty.ndim or mask.ty.ndim > data.ty.ndim:
        raise ModelError("Assigning a tensor through a mask has no counterpart in TVM; use torch.where.")
    extra = data.ty.ndim - mask.ty.ndim
    if extra:
        mask = emit(_op.expand_dims(mask, list(range(mask.ty.ndim, data.ty.ndim))))
    return emit(_op.where(mask, values, data))


def scatter(importer: Any, node: Any) -> Any:
    """Convert ``scatter`` of a tensor, ``scatter_add`` and ``scatter_reduce``."""
    args = importer.retrieve_args(node)
    data, dim, indices, source = args[:4]
    name = str(node.target._schema.name).partition("::")[2]
    reduce = args[4] if len(args) > 4 else node.kwargs.get("reduce", "sum")
    kinds = {"sum": "add", "add": "add", "prod": "mul", "multiply": "mul", "amax": "max", "amin": "min"}
    reduction = "update" if name == "scatter" and "reduce" not in node.kwargs else kinds.get(reduce)
    if reduction is None or not node.kwargs.get("include_self", True):
        raise ModelError(f"{node.target} with reduce = {reduce!r} has no counterpart in TVM.")
    emit = importer.block_builder.emit
    shape = [int(extent) for extent in indices.ty.shape]
    if shape != [int(extent) for extent in source.ty.shape]:
        axes = list(range(len(shape)))
        source = emit(_op.strided_slice(source, axes, [0] * len(shape), shape))
    return emit(_op.scatter_elements(data, indices, source, dim, reduction))


def as_strided(importer: Any, node: Any) -> Any:
    """Convert a view of any strides of a contiguous tensor, as one lookup."""
    args = importer.retrieve_args(node)
    data, size, stride = args[:3]
    offset = args[3] if len(args) > 3 else node.kwargs.get("storage_offset", None)
    seen = node.args[0].meta["val"]
    if not seen.is_contiguous() or seen.storage_offset():
        raise ModelError("as_strided of a tensor that is itself a view has no counterpart in TVM.")
    emit = importer.block_builder.emit
    places = np.full((), offset or 0, "int64")
    for extent, step in zip(size, stride, strict=True):
        places = places[..., None] + np.arange(extent) * step
    flat = emit(_op.reshape(data, (-1,)))
    return emit(_op.take(flat, relax.const(places, "int64"), 0, mode="clip"))


def _of_one_rank(emit: Any, tensors: list[Any]) -> list[Any]:
    """Give tensors that broadcast together the same rank."""
    rank = max(tensor.ty.ndim for tensor in tensors)
    return [
        tensor
        if tensor.ty.ndim == rank
        else emit(_op.expand_dims(tensor, list(range(rank - tensor.ty.ndim))))
        for tensor in tensors
    ]


def _are_adjacent(places: list[int]) -> bool:
    return places == list(range(places[0], places[0] + len(places)))


def embedding(importer: Any, node: Any) -> Any:
    """Look nothing up where there is no index: TVM's converter counts the rest of an empty tensor."""
    table, places = importer.retrieve_args(node)[:2]
    extents = getattr(places.ty.shape, "values", ())
    if not any(isinstance(extent, tirx.IntImm) and int(extent) == 0 for extent in extents):
        return NotImplemented
    shape = relax.ShapeExpr([*extents, *table.ty.shape.values[1:]])
    return importer.block_builder.emit(relax.op.zeros(shape, str(table.ty.dtype)))


def item(importer: Any, node: Any) -> Any:
    """Convert the number in a tensor, which stays a tensor where it only says what is selected."""
    if not node.users or not all(_selects_by(user, node) for user in node.users):
        return NotImplemented
    (number,) = importer.retrieve_args(node)
    return importer.block_builder.emit(relax.op.reshape(number, ()))


def _selects_by(user: Any, number: Any) -> bool:
    name = getattr(user.target, "__name__", "")
    return name == "select.int" and user.args[2] is number and user.args[0] is not number


def select_place(importer: Any, node: Any) -> Any:
    """Convert the selection of a place that is computed; one that is known is TVM's."""
    x, axis, place = importer.retrieve_args(node)
    if isinstance(place, int):
        return NotImplemented
    emit = importer.block_builder.emit
    if not isinstance(getattr(place, "ty", None), relax.TensorType):
        place = emit(relax.op.shape_to_tensor(relax.ShapeExpr([place])))
        place = emit(relax.op.reshape(place, ()))
    return emit(relax.op.take(x, place, axis))
