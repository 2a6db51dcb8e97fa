"""Drawn data movement between layers: heads split and joined, channels shuffled, rows of tables. [TVM]

Lowering fuses what lies between two heavy operators into one kernel of reshapes and transposes. How its
innermost loop reads, in a row, with a stride or in short runs, decides how long it takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..._tvm import relax
from .draw import Draw, Sketch, shape_of

_MOST = 800_000
#: Elements of the largest table of rows.
_LARGEST_TABLE = 12_000_000


def draw_rearranged_network(draw: Draw) -> Sketch:
    """Return a module of one such movement, sometimes with an operator on each element."""
    sketch = Sketch(draw)
    with sketch.builder.function("main"):
        with sketch.builder.dataflow():
            value = draw.pick(_MOVEMENTS, _SHARES)(sketch)
            if draw.chance(0.25):
                value = sketch.emit(relax.op.add(value, sketch.input(shape_of(value))))
            output = sketch.builder.emit_output(value)
        sketch.builder.emit_func_output(output, sketch.inputs)
    return sketch


def _heads(draw: Draw) -> tuple[int, int, int, int]:
    """Return batch, tokens, heads and the size of a head."""
    while True:
        batch = int(draw.pick((1, 4, 16, 64), (6, 1, 1, 1)))
        tokens = int(draw.pick((20, 36, 49, 50, 64, 77, 128, 197)) if batch == 1 else 49)
        if draw.chance(0.3):
            tokens = draw.between(2, 256)
        heads = int(draw.pick((2, 3, 4, 6, 8, 12, 16, 24)))
        size = int(draw.pick((32, 64, 80), (2, 3, 0.5)))
        if batch * tokens * heads * size <= _MOST:
            return batch, tokens, heads, size


def _split_heads(sketch: Sketch) -> Any:
    """Queries, or keys turned over, of all heads one after the other."""
    batch, tokens, heads, size = _heads(sketch.draw)
    shape = (batch * tokens, heads * size) if sketch.draw.chance(0.5) else (batch, tokens, heads * size)
    value, apart = sketch.input(shape), (batch, tokens, heads, size)
    if sketch.draw.chance(0.5):
        return sketch.rearrange(value, apart, (0, 2, 1, 3), (batch * heads, tokens, size))
    return sketch.rearrange(value, apart, (0, 2, 3, 1), (batch * heads, size, tokens))


def _join_heads(sketch: Sketch) -> Any:
    batch, tokens, heads, size = _heads(sketch.draw)
    value, width = sketch.input((batch * heads, tokens, size)), heads * size
    together = (batch * tokens, width) if sketch.draw.chance(0.5) else (batch, tokens, width)
    return sketch.rearrange(value, (batch, heads, tokens, size), (0, 2, 1, 3), together)


def _mask_scores(sketch: Sketch) -> Any:
    """Add what all heads, all rows, or all windows of an image have in common."""
    draw = sketch.draw
    batch, tokens, heads, _ = _heads(draw)
    while batch * heads * tokens * tokens > _MOST:
        tokens = max(2, tokens // 2)
    scores = sketch.input((batch * heads, tokens, tokens))
    value = sketch.reshape(scores, batch, heads, tokens, tokens)
    shapes = [(1, 1, tokens, tokens), (batch, 1, 1, tokens), (1, heads, tokens, tokens)]
    for _ in range(draw.between(1, 2)):
        value = sketch.emit(relax.op.add(value, sketch.input(draw.pick(shapes))))
    return sketch.reshape(value, batch * heads, tokens, tokens) if draw.chance(0.5) else value


def _shuffle_channels(sketch: Sketch) -> Any:
    """Two feature maps, or one of as many channels, with their channels taken in turn."""
    draw = sketch.draw
    _, channels, height, width = draw.image(8, 400)
    last = draw.chance(0.6)
    axis = 3 if last else 1

    def feature_map() -> Any:
        shape = (1, channels, height, width)
        if not last:
            return sketch.input(shape)
        if draw.chance(0.3):
            return sketch.permute(sketch.input(shape), 0, 2, 3, 1)
        return sketch.input((1, height, width, channels))

    parts = [feature_map() for _ in range(2 if draw.chance(0.7) else 1)]
    value = sketch.emit(relax.op.concat(parts, axis)) if len(parts) > 1 else parts[0]
    channels *= len(parts)
    groups = int(draw.pick((2, 3, 4, 8), (5, 1, 1, 1)))
    if channels % groups:
        return sketch.emit(relax.op.nn.relu(value))
    apart = (groups, channels // groups)
    if last:
        split, joined = (1, height, width, *apart), (1, height, width, channels)
        value = sketch.rearrange(value, split, (0, 1, 2, 4, 3), joined)
        if draw.chance(0.3):
            value, axis = sketch.permute(value, 0, 3, 1, 2), 1
    else:
        split, joined = (1, *apart, height, width), (1, channels, height, width)
        value = sketch.rearrange(value, split, (0, 2, 1, 3, 4), joined)
    if channels % 2 == 0 and draw.chance(0.5):
        half = int(draw.rng.integers(0, 2)) * channels // 2
        return sketch.emit(relax.op.strided_slice(value, [axis], [half], [half + channels // 2]))
    return value


def _windows(sketch: Sketch) -> Any:
    """Split an image of tokens into windows, or join them, shifted as often as not."""
    draw = sketch.draw
    window, count = int(draw.pick((7, 8, 4, 12))), draw.between(1, 8)
    side, width = window * count, 8 * draw.between(4, 96)
    if side * side * width > _MOST:
        width = max(8, _MOST // (side * side) // 8 * 8)
    split, order = [1, count, window, count, window, width], (0, 1, 3, 2, 4, 5)
    whole, windows = (1, side, side, width), (count * count, window * window, width)
    if draw.chance(0.5):
        return sketch.rearrange(sketch.input(whole), split, order, windows)
    split[2], split[3] = count, window
    return sketch.rearrange(sketch.input(windows), split, order, whole)


def _take_rows(sketch: Sketch) -> Any:
    """Rows of a table, by index."""
    draw = sketch.draw
    width = int(draw.pick((32, 64, 128, 256, 384, 512, 768, 1024)))
    rows = draw.between(2, _LARGEST_TABLE // width)
    shape = (draw.between(1, 256),) if draw.chance(0.5) else (1, draw.between(1, 256))
    indices = sketch.input(shape, draw.pick(("int64", "int32")))
    return sketch.emit(relax.op.take(sketch.weight(rows, width), indices, axis=0))


def _transpose_layout(sketch: Sketch) -> Any:
    """A feature map with its channels last, or first."""
    shape = sketch.draw.image()
    if sketch.draw.chance(0.5):
        return sketch.permute(sketch.input(shape), 0, 2, 3, 1)
    _, channels, height, width = shape
    return sketch.permute(sketch.input((1, height, width, channels)), 0, 3, 1, 2)


_MOVEMENTS: list[Callable[[Sketch], Any]] = [
    _split_heads, _join_heads, _mask_scores, _shuffle_channels, _windows, _take_rows, _transpose_layout,
]  # fmt: skip
_SHARES = [3, 2, 2, 3, 1.5, 1.5, 1]
