"""Relax operators on NumPy arrays, for constant folding. [TVM]

Each entry takes the call and its arguments, tensors as arrays and tuples of tensors as tuples of arrays,
and returns an array or a tuple of arrays; None where it does not apply. The caller checks the result's
shape and dtype against what Relax infers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._tvm import relax, tirx

Operator = Callable[[Any, Sequence[Any]], Any]


def _array(operand: Any) -> Any:
    """Return an operand as an array; Relax writes some scalars as numbers with a type."""
    if isinstance(operand, (tirx.IntImm, tirx.FloatImm)):
        return np.asarray(operand.value, str(operand.ty))
    return operand if isinstance(operand, np.ndarray) else None


def _unary(function: Callable[[Any], Any]) -> Operator:
    def apply(_call: Any, args: Sequence[Any]) -> Any:
        array = args[0]
        with np.errstate(all="ignore"):
            return np.asarray(function(array)).astype(array.dtype, copy=False)

    return apply


def _of_floats(operator: Operator) -> Operator:
    """Apply to floating point alone: integers round in TVM's own way."""

    def apply(call: Any, args: Sequence[Any]) -> Any:
        arrays = [_array(arg) for arg in args]
        if not all(a is not None and np.issubdtype(a.dtype, np.floating) for a in arrays):
            return None
        return operator(call, args)

    return apply


def _of_integers(operator: Operator) -> Operator:
    """Apply to integers alone."""

    def apply(call: Any, args: Sequence[Any]) -> Any:
        arrays = [_array(arg) for arg in args]
        if not all(a is not None and np.issubdtype(a.dtype, np.integer) for a in arrays):
            return None
        return operator(call, args)

    return apply


def _binary(function: Callable[[Any, Any], Any]) -> Operator:
    def apply(_call: Any, args: Sequence[Any]) -> Any:
        left, right = (_array(arg) for arg in args)
        if left is None or right is None or left.dtype != right.dtype:
            return None
        with np.errstate(all="ignore"):
            return np.asarray(function(left, right))

    return apply


def _integers(expr: Any) -> list[int] | None:
    """Return the integers of a shape, a tuple of them, or an attribute."""
    fields = getattr(expr, "values", None) or getattr(expr, "fields", None)
    values = [_integer(value) for value in (expr if fields is None else fields)]
    return None if any(value is None for value in values) else [v for v in values if v is not None]


def _integer(expr: Any) -> int | None:
    expr = getattr(expr, "value", expr)
    if isinstance(expr, tirx.IntImm):
        return int(expr)
    return expr if isinstance(expr, int) else None


def _reshape(call: Any, args: Sequence[Any]) -> Any:
    extents = _integers(args[1]) if isinstance(args[1], relax.ShapeExpr) else None
    return None if extents is None else args[0].reshape(extents)


def _broadcast_to(call: Any, args: Sequence[Any]) -> Any:
    extents = _integers(args[1]) if isinstance(args[1], relax.ShapeExpr) else None
    return None if extents is None else np.ascontiguousarray(np.broadcast_to(args[0], extents))


def _permute_dims(call: Any, args: Sequence[Any]) -> Any:
    axes = call.attrs.axes
    moved = args[0].transpose(None if axes is None else [int(axis) for axis in axes])
    return np.ascontiguousarray(moved).reshape(moved.shape)


def _expand_dims(call: Any, args: Sequence[Any]) -> Any:
    return np.expand_dims(args[0], tuple(int(axis) for axis in call.attrs.axis))


def _squeeze(call: Any, args: Sequence[Any]) -> Any:
    axes = range(args[0].ndim) if call.attrs.axis is None else map(int, call.attrs.axis)
    return np.squeeze(args[0], tuple(axis for axis in axes if args[0].shape[axis] == 1))


def _concat(call: Any, args: Sequence[Any]) -> Any:
    axis = call.attrs.axis
    if axis is None or not isinstance(args[0], tuple):
        return None
    return np.concatenate(args[0], int(axis))


def _split(call: Any, args: Sequence[Any]) -> Any:
    axis, sections = int(call.attrs.axis), call.attrs.indices_or_sections
    count = _integer(sections)
    if count is not None:
        return None if args[0].shape[axis] % count else _contiguous(np.split(args[0], count, axis))
    indices = _integers(sections)
    return None if indices is None else _contiguous(np.split(args[0], indices, axis))


def _contiguous(arrays: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(np.ascontiguousarray(array).reshape(array.shape) for array in arrays)


def _strided_slice(call: Any, args: Sequence[Any]) -> Any:
    """Slice with positive steps; TVM, as NumPy, clips the ends to the extent."""
    parts = [_integers(part) if isinstance(part, relax.Tuple) else None for part in args[1:]]
    if len(parts) == 3:
        axes, begin, end = parts
        strides: list[int] | None = [1] * len(axes or [])
    else:
        axes, begin, end, strides = parts
    if axes is None or begin is None or end is None or strides is None or min(strides, default=1) < 1:
        return None
    index = [slice(None)] * args[0].ndim
    for axis, first, last, step in zip(axes, begin, end, strides, strict=True):
        index[axis] = slice(first, last, step)
    taken = args[0][tuple(index)]
    return np.ascontiguousarray(taken).reshape(taken.shape)


def _take(call: Any, args: Sequence[Any]) -> Any:
    data, indices = args
    axis = call.attrs.axis
    if axis is None or not isinstance(indices, np.ndarray):
        return None
    extent = data.shape[int(axis)]
    if indices.size and not (indices.min() >= 0 and indices.max() < extent):
        return None
    return np.take(data, indices, int(axis))


def _astype(call: Any, args: Sequence[Any]) -> Any:
    dtype = str(call.attrs.dtype)
    narrowing = np.issubdtype(args[0].dtype, np.floating) and not dtype.startswith("float")
    if narrowing and not (np.isfinite(args[0]).all() and np.abs(args[0]).max(initial=0) < 2**31):
        return None
    return None if dtype == "bfloat16" else args[0].astype(dtype)


def _where(_call: Any, args: Sequence[Any]) -> Any:
    condition, left, right = (_array(arg) for arg in args)
    if condition is None or left is None or right is None or left.dtype != right.dtype:
        return None
    return np.where(condition, left, right)


def _gather_elements(call: Any, args: Sequence[Any]) -> Any:
    data, indices = args
    axis = int(call.attrs.axis)
    across = [extent for number, extent in enumerate(data.shape) if number != axis]
    if across != [extent for number, extent in enumerate(indices.shape) if number != axis]:
        return None
    if not indices.size or indices.min() < 0 or indices.max() >= data.shape[axis]:
        return None
    return np.take_along_axis(data, indices, axis)


def _slice_scatter(call: Any, args: Sequence[Any]) -> Any:
    data, source, *bounds = args
    first, last, step = (_integer(bound) for bound in bounds)
    if first is None or last is None or step is None or step < 1:
        return None
    axis = int(call.attrs.axis) % data.ndim
    index = (*[slice(None)] * axis, slice(first, last, step))
    if data[index].shape != source.shape:
        return None
    out = data.copy()
    out[index] = source
    return out


def _cumsum(call: Any, args: Sequence[Any]) -> Any:
    axis = call.attrs.axis
    if axis is None or call.attrs.exclusive or not np.issubdtype(args[0].dtype, np.integer):
        return None
    return np.cumsum(args[0], int(axis), dtype=str(call.ty.dtype))


def _full_like(call: Any, args: Sequence[Any]) -> Any:
    value = _array(args[1])
    if value is None or value.ndim:
        return None
    return np.full(args[0].shape, value, str(call.ty.dtype))


def _matmul(call: Any, args: Sequence[Any]) -> Any:
    left, right = args
    plain = left.dtype == right.dtype == np.float32 and str(call.ty.dtype) == "float32"
    return np.asarray(np.matmul(left, right)) if plain else None


def _full(call: Any, args: Sequence[Any]) -> Any:
    extents = _integers(args[0]) if isinstance(args[0], relax.ShapeExpr) else None
    value = _array(args[1])
    if extents is None or value is None:
        return None
    return np.full(extents, value, str(call.ty.dtype))


def _filled(value: int) -> Operator:
    def apply(call: Any, args: Sequence[Any]) -> Any:
        extents = _integers(args[0]) if isinstance(args[0], relax.ShapeExpr) else None
        return None if extents is None else np.full(extents, value, str(call.ty.dtype))

    return apply


def _arange(call: Any, args: Sequence[Any]) -> Any:
    first, last, step = (_integer(arg) for arg in args)
    if first is None or last is None or step is None:
        return None
    return np.arange(first, last, step, dtype=str(call.ty.dtype))


#: By the operator's name without ``relax.``.
OPERATORS: dict[str, Operator] = {
    "add": _binary(np.add),
    "subtract": _binary(np.subtract),
    "multiply": _binary(np.multiply),
    "divide": _of_floats(_binary(np.divide)),
    "maximum": _binary(np.maximum),
    "minimum": _binary(np.minimum),
    "mod": _of_integers(_binary(np.fmod)),
    "bitwise_and": _binary(np.bitwise_and),
    "power": _of_floats(_binary(np.power)),
    "equal": _binary(np.equal),
    "not_equal": _binary(np.not_equal),
    "less": _binary(np.less),
    "less_equal": _binary(np.less_equal),
    "greater": _binary(np.greater),
    "greater_equal": _binary(np.greater_equal),
    "logical_and": _binary(np.logical_and),
    "logical_or": _binary(np.logical_or),
    "logical_not": _unary(np.logical_not),
    "negative": _unary(np.negative),
    "abs": _unary(np.abs),
    "square": _unary(np.square),
    "sqrt": _of_floats(_unary(np.sqrt)),
    "rsqrt": _of_floats(_unary(lambda x: 1 / np.sqrt(x))),
    "exp": _of_floats(_unary(np.exp)),
    "log": _of_floats(_unary(np.log)),
    "sin": _of_floats(_unary(np.sin)),
    "cos": _of_floats(_unary(np.cos)),
    "tanh": _of_floats(_unary(np.tanh)),
    "floor": _of_floats(_unary(np.floor)),
    "ceil": _of_floats(_unary(np.ceil)),
    "reshape": _reshape,
    "broadcast_to": _broadcast_to,
    "permute_dims": _permute_dims,
    "expand_dims": _expand_dims,
    "squeeze": _squeeze,
    "concat": _concat,
    "split": _split,
    "strided_slice": _strided_slice,
    "take": _take,
    "astype": _astype,
    "where": _where,
    "gather_elements": _gather_elements,
    "slice_scatter": _slice_scatter,
    "cumsum": _cumsum,
    "full_like": _full_like,
    "matmul": _matmul,
    "full": _full,
    "zeros": _filled(0),
    "ones": _filled(1),
    "arange": _arange,
}
