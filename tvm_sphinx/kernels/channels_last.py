"""How each Relax operator acts on a tensor whose channels were moved to the end.

An order lists, for every axis of the channels-last tensor, the axis of the original tensor that it
holds: NHWC is (0, 2, 3, 1). A rule of `RULES` returns the operator on channels-last operands and the
order of its result, or None where it does not apply; a rule of `LEAVING` returns the operator's
result in the original order, computed from a channels-last operand without a transpose.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import relax, tirx

Order = tuple[int, ...]
NHWC: Order = (0, 2, 3, 1)
Result = tuple[relax.Expr, Order]


def inverse(order: Order) -> list[int]:
    """Return the axes that bring a tensor of this order back."""
    return [order.index(axis) for axis in range(len(order))]


def typed_const(array: Any) -> Any:
    """Return an array as a constant of its own type: TVM makes 32 bits of 64 where no type is named."""
    return relax.const(array, str(array.dtype))


def permute_array(array: Any, order: Order) -> Any:
    """Return a constant, broadcast against a tensor of `len(order)` axes, in that order."""
    if array.ndim == 0:
        return array
    widened = array.reshape((1,) * (len(order) - array.ndim) + array.shape)
    return np.ascontiguousarray(widened.transpose(order))


def _extents(expr: relax.Expr) -> tuple[int, ...] | None:
    shape = getattr(expr.ty, "shape", None)
    values = getattr(shape, "values", None)
    if values is None or not all(isinstance(value, tirx.IntImm) for value in values):
        return None
    return tuple(int(value) for value in values)


def _same_call(call: relax.Call, args: list[relax.Expr]) -> relax.Expr:
    return relax.Call(call.op, args, call.attrs, call.ty_args)


def _unary(rewriter: Any, call: relax.Call) -> Result | None:
    order = rewriter.order_of(call.args[0])
    tensor = rewriter.twin_of(call.args[0], order)
    return _same_call(call, [tensor, *call.args[1:]]), order


def _binary(rewriter: Any, call: relax.Call) -> Result | None:
    orders = [rewriter.order_of(arg) for arg in call.args]
    order = next(found for found in orders if found is not None)
    args: list[relax.Expr] = []
    for arg, held in zip(call.args, orders, strict=True):
        if not isinstance(arg.ty, relax.TensorType):
            args.append(arg)
            continue
        rank = arg.ty.ndim
        if held not in (None, order) or (rank != len(order) and rewriter.constant(arg) is None):
            return None
        args.append(rewriter.twin_of(arg, order))
    return _same_call(call, args), order


def _pool(rewriter: Any, call: relax.Call) -> Result | None:
    attrs = call.attrs
    if rewriter.order_of(call.args[0]) != NHWC or attrs.layout != "NCHW":
        return None
    tensor = rewriter.twin_of(call.args[0], NHWC)
    if call.op.name == "relax.nn.adaptive_avg_pool2d":
        size = None if attrs.output_size is None else [int(v) for v in attrs.output_size]
        return relax.op.nn.adaptive_avg_pool2d(tensor, size, "NHWC"), NHWC
    builders = {
        "relax.nn.max_pool2d": relax.op.nn.max_pool2d,
        "relax.nn.avg_pool2d": relax.op.nn.avg_pool2d,
    }
    pool = builders[call.op.name](
        tensor,
        tuple(int(v) for v in attrs.pool_size),
        tuple(int(v) for v in attrs.strides),
        tuple(int(v) for v in attrs.padding),
        tuple(int(v) for v in attrs.dilation),
        bool(attrs.ceil_mode),
        bool(attrs.count_include_pad),
        "NHWC",
    )
    return pool, NHWC


def _axes(call: relax.Call, rank: int) -> list[int] | None:
    axes = call.attrs.axis
    return None if axes is None else [int(axis) % rank for axis in axes]


_REDUCTIONS: dict[str, Callable[..., relax.Expr]] = {
    name: getattr(relax.op, name) for name in ("mean", "sum", "max", "min", "prod")
}


def _reduce(rewriter: Any, call: relax.Call) -> relax.Expr | None:
    """Reduce a channels-last tensor to one without its spatial axes, which needs no way back."""
    order = rewriter.order_of(call.args[0])
    axes = _axes(call, len(order))
    if call.attrs.keepdims or axes is None:
        return None
    left = [axis for axis in order if axis not in axes]
    if left != sorted(left):
        return None
    moved = sorted(order.index(axis) for axis in axes)
    return _REDUCTIONS[_name(call)](rewriter.twin_of(call.args[0], order), moved, False)


def _reduce_keeping(rewriter: Any, call: relax.Call) -> Result | None:
    order = rewriter.order_of(call.args[0])
    axes = _axes(call, len(order))
    if not call.attrs.keepdims or axes is None:
        return None
    moved = sorted(order.index(axis) for axis in axes)
    return _REDUCTIONS[_name(call)](rewriter.twin_of(call.args[0], order), moved, True), order


def _name(call: relax.Call) -> str:
    return str(call.op.name).removeprefix("relax.")


def _concat(rewriter: Any, call: relax.Call) -> Result | None:
    fields = getattr(call.args[0], "fields", None)
    if fields is None:
        return None
    orders = [rewriter.order_of(field) for field in fields]
    order = next(found for found in orders if found is not None)
    if call.attrs.axis is None or any(found not in (None, order) for found in orders):
        return None
    axis = order.index(int(call.attrs.axis) % len(order))
    return relax.op.concat([rewriter.twin_of(field, order) for field in fields], axis), order


def _split(rewriter: Any, call: relax.Call) -> Result:
    """Return a tuple, whose parts are all of the order."""
    order = rewriter.order_of(call.args[0])
    axis = order.index(int(call.attrs.axis) % len(order))
    ends = call.attrs.indices_or_sections
    where = int(ends) if isinstance(ends, int | tirx.IntImm) else [int(end) for end in ends]
    return relax.op.split(rewriter.twin_of(call.args[0], order), where, axis), order


def _pad(rewriter: Any, call: relax.Call) -> Result | None:
    order = rewriter.order_of(call.args[0])
    widths = [int(width) for width in call.attrs.pad_width]
    moved = [width for axis in order for width in widths[2 * axis : 2 * axis + 2]]
    tensor = rewriter.twin_of(call.args[0], order)
    return relax.op.nn.pad(tensor, moved, call.attrs.pad_mode, float(call.attrs.pad_value)), order


def _strided_slice(rewriter: Any, call: relax.Call) -> Result | None:
    order = rewriter.order_of(call.args[0])
    axes = [order.index(int(axis) % len(order)) for axis in call.args[1].fields]
    moved = relax.Tuple([relax.prim_value(axis) for axis in axes])
    tensor = rewriter.twin_of(call.args[0], order)
    return _same_call(call, [tensor, moved, *call.args[2:]]), order


def _resize2d(rewriter: Any, call: relax.Call) -> Result | None:
    attrs = call.attrs
    if rewriter.order_of(call.args[0]) != NHWC or attrs.layout != "NCHW":
        return None
    resized = relax.op.image.resize2d(
        rewriter.twin_of(call.args[0], NHWC),
        call.args[1],
        tuple(float(value) for value in attrs.roi),
        "NHWC",
        attrs.method,
        attrs.coordinate_transformation_mode,
        attrs.rounding_method,
        float(attrs.cubic_alpha),
        int(attrs.cubic_exclude),
        float(attrs.extrapolation_value),
        attrs.out_dtype,
    )
    return resized, NHWC


def _reshape(rewriter: Any, call: relax.Call) -> Result | None:
    """Split or merge channels, or merge the spatial axes, in place."""
    order = rewriter.order_of(call.args[0])
    source, target = _extents(call.args[0]), _extents(call)
    if source is None or target is None:
        return None
    tensor = rewriter.twin_of(call.args[0], order)
    if order == NHWC:
        batch, depth, height, width = source
        if target == (batch, depth, height * width):
            return relax.op.reshape(tensor, (batch, height * width, depth)), (0, 2, 1)
        if len(target) == 5 and (target[0], *target[3:]) == (batch, height, width):
            split = relax.op.reshape(tensor, (batch, height, width, *target[1:3]))
            return split, (0, 3, 4, 1, 2)
    if order == (0, 3, 4, 1, 2) and len(target) == 4:
        batch, first, second, height, width = source
        if target == (batch, first * second, height, width):
            return relax.op.reshape(tensor, (batch, height, width, first * second)), NHWC
    return None


def _permute(rewriter: Any, call: relax.Call) -> Result | None:
    """Swap the two halves of split channels (a channel shuffle) in place."""
    order = rewriter.order_of(call.args[0])
    axes = call.attrs.axes
    if order != (0, 3, 4, 1, 2) or axes is None or [int(a) for a in axes] != [0, 2, 1, 3, 4]:
        return None
    tensor = rewriter.twin_of(call.args[0], order)
    return relax.op.permute_dims(tensor, [0, 1, 2, 4, 3]), order


def _permute_leaving(rewriter: Any, call: relax.Call) -> relax.Expr | None:
    """Compose a transpose with the way back; often nothing remains of the two."""
    order = rewriter.order_of(call.args[0])
    if call.attrs.axes is None:
        return None
    axes = [order.index(int(axis)) for axis in call.attrs.axes]
    tensor = rewriter.twin_of(call.args[0], order)
    return tensor if axes == sorted(axes) else relax.op.permute_dims(tensor, axes)


def _reshape_leaving(rewriter: Any, call: relax.Call) -> relax.Expr | None:
    """Flatten a tensor without spatial extent: both orders are the same bytes."""
    order = rewriter.order_of(call.args[0])
    source = _extents(call.args[0])
    if source is None or order != NHWC or source[2:] != (1, 1):
        return None
    return _same_call(call, [rewriter.twin_of(call.args[0], order), call.args[1]])


def _squeeze_leaving(rewriter: Any, call: relax.Call) -> relax.Expr | None:
    target = _extents(call)
    source = _extents(call.args[0])
    order = rewriter.order_of(call.args[0])
    if source is None or target is None or order != NHWC or source[2:] != (1, 1):
        return None
    return relax.op.reshape(rewriter.twin_of(call.args[0], order), target)


UNARY = [
    "nn.relu",
    "nn.leakyrelu",
    "nn.gelu",
    "nn.gelu_tanh",
    "nn.silu",
    "nn.selu",
    "nn.softplus",
    "clip",
    "sigmoid",
    "tanh",
    "exp",
    "log",
    "sqrt",
    "rsqrt",
    "abs",
    "negative",
    "erf",
    "astype",
    "floor",
    "ceil",
    "round",
    "square",
    "sign",
    "cos",
    "sin",
]
BINARY = ["add", "subtract", "multiply", "divide", "maximum", "minimum", "power", "floor_divide"]

RULES: dict[str, Callable[[Any, relax.Call], Result | None]] = {
    **dict.fromkeys(UNARY, _unary),
    **dict.fromkeys(BINARY, _binary),
    **dict.fromkeys(_REDUCTIONS, _reduce_keeping),
    "nn.max_pool2d": _pool,
    "nn.avg_pool2d": _pool,
    "nn.adaptive_avg_pool2d": _pool,
    "concat": _concat,
    "split": _split,
    "nn.pad": _pad,
    "strided_slice": _strided_slice,
    "image.resize2d": _resize2d,
    "reshape": _reshape,
    "permute_dims": _permute,
}

LEAVING: dict[str, Callable[[Any, relax.Call], relax.Expr | None]] = {
    **dict.fromkeys(_REDUCTIONS, _reduce),
    "permute_dims": _permute_leaving,
    "reshape": _reshape_leaving,
    "nn.batch_flatten": _squeeze_leaving,
    "squeeze": _squeeze_leaving,
}
