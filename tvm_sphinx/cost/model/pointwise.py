"""Drawn operators without weights: elementwise chains, reductions, softmax, transposes, joins. [TVM]"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..._tvm import relax
from .draw import Draw, Sketch, shape_of
from .sequences import scalar

_MOST = 800_000


def draw_pointwise_network(draw: Draw) -> Sketch:
    """Return a module of one to five operators without weights on a drawn tensor."""
    sketch = Sketch(draw)
    value = sketch.input(_shape(draw))
    with sketch.builder.function("main"):
        with sketch.builder.dataflow():
            for _ in range(draw.between(1, 5)):
                value = draw.pick(_OPERATORS, _SHARES)(sketch, value)
            output = sketch.builder.emit_output(value)
        sketch.builder.emit_func_output(output, sketch.inputs)
    return sketch


def _shape(draw: Draw) -> tuple[int, ...]:
    if draw.chance(0.35):
        return draw.image()
    if draw.chance(0.5):
        return 1, *draw.tokens()
    while True:
        shape = tuple(draw.between(1, 600) for _ in range(draw.between(2, 4)))
        if math.prod(shape) <= _MOST:
            return shape


def _unary(sketch: Sketch, value: Any) -> Any:
    op = relax.op
    functions = (
        op.nn.relu,
        op.sigmoid,
        op.tanh,
        op.exp,
        op.sqrt,
        op.rsqrt,
        op.abs,
        op.negative,
        op.nn.gelu,
    )
    return sketch.emit(sketch.draw.pick(functions, (4, 2, 2, 2, 1, 1, 0.5, 0.5, 1))(value))


def _binary(sketch: Sketch, value: Any) -> Any:
    """Combine with a tensor of the same shape, of some of its axes, or with a number."""
    draw = sketch.draw
    shape = shape_of(value)
    function = draw.pick(
        (relax.op.add, relax.op.multiply, relax.op.subtract, relax.op.divide, relax.op.maximum),
        (5, 4, 1.5, 1.5, 0.5),
    )
    kind = draw.pick(("same", "some", "number"), (4, 3, 2))
    if kind == "number":
        return sketch.emit(function(value, scalar(1.5)))
    other = shape if kind == "same" else tuple(1 if draw.chance(0.5) else e for e in shape)
    return sketch.emit(function(value, sketch.input(other)))


def _reduce(sketch: Sketch, value: Any) -> Any:
    draw = sketch.draw
    rank = len(shape_of(value))
    first = int(draw.rng.integers(0, rank))
    axes = list(range(first, rank)) if draw.chance(0.6) else [first]
    function = draw.pick((relax.op.sum, relax.op.mean, relax.op.max, relax.op.variance), (4, 4, 2, 1))
    return sketch.emit(function(value, axes, True))


def _softmax(sketch: Sketch, value: Any) -> Any:
    function = sketch.draw.pick((relax.op.nn.softmax, relax.op.nn.log_softmax), (6, 1))
    return sketch.emit(function(value, -1))


def _transpose(sketch: Sketch, value: Any) -> Any:
    order = sketch.draw.rng.permutation(len(shape_of(value))).tolist()
    return sketch.emit(relax.op.permute_dims(value, order))


def _join(sketch: Sketch, value: Any) -> Any:
    draw = sketch.draw
    shape = list(shape_of(value))
    axis = int(draw.rng.integers(0, len(shape)))
    parts = [value]
    for _ in range(draw.between(1, 3)):
        other = [*shape]
        other[axis] = draw.between(1, max(1, shape[axis]))
        parts.append(sketch.input(other))
    if sum(math.prod(shape_of(part)) for part in parts) > 2 * _MOST:
        return value
    return sketch.emit(relax.op.concat(parts, axis))


def _slice(sketch: Sketch, value: Any) -> Any:
    draw = sketch.draw
    shape = shape_of(value)
    axis = int(draw.rng.integers(0, len(shape)))
    if shape[axis] < 2:
        return _unary(sketch, value)
    begin = int(draw.rng.integers(0, shape[axis] - 1))
    end = int(draw.rng.integers(begin + 1, shape[axis] + 1))
    return sketch.emit(relax.op.strided_slice(value, [axis], [begin], [end]))


def _pad(sketch: Sketch, value: Any) -> Any:
    shape = shape_of(value)
    width = [0] * 2 * len(shape)
    axis = int(sketch.draw.rng.integers(0, len(shape)))
    width[2 * axis], width[2 * axis + 1] = sketch.draw.between(1, 4), sketch.draw.between(1, 4)
    return sketch.emit(relax.op.nn.pad(value, width))


def _repeat(sketch: Sketch, value: Any) -> Any:
    shape = shape_of(value)
    axis = int(sketch.draw.rng.integers(0, len(shape)))
    grown = [*shape]
    if grown[axis] != 1:
        return _binary(sketch, value)
    grown[axis] = sketch.draw.between(2, 16)
    if math.prod(grown) > _MOST:
        return _binary(sketch, value)
    return sketch.emit(relax.op.broadcast_to(value, grown))


_OPERATORS: list[Callable[[Sketch, Any], Any]] = [
    _unary, _binary, _reduce, _softmax, _transpose, _join, _slice, _pad, _repeat,
]  # fmt: skip
_SHARES = [4, 5, 2.5, 1.5, 2.5, 1.5, 1.2, 0.6, 0.6]
