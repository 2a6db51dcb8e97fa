"""The types in which torch computes an operator, which TVM's importer does not always take. [TVM]

Torch promotes mixed operands to a common type, takes whole numbers to floats where a function or a
division asks for it, and adds up halves in single precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from .._tvm import relax

# Computed in the type of the result.
_IN_RESULT_TYPE = frozenset(
    """add sub rsub mul div fmod remainder floor_divide maximum minimum pow atan2 logaddexp hypot
    where linalg_vector_norm clamp clamp_min clamp_max lerp addcmul addcdiv cat stack
    bitwise_and bitwise_or bitwise_xor masked_fill abs acos acosh asin asinh atan atanh cos cosh erf
    erfc exp expm1 exp2 log log10 log1p log2 reciprocal rsqrt sigmoid sin sinh sqrt square
    tan tanh gelu silu softplus elu celu hardtanh hardsigmoid hardswish leaky_relu logsumexp sum
    prod mean cumsum cumprod var std _softmax _log_softmax amax amin __and__ __or__ __xor__ __lshift__
    __rshift__ fill full_like""".split()
)
COMPARISONS = frozenset("eq ne lt le gt ge".split())
_LOGICAL = frozenset("logical_and logical_or logical_xor logical_not any all".split())
# Torch adds up half-precision numbers in float32, and computes functions of them there.
_WIDENED = frozenset(
    """mm bmm matmul addmm baddbmm convolution linear sum prod mean cumsum cumprod var std _softmax
    _log_softmax logsumexp native_layer_norm native_group_norm acos acosh asin asinh atan atanh
    cosh sinh tan erf erfc expm1 exp exp2 log log10 log1p log2 pow atan2 sigmoid tanh gelu silu
    softplus elu celu linalg_vector_norm""".split()
)
_HALVES = (torch.float16, torch.bfloat16)


class Promotion(NamedTuple):
    """Types of an operator: of its tensor operands and of its result; None leaves them as they are."""

    operands: Any = None
    result: Any = None


def promotion_of(node: Any) -> Promotion:
    """Return the types in which torch computes a node."""
    wanted = node.meta.get("val")
    name = node.target._schema.name.partition("::")[2]
    if name in COMPARISONS:
        return Promotion(_common_type(node))
    if name in _LOGICAL:
        return Promotion(torch.bool, wanted.dtype if isinstance(wanted, torch.Tensor) else None)
    if not isinstance(wanted, torch.Tensor):
        return Promotion()
    if name in _WIDENED and wanted.dtype in _HALVES:
        return Promotion(torch.float32, wanted.dtype)
    return Promotion(wanted.dtype) if name in _IN_RESULT_TYPE else Promotion()


def _common_type(node: Any) -> Any:
    left, right = (arg.meta["val"] if isinstance(arg, torch.fx.Node) else arg for arg in node.args[:2])
    known = (torch.Tensor, bool, int, float)
    return (
        torch.result_type(left, right) if isinstance(left, known) and isinstance(right, known) else None
    )


@contextmanager
def operands_in(importer: Any, node: Any, dtype: Any) -> Iterator[None]:
    """Let an importer see a node's tensor operands in another type; conditions stay boolean."""
    if dtype is None:
        yield
        return
    name = importer._convert_data_type(dtype)
    conditions = [node.args[0]] if _base(node) == "where" else []
    conditions += [node.args[1]] if _base(node) == "masked_fill" else []
    replaced = {}
    for operand in node.all_input_nodes:
        expr = importer.env.get(operand)
        is_tensor = isinstance(getattr(expr, "ty", None), relax.TensorType)
        if not is_tensor or operand in conditions or str(expr.ty.dtype) == name:
            continue
        replaced[operand] = expr
        importer.env[operand] = importer.block_builder.emit(relax.op.astype(expr, name))
    try:
        yield
    finally:
        importer.env.update(replaced)


def _base(node: Any) -> str:
    return str(node.target._schema.name.partition("::")[2])
