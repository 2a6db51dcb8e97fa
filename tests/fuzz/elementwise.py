"""Elementwise operators: inputs that broadcast, and types that they allow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from .graph import ALL, FLOATS, NUMBERS, Draw, Graph, RejectedError

#: Operators whose results jump: what they read is not rounded.
_JUMPS = frozenset(
    "Floor Ceil Round Sign Shrink ThresholdedRelu Equal Less Greater LessOrEqual GreaterOrEqual".split()
)


def _unary(
    op: str, dtypes: tuple[str, ...] = FLOATS, low: float = -4, high: float = 4, **attributes: Any
) -> Draw:
    def draw(g: Graph) -> Any:
        chosen = {key: value(g) for key, value in attributes.items() if g.chance(0.6)}
        bounds = {} if (low, high) == (-4, 4) else {"least": low, "most": high}
        return g.add(op, [g.tensor(dtypes, exact=op in _JUMPS, **bounds)], **chosen)

    return draw


def _uniform(low: float, high: float) -> Callable[[Graph], float]:
    return lambda g: round(float(g.rng.uniform(low, high)), 3)


def _binary(op: str, dtypes: tuple[str, ...] = NUMBERS, **bounds: float) -> Draw:
    def draw(g: Graph) -> Any:
        left = g.tensor(dtypes, exact=op in _JUMPS)
        value = g.of(left)
        right = g.either(g.array(str(value.dtype), g.broadcastable(value.shape), **bounds))
        pair = [left, right]
        if not bounds and g.chance(0.5):
            pair.reverse()
        return g.add(op, pair)

    return draw


def _nonzero(op: str, **attributes: Any) -> Draw:
    """Draw a division whose divisor is no zero."""

    def draw(g: Graph) -> Any:
        left = g.tensor(NUMBERS)
        value = g.of(left)
        divisor = g.array(str(value.dtype), g.broadcastable(value.shape))
        divisor = np.where(divisor == 0, np.ones_like(divisor), divisor).astype(value.dtype)
        return g.add(op, [left, g.either(divisor)], **attributes)

    return draw


def _constant_power(g: Graph) -> Any:
    """Draw powers that exporters write: of one number, of the base's type or another."""
    exponent = g.pick([2, 3, 4, 1, 0, 0.5, -0.5, -1, -2, 1.5, -3])
    low = -3.0 if exponent in (0, 1, 2, 3, 4) else 0.3
    source = g.tensor(("float32", "float32", "float64", "float16"), least=low, most=3)
    kinds = [str(g.of(source).dtype), *(["int64", "int32"] if float(exponent).is_integer() else [])]
    # Since version 12 the exponent may be of another type.
    kind = g.pick(kinds) if g.opset >= 12 else kinds[0]
    return g.add("Pow", [source, g.weight(np.full(g.pick([(), (1,)]), exponent, kind))])


def _mod(g: Graph) -> Any:
    left = g.tensor(("int32", "int64", "int8", "uint8", "float32", "float16"), exact=True)
    value = g.of(left)
    divisor = g.array(str(value.dtype), g.broadcastable(value.shape))
    divisor = np.where(divisor == 0, np.ones_like(divisor), divisor).astype(value.dtype)
    fmod = 1 if value.dtype.kind == "f" or g.chance(0.3) else 0
    return g.add("Mod", [left, g.either(divisor)], fmod=fmod)


def _shift(g: Graph) -> Any:
    left = g.tensor(("uint8", "uint32", "uint64"), least=0, most=100)
    value = g.of(left)
    right = g.array(str(value.dtype), g.broadcastable(value.shape), least=0, most=7)
    return g.add("BitShift", [left, g.either(right)], direction=g.pick(["LEFT", "RIGHT"]))


def _several(op: str) -> Draw:
    def draw(g: Graph) -> Any:
        first = g.tensor(NUMBERS if op in ("Min", "Max") else FLOATS)
        value = g.of(first)
        others = [
            g.either(g.array(str(value.dtype), g.broadcastable(value.shape)))
            for _ in range(g.number(0, 2))
        ]
        return g.add(op, [first, *others])

    return draw


def _where(g: Graph) -> Any:
    left = g.tensor(("float32", "int64", "int32", "uint8", "bool"))
    value = g.of(left)
    right = g.either(g.array(str(value.dtype), g.broadcastable(value.shape)))
    condition = g.either(g.array("bool", g.broadcastable(value.shape)))
    return g.add("Where", [condition, left, right])


def _cast(g: Graph) -> Any:
    to = g.pick(ALL)
    source = g.tensor(ALL, exact=not to.startswith("float"))
    value = g.of(source)
    if value.dtype.kind == "f" and not to.startswith("float") and to != "bool":
        bounds = np.iinfo(to)
        if not (np.isfinite(value).all() and (value > bounds.min).all() and (value < bounds.max).all()):
            raise RejectedError("Cast: undefined outside of the range")
    if g.chance(0.2) and g.opset >= 17:
        return g.add("CastLike", [source, g.either(np.zeros(1, to))])
    return g.add("Cast", [source], to=onnx.helper.np_dtype_to_tensor_dtype(np.dtype(to)))


def _clip(g: Graph) -> Any:
    source = g.tensor((*FLOATS, "int32", "int64", "uint8", "int8"))
    dtype = str(g.of(source).dtype)
    ends = sorted(g.array(dtype, (2,), -3, 3).tolist())
    if np.isnan(ends).any():
        raise RejectedError("Clip: a bound that is NaN")
    bounds = [g.weight(np.asarray(end, dtype)) if g.chance(0.7) else "" for end in ends]
    return g.add("Clip", [source, *bounds])


def _prelu(g: Graph) -> Any:
    source = g.tensor(("float32", "float16"), 1)
    shape = list(g.of(source).shape)
    slope = g.broadcastable(shape)
    return g.add("PRelu", [source, g.either(g.array(str(g.of(source).dtype), slope))])


def _gelu(g: Graph) -> Any:
    if g.opset < 20:
        raise RejectedError("Gelu: since 20")
    return g.add("Gelu", [g.tensor(("float32",))], approximate=g.pick(["none", "tanh"]))


def _wide_logarithm(g: Graph) -> Any:
    shape = g.shape()
    values = np.exp(g.rng.uniform(-60, 60, shape)).astype(g.pick(["float32", "float64"]))
    return g.add("Log", [g.input(np.asarray(values))])


def _celu(g: Graph) -> Any:
    return g.add("Celu", [g.tensor(("float32",))], alpha=g.pick([1.0, 0.5, 2.0]))


def _dropout(g: Graph) -> Any:
    return g.add("Dropout", [g.tensor(FLOATS)])


def _is_inf(g: Graph) -> Any:
    source = g.input(np.array([1, np.inf, -np.inf, np.nan, 0], np.float32))
    return g.add("IsInf", [source], detect_negative=g.number(0, 1), detect_positive=g.number(0, 1))


def _microsoft(op: str, inputs: int) -> Draw:
    def draw(g: Graph) -> Any:
        source = g.tensor(("float32",), 2, 3)
        width = g.of(source).shape[-1]
        others = [g.weight(g.array("float32", [width])) for _ in range(inputs - 1)]
        return g.add(op, [source, *others], domain="com.microsoft")

    return draw


_ANY = ("float32", "float64", "int32", "int64", "int8", "uint8")
_BITS = ("int32", "uint8", "int64")
_PLAIN = (
    "Floor Ceil Round Exp Erf Sigmoid Tanh Sin Cos Tan Atan Softplus Softsign Identity HardSwish Mish "
    "IsNaN Sinh Cosh Asinh"
)

#: By operator.
DRAWS: dict[str, Draw] = {
    **{op: _unary(op) for op in _PLAIN.split()},
    **{op: _unary(op, _ANY) for op in ("Abs", "Neg", "Sign", "Relu")},
    **{op: _unary(op, FLOATS, 0.05, 4) for op in ("Log", "Sqrt", "Reciprocal")},
    "Log of a wide range": _wide_logarithm,
    **{op: _unary(op, FLOATS, -1, 1) for op in ("Asin", "Acos", "Atanh")},
    "Acosh": _unary("Acosh", FLOATS, 1, 4),
    "Elu": _unary("Elu", FLOATS, alpha=_uniform(0, 2)),
    "Selu": _unary("Selu", FLOATS, alpha=_uniform(0, 2), gamma=_uniform(0, 2)),
    "LeakyRelu": _unary("LeakyRelu", FLOATS, alpha=_uniform(-0.5, 1.5)),
    "ThresholdedRelu": _unary("ThresholdedRelu", FLOATS, alpha=_uniform(-1, 2)),
    "HardSigmoid": _unary("HardSigmoid", FLOATS, alpha=_uniform(0, 1), beta=_uniform(0, 1)),
    "Shrink": _unary("Shrink", FLOATS, lambd=_uniform(0, 2), bias=_uniform(0, 1)),
    "Not": _unary("Not", ("bool",)),
    "BitwiseNot": _unary("BitwiseNot", ("int32", "uint8")),
    "IsInf": _is_inf,
    "Gelu": _gelu,
    "Dropout": _dropout,
    "PRelu": _prelu,
    **{op: _binary(op) for op in ("Add", "Sub", "Mul")},
    "Div": _nonzero("Div"),
    "Mod": _mod,
    "Pow of a constant": _constant_power,
    "Celu": _celu,
    "Pow": _binary("Pow", ("float32", "float64", "int32", "int64"), least=0, most=3),
    **{op: _binary(op, _ANY) for op in ("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual")},
    **{op: _binary(op, ("bool",)) for op in ("And", "Or", "Xor")},
    **{op: _binary(op, _BITS) for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")},
    "BitShift": _shift,
    **{op: _several(op) for op in ("Min", "Max", "Sum", "Mean")},
    "Where": _where,
    "Cast": _cast,
    "Clip": _clip,
    "FastGelu": _microsoft("FastGelu", 2),
    "BiasGelu": _microsoft("BiasGelu", 2),
}
