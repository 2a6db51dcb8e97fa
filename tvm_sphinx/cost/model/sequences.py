"""Drawn pieces of transformers and recurrent networks: a few layers on one sequence. [TVM]"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..._tvm import relax
from .draw import MOST_MACS, Draw, Sketch, shape_of


def draw_sequence_network(draw: Draw) -> Sketch:
    """Return a module of one to four layers of a transformer or a recurrent network."""
    sketch = Sketch(draw)
    tokens, width = draw.tokens()
    value = sketch.input((1, tokens, width))
    with sketch.builder.function("main"):
        with sketch.builder.dataflow():
            for _ in range(draw.between(1, 4)):
                value = draw.pick(_LAYERS, _LAYER_SHARES)(sketch, value)
            output = sketch.builder.emit_output(value)
        sketch.builder.emit_func_output(output, sketch.inputs)
    return sketch


def scalar(number: float) -> Any:
    """Return a float32 constant without axes."""
    return relax.const(np.float32(number))


def _linear(sketch: Sketch, value: Any, out: int | None = None) -> Any:
    draw = sketch.draw
    *lead, inner = shape_of(value)
    if out is None:
        out = int(inner * draw.pick((0.25, 0.5, 1, 2, 3, 4), (1, 1, 6, 2, 1, 4)))
        out = max(1, out) if draw.chance(0.8) else draw.between(8, 4096)
    out = max(1, min(out, MOST_MACS // (inner * math.prod(lead)), 6_000_000 // inner))
    made = sketch.emit(relax.op.matmul(value, sketch.weight(inner, out)))
    if draw.chance(0.85):
        made = sketch.emit(relax.op.add(made, sketch.weight(out)))
    if draw.chance(0.4):
        made = activation(sketch, made)
    if draw.chance(0.25):
        made = sketch.emit(relax.op.add(made, sketch.input(shape_of(made))))
    return made


def activation(sketch: Sketch, value: Any) -> Any:
    """Return a drawn activation of a tensor."""
    op = relax.op
    name = sketch.draw.pick(
        ("gelu", "relu", "silu", "tanh", "quick_gelu", "gelu_tanh"), (4, 3, 1, 2, 1, 1)
    )
    if name == "quick_gelu":
        gate = sketch.emit(op.sigmoid(sketch.emit(op.multiply(value, scalar(1.702)))))
        return sketch.emit(op.multiply(value, gate))
    made = {
        "gelu": op.nn.gelu,
        "relu": op.nn.relu,
        "silu": op.nn.silu,
        "tanh": op.tanh,
        "gelu_tanh": op.nn.gelu_tanh,
    }[name](value)
    return sketch.emit(made)


def _norm(sketch: Sketch, value: Any) -> Any:
    width = shape_of(value)[-1]
    if sketch.draw.chance(0.75):
        weights = sketch.weight(width), sketch.weight(width)
        return sketch.emit(relax.op.nn.layer_norm(value, *weights, axes=[-1]))
    square = sketch.emit(relax.op.power(value, scalar(2.0)))
    mean = sketch.emit(relax.op.mean(square, [-1], True))
    scale = sketch.emit(relax.op.rsqrt(sketch.emit(relax.op.add(mean, scalar(1e-6)))))
    scaled = sketch.emit(relax.op.multiply(value, scale))
    return sketch.emit(relax.op.multiply(sketch.weight(width), scaled))


def _attention(sketch: Sketch, value: Any) -> Any:
    """Self or cross attention with several heads."""
    draw = sketch.draw
    _, tokens, width = shape_of(value)
    heads = int(draw.pick((1, 3, 4, 6, 8, 12, 16)))
    if width % heads or tokens > 640:
        return _linear(sketch, value, width)
    keys = tokens if draw.chance(0.8) else draw.between(4, 256)
    size = width // heads
    source = value if keys == tokens else sketch.input((1, keys, width))

    def split(tensor: Any, count: int) -> Any:
        projected = _linear_plain(sketch, tensor, width)
        apart = sketch.emit(relax.op.reshape(projected, (1, count, heads, size)))
        return sketch.emit(relax.op.permute_dims(apart, [0, 2, 1, 3]))

    query, key, content = split(value, tokens), split(source, keys), split(source, keys)
    turned = sketch.emit(relax.op.permute_dims(key, [0, 1, 3, 2]))
    scores = sketch.emit(relax.op.matmul(query, turned))
    if draw.chance(0.7):
        scores = sketch.emit(relax.op.divide(scores, scalar(math.sqrt(size))))
    if draw.chance(0.5):
        scores = sketch.emit(relax.op.add(scores, sketch.input((1, 1, tokens, keys))))
    shares = sketch.emit(relax.op.nn.softmax(scores, -1))
    mixed = sketch.emit(relax.op.matmul(shares, content))
    back = sketch.emit(relax.op.permute_dims(mixed, [0, 2, 1, 3]))
    joined = sketch.emit(relax.op.reshape(back, (1, tokens, width)))
    return _linear_plain(sketch, joined, width)


def _linear_plain(sketch: Sketch, value: Any, out: int) -> Any:
    inner = shape_of(value)[-1]
    made = sketch.emit(relax.op.matmul(value, sketch.weight(inner, out)))
    return sketch.emit(relax.op.add(made, sketch.weight(out)))


def _windows(sketch: Sketch, value: Any) -> Any:
    """Split a square of tokens into windows and turn them, as Swin does."""
    _, tokens, width = shape_of(value)
    side = math.isqrt(tokens)
    window = next((w for w in (7, 4, 2) if side * side == tokens and side % w == 0), 0)
    if not window:
        return _norm(sketch, value)
    count = side // window
    grid = (1, count, window, count, window, width)
    return sketch.rearrange(value, grid, (0, 1, 3, 2, 4, 5), (1, tokens, width))


def _residual(sketch: Sketch, value: Any) -> Any:
    return sketch.emit(relax.op.add(value, sketch.input(shape_of(value))))


def _cell(sketch: Sketch, value: Any) -> Any:
    """One step of an LSTM over the first token."""
    _, _, width = shape_of(value)
    hidden = int(sketch.draw.pick((32, 64, 128, 200, 256, 512)))
    hidden = min(hidden, 1_500_000 // width)
    step = sketch.emit(relax.op.strided_slice(value, [1], [0], [1]))
    flat = sketch.emit(relax.op.reshape(step, (1, width)))
    gates = sketch.emit(relax.op.matmul(flat, sketch.weight(width, 4 * hidden)))
    state, carry = sketch.input((1, hidden)), sketch.input((1, hidden))
    recurrent = sketch.emit(relax.op.matmul(state, sketch.weight(hidden, 4 * hidden)))
    gates = sketch.emit(
        relax.op.add(sketch.emit(relax.op.add(gates, recurrent)), sketch.weight(4 * hidden))
    )
    parts = sketch.emit(relax.op.split(gates, 4, 1))
    i, f, g, o = (sketch.emit(relax.TupleGetItem(parts, number)) for number in range(4))
    sigmoid, tanh = relax.op.sigmoid, relax.op.tanh
    kept = sketch.emit(relax.op.multiply(sketch.emit(sigmoid(f)), carry))
    added = sketch.emit(relax.op.multiply(sketch.emit(sigmoid(i)), sketch.emit(tanh(g))))
    cell = sketch.emit(relax.op.add(kept, added))
    out = sketch.emit(relax.op.multiply(sketch.emit(sigmoid(o)), sketch.emit(tanh(cell))))
    return sketch.emit(relax.op.reshape(out, (1, 1, hidden)))


def _embed(sketch: Sketch, value: Any) -> Any:
    """Rows of a table, by index, added to a sequence."""
    _, tokens, width = shape_of(value)
    rows = min(sketch.draw.between(16, 20_000), 4_000_000 // width)
    indices = sketch.input((1, tokens), "int64")
    rows_taken = sketch.emit(relax.op.take(sketch.weight(rows, width), indices, axis=0))
    return sketch.emit(relax.op.add(value, rows_taken))


def _pooled(sketch: Sketch, value: Any) -> Any:
    """The first token through a dense layer, or the mean of all."""
    _, _, width = shape_of(value)
    if sketch.draw.chance(0.5):
        return sketch.emit(relax.op.mean(value, [1], True))
    first = sketch.emit(relax.op.strided_slice(value, [1], [0], [1]))
    return _linear(sketch, first, width)


_LAYERS: list[Callable[[Sketch, Any], Any]] = [
    _linear, _norm, _attention, _windows, _residual, _cell, _embed, _pooled,
]  # fmt: skip
_LAYER_SHARES = [6, 2.5, 4, 0.8, 1, 1.2, 0.6, 0.6]
