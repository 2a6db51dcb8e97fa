"""Converters of ONNX operators whose types, ranges or extents TVM's importer gets wrong. [TVM]"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._tvm import relax, tirx, tvm
from .onnx_node import (
    STANDARD,
    Converter,
    Node,
    cast,
    const,
    constant_value,
    dtype_of,
    rank_of,
    shape_of,
)
from .onnx_resize import affine_grid, resize, sample

_op = relax.op


def _one_hot(node: Node) -> Any:
    """Compare indices with a row of numbers; what is out of range is off everywhere."""
    depth, values = node.constant(1), node.constant(2)
    if depth is None or values is None:
        raise node.error("expected depth and values that are constant")
    indices, extent = node.required(0), int(depth.reshape(()))
    axis = int(node.attributes.get("axis", -1)) % (rank_of(indices) + 1)
    if dtype_of(indices) not in ("int32", "int64"):
        indices = cast(node, indices, "int64")
    dtype = dtype_of(indices)
    row = np.arange(extent).reshape([extent if at == axis else 1 for at in range(rank_of(indices) + 1)])
    wide = node.emit(_op.expand_dims(indices, axis))
    found = [node.emit(_op.equal(wide, const(numbers, dtype))) for numbers in (row, row - extent)]
    off, on = (const(value, str(values.dtype)) for value in values)
    return node.emit(_op.where(node.emit(_op.logical_or(*found)), on, off))


def _dropout(node: Node) -> Any:
    """Return the input itself, and a mask that keeps all of it."""
    if node.opset >= 12 and node.optional(2) is not None:
        training = node.constant(2)
        if training is None or bool(training):
            raise node.error("expected a model for inference; got training_mode")
    data = node.required(0)
    if node.num_outputs == 1:
        return data
    mask = "bool" if node.opset >= 10 else dtype_of(data)
    return data, node.emit(_op.ones(data.ty.shape, mask))


def _pow(node: Node) -> Any:
    """Raise to a power in the type of the base; whole numbers in double precision, as ONNX Runtime."""
    base, exponent = node.required(0), node.required(1)
    dtype = dtype_of(base)
    if dtype.startswith(("float", "bfloat")):
        return node.emit(_op.power(base, cast(node, exponent, dtype)))
    wide = [cast(node, each, "float64") for each in (base, exponent)]
    return cast(node, node.emit(_op.power(*wide)), dtype)


def _conv_transpose(node: Node) -> Any:
    """Resolve ``output_shape`` and ``auto_pad`` into pads, then leave the rest to TVM."""
    attributes: Any = node.attributes
    auto_pad = node.text("auto_pad", "NOTSET")
    attributes.pop("auto_pad", None)
    wanted = attributes.pop("output_shape", None)
    if wanted is None and not auto_pad.startswith("SAME"):
        if auto_pad == "VALID":
            attributes.pop("pads", None)
        return NotImplemented
    extents = shape_of(node, node.required(0), "an input")[2:]
    kernel = shape_of(node, node.required(1), "a weight")[2:]
    axes = len(extents)
    strides = list(attributes.get("strides", [1] * axes))
    dilations = list(attributes.get("dilations", [1] * axes))
    extra = list(attributes.get("output_padding", [0] * axes))
    sizes = [None] * axes if wanted is None else list(wanted)[-axes:]
    begin, end = [], []
    for axis, size in enumerate(sizes):
        full = strides[axis] * (extents[axis] - 1) + (kernel[axis] - 1) * dilations[axis] + 1
        total = full + extra[axis] - (strides[axis] * extents[axis] if size is None else size)
        if size is None:
            # Automatic padding cuts off, and adds nothing where windows leave gaps.
            total = max(0, total)
        if total < 0:
            extra[axis] -= total
            total = 0
        begin.append(total // 2 if auto_pad == "SAME_UPPER" else total - total // 2)
        end.append(total - begin[-1])
    attributes.update(pads=(*begin, *end), output_padding=tuple(extra), strides=tuple(strides))
    return NotImplemented


def _constant(node: Node) -> Any:
    """Return numbers that stand in the node itself; TVM knows those of tensors."""
    for name, dtype in (("value_float", "float32"), ("value_int", "int64")):
        for written in (name, f"{name}s"):
            if written in node.attributes:
                return const(node.attributes[written], dtype)
    return NotImplemented


def _pad(node: Node) -> Any:
    """Refuse amounts that are not known by name; let a constant to pad with be computed."""
    if node.opset < 11:
        return NotImplemented
    for position, what in ((1, "pads"), (3, "axes")):
        if node.optional(position) is not None and node.constant(position) is None:
            raise node.error(
                f"expected {what} that are known before it runs; these depend on data, or on extents "
                f"that are open"
            )
    value = node.optional(2)
    if value is None or node.constant(2) is not None or node.text("mode", "constant") != "constant":
        return NotImplemented
    data, pads, axes = node.required(0), node.constant(1), node.constant(3)
    assert pads is not None
    rank = rank_of(data)
    places = range(rank) if axes is None else [int(axis) % rank for axis in axes]
    before, after = [0] * rank, [0] * rank
    for number, axis in enumerate(places):
        before[axis], after[axis] = int(pads[number]), int(pads[len(places) + number])
    value = node.emit(_op.reshape(value, ()))

    def compute(tensor: Any, number: Any) -> Any:
        return tvm.topi.nn.pad(tensor, before, after, number())

    return node.emit(node.builder.call_te(compute, data, value, primfunc_name_hint="pad"))


def _range(node: Node) -> Any:
    """Count between numbers that are known, be they constants or extents."""
    bounds = [_number(each) for each in node.inputs]
    if any(bound is None for bound in bounds):
        return NotImplemented
    types = [str(bound.dtype) for bound in bounds if isinstance(bound, np.ndarray)]
    dtype = types[0] if types else "int64"
    start, limit, delta = (np.asarray(bound, dtype).reshape(()) for bound in bounds)
    count = max(math.ceil((limit.astype("float64") - start) / delta), 0)
    return const(np.arange(count) * delta + start, dtype)


def _number(expr: Any) -> Any:
    return int(expr) if isinstance(expr, tirx.IntImm) else constant_value(expr)


CONVERTERS: dict[tuple[str, str], Converter] = {
    (STANDARD, "Constant"): _constant,
    (STANDARD, "OneHot"): _one_hot,
    (STANDARD, "Dropout"): _dropout,
    (STANDARD, "Pow"): _pow,
    (STANDARD, "ConvTranspose"): _conv_transpose,
    (STANDARD, "Range"): _range,
    (STANDARD, "Pad"): _pad,
    (STANDARD, "Resize"): resize,
    (STANDARD, "Upsample"): resize,
    (STANDARD, "GridSample"): sample,
    (STANDARD, "AffineGrid"): affine_grid,
}
