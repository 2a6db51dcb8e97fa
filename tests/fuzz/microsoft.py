"""Operators of ONNX Runtime's own: fused layers, and arithmetic on quantised tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from .graph import Draw, Graph

_DOMAIN = "com.microsoft"


def _parameters(g: Graph, dtype: str) -> list[str]:
    """Return a scale and a zero point."""
    scale = np.float32(g.rng.uniform(0.01, 0.2))
    zero = g.array(dtype, (), 100, 150) if dtype == "uint8" else g.array(dtype, (), -9, 9)
    return [g.weight(scale), g.weight(zero)]


def _quantised(g: Graph, dtype: str, shape: list[int]) -> str:
    return g.input(g.array(dtype, shape, -128, 255))


def _binary(op: str) -> Draw:
    def draw(g: Graph) -> Any:
        dtype, shape = g.pick(["uint8", "int8"]), g.shape(1, 4)
        other = g.either(g.array(dtype, g.broadcastable(shape), -128, 255))
        names = [
            _quantised(g, dtype, shape), *_parameters(g, dtype), other,
            *_parameters(g, dtype), *_parameters(g, dtype),
        ]  # fmt: skip
        return g.add(op, names, domain=_DOMAIN)

    return draw


def _unary(op: str, **attributes: float) -> Draw:
    def draw(g: Graph) -> Any:
        dtype = g.pick(["uint8", "int8"])
        names = [_quantised(g, dtype, g.shape(1, 4)), *_parameters(g, dtype), *_parameters(g, dtype)]
        return g.add(op, names, domain=_DOMAIN, **attributes)

    return draw


def _pool(op: str) -> Draw:
    def draw(g: Graph) -> Any:
        dtype = g.pick(["uint8", "int8"])
        source = _quantised(g, dtype, [g.number(1, 2), g.number(1, 4), *g.spatial(2)])
        attributes: dict[str, Any] = {"channels_last": 0}
        if op == "QLinearAveragePool":
            attributes |= {"kernel_shape": [2, 2], "strides": [g.number(1, 2), g.number(1, 2)]}
            if g.chance(0.4):
                attributes |= {"pads": [1, 0, 1, 1], "count_include_pad": g.number(0, 1)}
        names = [source, *_parameters(g, dtype), *_parameters(g, dtype)]
        return g.add(op, names, domain=_DOMAIN, **attributes)

    return draw


def _concat(g: Graph) -> Any:
    dtype, shape = g.pick(["uint8", "int8"]), g.shape(1, 3)
    axis = g.axis(len(shape))
    names = _parameters(g, dtype)
    for _ in range(g.number(1, 3)):
        shape[axis] = g.number(1, 4)
        names += [_quantised(g, dtype, shape), *_parameters(g, dtype)]
    return g.add("QLinearConcat", names, domain=_DOMAIN, axis=axis)


def _gemm(g: Graph) -> Any:
    m, k, n = (g.number(1, 9) for _ in range(3))
    a, b = g.number(0, 1), g.number(0, 1)
    names = [
        _quantised(g, "uint8", [k, m] if a else [m, k]), *_parameters(g, "uint8"),
        g.weight(g.array("int8", [n, k] if b else [k, n], -128, 127)), *_parameters(g, "int8"),
        g.weight(g.array("int32", [n], -99, 99)) if g.chance(0.5) else "",
        *(_parameters(g, "uint8") if g.chance(0.7) else []),
    ]  # fmt: skip
    return g.add("QGemm", names, domain=_DOMAIN, transA=a, transB=b, alpha=1.0)


def _product(op: str) -> Draw:
    def draw(g: Graph) -> Any:
        m, k, n = (g.number(1, 9) for _ in range(3))
        weight = g.weight(g.array("int8", [k, n], -128, 127))
        scale, zero = _parameters(g, "int8")
        bias = [g.weight(g.array("float32", [n]))] if g.chance(0.5) else []
        if op == "DynamicQuantizeMatMul":
            names = [g.input(g.array("float32", [m, k])), weight, scale, zero, *bias]
        else:
            left_scale, left_zero = _parameters(g, "uint8")
            left = _quantised(g, "uint8", [m, k])
            names = [left, weight, left_scale, scale, left_zero, zero, *bias]
        return g.add(op, names, domain=_DOMAIN)

    return draw


def _skip_layer_norm(g: Graph) -> Any:
    shape = [g.number(1, 2), g.number(1, 4), g.number(1, 9)]
    names = [g.input(g.array("float32", shape)) for _ in range(2)]
    names += [g.weight(g.array("float32", shape[-1:])) for _ in range(g.number(1, 3))]
    return g.add("SkipLayerNormalization", names, domain=_DOMAIN, epsilon=g.pick([1e-5, 1e-3]))


def _attention(g: Graph) -> Any:
    heads = g.number(1, 3)
    batch, steps, width, hidden = g.number(1, 2), g.number(1, 4), g.number(1, 6), heads * g.number(1, 4)
    names = [
        g.input(g.array("float32", [batch, steps, width])),
        g.weight(g.array("float32", [width, 3 * hidden])),
        g.weight(g.array("float32", [3 * hidden])),
    ]
    if g.chance(0.4):
        names.append(g.input(g.rng.integers(1, steps + 1, batch).astype(np.int32)))
    return g.add("Attention", names, domain=_DOMAIN, num_heads=heads)


def _gelu(g: Graph) -> Any:
    return g.add("Gelu", [g.tensor(("float32",))], domain=_DOMAIN)


#: By operator.
DRAWS: dict[str, Draw] = {
    **{op: _binary(op) for op in ("QLinearAdd", "QLinearMul")},
    "QLinearSigmoid": _unary("QLinearSigmoid"),
    "QLinearLeakyRelu": _unary("QLinearLeakyRelu", alpha=0.1),
    **{op: _pool(op) for op in ("QLinearAveragePool", "QLinearGlobalAveragePool")},
    "QLinearConcat": _concat,
    "QGemm": _gemm,
    **{op: _product(op) for op in ("DynamicQuantizeMatMul", "MatMulIntegerToFloat")},
    "SkipLayerNormalization": _skip_layer_norm,
    "com.microsoft.Attention": _attention,
    "com.microsoft.Gelu": _gelu,
}
