"""Converters of ONNX operators whose results have a shape that is computed. [TVM]

Each extent that is known only at run time gets a name, so that what follows can tell equal ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._tvm import relax, tirx, tvm_ffi
from .onnx_node import STANDARD, Converter, Node, const, constant_value, dtype_of, rank_of, shape_of

_op = relax.op


def extents_of(node: Node, shape: Any) -> list[Any]:
    """Return the values of a tensor, int64 (rank,), as extents."""
    (rank,) = shape_of(node, shape, "a shape")
    names = [tirx.Var(f"extent{axis}", "int64") for axis in range(rank)]
    found = node.emit(_op.tensor_to_shape(shape))
    node.builder.match_cast(found, relax.ShapeType(names))
    return list(names)


def as_tensor(node: Node, extents: list[Any]) -> Any:
    """Return extents, known or not, as a tensor, int64 (rank,)."""
    if _are_known(*extents):
        return const([int(extent) for extent in extents], "int64")
    return node.emit(_op.shape_to_tensor(relax.ShapeExpr(extents)))


def extents_in(node: Node, data: Any) -> list[Any]:
    """Return the extents of a tensor of known rank, which may be open."""
    values = getattr(data.ty.shape, "values", None)
    return shape_of(node, data, "data") if values is None else list(values)


def numbers_of(node: Node, position: int) -> list[Any] | None:
    """Return the elements of an input as numbers or extents, None where they depend on data.

    They are constants, or extents of tensors, some of which may be open, in whatever order.
    """
    given = node.optional(position)
    return None if given is None else _elements(node.builder, given)


def _elements(builder: Any, expr: Any) -> list[Any] | None:
    value = constant_value(expr)
    if value is not None:
        return [tirx.IntImm("int64", int(number)) for number in value.reshape(-1)]
    made = builder.lookup_binding(expr) if isinstance(expr, relax.Var) else expr
    if isinstance(made, relax.ShapeExpr):
        return list(made.values)
    if isinstance(made, relax.Var):
        return _elements(builder, made)
    name = str(getattr(getattr(made, "op", None), "name", ""))
    if name == "relax.concat":
        parts = [_elements(builder, field) for field in _fields(builder, made.args[0])]
        return None if None in parts else [one for part in parts if part for one in part]
    if name not in _KEEPING and name not in ("relax.strided_slice", "relax.take"):
        return None
    found = _elements(builder, made.args[0])
    if found is None or name in _KEEPING:
        return found
    if made.args[0].ty.ndim != 1:
        return None
    if name == "relax.take":
        places = constant_value(made.args[1])
        return None if places is None else [found[int(place)] for place in places.reshape(-1)]
    begin, end, *step = ([int(one) for one in _fields(builder, part)] for part in made.args[2:])
    return found[slice(begin[0], end[0], step[0][0] if step and step[0] else 1)]


# They hand the elements of their operand on in their order.
_KEEPING = frozenset(
    f"relax.{name}" for name in "shape_to_tensor shape_of astype reshape expand_dims squeeze".split()
)


def _fields(builder: Any, expr: Any) -> list[Any]:
    made = builder.lookup_binding(expr) if isinstance(expr, relax.Var) else expr
    return list(made.fields)


def same(one: Any, other: Any) -> bool:
    """Return whether two extents are equal for sure."""
    return bool(tvm_ffi.structural_equal(_number(one), _number(other)))


def _number(extent: Any) -> Any:
    return tirx.IntImm("int64", extent) if isinstance(extent, int) else extent


def first_rows(node: Node, rows: Any, count: Any, axis: int = 0) -> Any:
    """Return as many of the first rows along an axis as a tensor, int64 (1,), says."""
    shape = extents_in(node, rows)
    rank = len(shape)
    around = [as_tensor(node, part) for part in (shape[:axis], shape[axis + 1 :]) if part]
    around.insert(min(axis, 1), count)
    end = node.emit(_op.concat(around, 0))
    begin, step = const([0] * rank, "int64"), const([1] * rank, "int64")
    cut = node.emit(_op.dynamic_strided_slice(rows, begin, end, step))
    open_shape: list[Any] = [*shape[:axis], tirx.Var("rows", "int64"), *shape[axis + 1 :]]
    return node.builder.match_cast(cut, relax.TensorType(open_shape, dtype_of(rows)))


def compress(node: Node) -> Any:
    """Keep the rows for which a condition holds that is computed."""
    data, condition = node.required(0), node.required(1)
    axis = node.attributes.get("axis")
    if axis is None:
        data = node.emit(_op.reshape(data, [-1]))
    axis = int(axis or 0) % rank_of(data)
    (length,) = extents_in(node, condition)
    extent = extents_in(node, data)[axis]
    if _are_known(length, extent) and int(length) > int(extent):
        raise node.error(f"expected a condition of at most {extent} elements; got {length}")
    name = tirx.Var("kept", "int64")
    places = node.builder.match_cast(
        node.emit(_op.nonzero(condition)), relax.TensorType([1, name], "int64")
    )
    flat = node.emit(_op.reshape(places, [name]))
    return node.emit(_op.take(data, flat, axis, mode="clip"))


def _top_k(node: Node) -> Any:
    """Sort all, and keep as many as a computed number says."""
    if node.opset < 10 or node.constant(1) is not None:
        return NotImplemented
    data = node.required(0)
    axis = int(node.attributes.get("axis", -1)) % rank_of(data)
    largest = bool(node.attributes.get("largest", 1))
    both = node.emit(_op.topk(data, -1, axis, ret_type="both", largest=largest, dtype="int64"))
    count = node.emit(_op.reshape(node.required(1), [1]))
    parts = [node.emit(relax.TupleGetItem(both, at)) for at in range(2)]
    return tuple(first_rows(node, part, count, axis) for part in parts)


def _constant_of_shape(node: Node) -> Any:
    """Repeat a number over a computed shape."""
    shape = node.required(0)
    if node.constant(0) is not None or not isinstance(shape.ty, relax.TensorType):
        return NotImplemented
    given = node.attributes.get("value")
    value = np.zeros(1, np.float32) if given is None else _array(given)
    return node.emit(
        _op.full(relax.ShapeExpr(extents_of(node, shape)), const(value.reshape(()), str(value.dtype)))
    )


def _are_known(*extents: Any) -> bool:
    return all(isinstance(extent, (int, tirx.IntImm)) for extent in extents)


def _array(tensor: Any) -> Any:
    from onnx import numpy_helper

    return numpy_helper.to_array(tensor)


def _expand(node: Node) -> Any:
    """Broadcast to a computed shape, and where the data is wider, to that."""
    data, shape = node.required(0), node.required(1)
    if node.constant(1) is not None or not isinstance(shape.ty, relax.TensorType):
        return NotImplemented
    own = extents_in(node, data)
    (rank,) = shape_of(node, shape, "a shape")
    width = max(rank, len(own))
    padded = as_tensor(node, [1] * (width - len(own)) + own)
    if rank < width:
        shape = node.emit(_op.concat([const([1] * (width - rank), "int64"), shape], 0))
    extents = extents_of(node, node.emit(_op.maximum(shape, padded)))
    return node.emit(_op.broadcast_to(data, relax.ShapeExpr(extents)))


def _reshape(node: Node) -> Any:
    """Reshape to a computed shape, with 0 for "as it was" and -1 for "what is left"."""
    data, shape = node.required(0), node.required(1)
    if node.constant(1) is not None or not isinstance(shape.ty, relax.TensorType):
        return NotImplemented
    own = extents_in(node, data)
    (rank,) = shape_of(node, shape, "a shape")
    if not int(node.attributes.get("allowzero", 0)):
        kept = as_tensor(node, (own + [0] * rank)[:rank])
        is_zero = node.emit(_op.equal(shape, const(0, "int64")))
        shape = node.emit(_op.where(is_zero, kept, shape))
    is_open = node.emit(_op.less(shape, const(0, "int64")))
    rest = node.emit(_op.where(is_open, const(1, "int64"), shape))
    product = node.emit(_op.maximum(node.emit(_op.prod(rest, 0)), const(1, "int64")))
    total = node.emit(_op.prod(as_tensor(node, [*own, 1]), 0))
    left = node.emit(_op.floor_divide(total, product))
    extents = extents_of(node, node.emit(_op.where(is_open, left, shape)))
    return node.emit(_op.reshape(data, relax.ShapeExpr(extents)))


CONVERTERS: dict[tuple[str, str], Converter] = {
    (STANDARD, "TopK"): _top_k,
    (STANDARD, "ConstantOfShape"): _constant_of_shape,
    (STANDARD, "Expand"): _expand,
    (STANDARD, "Reshape"): _reshape,
}
