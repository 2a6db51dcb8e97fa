"""Converters of quantised ONNX operators, whose integers are those that ONNX Runtime gives. [TVM]

Sums of products of integers are exact. Where the weights are known and no sum can reach 2**24, they are
computed in float32, in which every partial sum of them is a whole number that it holds exactly, in any
order: then the kernels for float32 serve. All others are computed in int32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm.relax.frontend.onnx import onnx_frontend

from .._tvm import relax
from .onnx_node import (
    MICROSOFT,
    STANDARD,
    Array,
    Converter,
    Node,
    cast,
    const,
    constant_value,
    dtype_of,
    rank_of,
    shape_of,
)
from .onnx_operators import settle_pads

_op = relax.op

# Every whole number up to this one is a float32.
_EXACT = 1 << 24
_RANGES = {
    "int8": (-128, 127),
    "uint8": (0, 255),
    "int16": (-(2**15), 2**15 - 1),
    "uint16": (0, 2**16 - 1),
}
# ONNX's numbers of types that are kept in bytes, and the ranges of their values.
_FOUR_BITS = {21: ("uint8", 0, 15), 22: ("int8", -8, 7)}


def quantize(node: Node, data: Any, scale: Any, zero: Any, dtype: str, axis: int = 1) -> Any:
    """Return saturate(round_half_even(data / scale) + zero), NaN as the least.

    Parameters
    ----------
    data
        Tensor of floats, or of int32.
    scale, zero
        Tensors of one element, or of one for each index of ``axis``; ``zero`` may be None.
    dtype
        That of the result, one of 8 or 16 bits.
    """
    return _saturate(node, _scaled(node, data, scale, axis), _aligned(node, zero, data, axis), dtype)


def _scaled(node: Node, data: Any, scale: Any, axis: int) -> Any:
    data = cast(node, data, "float32")
    return node.emit(_op.divide(data, cast(node, _aligned(node, scale, data, axis), "float32")))


def _saturate(
    node: Node, real: Any, zero: Any, dtype: str, bounds: tuple[int, int] | None = None
) -> Any:
    """Return real numbers rounded half to even, moved by a zero point, within the range of a type."""
    least, most = bounds or _range(node, dtype)
    whole = node.emit(_op.round(real))
    if zero is not None:
        whole = node.emit(_op.add(whole, cast(node, zero, "float32")))
    # NaN compares as false.
    above = node.emit(_op.greater(whole, const(least, "float32")))
    whole = node.emit(_op.where(above, whole, const(least, "float32")))
    whole = node.emit(_op.minimum(whole, const(most, "float32")))
    # Through int32: a vector of floats is not narrowed to bytes at once by every processor.
    return node.emit(_op.astype(node.emit(_op.astype(whole, "int32")), dtype))


def dequantize(
    node: Node, data: Any, scale: Any, zero: Any, axis: int = 1, dtype: str = "float32"
) -> Any:
    """Return (data - zero) * scale; parameters as in `quantize`."""
    whole = _centred(node, data, _aligned(node, zero, data, axis), "int32")
    scale = cast(node, _aligned(node, scale, data, axis), "float32")
    return cast(node, node.emit(_op.multiply(cast(node, whole, "float32"), scale)), dtype)


def _range(node: Node, dtype: str) -> tuple[int, int]:
    if dtype not in _RANGES:
        raise node.error(f"expected one of {', '.join(_RANGES)}; got {dtype}")
    return _RANGES[dtype]


def _centred(node: Node, data: Any, zero: Any, dtype: str) -> Any:
    """Return data minus its zero point as another dtype, which holds both."""
    whole = cast(node, data, dtype)
    known = constant_value(zero)
    if zero is None or (known is not None and not known.any()):
        return whole
    return node.emit(_op.subtract(whole, cast(node, zero, dtype)))


def _aligned(node: Node, parameter: Any, data: Any, axis: int) -> Any:
    """Return a scale or zero point in a shape that broadcasts along the right axis of the data."""
    if parameter is None or rank_of(parameter) == 0:
        return parameter
    extents = shape_of(node, parameter, "a scale or zero point")
    if rank_of(parameter) > 1:
        return parameter
    if extents == [1]:
        return _reshaped(node, parameter, [])
    shape = [1] * rank_of(data)
    shape[axis] = extents[0]
    return _reshaped(node, parameter, shape)


def _reshaped(node: Node, tensor: Any, shape: list[int]) -> Any:
    value = constant_value(tensor)
    if value is not None:
        return const(value.reshape(shape), dtype_of(tensor))
    return node.emit(_op.reshape(tensor, shape))


def _quantize_linear(node: Node) -> Any:
    data, scale, zero = node.required(0), node.required(1), node.optional(2)
    if node.attributes.get("precision", 0):
        raise node.error("a precision for the division is not known")
    declared = int(node.attributes.get("output_dtype", 0))
    dtype = dtype_of(zero) if zero is not None else "uint8"
    bounds = None
    if declared in _FOUR_BITS:
        dtype, *ends = _FOUR_BITS[declared]
        bounds = (ends[0], ends[1])
    elif declared and zero is None:
        dtype = str(onnx_frontend.get_type(declared))
    _range(node, dtype)
    axis = int(node.attributes.get("axis", 1))
    scale, zero = (_blocked(node, value, data, axis) for value in (scale, zero))
    real = _scaled(node, data, scale, axis)
    return _saturate(node, real, _aligned(node, zero, data, axis), dtype, bounds)


def _dequantize_linear(node: Node) -> Any:
    data, scale, zero = node.required(0), node.required(1), node.optional(2)
    if dtype_of(data) != "int32":
        _range(node, dtype_of(data))
    axis = int(node.attributes.get("axis", 1))
    scale, zero = (_blocked(node, value, data, axis) for value in (scale, zero))
    declared = int(node.attributes.get("output_dtype", 0))
    dtype = str(onnx_frontend.get_type(declared)) if declared else dtype_of(scale)
    return dequantize(node, data, scale, zero, axis, dtype)


def _blocked(node: Node, parameter: Any, data: Any, axis: int) -> Any:
    """Return a scale or zero point with its blocks spread out over the axis; others as they are."""
    size = int(node.attributes.get("block_size", 0))
    if not size or parameter is None:
        return parameter
    extent = shape_of(node, data, "data in blocks")[axis]
    axis %= rank_of(data)
    value = constant_value(parameter)
    if value is not None:
        spread = np.repeat(value, size, axis).take(np.arange(extent), axis)
        return const(spread, dtype_of(parameter))
    spread = node.emit(_op.repeat(parameter, size, axis))
    return node.emit(_op.strided_slice(spread, [axis], [0], [extent]))


def _dynamic_quantize_linear(node: Node) -> tuple[Any, Any, Any]:
    data = node.required(0)
    scale, zero = dynamic_parameters(node, data)
    return quantize(node, data, scale, zero, "uint8"), scale, zero


def dynamic_parameters(node: Node, data: Any) -> tuple[Any, Any]:
    """Return the scale and zero point of uint8 values that cover a tensor and 0."""
    none = const(0, "float32")
    least = node.emit(_op.minimum(node.emit(_op.min(data)), none))
    most = node.emit(_op.maximum(node.emit(_op.max(data)), none))
    width = node.emit(_op.subtract(most, least))
    scale = node.emit(_op.divide(width, const(255, "float32")))
    is_flat = node.emit(_op.equal(width, none))
    scale = node.emit(_op.where(is_flat, const(1, "float32"), scale))
    zero = node.emit(_op.divide(node.emit(_op.subtract(none, least)), scale))
    return scale, _saturate(node, zero, None, "uint8")


def _sum_dtype(data: Any, data_zero: Any, weights: Array | None, summed: tuple[int, ...]) -> str:
    """Return the dtype for sums of products: float32 where it is exact, else int32.

    Parameters
    ----------
    data, data_zero
        Quantised tensor and its zero point.
    weights
        What it is multiplied with, less its zero point; None where that is not known.
    summed
        Axes of ``weights`` that each sum runs over.
    """
    if weights is None:
        return "int32"
    least, most = _RANGES[dtype_of(data)]
    zero = constant_value(data_zero) if data_zero is not None else np.zeros(1, np.int64)
    if zero is None:
        largest = most - least
    else:
        largest = int(
            np.maximum(most - zero.astype(np.int64), zero.astype(np.int64) - least).max(initial=0)
        )
    total = np.abs(weights).sum(axis=summed, dtype=np.int64).max(initial=0)
    return "float32" if int(total) * largest <= _EXACT else "int32"


def _centred_weights(weights: Any, zero: Any, axis: int) -> Array | None:
    """Return constant weights less their zero point, None where they are not known."""
    value, offset = constant_value(weights), constant_value(zero)
    if value is None or (zero is not None and offset is None):
        return None
    centred = value.astype(np.int64)
    if offset is None:
        return centred
    if offset.ndim == 1 and offset.size > 1:
        shape = [1] * centred.ndim
        shape[axis] = offset.size
        offset = offset.reshape(shape)
    return centred - (offset.reshape(()) if offset.size == 1 else offset).astype(np.int64)


def _sums_of_conv(node: Node, data: Any, data_zero: Any, weights: Any, weights_zero: Any) -> Any:
    """Return the convolution of integers less their zero points, as int32 or as exact float32."""
    known = _centred_weights(weights, weights_zero, 0)
    dtype = _sum_dtype(data, data_zero, known, tuple(range(1, rank_of(weights))))
    centred = _centred(node, data, _aligned(node, data_zero, data, 1), dtype)
    if known is not None:
        kernel = const(known, dtype)
    else:
        kernel = _centred(node, weights, _aligned(node, weights_zero, weights, 0), dtype)
    attributes = dict(node.attributes)
    # ONNX's default, and what ONNX Runtime does where a file says less than the kernel has.
    attributes.setdefault("kernel_shape", tuple(shape_of(node, weights, "weights")[2:]))
    inputs = onnx_frontend.onnx_input()
    inputs.extend([centred, kernel, None])
    convert = onnx_frontend.Conv.get_converter(node.opset)
    return node.emit(node.builder.normalize(convert(node.builder, inputs, attributes, [])))


def sums_of_matmul(node: Node, left: Any, left_zero: Any, right: Any, right_zero: Any) -> Any:
    """Return the product of integers less their zero points, as int32 or as exact float32."""
    known = _centred_weights(right, right_zero, rank_of(right) - 1)
    summed = (rank_of(right) - 2,) if rank_of(right) > 1 else (0,)
    dtype = _sum_dtype(left, left_zero, known, summed)
    rows = max(0, rank_of(left) - 2)
    centred = _centred(node, left, _aligned(node, left_zero, left, rows), dtype)
    if known is not None:
        other = const(known, dtype)
    else:
        other = _centred(node, right, _aligned(node, right_zero, right, rank_of(right) - 1), dtype)
    return node.emit(_op.matmul(centred, other))


def _requantize(node: Node, sums: Any, scale: Any, zero: Any) -> Any:
    """Return integer sums times a scale that broadcasts, in the type of a zero point."""
    real = node.emit(_op.multiply(cast(node, sums, "float32"), scale))
    return _saturate(node, real, zero, dtype_of(zero))


def _joint_scale(node: Node, left: Any, right: Any, result: Any) -> Any:
    """Return left * right / result, rounded after each, as ONNX Runtime does."""
    values = [constant_value(scale) for scale in (left, right, result)]
    if all(value is not None for value in values):
        first, second, third = (np.asarray(value, np.float32) for value in values)
        return const(first * second / third, "float32")
    return node.emit(_op.divide(node.emit(_op.multiply(left, right)), result))


def _qlinear_conv(node: Node) -> Any:
    data, x_scale, x_zero, weights, w_scale, w_zero, y_scale, y_zero = node.inputs[:8]
    sums = _sums_of_conv(node, data, x_zero, weights, w_zero)
    if (bias := node.optional(8)) is not None:
        sums = cast(node, sums, "int32")
        sums = node.emit(_op.add(sums, _aligned_to_channels(node, bias, sums)))
    x_scale, y_scale = (_reshaped(node, scale, []) for scale in (x_scale, y_scale))
    scale = _joint_scale(node, x_scale, _aligned(node, w_scale, sums, 1), y_scale)
    return _requantize(node, sums, scale, _reshaped(node, y_zero, []))


def _aligned_to_channels(node: Node, bias: Any, data: Any) -> Any:
    return _reshaped(node, bias, [1, -1] + [1] * (rank_of(data) - 2))


def _qlinear_matmul(node: Node) -> Any:
    left, a_scale, a_zero, right, b_scale, b_zero, y_scale, y_zero = node.inputs[:8]
    sums = sums_of_matmul(node, left, a_zero, right, b_zero)
    rank = rank_of(sums)
    scale = _joint_scale(
        node,
        _aligned(node, a_scale, sums, max(0, rank - 2)),
        _aligned(node, b_scale, sums, rank - 1),
        _aligned(node, y_scale, sums, max(0, rank - 2)),
    )
    return _requantize(node, sums, scale, _aligned(node, y_zero, sums, max(0, rank - 2)))


def _matmul_integer(node: Node) -> Any:
    inputs = node.required(0), node.optional(2), node.required(1), node.optional(3)
    return cast(node, sums_of_matmul(node, *inputs), "int32")


def _conv_integer(node: Node) -> Any:
    inputs = node.required(0), node.optional(2), node.required(1), node.optional(3)
    return cast(node, _sums_of_conv(node, *inputs), "int32")


def _matmul_integer_to_float(node: Node) -> Any:
    left, right, a_scale, b_scale = (node.required(number) for number in range(4))
    sums = sums_of_matmul(node, left, node.optional(4), right, node.optional(5))
    return _scaled_sums(node, sums, a_scale, b_scale, node.optional(6))


def _scaled_sums(node: Node, sums: Any, a_scale: Any, b_scale: Any, bias: Any) -> Any:
    last = rank_of(sums) - 1
    scale = node.emit(
        _op.multiply(_aligned(node, a_scale, sums, last), _aligned(node, b_scale, sums, last))
    )
    real = node.emit(_op.multiply(cast(node, sums, "float32"), scale))
    return real if bias is None else node.emit(_op.add(real, bias))


def dynamic_product(node: Node, data: Any, weights: Any, scale: Any, zero: Any) -> Any:
    """Return the product of floats, quantised to uint8 by their range, with quantised weights.

    ``scale`` and ``zero`` are those of the weights: of all, or of each column.
    """
    data_scale, data_zero = dynamic_parameters(node, data)
    left = quantize(node, data, data_scale, data_zero, "uint8")
    sums = sums_of_matmul(node, left, data_zero, weights, zero)
    return _scaled_sums(node, sums, data_scale, scale, None)


def _dynamic_quantize_matmul(node: Node) -> Any:
    data, right, scale = (node.required(number) for number in range(3))
    real = dynamic_product(node, data, right, scale, node.optional(3))
    bias = node.optional(4)
    return real if bias is None else node.emit(_op.add(real, bias))


def _qlinear_binary(combine: Callable[[Any, Any], Any]) -> Converter:
    """Return a converter that computes with real numbers between dequantising and quantising."""

    def convert(node: Node) -> Any:
        left, a_scale, a_zero, right, b_scale, b_zero, y_scale = (node.inputs + (None,) * 8)[:7]
        zero = node.optional(7)
        real = node.emit(
            combine(dequantize(node, left, a_scale, a_zero), dequantize(node, right, b_scale, b_zero))
        )
        return quantize(node, real, y_scale, zero, dtype_of(left))

    return convert


def _qlinear_unary(function: Callable[[Node, Any], Any]) -> Converter:
    def convert(node: Node) -> Any:
        data, x_scale, x_zero, y_scale = (node.inputs + (None,) * 4)[:4]
        real = function(node, dequantize(node, data, x_scale, x_zero))
        return quantize(node, real, y_scale, node.optional(4), dtype_of(data))

    return convert


def _leaky(node: Node, real: Any) -> Any:
    return node.emit(_op.nn.leakyrelu(real, float(node.attributes.get("alpha", 0.01))))


def _sigmoid(node: Node, real: Any) -> Any:
    return node.emit(_op.sigmoid(real))


def _qlinear_concat(node: Node) -> Any:
    scale, zero, *rest = node.inputs
    parts = [dequantize(node, *rest[position : position + 3]) for position in range(0, len(rest), 3)]
    joined = node.emit(_op.concat(parts, int(node.attributes["axis"])))
    return quantize(node, joined, scale, zero, dtype_of(zero))


def _channels_first(node: Node, data: Any) -> Any:
    if not int(node.attributes.get("channels_last", 0)):
        return data
    rank = rank_of(data)
    return node.emit(_op.permute_dims(data, [0, rank - 1, *range(1, rank - 1)]))


def _channels_last(node: Node, data: Any) -> Any:
    if not int(node.attributes.get("channels_last", 0)):
        return data
    return node.emit(_op.permute_dims(data, [0, *range(2, rank_of(data)), 1]))


def _qlinear_global_average_pool(node: Node) -> Any:
    data, x_scale, x_zero, y_scale, y_zero = node.inputs[:5]
    real = _channels_first(node, dequantize(node, data, x_scale, x_zero))
    axes = list(range(2, rank_of(data)))
    real = _channels_last(node, node.emit(_op.mean(real, axes, keepdims=True)))
    return quantize(node, real, y_scale, y_zero, dtype_of(data))


def _qlinear_average_pool(node: Node) -> Any:
    data, x_scale, x_zero, y_scale = node.inputs[:4]
    real = _channels_first(node, dequantize(node, data, x_scale, x_zero))
    settle_pads(node, real)
    inputs = onnx_frontend.onnx_input()
    inputs.append(real)
    attributes = {key: value for key, value in node.attributes.items() if key != "channels_last"}
    convert = onnx_frontend.AveragePool.get_converter(19)
    pooled = node.emit(node.builder.normalize(convert(node.builder, inputs, attributes, [])))
    return quantize(node, _channels_last(node, pooled), y_scale, node.optional(4), dtype_of(data))


def _qlinear_softmax(node: Node) -> Any:
    data, x_scale, x_zero, y_scale, y_zero = node.inputs[:5]
    axis = int(node.attributes.get("axis", -1))
    if int(node.attributes.get("opset", 13)) < 13 and axis not in (-1, rank_of(data) - 1):
        raise node.error("a softmax over several axes is not known")
    real = node.emit(_op.nn.softmax(dequantize(node, data, x_scale, x_zero), axis))
    return quantize(node, real, y_scale, y_zero, dtype_of(data))


def _qgemm(node: Node) -> Any:
    left, a_scale, a_zero, right, b_scale, b_zero = node.inputs[:6]
    if int(node.attributes.get("transA", 0)):
        left = node.emit(_op.permute_dims(left))
    if int(node.attributes.get("transB", 0)):
        value = constant_value(right)
        right = node.emit(_op.permute_dims(right)) if value is None else const(value.T, dtype_of(right))
    sums = cast(node, sums_of_matmul(node, left, a_zero, right, b_zero), "int32")
    if (bias := node.optional(6)) is not None:
        sums = node.emit(_op.add(sums, bias))
    alpha = const(float(node.attributes.get("alpha", 1.0)), "float32")
    b_scale = _aligned(node, b_scale, sums, 1)
    y_scale, y_zero = node.optional(7), node.optional(8)
    scale = node.emit(_op.multiply(node.emit(_op.multiply(alpha, a_scale)), b_scale))
    if y_scale is None:
        return node.emit(_op.multiply(cast(node, sums, "float32"), scale))
    return _requantize(node, sums, node.emit(_op.divide(scale, y_scale)), y_zero)


CONVERTERS: dict[tuple[str, str], Converter] = {
    (STANDARD, "QuantizeLinear"): _quantize_linear,
    (STANDARD, "DequantizeLinear"): _dequantize_linear,
    (STANDARD, "DynamicQuantizeLinear"): _dynamic_quantize_linear,
    (STANDARD, "QLinearConv"): _qlinear_conv,
    (STANDARD, "QLinearMatMul"): _qlinear_matmul,
    (STANDARD, "ConvInteger"): _conv_integer,
    (STANDARD, "MatMulInteger"): _matmul_integer,
    (MICROSOFT, "QuantizeLinear"): _quantize_linear,
    (MICROSOFT, "DequantizeLinear"): _dequantize_linear,
    (MICROSOFT, "MatMulIntegerToFloat"): _matmul_integer_to_float,
    (MICROSOFT, "DynamicQuantizeMatMul"): _dynamic_quantize_matmul,
    (MICROSOFT, "QLinearAdd"): _qlinear_binary(_op.add),
    (MICROSOFT, "QLinearMul"): _qlinear_binary(_op.multiply),
    (MICROSOFT, "QLinearSigmoid"): _qlinear_unary(_sigmoid),
    (MICROSOFT, "QLinearLeakyRelu"): _qlinear_unary(_leaky),
    (MICROSOFT, "QLinearConcat"): _qlinear_concat,
    (MICROSOFT, "QLinearGlobalAveragePool"): _qlinear_global_average_pool,
    (MICROSOFT, "QLinearAveragePool"): _qlinear_average_pool,
    (MICROSOFT, "QLinearSoftmax"): _qlinear_softmax,
    (MICROSOFT, "QGemm"): _qgemm,
}
