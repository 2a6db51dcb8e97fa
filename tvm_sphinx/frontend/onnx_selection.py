"""Converter of ONNX's NonMaxSuppression, whose number of results is known only at run time. [TVM]

TVM's own keeps what has a score of 0 or less whatever it overlaps, and what it says of its shape is how
many rows there might be.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from .._tvm import relax, tirx, tvm
from ..kernels import HIDES_WORK
from .onnx_node import STANDARD, Converter, Node, cast, const, extent_of
from .onnx_open_shapes import extents_in, first_rows

_op = relax.op
_te = tvm.te
# Where it is not known how many boxes there are, rows for no more than this many of a class are made.
_MOST_ROWS = 4096


def _non_max_suppression(node: Node) -> Any:
    """Select the boxes of the highest scores that overlap no better one, for each batch and class."""
    boxes, scores = node.required(0), node.required(1)
    batch, classes = (extent_of(node, scores, axis, "scores") for axis in (0, 1))
    number = extents_in(node, scores)[2]
    wanted = relax.TensorType([batch, number, 4], "float32")
    if boxes.ty.shape is None:
        boxes = node.builder.match_cast(boxes, wanted)  # looked at when it runs
    elif not all(map(_may_equal, boxes.ty.shape.values, wanted.shape.values)):
        raise node.error(f"expected boxes as {wanted}; got {boxes.ty}")
    most = _most_turns(node, number)
    if not batch * classes or (isinstance(most, int) and not most):
        return const(np.zeros((0, 3)), "int64")
    limits = (
        _scalar(node, 2, "int64", 0),
        _scalar(node, 3, "float32", 0.0),
        _scalar(node, 4, "float32", -np.inf),
    )
    is_centred = bool(node.attributes.get("center_point_box", 0))

    def compute(*operands: Any) -> Any:
        there = operands[1].shape[2]  # as this function names it, if it is open
        turns = most if isinstance(most, int) else there
        return _te.extern(
            [(batch * classes * turns, 3), (1,)],
            list(operands),
            lambda ins, outs: _select(ins, outs, batch, classes, there, turns, is_centred),
            name="non_max_suppression",
            dtype=["int64", "int64"],
        )

    name, marked = "non_max_suppression", {HIDES_WORK: True}
    operands = (boxes, scores, *limits)
    call = node.builder.call_te(compute, *operands, primfunc_name_hint=name, primfunc_attrs=marked)
    made = node.emit(call)
    rows, count = (node.emit(relax.TupleGetItem(made, at)) for at in range(2))
    return first_rows(node, rows, count)


def _may_equal(extent: Any, wanted: Any) -> bool:
    """Return whether two extents are equal, or one of them is open."""
    both = (extent, wanted)
    return not all(isinstance(one, tirx.IntImm) for one in both) or int(extent) == int(wanted)


def _most_turns(node: Node, number: Any) -> Any:
    """Return how many boxes a class can have at most: what is asked for, or how many there are."""
    known = node.constant(2)
    if node.optional(2) is None:
        return 0
    wanted = None if known is None else max(0, int(known.reshape(())))
    if isinstance(number, tirx.IntImm):
        return int(number) if wanted is None else min(int(number), wanted)
    return number if wanted is None or wanted > _MOST_ROWS else wanted


def _scalar(node: Node, position: int, dtype: str, default: float) -> Any:
    """Return an input of one element as a tensor of shape (1,)."""
    if node.optional(position) is None:
        return const([default], dtype)
    return node.emit(_op.reshape(cast(node, node.required(position), dtype), [1]))


def _select(
    ins: Any, outs: Any, batch: int, classes: int, number: Any, most: Any, is_centred: bool
) -> Any:
    """Return the loops: take the best box that is left, drop what it overlaps, and so on."""
    with IRBuilder() as builder:
        with T.serial(0, 1):  # one statement round all of them
            boxes, scores, limit, overlap, least = (T.buffer_proxy(one) for one in ins)
            rows, count = (T.buffer_proxy(one) for one in outs)
            is_left = T.buffer_proxy(T.alloc_buffer((number,), "int32", scope="global"))
            best = T.buffer_proxy(T.alloc_buffer((1,), "int32", scope="local"))
            with T.grid(batch * classes * most, 3) as (row, column):
                rows[row, column] = T.int64(0)
            count[0] = T.int64(0)
            with T.grid(batch, classes) as (image, label):
                with T.serial(0, number) as box:
                    is_left[box] = tirx.Cast("int32", scores[image, label, box] > least[0])
                best[0] = T.int32(0)
                with T.serial(0, most) as turn:
                    goes_on = tirx.all(best[0] >= 0, tirx.Cast("int64", turn) < limit[0])
                    best[0] = tirx.if_then_else(goes_on, T.int32(-1), T.int32(-2))
                    with T.If(best[0] == -1), T.Then():
                        _find_best(image, label, number, scores, is_left, best)
                    with T.If(best[0] >= 0), T.Then():
                        _take(image, label, number, boxes, overlap, is_left, best, is_centred)
                        values = (image, label, best[0])
                        for column, value in enumerate(values):
                            rows[count[0], column] = tirx.Cast("int64", value)
                        count[0] = count[0] + T.int64(1)
        return builder.get()


def _find_best(image: Any, label: Any, number: Any, scores: Any, is_left: Any, best: Any) -> None:
    """Find the first of the highest scores that are left."""
    with T.serial(0, number) as box, T.If(is_left[box] > 0), T.Then():
        is_better = scores[image, label, box] > scores[image, label, tirx.max(best[0], 0)]
        with T.If(tirx.any(best[0] < 0, is_better)), T.Then():
            best[0] = tirx.Cast("int32", box)


def _take(
    image: Any,
    label: Any,
    number: Any,
    boxes: Any,
    overlap: Any,
    is_left: Any,
    best: Any,
    is_centred: bool,
) -> None:
    """Drop the best box, and those that overlap it by more than allowed."""
    is_left[best[0]] = T.int32(0)
    with T.serial(0, number) as box, T.If(is_left[box] > 0), T.Then():
        one, other = (_sides(boxes, image, at, is_centred) for at in (best[0], box))
        with T.If(_overlap(one, other) > overlap[0]), T.Then():
            is_left[box] = T.int32(0)


def _sides(boxes: Any, image: Any, box: Any, is_centred: bool) -> list[tuple[Any, Any]]:
    """Return the lower and the upper end of a box along both axes."""
    a, b, c, d = (boxes[image, box, at] for at in range(4))
    if is_centred:
        half = T.float32(0.5)
        return [(a - c * half, a + c * half), (b - d * half, b + d * half)]
    return [(tirx.min(a, c), tirx.max(a, c)), (tirx.min(b, d), tirx.max(b, d))]


def _overlap(one: list[tuple[Any, Any]], other: list[tuple[Any, Any]]) -> Any:
    """Return the area that two boxes share over that which they cover; 0 where one has none."""
    zero = T.float32(0)
    shared = [
        tirx.max(tirx.min(high, upper) - tirx.max(low, lower), zero)
        for (low, high), (lower, upper) in zip(one, other, strict=True)
    ]
    both = shared[0] * shared[1]
    areas = [(box[0][1] - box[0][0]) * (box[1][1] - box[1][0]) for box in (one, other)]
    covered = areas[0] + areas[1] - both
    is_known = tirx.all(both > zero, areas[0] > zero, areas[1] > zero, covered > zero)
    return tirx.if_then_else(is_known, both / covered, zero)


CONVERTERS: dict[tuple[str, str], Converter] = {(STANDARD, "NonMaxSuppression"): _non_max_suppression}
