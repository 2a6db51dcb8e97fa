"""Converters for torch's elementary functions that TVM's importer lacks. [TVM]"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .._tvm import relax, tvm
from ..errors import ModelError
from .bits import reinterpret
from .bits import shift as shifted
from .half_functions import HALVES
from .onnx_node import const, dtype_of

_op = relax.op
# Factors of a power that are multiplied in one kernel, a power of two.
_STEPS = 64


def hypot(importer: Any, node: Any) -> Any:
    """Convert the length of a vector of two components."""
    left, right = importer.retrieve_args(node)
    emit, dtype = importer.block_builder.emit, dtype_of(left)
    wide = "float32" if dtype in HALVES else dtype
    sizes = [
        emit(_op.abs(each if wide == dtype else emit(_op.astype(each, wide)))) for each in (left, right)
    ]
    zero, one, infinity = (const(value, wide) for value in (0, 1, np.inf))
    # The square of a component may be too large or too small for the type where the length is not.
    most, least = emit(_op.maximum(*sizes)), emit(_op.minimum(*sizes))
    ratio = emit(_op.divide(least, most))
    root = emit(_op.sqrt(emit(_op.add(emit(_op.multiply(ratio, ratio)), one))))
    found = emit(_op.multiply(most, root))
    total = emit(_op.add(*sizes))
    is_own = emit(_op.logical_or(emit(_op.equal(most, zero)), emit(_op.isnan(total))))
    found = emit(_op.where(is_own, total, found))
    is_far = emit(_op.logical_or(*(emit(_op.equal(each, infinity)) for each in sizes)))
    found = emit(_op.where(is_far, infinity, found))
    return found if wide == dtype else emit(_op.astype(found, dtype))


def erfc(importer: Any, node: Any) -> Any:
    """Convert what is missing from the error function to one."""
    (x,) = importer.retrieve_args(node)
    emit = importer.block_builder.emit
    return emit(_op.subtract(relax.const(1.0, str(x.ty.dtype)), emit(_op.erf(x))))


def exp2(importer: Any, node: Any) -> Any:
    """Convert powers of two."""
    (x,) = importer.retrieve_args(node)
    emit = importer.block_builder.emit
    return emit(_op.exp(emit(_op.multiply(x, relax.const(math.log(2), str(x.ty.dtype))))))


def elu(importer: Any, node: Any) -> Any:
    """Convert ``elu``, to which torch also takes ``selu`` and ``celu``, with all of its factors."""
    x, *given = importer.retrieve_args(node)
    factors = [
        given[place] if place < len(given) else node.kwargs.get(name, 1.0)
        for place, name in enumerate(("alpha", "scale", "input_scale"))
    ]
    alpha, scale, input_scale = factors
    emit, dtype = importer.block_builder.emit, str(x.ty.dtype)
    scaled = emit(_op.multiply(x, relax.const(input_scale, dtype)))
    missing = emit(_op.subtract(relax.const(1.0, dtype), emit(_op.exp(scaled))))
    below = emit(_op.multiply(emit(_op.nn.relu(missing)), relax.const(alpha, dtype)))
    whole = emit(_op.subtract(emit(_op.nn.relu(x)), below))
    return emit(_op.multiply(whole, relax.const(scale, dtype)))


def divide(importer: Any, node: Any) -> Any:
    """Convert a division that rounds, in the type of the result."""
    left, right, *modes = importer.retrieve_args(node)
    mode = modes[0] if modes else node.kwargs.get("rounding_mode", None)
    dtype = importer._convert_data_type(node.meta["val"].dtype)
    left, right = (
        each if isinstance(each, relax.Expr) else relax.const(each, dtype) for each in (left, right)
    )
    emit = importer.block_builder.emit
    if mode == "floor":
        return emit(_op.floor_divide(left, right))
    quotient = emit(_op.divide(left, right))  # of whole numbers, it truncates
    return emit(_op.trunc(quotient)) if mode == "trunc" and "float" in dtype else quotient


def rsub(importer: Any, node: Any) -> Any:
    """Convert a subtraction from the second operand."""
    left, right, *factors = importer.retrieve_args(node)
    alpha = factors[0] if factors else node.kwargs.get("alpha", 1)
    dtype, emit = str(left.ty.dtype), importer.block_builder.emit
    right = right if isinstance(right, relax.Expr) else relax.const(right, dtype)
    left = left if alpha == 1 else emit(_op.multiply(left, relax.const(alpha, dtype)))
    return emit(_op.subtract(right, left))


def remainder(importer: Any, node: Any) -> Any:
    """Convert a remainder of the divisor's sign, whose operands may be numbers."""
    operands = importer.retrieve_args(node)
    (dtype, *_) = (dtype_of(each) for each in operands if isinstance(each, relax.Expr))
    left, right = (each if isinstance(each, relax.Expr) else const(each, dtype) for each in operands)
    return importer.block_builder.emit(_op.floor_mod(left, right))


def power(importer: Any, node: Any) -> Any:
    """Convert a power of whole numbers as products, which wrap round as torch's do.

    With an exponent below 0 all bases but 1 and -1 come out as 0.
    """
    dtype = importer._convert_data_type(node.meta["val"].dtype)
    base, exponent = importer.retrieve_args(node)
    if not dtype.startswith(("int", "uint")) or not isinstance(exponent, relax.Expr):
        return NotImplemented
    emit, shape = importer.block_builder.emit, list(node.meta["val"].shape)
    base = base if isinstance(base, relax.Expr) else relax.const(base, dtype)
    least, most = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    if isinstance(exponent, tvm.ir.GenericConst):
        known = exponent.value.numpy()
        least, most = int(known.min(initial=0)), int(known.max(initial=0))
    base, exponent = (emit(_op.broadcast_to(each, shape)) for each in (base, exponent))
    is_below = None
    if least < 0:
        is_below = emit(_op.less(exponent, relax.const(0, dtype)))
        parity = emit(_op.bitwise_and(exponent, relax.const(1, dtype)))
        exponent = emit(_op.where(is_below, parity, exponent))
    # The exponent is taken apart into digits, by whose weight the factor is raised.
    factor, bits = base, _STEPS.bit_length() - 1
    found = _raised(emit, factor, exponent, shape)
    for _ in range(bits, most.bit_length(), bits):
        factor = _product(emit, factor, relax.const(_STEPS, "int64"), shape)
        exponent = emit(_op.right_shift(exponent, relax.const(bits, dtype)))
        found = emit(_op.multiply(found, _raised(emit, factor, exponent, shape)))
    if is_below is None:
        return found
    has_unit = emit(_op.logical_or(*(emit(_op.equal(base, relax.const(one, dtype))) for one in (1, -1))))
    vanishes = emit(_op.logical_and(is_below, emit(_op.logical_not(has_unit))))
    return emit(_op.where(vanishes, relax.const(0, dtype), found))


def _raised(emit: Any, base: Any, exponent: Any, shape: list[int]) -> Any:
    """Return a factor (shape) to the power of the last digit of an exponent."""
    digit = emit(_op.bitwise_and(exponent, relax.const(_STEPS - 1, dtype_of(exponent))))
    return _product(emit, base, emit(_op.astype(digit, "int64")), shape)


def _product(emit: Any, base: Any, count: Any, shape: list[int]) -> Any:
    """Return a factor (shape) times itself, so often (int64, shape), `_STEPS` times at most."""
    dtype = dtype_of(base)
    steps = relax.const(np.arange(_STEPS), "int64")
    counts = emit(_op.expand_dims(emit(_op.broadcast_to(count, shape)), -1))
    factors = emit(
        _op.where(emit(_op.less(steps, counts)), emit(_op.expand_dims(base, -1)), const(1, dtype))
    )
    return emit(_op.prod(factors, [-1]))


def of_booleans(operator: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Convert arithmetic on booleans, which is logic in torch."""

    def convert(importer: Any, node: Any) -> Any:
        if importer._convert_data_type(node.meta["val"].dtype) != "bool":
            return NotImplemented
        left, right = importer.retrieve_args(node)
        left, right = (
            each if isinstance(each, relax.Expr) else relax.const(bool(each), "bool")
            for each in (left, right)
        )
        return importer.block_builder.emit(operator(left, right))

    return convert


def negative(importer: Any, node: Any) -> Any:
    """Convert the negative of unsigned numbers, which wraps round."""
    (x,) = importer.retrieve_args(node)
    dtype = str(x.ty.dtype)
    if not dtype.startswith("uint"):
        return NotImplemented
    return importer.block_builder.emit(_op.subtract(relax.const(0, dtype), x))


def shift(*, left: bool) -> Callable[[Any, Any], Any]:
    """Convert a shift by a number or a tensor."""

    def convert(importer: Any, node: Any) -> Any:
        x, count = importer.retrieve_args(node)
        dtype = dtype_of(x)
        if not isinstance(count, relax.Expr):
            bits = np.iinfo(dtype).bits  # no less is out of range, and every type holds it
            count = const(int(count) if 0 <= int(count) < bits else bits, dtype)
        return shifted(importer.block_builder.emit, x, count, left=left)

    return convert


def view_as(importer: Any, node: Any) -> Any:
    """Convert ``x.view(dtype)`` of a type of the same size: the bits, read as another."""
    x = importer.env[node.args[0]]
    before, after = str(x.ty.dtype), importer._convert_data_type(node.args[1])
    if before == after:
        return x
    wide = node.args[0].meta["val"].dtype.itemsize, node.args[1].itemsize
    if wide[0] != wide[1] or "bool" in (before, after):
        raise ModelError(f"{node.target} from {before} to {after} has no counterpart in TVM.")
    return reinterpret(importer.block_builder, x, after)
