"""ONNX operators along the steps of sequences: reversed, written into a cache, multiplied up. [TVM]"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._tvm import relax
from .onnx_node import STANDARD, Converter, Node, cast, const, dtype_of, rank_of, shape_of

_op = relax.op


def _reverse_sequence(node: Node) -> Any:
    """Reverse the first steps of each sequence of a batch; how many is known at run time."""
    data, lengths = node.required(0), node.required(1)
    shape = shape_of(node, data, "input")
    steps = int(node.attributes.get("time_axis", 0)) % len(shape)
    batch = int(node.attributes.get("batch_axis", 1)) % len(shape)
    if steps == batch:
        raise node.error(f"expected unlike time_axis and batch_axis; got {steps} for both")
    places = const(_along(np.arange(shape[steps]), steps, len(shape)), "int64")
    ends = node.emit(_op.reshape(cast(node, lengths, "int64"), _row(shape, batch)))
    last = node.emit(_op.subtract(ends, const(1, "int64")))
    mirrored = node.emit(_op.subtract(last, places))
    place = node.emit(_op.where(node.emit(_op.less(places, ends)), mirrored, places))
    return _picked(node, data, place, steps)


def _tensor_scatter(node: Node) -> Any:
    """Write new steps into a cache from a place on that may differ by batch."""
    cache, new, begins = node.required(0), node.required(1), node.optional(2)
    shape, written = shape_of(node, cache, "past_cache"), shape_of(node, new, "update")
    axis = int(node.attributes.get("axis", -2)) % len(shape)
    mode = node.text("mode", "linear")
    if axis == 0 or mode not in ("linear", "circular"):
        raise node.error(
            f"expected an axis behind the batch, and linear or circular; got {axis}, {mode}"
        )
    if begins is None:
        begins = const(np.zeros(shape[0]), "int64")
    begins = node.emit(_op.reshape(cast(node, begins, "int64"), _row(shape, 0)))
    # How far behind the first written step each of the cache lies.
    places = const(_along(np.arange(shape[axis]), axis, len(shape)), "int64")
    after = node.emit(_op.subtract(places, begins))
    extent = const(shape[axis], "int64")
    if mode == "circular":
        after = node.emit(_op.floor_mod(after, extent))
    count = const(written[axis], "int64")
    is_new = node.emit(_op.less(after, count))
    if mode == "linear":
        is_new = node.emit(
            _op.logical_and(is_new, node.emit(_op.greater_equal(after, const(0, "int64"))))
        )
    place = node.emit(_op.where(is_new, node.emit(_op.add(after, extent)), places))
    return _picked(node, node.emit(_op.concat([cache, new], axis)), place, axis, shape)


def _picked(node: Node, data: Any, place: Any, axis: int, shape: list[int] | None = None) -> Any:
    """Return elements of data along an axis, by places that are broadcast to all others."""
    place = node.emit(_op.broadcast_to(place, shape or shape_of(node, data, "input")))
    return node.emit(_op.gather_elements(data, place, axis))


def _along(values: Any, axis: int, rank: int) -> Any:
    return values.reshape([-1 if at == axis else 1 for at in range(rank)])


def _row(shape: list[int], axis: int) -> list[int]:
    return [extent if at == axis else 1 for at, extent in enumerate(shape)]


def _cumulative_product(node: Node) -> Any:
    """Multiply all elements up to each one, or from there on, itself included or not."""
    data = node.required(0)
    axis = node.number(1, "an axis") % rank_of(data)
    is_reversed = bool(int(node.attributes.get("reverse", 0)))
    if is_reversed:
        data = node.emit(_op.flip(data, axis))
    if int(node.attributes.get("exclusive", 0)):
        shape = shape_of(node, data, "x")
        ones = const(
            np.ones([1 if at == axis else extent for at, extent in enumerate(shape)]), dtype_of(data)
        )
        before = node.emit(_op.strided_slice(data, [axis], [0], [shape[axis] - 1]))
        data = node.emit(_op.concat([ones, before], axis))
    made = node.emit(_op.cumprod(data, axis, dtype_of(data)))
    return node.emit(_op.flip(made, axis)) if is_reversed else made


CONVERTERS: dict[tuple[str, str], Converter] = {
    (STANDARD, "ReverseSequence"): _reverse_sequence,
    (STANDARD, "TensorScatter"): _tensor_scatter,
    (STANDARD, "CumProd"): _cumulative_product,
}
