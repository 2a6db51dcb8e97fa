"""Drawn Relax modules of one operator with what fusion would put around it, and their kernels.

Extents are odd, prime and one as often as they fill vectors. A module goes through the same lowering
as a user's, so that its kernels have the prologues and epilogues that the rules meet.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tvm
from hypothesis import assume
from hypothesis import strategies as st
from tvm import relax, tirx

from tests.kernels.reference import TARGET
from tvm_sphinx.frontend.lower import lower_to_kernels

op = relax.op

#: Builds an operator: what it takes is the block builder's `emit` and the inputs.
Body = Callable[..., Any]

EXTENTS = st.one_of(st.sampled_from((1, 1, 2, 3, 7, 13, 16, 17, 31, 32, 48, 64)), st.integers(1, 70))
MOST_ELEMENTS = 6000


def shapes(min_rank: int = 1, max_rank: int = 4) -> st.SearchStrategy[tuple[int, ...]]:
    """Draw a shape of at most `MOST_ELEMENTS` elements."""
    ranks = st.integers(min_rank, max_rank)
    drawn = ranks.flatmap(lambda rank: st.tuples(*[EXTENTS] * rank))
    return drawn.map(_bounded)


def _bounded(extents: tuple[int, ...]) -> tuple[int, ...]:
    """Shorten the longest axes until the tensor is small enough."""
    shape = list(extents)
    while math.prod(shape) > MOST_ELEMENTS:
        longest = shape.index(max(shape))
        shape[longest] = shape[longest] // 2 + 1
    return tuple(shape)


def const(*shape: int, dtype: str = "float32", seed: int = 0) -> Any:
    """Return a constant of values around zero."""
    rng = np.random.default_rng([seed, *shape])
    if dtype.startswith("float"):
        return relax.const(rng.standard_normal(shape).astype(dtype), dtype)
    return relax.const(rng.integers(-4, 5, shape).astype(dtype), dtype)


def shape_of(value: Any) -> tuple[int, ...]:
    """Return the static shape of an expression."""
    return tuple(int(extent) for extent in value.ty.shape.values)


def module_of(body: Body, shapes: Sequence[tuple[int, ...]], dtype: str = "float32") -> tvm.IRModule:
    """Return a module that applies a body to inputs of these shapes and one type."""
    builder = relax.BlockBuilder()
    inputs = [relax.Var(f"x{i}", relax.TensorType(shape, dtype)) for i, shape in enumerate(shapes)]
    with builder.function("main", inputs):
        with builder.dataflow():
            out = builder.emit_output(body(builder.emit, *inputs))
        builder.emit_func_output(out)
    return builder.get()


def kernels_of(mod: tvm.IRModule) -> list[tirx.PrimFunc]:
    """Return the kernels that a module is lowered to, in a fixed order."""
    lowered = lower_to_kernels(mod, TARGET, targets=[TARGET])
    named = {var.name_hint: func for var, func in lowered.functions_items()}
    return [func for _, func in sorted(named.items()) if isinstance(func, tirx.PrimFunc)]


# -- what stands before and after an operator

UNARY: dict[str, Callable[[Any], Any]] = {
    "relu": op.nn.relu,
    "sigmoid": op.sigmoid,
    "tanh": op.tanh,
    "silu": op.nn.silu,
    "gelu": op.nn.gelu,
    "clip": lambda x: op.clip(x, -1.0, 6.0),
    "negative": op.negative,
    "abs": op.abs,
    "halve": lambda x: op.multiply(x, relax.const(0.5, str(x.ty.dtype))),
}
EXACT = ("relu", "negative", "abs")  # those of any type, and without rounding


@st.composite
def elementwise(draw: st.DrawFn, names: Sequence[str] = tuple(UNARY)) -> Callable[[Any, Any], Any]:
    """Draw one elementwise step: a function, or a constant that is broadcast along some axes."""
    kind = draw(st.sampled_from((*names, "add", "multiply", "maximum")))
    if kind in UNARY:
        return lambda emit, x: emit(UNARY[kind](x))
    held = draw(st.integers(0, 15))

    def binary(emit: Any, x: Any) -> Any:
        extents = shape_of(x)
        kept = tuple(e if held >> i & 1 else 1 for i, e in enumerate(extents))
        other = const(*kept, dtype=str(x.ty.dtype), seed=held)
        return emit(getattr(op, kind)(x, other))

    return binary


#: Picks one of several things, or a number from zero to below the other bound.
Pick = Callable[[int], int]


def _transpose(pick: Pick, x: Any) -> Any:
    left = list(range(len(shape_of(x))))
    return op.permute_dims(x, [left.pop(pick(len(left))) for _ in range(len(left))])


def _reshape(pick: Pick, x: Any) -> Any:
    extents = shape_of(x)
    at = pick(len(extents)) + 1
    return op.reshape(x, (math.prod(extents[:at]), *extents[at:]))


def _concat(pick: Pick, x: Any) -> Any:
    extents = list(shape_of(x))
    axis = pick(len(extents))
    extents[axis] = 1 + pick(5)
    parts = [x, const(*extents, dtype=str(x.ty.dtype))]
    return op.concat(parts if pick(2) else parts[::-1], axis)


def _split(pick: Pick, x: Any) -> Any:
    axis = pick(len(shape_of(x)))
    extent = shape_of(x)[axis]
    if extent == 1:
        return op.expand_dims(x, axis)
    return relax.TupleGetItem(op.split(x, [1 + pick(extent - 1)], axis), pick(2))


def _slice(pick: Pick, x: Any) -> Any:
    axis = pick(len(shape_of(x)))
    extent = shape_of(x)[axis]
    return op.strided_slice(x, [axis], [pick(extent)], [extent], [1 + pick(3)])


def _pad(pick: Pick, x: Any) -> Any:
    return op.nn.pad(x, [pick(3) for _ in range(2 * len(shape_of(x)))], "constant", 1.0)


def _extend(pick: Pick, x: Any) -> Any:
    rank = len(shape_of(x))
    ends = [1 if axis >= min(2, rank - 1) and pick(3) else 0 for axis in range(rank)]
    return op.nn.pad(x, [width for end in ends for width in (0, end)], "constant", 1.0)


def _resize(pick: Pick, x: Any) -> Any:
    if len(shape_of(x)) != 4 or not str(x.ty.dtype).startswith("float"):
        return op.expand_dims(x, 0)
    size, layout = (1 + pick(9), 1 + pick(9)), ("NHWC", "NCHW")[pick(2)]
    method = ("linear", "nearest_neighbor")[pick(2)]
    return op.image.resize2d(x, size, layout=layout, method=method)


def _flip(pick: Pick, x: Any) -> Any:
    return op.flip(x, pick(len(shape_of(x))))


def _repeat(pick: Pick, x: Any) -> Any:
    return op.repeat(x, 1 + pick(3), pick(len(shape_of(x))))


MOVES = (_transpose, _reshape, _concat, _split, _slice, _pad, _resize, _flip, _repeat)
#: Such as may follow an operator and stay in its kernel.
LAST_MOVES = (_extend, _extend, _pad, _slice, _concat, _flip, _reshape)


@st.composite
def around(draw: st.DrawFn, body: Body, names: Sequence[str] = tuple(UNARY)) -> Body:
    """Put drawn elementwise steps, at times a residual sum and a move, around an operator."""
    before = draw(st.lists(elementwise(names), max_size=1))
    after = draw(st.lists(elementwise(names), max_size=3))
    residual = draw(st.booleans())
    moves = draw(st.lists(st.sampled_from(LAST_MOVES), max_size=1))
    picks = draw(st.lists(st.integers(0, 2**16), min_size=8, max_size=8)) if moves else []

    def whole(emit: Any, x: Any, *rest: Any) -> Any:
        for step in before:
            x = step(emit, x)
        y = body(emit, x, *rest)
        start = y
        for step in after:
            y = step(emit, y)
        y = emit(op.add(y, start)) if residual and after else y
        source = iter(picks)
        for move in moves:
            y = emit(emit(move(lambda count: next(source) % count, y))) if shape_of(y) else y
        return y

    return whole


Case = tuple[Body, list[tuple[int, ...]]]


# -- the operators


@st.composite
def convolutions(draw: st.DrawFn, dtype: str = "float32") -> Case:
    """Draw a plain, grouped or depthwise convolution, strided, padded and dilated."""
    kind = draw(st.sampled_from(("plain", "grouped", "depthwise")))
    small = st.integers(1, 21)
    groups = draw(st.integers(2, 21)) if kind != "plain" else 1
    into, out = (1, 1) if kind == "depthwise" else (draw(small), draw(st.integers(1, 37)))
    if kind == "grouped":
        into, out = -(-into // 4), -(-out // 2)
    kernel = [draw(st.integers(1, 4)) for _ in "hw"]
    dilation = [draw(st.sampled_from((1, 1, 2))) for _ in "hw"]
    padding = [draw(st.integers(0, 2)) for _ in range(4)]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    spatial = [
        max(draw(st.integers(1, 15)), reach[axis] - padding[axis] - padding[axis + 2], 1)
        for axis in range(2)
    ]
    attrs = {
        "strides": [draw(st.integers(1, 3)) for _ in "hw"],
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "out_dtype": "int32" if dtype == "int8" else dtype,
    }
    weight = const(groups * out, into, *kernel, dtype=dtype)

    def body(emit: Any, x: Any) -> Any:
        return emit(op.nn.conv2d(x, weight, **attrs))

    names = EXACT if dtype == "int8" else tuple(UNARY)
    return draw(around(body, names)), [(draw(st.integers(1, 2)), groups * into, *spatial)]


@st.composite
def products(draw: st.DrawFn, dtype: str = "float32") -> Case:
    """Draw a product with a constant matrix; one row makes it a product with a vector."""
    lead = draw(st.one_of(st.just((1,)), shapes(1, 3).map(lambda s: tuple(min(e, 9) for e in s))))
    inner, columns = draw(EXTENTS), draw(EXTENTS)
    weight = const(inner, columns, dtype=dtype)
    out = "int32" if dtype == "int8" else dtype

    def body(emit: Any, x: Any) -> Any:
        return emit(op.matmul(x, weight, out))

    names = EXACT if dtype == "int8" else tuple(UNARY)
    return draw(around(body, names)), [(*lead, inner)]


@st.composite
def batched_products(draw: st.DrawFn) -> Case:
    """Draw a product of two activations whose batch axes are broadcast."""
    rank = draw(st.integers(0, 2))
    batch = [draw(st.integers(1, 5)) for _ in range(rank)]
    sides = [
        [e if draw(st.booleans()) else 1 for e in batch][draw(st.integers(0, rank)) :] for _ in "lr"
    ]
    rows, inner, columns = (draw(st.integers(1, 40)) for _ in range(3))

    def body(emit: Any, x: Any, y: Any) -> Any:
        return emit(op.matmul(x, y))

    return draw(around(body)), [(*sides[0], rows, inner), (*sides[1], inner, columns)]


@st.composite
def poolings(draw: st.DrawFn) -> Case:
    """Draw a pooling of channels-last or channels-first data."""
    kind = draw(st.sampled_from(("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d")))
    layout = draw(st.sampled_from(("NHWC", "NCHW")))
    batch, channels = draw(st.integers(1, 2)), draw(EXTENTS)
    if kind == "adaptive_avg_pool2d":
        spatial = [draw(st.integers(1, 13)) for _ in "hw"]
        size = [draw(st.integers(1, extent)) for extent in spatial]

        def body(emit: Any, x: Any) -> Any:
            return emit(op.nn.adaptive_avg_pool2d(x, size, layout))
    else:
        pool = [draw(st.integers(1, 4)) for _ in "hw"]
        padding = [draw(st.integers(0, pool[axis % 2] // 2)) for axis in range(4)]
        spatial = [max(draw(st.integers(1, 13)), extent) for extent in pool]
        settings = ([draw(st.integers(1, 3)) for _ in "hw"], padding, [1, 1], draw(st.booleans()))
        include = draw(st.booleans())

        def body(emit: Any, x: Any) -> Any:
            return emit(getattr(op.nn, kind)(x, pool, *settings, include, layout))

    shape = (batch, *spatial, channels) if layout == "NHWC" else (batch, channels, *spatial)
    return draw(around(body)), [shape]


@st.composite
def reductions(draw: st.DrawFn, names: Sequence[str], exact: bool = False) -> Case:
    """Draw a reduction over any axes."""
    shape = draw(shapes())
    axes = draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True))
    name, keepdims = draw(st.sampled_from(list(names))), draw(st.booleans())

    def body(emit: Any, x: Any) -> Any:
        return emit(getattr(op, name)(x, axes, keepdims))

    return draw(around(body, EXACT if exact else tuple(UNARY))), [shape]


@st.composite
def normalizations(draw: st.DrawFn) -> Case:
    """Draw a softmax over any axis, or a layer or root-mean-square norm over the last axes."""
    shape = draw(shapes(1, 4))
    kind = draw(st.sampled_from(("softmax", "log_softmax", "layer_norm", "rms_norm")))
    if kind.endswith("softmax"):
        axis = draw(st.integers(0, len(shape) - 1))
        return draw(around(lambda emit, x: emit(getattr(op.nn, kind)(x, axis)))), [shape]
    first = draw(st.integers(max(0, len(shape) - 2), len(shape) - 1))
    assume(kind == "layer_norm" or first > 0)  # TVM cannot legalize a root-mean-square norm of all axes
    scales = [const(*shape[first:], seed=seed) for seed in range(2)]
    axes = list(range(first, len(shape)))

    def body(emit: Any, x: Any) -> Any:
        if kind == "layer_norm":
            return emit(op.nn.layer_norm(x, *scales, axes))
        return emit(op.nn.rms_norm(x, scales[0], axes, 1e-5))

    return draw(around(body)), [shape]


@st.composite
def elementwise_chains(draw: st.DrawFn, dtype: str = "float32") -> Case:
    """Draw a chain of functions and broadcast operators, with two inputs that broadcast."""
    shape = draw(shapes())
    names = tuple(UNARY) if dtype.startswith("float") else EXACT
    steps = draw(st.lists(elementwise(names), max_size=4))
    other = tuple(extent if draw(st.booleans()) else 1 for extent in shape)[draw(st.integers(0, 1)) :]
    compared = draw(st.sampled_from(("", "less", "greater_equal", "equal", "not_equal")))

    def body(emit: Any, x: Any, y: Any) -> Any:
        z = x
        for step in steps:
            z = step(emit, z)
        if not compared:
            return emit(op.add(z, y))
        found = emit(getattr(op, compared)(z, y))
        either = emit(op.logical_or(found, emit(op.logical_not(emit(op.less(y, z))))))
        return emit(op.where(found, z, y)) if shape[0] % 2 else either

    return body, [shape, other]


@st.composite
def injective_chains(draw: st.DrawFn, dtype: str = "float32") -> Case:
    """Draw a chain of operators that move elements, and a function at its end."""
    shape = draw(shapes(2, 4))
    moves = draw(st.lists(st.sampled_from(MOVES), min_size=1, max_size=3))
    picks = draw(st.lists(st.integers(0, 2**16), min_size=12, max_size=12))
    step = draw(elementwise(EXACT)) if dtype != "bool" else None

    def body(emit: Any, x: Any) -> Any:
        source = itertools.cycle(picks)
        for move in moves:
            x = emit(emit(move(lambda count: next(source) % count, x)))
        return step(emit, x) if step else emit(op.logical_not(x))

    return body, [shape]
