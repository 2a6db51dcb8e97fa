"""Converters for ONNX operators that TVM's importer gets wrong. [TVM]

Each takes the block builder, the inputs, the attributes, TVM's tables of nodes and parameters, and the
opset, and returns a Relax expression, or ``NotImplemented`` where TVM's own converter is right.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from tvm.relax.frontend.onnx.onnx_frontend import get_constant

from ._tvm import relax, tirx, tvm
from .errors import ModelError
from .onnx_resize import resize

Converter = Callable[..., Any]

_op = relax.op


def _constant(expr: Any, params: Any) -> Any:
    """Return the value of a constant input as an array; None where it is not known."""
    expr = get_constant(expr, params) if expr is not None else None
    return expr.value.numpy() if isinstance(expr, tvm.ir.GenericConst) else None


def _one_hot(builder: Any, inputs: Any, attrs: Any, params: Any, _opset: int) -> Any:
    """Compare indices with a row of numbers; what is out of range is off everywhere."""
    depth, values = _constant(inputs[1], params), _constant(inputs[2], params)
    if depth is None or values is None:
        raise ModelError("Expected depth and values that are constant.")
    emit, indices, extent = builder.emit, inputs[0], int(depth.reshape(()))
    rank = indices.ty.ndim
    axis = int(attrs.get("axis", -1)) % (rank + 1)
    if not str(indices.ty.dtype).startswith("int"):
        indices = emit(_op.astype(indices, "int64"))
    dtype = str(indices.ty.dtype)
    shape = [extent if number == axis else 1 for number in range(rank + 1)]
    row = np.arange(extent).reshape(shape)
    wide = emit(_op.expand_dims(indices, axis))
    from_start = emit(_op.equal(wide, relax.const(row.astype(dtype), dtype)))
    from_end = emit(_op.equal(wide, relax.const((row - extent).astype(dtype), dtype)))
    off, on = (relax.const(value, str(values.dtype)) for value in values)
    return _op.where(emit(_op.logical_or(from_start, from_end)), on, off)


def _dropout(_builder: Any, inputs: Any, attrs: Any, params: Any, opset: int) -> Any:
    """Return the input itself, and a mask that keeps all of it."""
    if opset >= 12 and len(inputs) > 2 and inputs[2] is not None:
        training = _constant(inputs[2], params)
        if training is None or bool(training):
            raise ModelError("Expected Dropout of a model for inference; got training_mode.")
    if attrs["tvm_custom"]["num_outputs"] == 1:
        return inputs[0]
    mask_type = "bool" if opset >= 10 else str(inputs[0].ty.dtype)
    return relax.Tuple([inputs[0], _op.ones(inputs[0].ty.shape, mask_type)])


def _pow(builder: Any, inputs: Any, _attrs: Any, _params: Any, _opset: int) -> Any:
    """Raise to a power in the type of the base; whole numbers in double precision, as ONNX Runtime."""
    base, exponent = inputs
    types: list[Any] = [getattr(each, "ty", None) for each in inputs]
    if not all(isinstance(ty, relax.TensorType) for ty in types):
        return NotImplemented
    dtype, other = (str(ty.dtype) for ty in types)
    emit = builder.emit
    if dtype.startswith(("float", "bfloat")):
        return NotImplemented if dtype == other else _op.power(base, emit(_op.astype(exponent, dtype)))
    wide = [
        each if str(each.ty.dtype) == "float64" else emit(_op.astype(each, "float64")) for each in inputs
    ]
    return _op.astype(emit(_op.power(*wide)), dtype)


def _conv_transpose(_builder: Any, inputs: Any, attrs: Any, _params: Any, _opset: int) -> Any:
    """Resolve ``output_shape`` and ``auto_pad`` into pads, then leave the rest to TVM."""
    auto_pad = attrs.pop("auto_pad", b"NOTSET")
    auto_pad = auto_pad.decode() if isinstance(auto_pad, bytes) else auto_pad
    wanted = attrs.pop("output_shape", None)
    if wanted is None and not auto_pad.startswith("SAME"):
        if auto_pad == "VALID":
            attrs.pop("pads", None)
        return NotImplemented
    extents = [int(extent) for extent in inputs[0].ty.shape.values[2:]]
    axes = len(extents)
    kernel = [int(extent) for extent in inputs[1].ty.shape.values[2:]]
    strides = list(attrs.get("strides", [1] * axes))
    dilations = list(attrs.get("dilations", [1] * axes))
    extra = list(attrs.get("output_padding", [0] * axes))
    if wanted is None:
        wanted = [extent * stride for extent, stride in zip(extents, strides, strict=True)]
    wanted = list(wanted)[-axes:]
    begin, end = [], []
    for axis in range(axes):
        full = strides[axis] * (extents[axis] - 1) + (kernel[axis] - 1) * dilations[axis] + 1
        total = full + extra[axis] - wanted[axis]
        if total < 0:
            extra[axis] -= total
            total = 0
        smaller = total // 2
        begin.append(smaller if auto_pad == "SAME_UPPER" else total - smaller)
        end.append(total - begin[-1])
    attrs.update(pads=(*begin, *end), output_padding=tuple(extra), strides=tuple(strides))
    return NotImplemented


def _range(_builder: Any, inputs: Any, _attrs: Any, params: Any, _opset: int) -> Any:
    """Count between numbers that are known, be they constants or extents."""
    bounds = [_number(each, params) for each in inputs]
    if any(bound is None for bound in bounds):
        return NotImplemented
    types = [str(bound.dtype) for bound in bounds if isinstance(bound, np.ndarray)]
    dtype = types[0] if types else "int64"
    start, limit, delta = (np.asarray(bound, dtype).reshape(()) for bound in bounds)
    count = max(math.ceil((limit.astype("float64") - start) / delta), 0)
    return relax.const((np.arange(count) * delta + start).astype(dtype), dtype)


def _number(expr: Any, params: Any) -> Any:
    return int(expr) if isinstance(expr, tirx.IntImm) else _constant(expr, params)


def _is_inf(builder: Any, inputs: Any, attrs: Any, _params: Any, _opset: int) -> Any:
    """Tell the infinities of one sign, where only those are asked for."""
    signs = [sign for sign in ("positive", "negative") if attrs.get(f"detect_{sign}", 1)]
    if len(signs) == 2:
        return NotImplemented
    x, dtype = inputs[0], str(inputs[0].ty.dtype)
    if not signs:
        return _op.zeros(x.ty.shape, "bool")
    infinity = float("inf") if signs == ["positive"] else float("-inf")
    return _op.equal(x, relax.const(infinity, dtype))


#: By the operator's name.
CONVERTERS: dict[str, Converter] = {
    "OneHot": _one_hot,
    "Dropout": _dropout,
    "IsInf": _is_inf,
    "Range": _range,
    "Pow": _pow,
    "ConvTranspose": _conv_transpose,
    "Resize": resize,
    "Upsample": resize,
}
