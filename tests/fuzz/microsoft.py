"""Operators of ONNX Runtime's own: fused layers, and arithmetic on quantised tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

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


def _some(g: Graph, op: str, inputs: list[str], wanted: list[int], **attributes: Any) -> Any:
    """Append a node of which some outputs are named."""
    names = [g.fresh_name(op, number) if number in wanted else "" for number in range(max(wanted) + 1)]
    node = _node(g, op, inputs, names, **attributes)
    return g.append([node], [name for name in names if name])


def _node(g: Graph, op: str, inputs: list[str], names: list[str], **attributes: Any) -> onnx.NodeProto:
    name = f"{op}_{len(g.nodes)}"
    return onnx.helper.make_node(op, inputs, names, name=name, domain=_DOMAIN, **attributes)


def _skip_norm(op: str) -> Draw:
    def draw(g: Graph) -> Any:
        shape = [g.number(1, 2), g.number(1, 4), g.number(1, 9)]
        skip = shape if g.chance(0.7) else g.pick([[1, *shape[1:]], shape[1:]])
        names = [g.input(g.array("float32", shape)), g.input(g.array("float32", skip))]
        names.append(g.weight(g.array("float32", shape[-1:])))
        for _ in range(2 if op == "SkipLayerNormalization" else 1):
            names.append(g.weight(g.array("float32", shape[-1:])) if g.chance(0.6) else "")
        return _some(g, op, names, [0, 3] if g.chance(0.5) else [0], epsilon=g.pick([1e-5, 1e-3]))

    return draw


def _simplified_norm(g: Graph) -> Any:
    shape = [g.number(1, 3), g.number(1, 4), g.number(1, 9)]
    names = [g.input(g.array("float32", shape)), g.weight(g.array("float32", shape[-1:]))]
    return g.add("SimplifiedLayerNormalization", names, axis=-1, epsilon=1e-5)


def _embed_norm(g: Graph) -> Any:
    batch, steps, width = g.number(1, 2), g.number(1, 5), g.number(1, 8)
    rows = g.number(steps, 9)
    has_segments = g.chance(0.6)

    def ids() -> str:
        return g.input(g.array("int32", [batch, steps], 0, rows - 1))

    def table() -> str:
        return g.weight(g.array("float32", [rows, width]))

    names = [ids(), ids() if has_segments else "", table(), table(), table() if has_segments else ""]
    names += [g.weight(g.array("float32", [width])) for _ in range(2)]
    names.append(g.input(g.array("int32", [batch, steps], 0, 1)) if g.chance(0.6) else "")
    if g.chance(0.4):
        names.append(ids())
    return _some(g, "EmbedLayerNormalization", names, g.pick([[0, 1], [0, 1, 2]]), epsilon=1e-5)


def _mask(g: Graph, batch: int, steps: int, total: int, *, starts: bool = True) -> str:
    """Return a mask that hides no row as a whole, of one of its kinds."""
    kind = g.number(0, 3 if starts else 2)
    if kind == 0:
        return g.input(g.rng.integers(1, total + 1, batch).astype(np.int32))
    if kind == 3:
        ends = g.rng.integers(1, total + 1, batch)
        begins = [g.number(0, int(end) - 1) for end in ends]
        return g.input(np.concatenate([ends, begins]).astype(np.int32))
    mask = g.array("int32", [batch, total] if kind == 1 else [batch, steps, total], 0, 1)
    mask[..., 0] = 1
    return g.input(mask)


def _attention(g: Graph) -> Any:
    heads = g.number(1, 3)
    batch, steps, width, size = g.number(1, 2), g.number(1, 4), g.number(1, 6), g.number(1, 4)
    hidden, before = heads * size, g.number(1, 3) if g.chance(0.4) else 0
    total = before + steps
    attributes: dict[str, Any] = {"num_heads": heads}
    own = hidden if before or g.chance(0.7) else heads * g.number(1, 4)
    if own != hidden:
        attributes["qkv_hidden_sizes"] = [hidden, hidden, own]
    if g.chance(0.3):
        attributes["unidirectional"] = 1
    if g.chance(0.2):
        attributes["scale"] = 0.4
    names = [
        g.input(g.array("float32", [batch, steps, width])),
        g.weight(g.array("float32", [width, 2 * hidden + own])),
        g.weight(g.array("float32", [2 * hidden + own])),
        _mask(g, batch, steps, total) if g.chance(0.5) and "unidirectional" not in attributes else "",
        g.input(g.array("float32", [2, batch, heads, before, size])) if before else "",
    ]
    if g.chance(0.3):
        shape = [g.pick([1, batch]), g.pick([1, heads]), steps, total]
        names.append(g.input(g.array("float32", shape)))
    return _some(g, "Attention", names, [0, 1] if before else [0], **attributes)


def _multi_head_attention(g: Graph) -> Any:
    heads = g.number(1, 3)
    batch, steps, size, own = g.number(1, 2), g.number(1, 4), g.number(1, 4), g.number(1, 4)
    given, before = g.number(1, 5), g.number(1, 3) if g.chance(0.3) else 0
    own = size if before else own
    is_split = not before and g.chance(0.3)

    def keys(width: int) -> str:
        shape = [batch, heads, given, width] if is_split else [batch, given, heads * width]
        return g.input(g.array("float32", shape))

    total = before + given
    names = [g.input(g.array("float32", [batch, steps, heads * size])), keys(size), keys(own)]
    has_bias = g.chance(0.5) and not is_split
    names.append(g.weight(g.array("float32", [heads * (2 * size + own)])) if has_bias else "")
    names.append(_mask(g, batch, steps, total, starts=False) if g.chance(0.4) else "")
    extra = [g.pick([1, batch]), g.pick([1, heads]), steps, total]
    names.append(g.input(g.array("float32", extra)) if g.chance(0.3) else "")
    if before:
        names += [g.input(g.array("float32", [batch, heads, before, size])) for _ in range(2)]
    wanted = [0, 1, 2] if before or g.chance(0.2) else [0]
    attributes: dict[str, Any] = {"scale": 0.3} if g.chance(0.2) else {}
    if steps == given and names[4] == "" and g.chance(0.3):
        attributes["unidirectional"] = 1
    return _some(g, "MultiHeadAttention", names, wanted, num_heads=heads, **attributes)


def _group_query_attention(g: Graph) -> Any:
    groups, times, size = g.number(1, 2), g.number(1, 3), 8 * g.number(1, 2)
    batch, heads = g.number(1, 2), groups * times
    is_first = g.chance(0.5)
    steps = g.number(1, 4) if is_first else 1
    held = 0 if is_first and g.chance(0.5) else g.number(4, 7)
    ends = np.full(batch, steps) if is_first else g.rng.integers(2, held + 2, batch)
    if g.chance(0.3):
        ends = np.full(batch, steps if is_first else held + 1)
    total = int(ends.max())
    attributes: dict[str, Any] = {"num_heads": heads, "kv_num_heads": groups}
    is_packed = g.chance(0.3)
    widths = [(heads + 2 * groups) * size] if is_packed else [heads * size, groups * size, groups * size]
    names = [g.input(g.array("float32", [batch, steps, width], -1, 1)) for width in widths]
    names += ["", ""] if is_packed else []
    names += [
        g.input(g.array("float32", [batch, groups, held, size], -1, 1)) if held else "" for _ in range(2)
    ]
    names += [g.input((ends - 1).astype(np.int32)), g.weight(np.asarray(total, np.int32))]
    if g.chance(0.5):
        attributes |= {"do_rotary": 1, "rotary_interleaved": g.number(0, 1)}
        names += [g.weight(g.array("float32", [16, size // 2], -1, 1)) for _ in range(2)]
    if g.chance(0.3):
        attributes["local_window_size"] = g.number(1, 3)
    if g.chance(0.2):
        attributes["softcap"] = 2.0
    if g.chance(0.2):
        attributes["scale"] = 0.3
    outputs = [g.fresh_name("GroupQueryAttention", number) for number in range(3)]
    node = _node(g, "GroupQueryAttention", names, outputs, **attributes)
    # Behind the last step the buffers of keys and values hold anything.
    is_full = max(held, total) == int(ends.min())
    return g.append([node], outputs if is_full else outputs[:1])


def _rotary_embedding(g: Graph) -> Any:
    batch, heads, steps, pairs = g.number(1, 2), g.number(1, 3), g.number(1, 4), g.number(1, 4)
    attributes: dict[str, Any] = {"interleaved": g.number(0, 1)}
    size = 2 * pairs
    if g.chance(0.3):
        size += 2 * g.number(1, 2)
        attributes |= {"num_heads": heads, "rotary_embedding_dim": 2 * pairs}
    shape = [batch, heads, steps, size] if g.chance(0.4) else [batch, steps, heads * size]
    places = g.array("int64", [1] if g.chance(0.5) else [batch, steps], 0, 4)
    names = [g.input(g.array("float32", shape)), g.input(places)]
    names += [g.weight(g.array("float32", [9, pairs], -1, 1)) for _ in range(2)]
    return g.add("RotaryEmbedding", names, domain=_DOMAIN, **attributes)


def _gelu(g: Graph) -> Any:
    return g.add("Gelu", [g.tensor(("float32",))], domain=_DOMAIN)


def _quick_gelu(g: Graph) -> Any:
    return g.add("QuickGelu", [g.tensor(("float32",))], domain=_DOMAIN, alpha=g.pick([1.0, 1.702]))


def _fused_matmul(g: Graph) -> Any:
    m, k, n, batch = (g.number(1, 5) for _ in range(4))
    a, b = g.number(0, 1), g.number(0, 1)
    names = [
        g.input(g.array("float32", [batch, *([k, m] if a else [m, k])])),
        g.either(g.array("float32", [n, k] if b else [k, n])),
    ]
    return g.add("FusedMatMul", names, domain=_DOMAIN, transA=a, transB=b, alpha=g.pick([1.0, 0.25]))


#: By operator.
DRAWS: dict[str, Draw] = {
    **{op: _binary(op) for op in ("QLinearAdd", "QLinearMul")},
    "QLinearSigmoid": _unary("QLinearSigmoid"),
    "QLinearLeakyRelu": _unary("QLinearLeakyRelu", alpha=0.1),
    **{op: _pool(op) for op in ("QLinearAveragePool", "QLinearGlobalAveragePool")},
    "QLinearConcat": _concat,
    "QGemm": _gemm,
    **{op: _product(op) for op in ("DynamicQuantizeMatMul", "MatMulIntegerToFloat")},
    **{op: _skip_norm(op) for op in ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")},
    "SimplifiedLayerNormalization": _simplified_norm,
    "EmbedLayerNormalization": _embed_norm,
    "com.microsoft.Attention": _attention,
    "MultiHeadAttention": _multi_head_attention,
    "GroupQueryAttention": _group_query_attention,
    "com.microsoft.RotaryEmbedding": _rotary_embedding,
    "QuickGelu": _quick_gelu,
    "FusedMatMul": _fused_matmul,
    "com.microsoft.Gelu": _gelu,
}
