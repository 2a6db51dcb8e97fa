"""ONNX operators that normalise, of forms that TVM lacks or gets wrong. [TVM]"""

from __future__ import annotations

from typing import Any

from .._tvm import relax
from .half_functions import HALVES
from .onnx_node import STANDARD, Converter, Node, cast, const, dtype_of, extent_of, rank_of

_op = relax.op


def _lrn(node: Node) -> Any:
    """Normalise over neighbouring channels: x / (bias + alpha / size * sum of squares) ** beta.

    The sum is one of slices, which keeps to any order of axes and is one kernel with the rest. TVM's is
    a pooling of three dimensions, before and after which everything is transposed.
    """
    data = node.required(0)
    dtype, size = dtype_of(data), int(node.attributes["size"])
    channels = extent_of(node, data, 1, "channels")
    before = (size - 1) // 2
    around = [0, 0, before, size - 1 - before] + [0, 0] * (rank_of(data) - 2)
    squares = node.emit(_op.nn.pad(node.emit(_op.multiply(data, data)), around))
    total = None
    for first in range(size):
        part = node.emit(_op.strided_slice(squares, [1], [first], [first + channels]))
        total = part if total is None else node.emit(_op.add(total, part))
    share = float(node.attributes.get("alpha", 1e-4)) / size
    bias, beta = float(node.attributes.get("bias", 1.0)), float(node.attributes.get("beta", 0.75))
    base = node.emit(_op.multiply(total, const(share, dtype)))
    base = node.emit(_op.add(base, const(bias, dtype)))
    return node.emit(_op.divide(data, node.emit(_op.power(base, const(beta, dtype)))))


def _mean_variance_normalization(node: Node) -> Any:
    """Divide what lies round the mean by its root mean square: TVM's difference of squares cancels."""
    data = node.required(0)
    axes = [int(axis) for axis in node.attributes.get("axes", (0, 2, 3))]
    centred = node.emit(_op.subtract(data, node.emit(_op.mean(data, axes, keepdims=True))))
    square = node.emit(_op.multiply(centred, centred))
    root = node.emit(_op.sqrt(node.emit(_op.mean(square, axes, keepdims=True))))
    return node.emit(_op.divide(centred, node.emit(_op.add(root, const(1e-9, dtype_of(data))))))


def _lp_normalization(node: Node) -> Any:
    """Divide by the norm along an axis; where that is 0 the result is 0."""
    data, power = node.required(0), int(node.attributes.get("p", 2))
    if power not in (1, 2):
        raise node.error(f"expected p = 1 or 2; got {power}")
    dtype, axis = dtype_of(data), [int(node.attributes.get("axis", -1))]
    terms = node.emit(_op.abs(data) if power == 1 else _op.multiply(data, data))
    norm = node.emit(_op.sum(terms, axis, keepdims=True))
    if power == 2:
        norm = node.emit(_op.sqrt(norm))
    is_zero = node.emit(_op.equal(norm, const(0, dtype)))
    divisor = node.emit(_op.where(is_zero, const(1, dtype), norm))
    return node.emit(_op.divide(data, divisor))


def _batch_normalization(node: Node) -> Any:
    """Normalise by the statistics of the batch itself, as a model in training does.

    What normalises by given statistics is TVM's.
    """
    attributes = node.attributes
    if int(attributes.get("spatial", 1)) != 1:
        raise node.error("one that is not spatial is not known")
    trains = bool(int(attributes.get("training_mode", 0)))
    if node.opset < 14:
        trains = node.num_outputs > 1
    if not trains:
        return NotImplemented
    data = node.required(0)
    scale, shift_by, mean, variance = (node.required(position) for position in range(1, 5))
    row = [1, -1, *[1] * (rank_of(data) - 2)]
    axes = [axis for axis in range(rank_of(data)) if axis != 1]
    exact = cast(node, data, "float32") if dtype_of(data) in HALVES else data
    own = dtype_of(exact)
    center = node.emit(_op.mean(exact, axes, keepdims=True))
    spread = node.emit(_op.variance(exact, axes, keepdims=True))
    divisor = node.emit(_op.add(spread, const(float(attributes.get("epsilon", 1e-5)), own)))
    made = node.emit(_op.subtract(exact, center))
    made = node.emit(_op.divide(made, node.emit(_op.sqrt(divisor))))
    for operator, operand in ((_op.multiply, scale), (_op.add, shift_by)):
        made = node.emit(operator(made, node.emit(_op.reshape(cast(node, operand, own), row))))
    momentum = float(attributes.get("momentum", 0.9))

    def kept(before: Any, seen: Any) -> Any:
        dtype = dtype_of(before)
        seen = cast(node, node.emit(_op.reshape(seen, [-1])), dtype)
        old = node.emit(_op.multiply(before, const(momentum, dtype)))
        return node.emit(_op.add(old, node.emit(_op.multiply(seen, const(1 - momentum, dtype)))))

    return cast(node, made, dtype_of(data)), kept(mean, center), kept(variance, spread)


def _layer_normalization(node: Node) -> Any:
    """Return the norm; where they are read, the mean and one over the deviation too."""
    if node.num_outputs == 1:
        return NotImplemented
    data, scale, shift_by = node.required(0), node.required(1), node.optional(2)
    first, rank = int(node.attributes.get("axis", -1)), rank_of(data)
    axes = list(range(first % rank, rank))
    exact = cast(node, data, "float32")
    mean = node.emit(_op.mean(exact, axes, keepdims=True))
    centred = node.emit(_op.subtract(exact, mean))
    spread = node.emit(_op.mean(node.emit(_op.multiply(centred, centred)), axes, keepdims=True))
    epsilon = const(float(node.attributes.get("epsilon", 1e-5)), "float32")
    inverse = node.emit(_op.rsqrt(node.emit(_op.add(spread, epsilon))))
    made = cast(node, node.emit(_op.multiply(centred, inverse)), dtype_of(data))
    made = node.emit(_op.multiply(made, scale))
    if shift_by is not None:
        made = node.emit(_op.add(made, shift_by))
    return made, mean, inverse


CONVERTERS: dict[tuple[str, str], Converter] = {
    (STANDARD, "LRN"): _lrn,
    (STANDARD, "MeanVarianceNormalization"): _mean_variance_normalization,
    (STANDARD, "LpNormalization"): _lp_normalization,
    (STANDARD, "BatchNormalization"): _batch_normalization,
    (STANDARD, "LayerNormalization"): _layer_normalization,
}
