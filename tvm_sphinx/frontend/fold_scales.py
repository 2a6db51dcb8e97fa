"""Batch norms of known statistics, and chains of scales, as one multiplication and addition. [TVM]

Both torch and ONNX Runtime compute a batch norm so; TVM's subtracts, divides, multiplies and adds, with
an operand for each. A norm right behind a convolution is in that one's weights by then.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm.relax import dpl

from .._tvm import relax, tvm_ffi

# Of halves each rounding shows, and a scale of its own may leave their range.
_DTYPES = ("float32", "float64")


@relax.transform.function_pass(opt_level=0, name="FoldBatchNorms")
class FoldBatchNorms:
    """Write a batch norm with constant statistics as ``x * scale + offset``."""

    def transform_function(self, func: Any, _mod: Any, _ctx: Any) -> Any:
        """Return the function without such norms."""
        data, numbers = dpl.wildcard(), [dpl.is_const() for _ in range(4)]
        norm = dpl.is_op("relax.nn.batch_norm")(data, *numbers)

        def rewrite(expr: Any, matches: Any) -> Any:
            attrs, x = matches[norm].attrs, matches[data]
            gamma, beta, mean, variance = (_array(matches[number]) for number in numbers)
            if (
                str(x.ty.dtype) not in _DTYPES
                or x.ty.ndim < 0
                or bool(getattr(attrs, "training", False))
            ):
                return expr
            with np.errstate(all="ignore"):
                scale = (gamma if attrs.scale else 1.0) / np.sqrt(variance + float(attrs.epsilon))
                offset = (beta if attrs.center else 0.0) - mean * scale
            channels = [1] * int(x.ty.ndim)
            channels[int(attrs.axis)] = -1
            return _affine(expr, x, scale.reshape(channels), offset.reshape(channels))

        return dpl.rewrite_call(dpl.TupleGetItemPattern(norm, 0), rewrite, func)


@relax.transform.function_pass(opt_level=0, name="JoinScales")
class JoinScales:
    """Write ``(x * a + b) * c + d`` of constants as ``x * (a * c) + (b * c + d)``."""

    def transform_function(self, func: Any, _mod: Any, _ctx: Any) -> Any:
        """Return the function with such chains joined."""
        data, numbers = dpl.wildcard(), [dpl.is_const() for _ in range(4)]
        multiply, add = dpl.is_op("relax.multiply"), dpl.is_op("relax.add")
        first = add(multiply(data, numbers[0]), numbers[1])
        pattern = add(multiply(first, numbers[2]), numbers[3])

        def rewrite(expr: Any, matches: Any) -> Any:
            x = matches[data]
            if str(x.ty.dtype) not in _DTYPES or not _same_shape(x.ty.shape, matches[pattern].ty.shape):
                return expr
            a, b, c, d = (_array(matches[number]) for number in numbers)
            with np.errstate(all="ignore"):
                return _affine(expr, x, a * c, b * c + d)

        return dpl.rewrite_call(pattern, rewrite, func)


def _affine(expr: Any, x: Any, scale: Any, offset: Any) -> Any:
    """Return ``x * scale + offset``; the expression that it stands for where these are not finite."""
    dtype = str(x.ty.dtype)
    factors = [number.astype(dtype) for number in (scale, offset)]
    if not all(np.isfinite(factor).all() for factor in factors):
        return expr
    scaled = relax.op.multiply(x, relax.const(factors[0], dtype))
    return relax.op.add(scaled, relax.const(factors[1], dtype))


def _array(constant: Any) -> Any:
    return constant.value.numpy().astype(np.float64)


def _same_shape(left: Any, right: Any) -> bool:
    """Return whether two shapes are known to be the same."""
    return left is not None and right is not None and bool(tvm_ffi.structural_equal(left, right))
