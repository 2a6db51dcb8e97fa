"""Layers: products, norms, recurrent cells, quantisation."""

from __future__ import annotations

from typing import Any

import numpy as np

from .graph import Draw, Graph, RejectedError


def _batch_norm(g: Graph) -> Any:
    source = g.input(g.array("float32", [g.number(1, 2), g.number(1, 4), *g.spatial(g.number(0, 3))]))
    channels = g.of(source).shape[1]
    parts = [g.either(g.array("float32", [channels])) for _ in range(3)]
    variance = g.either(np.abs(g.array("float32", [channels])) + np.float32(0.1))
    return g.add("BatchNormalization", [source, *parts, variance], epsilon=g.pick([1e-5, 1e-2]))


def _shifted(g: Graph, shape: list[int]) -> str:
    """Return an input whose mean may lie far from zero, by many times what it varies by."""
    values = g.array("float32", shape)
    if g.chance(0.4):
        values = values + np.float32(g.pick([-300, -30, 30, 100, 300]))
    return g.input(values)


def _instance_norm(g: Graph) -> Any:
    source = _shifted(g, [g.number(1, 2), g.number(1, 4), *g.spatial(g.number(1, 3))])
    channels = g.of(source).shape[1]
    return g.add(
        "InstanceNormalization", [source, *(g.either(g.array("float32", [channels])) for _ in range(2))]
    )


def _layer_norm(g: Graph) -> Any:
    if g.opset < 17:
        raise RejectedError("LayerNormalization: since 17")
    source = g.tensor(("float32",), 1, 4)
    shape = g.of(source).shape
    axis = g.axis(len(shape))
    over = list(shape[axis:])
    parts = [g.either(g.array("float32", over)) for _ in range(g.number(1, 2))]
    return g.add("LayerNormalization", [source, *parts], axis=axis)


def _group_norm(g: Graph) -> Any:
    if g.opset < 18:
        raise RejectedError("GroupNormalization: since 18")
    groups = g.number(1, 3)
    channels = groups * g.number(1, 3)
    source = _shifted(g, [g.number(1, 2), channels, *g.spatial(g.number(1, 2))])
    rows = g.of(source).astype(np.float64).reshape(-1, groups, g.of(source)[0].size // groups)
    # ONNX Runtime's own digits are lost where the mean is some thousand times what is divided by.
    if (rows.var(2) < 1e-4 * (rows**2).mean(2)).any():
        raise RejectedError("GroupNormalization: of values too much alike")
    size = channels if g.opset >= 21 else groups
    parts = [g.either(g.array("float32", [size])) for _ in range(2)]
    return g.add("GroupNormalization", [source, *parts], num_groups=groups)


def _lrn(g: Graph) -> Any:
    source = g.input(g.array("float32", [1, g.number(1, 6), *g.spatial(2)]))
    return g.add("LRN", [source], size=g.pick([1, 3, 5]), alpha=0.01, beta=0.6, bias=1.2)


def _mvn(g: Graph) -> Any:
    value = g.array("float32", [2, g.number(2, 4), *g.spatial(2)])
    axes = g.pick([[0, 2, 3], [2, 3], [1], None])
    over = tuple(axes or (0, 2, 3))
    wide = value.astype(np.float64)
    # ONNX Runtime takes the variance as a difference of squares, which has no digits left where all
    # values are alike.
    if (wide.var(over) < 1e-2 * (wide**2).mean(over)).any():
        raise RejectedError("MeanVarianceNormalization: of values too much alike")
    return g.add("MeanVarianceNormalization", [g.input(value)], axes=axes)


def _gemm(g: Graph) -> Any:
    m, k, n = (g.number(1, 9) for _ in range(3))
    a, b = g.number(0, 1), g.number(0, 1)
    names = [
        g.input(g.array("float32", [k, m] if a else [m, k])),
        g.either(g.array("float32", [n, k] if b else [k, n])),
    ]
    if g.chance(0.6):
        names.append(g.either(g.array("float32", g.pick([[m, n], [n], [1, n], [m, 1], [1], []]))))
    return g.add("Gemm", names, transA=a, transB=b, alpha=g.pick([1.0, 0.5]), beta=g.pick([1.0, 2.0]))


def _matmul(g: Graph) -> Any:
    left = g.tensor(("float32", "float32", "float64", "int32", "int64"), 1, 4)
    value = g.of(left)
    k = value.shape[-1]
    shape = [k] if g.chance(0.2) else [*g.broadcastable(value.shape[:-2]), k, g.number(1, 9)]
    return g.add("MatMul", [left, g.either(g.array(str(value.dtype), shape))])


def _einsum(g: Graph) -> Any:
    equation, *shapes = g.pick(
        [
            ("ij,jk->ik", [3, 4], [4, 5]), ("bij,bjk->bik", [2, 3, 4], [2, 4, 5]), ("ij->ji", [3, 4]),
            ("ij->i", [3, 4]), ("i,j->ij", [3], [4]), ("bhqd,bhkd->bhqk", [1, 2, 3, 4], [1, 2, 5, 4]),
            ("...ij,...jk->...ik", [2, 3, 4], [2, 4, 2]), ("ij,ij->", [3, 4], [3, 4]), ("ii->i", [3, 3]),
            ("bij,jk", [2, 3, 4], [4, 5]), ("ij , jk -> ik", [3, 4], [4, 2]),
        ]
    )  # fmt: skip
    return g.add("Einsum", [g.either(g.array("float32", shape)) for shape in shapes], equation=equation)


def _recurrent(op: str, gates: int) -> Draw:
    def draw(g: Graph) -> Any:
        direction = g.pick(["forward", "reverse", "bidirectional"])
        count = 2 if direction == "bidirectional" else 1
        steps, batch, features, hidden = g.number(1, 4), g.number(1, 2), g.number(1, 5), g.number(1, 5)
        names = [
            g.input(g.array("float32", [steps, batch, features], -1, 1)),
            g.weight(g.array("float32", [count, gates * hidden, features], -1, 1)),
            g.weight(g.array("float32", [count, gates * hidden, hidden], -1, 1)),
            g.weight(g.array("float32", [count, 2 * gates * hidden], -1, 1)) if g.chance(0.6) else "",
            g.weight(g.rng.integers(1, steps + 1, batch), "int32") if g.chance(0.3) else "",
            g.input(g.array("float32", [count, batch, hidden], -1, 1)) if g.chance(0.5) else "",
        ]
        attributes: dict[str, Any] = {"hidden_size": hidden, "direction": direction}
        if op == "GRU" and g.chance(0.5):
            attributes["linear_before_reset"] = 1
        return g.add(op, names, 3 if op == "LSTM" else 2, **attributes)

    return draw


def _quantize(g: Graph) -> Any:
    source = g.tensor(("float32",), 1, 4, exact=True)
    shape = g.of(source).shape
    dtype = g.pick(["uint8", "int8"])
    scale, zero = np.float32(g.rng.uniform(0.01, 0.3)), g.array(dtype, (), -9, 9)
    attributes: dict[str, Any] = {}
    if g.opset >= 13 and g.chance(0.4) and shape[axis := g.axis(len(shape))]:
        attributes["axis"] = axis
        scale = g.rng.uniform(0.01, 0.3, shape[axis]).astype(np.float32)
        zero = g.array(dtype, [shape[axis]], -9, 9)
    parameters = [g.weight(scale), g.weight(zero)]
    (made,) = g.add("QuantizeLinear", [source, *parameters], **attributes)
    return g.add("DequantizeLinear", [made, *parameters], **attributes) if g.chance(0.5) else made


def _dynamic_quantize(g: Graph) -> Any:
    return g.add("DynamicQuantizeLinear", [g.tensor(("float32",), 1, 4, exact=True)], 3)


def _qlinear_matmul(g: Graph) -> Any:
    m, k, n = (g.number(1, 9) for _ in range(3))
    f32 = np.float32
    names = [
        g.input(g.array("uint8", [m, k], 0, 255)), g.weight(f32(0.02)),
        g.weight(np.uint8(g.number(0, 255))),
        g.either(g.array("int8", [k, n], -128, 127)), g.weight(f32(0.03)), g.weight(np.int8(0)),
        g.weight(f32(0.4)), g.weight(np.uint8(g.number(0, 255))),
    ]  # fmt: skip
    return g.add("QLinearMatMul", names)


def _integer_product(g: Graph) -> Any:
    m, k, n = (g.number(1, 9) for _ in range(3))
    kinds = g.pick(["uint8", "int8"]), g.pick(["uint8", "int8"])
    names = [
        g.input(g.array(kinds[0], [*g.shape(0, 1), m, k], -128, 255)),
        g.either(g.array(kinds[1], [k, n], -128, 255)),
    ]
    if g.chance(0.7):
        names += [g.weight(g.array(kind, (), -9, 9)) for kind in kinds]
    return g.add("MatMulInteger", names)


#: By operator.
DRAWS: dict[str, Draw] = {
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "GroupNormalization": _group_norm,
    "LRN": _lrn,
    "MeanVarianceNormalization": _mvn,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Einsum": _einsum,
    "LSTM": _recurrent("LSTM", 4),
    "GRU": _recurrent("GRU", 3),
    "RNN": _recurrent("RNN", 1),
    "QuantizeLinear": _quantize,
    "DynamicQuantizeLinear": _dynamic_quantize,
    "QLinearMatMul": _qlinear_matmul,
    "MatMulInteger": _integer_product,
}
