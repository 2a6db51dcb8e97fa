"""What is drawn of each torch function: its inputs, and arguments that they allow."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .graph import RejectedError
from .torch_program import FLOATS, INTEGERS, NUMBERS, Draw, Program

_ALL = (*FLOATS, *INTEGERS, torch.bool)
_WIDE = (torch.float32, torch.float64)
DRAWS: dict[str, Draw] = {}


def _draw(function: Draw) -> Draw:
    """Register a draw under the name of its function."""
    DRAWS[function.__name__.strip("_")] = function
    return function


# -- of single elements


def _unary(
    name: str,
    dtypes: Sequence[torch.dtype] = FLOATS,
    low: float = -4,
    high: float = 4,
    *,
    jumps: bool = False,
    of: Any = None,
) -> None:
    """Register a function of one tensor; ``jumps`` where roundings before it would show."""
    function = of or getattr(torch, name, None) or getattr(F, name)
    bounds = {} if (low, high) == (-4, 4) else {"low": low, "high": high}

    def draw(p: Program) -> None:
        take = p.fresh if jumps else p.tensor
        p.add(name, function, take(dtypes, **bounds))

    DRAWS[name] = draw


for _name in (
    "sigmoid tanh sin cos exp relu relu6 silu mish softplus softsign elu selu gelu hardtanh atan erf "
    "logsigmoid hardswish hardsigmoid celu leaky_relu tanhshrink softshrink expm1 square"
).split():
    _unary(_name)
for _name in ("abs", "neg", "positive"):
    _unary(_name, NUMBERS)
for _name in ("floor", "ceil", "trunc", "round", "frac", "sign", "sgn"):
    _unary(_name, FLOATS, jumps=True)
for _name in ("log", "log2", "log10", "log1p", "sqrt", "rsqrt", "reciprocal", "lgamma", "digamma"):
    _unary(_name, _WIDE, 0.2, 4)
for _name in ("asin", "acos", "atanh", "erfinv"):
    _unary(_name, FLOATS, -0.9, 0.9)
for _name, _low, _high in (("acosh", 1.2, 4), ("sinh", -4, 4), ("cosh", -4, 4), ("asinh", -4, 4)):
    _unary(_name, FLOATS, _low, _high)
_unary("tan", FLOATS, -1, 1)
for _name in ("isnan", "isinf", "isfinite", "logical_not", "signbit"):
    _unary(_name, NUMBERS, jumps=True)
for _name in ("i0", "sinc"):
    _unary(_name, _WIDE)
for _name in ("i0e", "i1", "i1e", "entr", "ndtr"):
    _unary(_name, _WIDE, of=getattr(torch.special, _name))
for _name in ("erfcx", "log_ndtr"):
    _unary(_name, (torch.float32,), -3, 4, of=getattr(torch.special, _name))
_unary("digamma_left", _WIDE, -0.9, -0.1, of=torch.digamma)
_unary("lgamma_left", _WIDE, -2.9, -2.1, of=torch.lgamma)
_unary("trigamma", _WIDE, 0.2, 4, of=lambda x: torch.polygamma(1, x))
_unary("angle", FLOATS, jumps=True)
_unary("frexp", (torch.float32, torch.float64, torch.float16), jumps=True)
_unary("bitwise_not", (*INTEGERS, torch.bool))
_unary("gelu_tanh", of=lambda x: F.gelu(x, approximate="tanh"))
_unary("nan_to_num", FLOATS)
_unary("clone", _ALL, of=torch.clone)


def _binary(
    name: str,
    function: Callable[..., Any],
    dtypes: Sequence[torch.dtype] = NUMBERS,
    low: float = -4,
    high: float = 4,
    *,
    jumps: bool = False,
) -> None:
    """Register a function of two tensors that broadcast, of the same type or not."""

    def draw(p: Program) -> None:
        left = (p.fresh if jumps else p.tensor)(dtypes)
        value = p.of(left)
        dtype = value.dtype if p.chance(0.7) else p.pick(dtypes)
        right = p.array(dtype, p.broadcastable(value.shape), low, high)
        if low >= 0 and not dtype.is_floating_point:
            right = right.clamp(min=1)
        p.add(name, function, left, p.either(right))

    DRAWS[name] = draw


for _name, _function in (("add", torch.add), ("sub", torch.sub), ("mul", torch.mul)):
    _binary(_name, _function, (*NUMBERS, torch.uint8, torch.int16))
_binary("div", torch.div, NUMBERS, 0.3, 4)
for _mode in ("floor", "trunc"):
    _binary(
        f"div_{_mode}",
        lambda x, y, mode=_mode: torch.div(x, y, rounding_mode=mode),
        NUMBERS,
        0.3,
        4,
        jumps=True,
    )
for _name, _function in (("remainder", torch.remainder), ("fmod", torch.fmod)):
    _binary(
        _name, _function, (torch.float32, torch.float64, torch.int64, torch.int32), 0.3, 4, jumps=True
    )
_binary(
    "floor_divide", torch.floor_divide, (torch.int64, torch.int32, torch.float32), 0.3, 4, jumps=True
)
for _name in ("maximum", "minimum"):
    _binary(_name, getattr(torch, _name), (*NUMBERS, torch.uint8))
for _name in ("atan2", "hypot", "logaddexp"):
    _binary(_name, getattr(torch, _name), _WIDE, 0.1, 4)
for _name in ("logaddexp2", "fmax", "fmin", "xlogy"):
    _binary(_name, getattr(torch, _name), _WIDE, 0.1, 4)
_binary("copysign", torch.copysign, FLOATS, jumps=True)
_binary("heaviside", torch.heaviside, (torch.float32,), jumps=True)
_binary("nextafter", torch.nextafter, (torch.float32,), jumps=True)
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    _binary(_name, getattr(torch, _name), _ALL, jumps=True)
for _name in ("logical_and", "logical_or", "logical_xor"):
    _binary(_name, getattr(torch, _name), _ALL, jumps=True)
for _name in ("bitwise_and", "bitwise_or", "bitwise_xor"):
    _binary(_name, getattr(torch, _name), (torch.int64, torch.int32, torch.uint8, torch.bool))


@_draw
def shift(p: Program) -> None:
    left = p.tensor((torch.int32, torch.int64, torch.uint8), low=0, high=100)
    right = p.array(p.of(left).dtype, p.broadcastable(p.of(left).shape), 0, 5)
    function = p.pick([operator.lshift, operator.rshift])
    p.add("shift", function, left, p.either(right))


@_draw
def scalar(p: Program) -> None:
    number = p.pick([2, 3, -1, 0.5, 1.5, -2.25])
    functions: list[Callable[[Any], Any]] = [
        lambda x: x + number,
        lambda x: number - x,
        lambda x: x * number,
        lambda x: x / number,
    ]
    p.add("scalar", p.pick(functions), p.tensor((*NUMBERS, torch.uint8, torch.int16)))


@_draw
def power(p: Program) -> None:
    exponent = p.pick([2, 3, 0.5, -1, 0, 1.5])
    low = -3 if exponent in (2, 3, 0) else 0.3
    p.add("pow", lambda x: x**exponent, p.tensor(FLOATS, low=low, high=3))


@_draw
def pow_tensor(p: Program) -> None:
    left = p.tensor(_WIDE, low=0.2, high=3)
    right = p.array(p.of(left).dtype, p.broadcastable(p.of(left).shape), -2, 2)
    p.add("pow_tensor", torch.pow, left, p.either(right))


@_draw
def where(p: Program) -> None:
    left = p.tensor(NUMBERS)
    shape = p.of(left).shape
    other = p.array(p.pick([p.of(left).dtype, *NUMBERS]), p.broadcastable(shape))
    p.add("where", torch.where, p.input(p.array(torch.bool, shape)), left, p.either(other))


@_draw
def clamp(p: Program) -> None:
    low = p.pick([None, -1, -0.5, 0])
    high = p.pick([1, 2.5]) if low is None else p.pick([None, 1, 2.5])
    p.add("clamp", lambda x: x.clamp(low, high), p.tensor(NUMBERS))


@_draw
def cast(p: Program) -> None:
    source = p.pick(_ALL)
    wanted = p.pick(_ALL)
    low = 0 if wanted == torch.uint8 else -4
    take = p.tensor if wanted.is_floating_point else p.fresh
    p.add("to", lambda x: x.to(wanted), take((source,), low=low, high=4))


@_draw
def lerp(p: Program) -> None:
    left = p.tensor(_WIDE)
    right = p.array(p.of(left).dtype, p.of(left).shape)
    weight = round(float(p.rng.uniform(0, 1)), 2)
    p.add("lerp", lambda x, y: torch.lerp(x, y, weight), left, p.either(right))


@_draw
def addcmul(p: Program) -> None:
    left = p.tensor(_WIDE)
    shape, dtype = p.of(left).shape, p.of(left).dtype
    others = [p.either(p.array(dtype, shape, 0.3, 2)) for _ in range(2)]
    function = p.pick([torch.addcmul, torch.addcdiv])
    p.add("addcmul", lambda x, y, z: function(x, y, z, value=0.5), left, *others)


@_draw
def threshold(p: Program) -> None:
    p.add("threshold", lambda x: F.threshold(x, 0.1, -3.0), p.fresh(FLOATS))


@_draw
def glu(p: Program) -> None:
    left = p.tensor(FLOATS, 1)
    axis = p.axis(p.of(left).ndim)
    p.add("glu", lambda x: F.glu(x, axis), left)


@_draw
def prelu(p: Program) -> None:
    left = p.tensor((torch.float32,), 2)
    channels = p.of(left).shape[1]
    p.add("prelu", F.prelu, left, p.either(p.array(torch.float32, [p.pick([1, channels])])))


# -- that reduce


def _reduction(name: str, function: Callable[..., Any], dtypes: Sequence[torch.dtype]) -> None:
    def draw(p: Program) -> None:
        left = p.tensor(dtypes, 1)
        rank = p.of(left).ndim
        axes, keep = p.axes(rank), p.chance(0.5)
        if len({axis % rank for axis in axes}) != len(axes):
            raise RejectedError("one axis twice")
        p.add(name, lambda x: function(x, dim=axes, keepdim=keep), left)

    DRAWS[name] = draw


_reduction("sum", torch.sum, (*NUMBERS, torch.uint8, torch.bool))
_reduction("mean", torch.mean, FLOATS)
for _name in ("amax", "amin"):
    _reduction(_name, getattr(torch, _name), (*NUMBERS, torch.uint8))
_reduction("logsumexp", torch.logsumexp, _WIDE)
for _order in (1, 2, torch.inf):
    _reduction(
        f"norm_{_order}",
        lambda x, dim, keepdim, order=_order: torch.linalg.vector_norm(x, order, dim, keepdim),
        _WIDE,
    )
_reduction(
    "count_nonzero", lambda x, dim, keepdim: torch.count_nonzero(x, dim), (torch.int64, torch.bool)
)
for _name in ("var", "std"):
    _reduction(
        _name,
        lambda x, dim, keepdim, of=_name: getattr(torch, of)(x, dim, correction=0, keepdim=keepdim),
        _WIDE,
    )


def _along(
    name: str, function: Callable[[Any, int], Any], dtypes: Sequence[torch.dtype], *, fresh: bool = False
) -> None:
    """Register a function along one axis."""

    def draw(p: Program) -> None:
        left = (p.fresh if fresh else p.tensor)(dtypes, 1)
        axis = p.axis(p.of(left).ndim)
        p.add(name, lambda x: function(x, axis), left)

    DRAWS[name] = draw


for _name in ("softmax", "log_softmax", "softmin"):
    _along(_name, getattr(F, _name), FLOATS)
_along("cumsum", torch.cumsum, (torch.float32, torch.float64, torch.int64, torch.int32, torch.bool))
_along("cumprod", torch.cumprod, _WIDE)
_along("prod", torch.prod, (torch.float32, torch.float64, torch.int64, torch.int32))
for _name in ("any", "all"):
    _along(_name, getattr(torch, _name), (torch.bool, torch.int64), fresh=True)
_along("diff", lambda x, axis: torch.diff(x, dim=axis), NUMBERS)
_along("flip", lambda x, axis: torch.flip(x, [axis]), _ALL)
_along("normalize", lambda x, axis: F.normalize(x, dim=axis), _WIDE)
_along("unbind", torch.unbind, _ALL)
_along("max_dim", lambda x, axis: torch.max(x, axis), _WIDE, fresh=True)
_along("min_dim", lambda x, axis: torch.min(x, axis), _WIDE, fresh=True)
_along("argmax", torch.argmax, _WIDE, fresh=True)
_along("argmin", torch.argmin, _WIDE, fresh=True)
_along("sort", torch.sort, _WIDE, fresh=True)
_along("argsort", torch.argsort, _WIDE, fresh=True)
_along("median", torch.median, _WIDE, fresh=True)
for _name in ("cummax", "cummin"):
    _along(_name, getattr(torch, _name), (*_WIDE, torch.int64, torch.uint8), fresh=True)
_along("logcumsumexp", torch.logcumsumexp, _WIDE)
_along("nanmedian", lambda x, axis: torch.nanmedian(x, axis).values, _WIDE, fresh=True)
_along(
    "sort_stable",
    lambda x, axis: torch.sort(x, dim=axis, stable=True),
    (*_WIDE, torch.int64),
    fresh=True,
)
for _name in ("sum", "mean", "amax", "prod"):
    _unary(f"{_name}_all", _WIDE, of=getattr(torch, _name))


@_draw
def topk(p: Program) -> None:
    left = p.fresh(_WIDE, 1)
    axis = p.axis(p.of(left).ndim)
    count, largest = p.number(1, max(1, p.of(left).shape[axis])), p.chance(0.5)
    p.add("topk", lambda x: torch.topk(x, count, axis, largest), left)


# -- that rearrange


@_draw
def reshape(p: Program) -> None:
    left = p.tensor(_ALL)
    shape = list(p.of(left).shape)
    if len(shape) > 1 and p.chance(0.6):
        at = p.number(0, len(shape) - 2)
        shape[at : at + 2] = [shape[at] * shape[at + 1]]
    else:
        shape.insert(p.number(0, len(shape)), 1)
    if 0 not in shape and shape and p.chance(0.5):
        shape[p.number(0, len(shape) - 1)] = -1
    p.add("reshape", lambda x: x.reshape(shape), left)


@_draw
def permute(p: Program) -> None:
    left = p.tensor(_ALL, 1)
    order = [int(axis) for axis in p.rng.permutation(p.of(left).ndim)]
    p.add("permute", lambda x: x.permute(order), left)


@_draw
def transpose(p: Program) -> None:
    left = p.tensor(_ALL, 2)
    first, second = p.axis(p.of(left).ndim), p.axis(p.of(left).ndim)
    p.add("transpose", lambda x: x.transpose(first, second), left)


@_draw
def unsqueeze(p: Program) -> None:
    left = p.tensor(_ALL, 0, 4)
    axis = p.axis(p.of(left).ndim + 1)
    p.add("unsqueeze", lambda x: x.unsqueeze(axis), left)


@_draw
def squeeze(p: Program) -> None:
    left = p.tensor(_ALL, 1)
    axis = p.axis(p.of(left).ndim)
    p.add("squeeze", p.pick([torch.squeeze, lambda x: x.squeeze(axis)]), left)


@_draw
def flatten(p: Program) -> None:
    left = p.tensor(_ALL, 2)
    start = p.number(0, p.of(left).ndim - 1)
    p.add("flatten", lambda x: x.flatten(start), left)


@_draw
def expand(p: Program) -> None:
    left = p.tensor(_ALL, 0, 4)
    shape = [p.number(2, 3) if extent == 1 else -1 for extent in p.of(left).shape]
    shape = [2, *shape] if p.chance(0.5) else shape
    p.add("expand", lambda x: x.expand(shape), left)


@_draw
def repeat(p: Program) -> None:
    left = p.tensor(_ALL, 0, 4)
    times = [p.number(1, 3) for _ in range(p.of(left).ndim + p.number(0, 1))]
    p.add("repeat", p.pick([lambda x: x.repeat(times), lambda x: x.tile(times)]), left)


@_draw
def repeat_interleave(p: Program) -> None:
    left = p.tensor(_ALL, 1, 4)
    axis, times = p.axis(p.of(left).ndim), p.number(1, 3)
    p.add("repeat_interleave", lambda x: x.repeat_interleave(times, axis), left)


@_draw
def cat(p: Program) -> None:
    left = p.tensor(_ALL, 1)
    value = p.of(left)
    axis, others = p.axis(value.ndim), []
    for _ in range(p.number(1, 2)):
        shape = list(value.shape)
        shape[axis] = p.number(1, 3)
        dtype = value.dtype if p.chance(0.8) else p.pick(NUMBERS)
        others.append(p.either(p.array(dtype, shape)))
    p.add("cat", lambda *tensors: torch.cat(tensors, axis), left, *others)


@_draw
def stack(p: Program) -> None:
    left = p.tensor(_ALL, 0, 4)
    value = p.of(left)
    axis = p.axis(value.ndim + 1)
    p.add(
        "stack",
        lambda *tensors: torch.stack(tensors, axis),
        left,
        p.either(p.array(value.dtype, value.shape)),
    )


@_draw
def split(p: Program) -> None:
    left = p.tensor(_ALL, 1)
    axis, count = p.axis(p.of(left).ndim), p.number(1, 3)
    functions = [torch.split, torch.chunk, torch.tensor_split]
    function = p.pick(functions)
    p.add("split", lambda x: function(x, count, axis), left)


@_draw
def roll(p: Program) -> None:
    left = p.tensor(_ALL, 1)
    axis, by = p.axis(p.of(left).ndim), p.number(-3, 3)
    p.add("roll", p.pick([lambda x: x.roll(by, axis), lambda x: x.roll(by)]), left)


@_draw
def pad(p: Program) -> None:
    left = p.tensor((*NUMBERS, torch.uint8), 1)
    sides = [p.number(-1, 2) for _ in range(2 * p.number(1, p.of(left).ndim))]
    value = p.number(-2, 2)
    p.add("pad", lambda x: F.pad(x, sides, value=value), left)


@_draw
def pad_mode(p: Program) -> None:
    left = p.tensor(_WIDE, 3, 4)
    sides = [p.number(0, 2) for _ in range(2 * (p.of(left).ndim - 2))]
    mode = p.pick(["reflect", "replicate", "circular"])
    p.add("pad_mode", lambda x: F.pad(x, sides, mode=mode), left)


@_draw
def diagonal(p: Program) -> None:
    left = p.tensor(_ALL, 2)
    offset = p.number(-1, 1)
    p.add(
        "diagonal", p.pick([lambda x: x.diagonal(offset, 0, 1), lambda x: x.diagonal(0, -2, -1)]), left
    )


@_draw
def triangle(p: Program) -> None:
    offset = p.number(-2, 2)
    p.add("tril", p.pick([lambda x: x.tril(offset), lambda x: x.triu(offset)]), p.tensor(NUMBERS, 2))


@_draw
def unfold(p: Program) -> None:
    left = p.tensor(_ALL, 1, 4)
    axis, size, step = p.axis(p.of(left).ndim), p.number(1, 3), p.number(1, 2)
    p.add("unfold", lambda x: x.unfold(axis, size, step), left)


@_draw
def shuffle_pixels(p: Program) -> None:
    shape = [p.number(1, 2), 4 * p.number(1, 2), 2 * p.number(1, 3), 4]
    function = p.pick([F.pixel_shuffle, F.pixel_unshuffle, F.channel_shuffle])
    p.add("shuffle", lambda x: function(x, 2), p.input(p.array(torch.float32, shape)))


@_draw
def im2col(p: Program) -> None:
    shape = [p.number(1, 2), p.number(1, 3), p.number(3, 6), p.number(3, 6)]
    size, padding, stride = p.number(1, 3), p.number(0, 1), p.number(1, 2)
    p.add(
        "im2col",
        lambda x: F.unfold(x, size, padding=padding, stride=stride),
        p.input(p.array(torch.float32, shape)),
    )


# -- that index


@_draw
def select(p: Program) -> None:
    left = p.tensor(_ALL, 1)
    axis = p.axis(p.of(left).ndim)
    extent = p.of(left).shape[axis]
    place = p.number(-extent, extent - 1) if extent else 0
    p.add("select", lambda x: x.select(axis, place), left)


@_draw
def slices(p: Program) -> None:
    left = p.tensor(_ALL, 1)
    keys: list[Any] = []
    for extent in p.of(left).shape[: p.number(1, p.of(left).ndim)]:
        begin = p.pick([None, p.number(-extent - 1, extent + 1)])
        end = p.pick([None, p.number(-extent - 1, extent + 1)])
        keys.append(slice(begin, end, p.pick([None, 1, 2, 3])))
    if p.chance(0.3):
        keys.insert(p.number(0, len(keys)), None)
    if p.chance(0.2):
        keys.insert(0, ...)
    p.add("slice", lambda x: x[tuple(keys)], left)


def _places(p: Program, shape: Sequence[int], extent: int, *, from_end: bool) -> int:
    if not extent:
        raise RejectedError("nothing to index")
    return p.either(p.array(torch.int64, shape, -extent if from_end else 0, extent - 1))


@_draw
def index(p: Program) -> None:
    left = p.tensor(_ALL, 1)
    value = p.of(left)
    shape, places, form = p.shape(0, 2), [], []
    for extent in value.shape[: p.number(1, 3)]:
        if p.chance(0.6) or not form:
            places.append(_places(p, p.broadcastable(shape), extent, from_end=True))
            form.append(True)
        else:
            form.append(False)

    def read(x: torch.Tensor, *indices: torch.Tensor) -> torch.Tensor:
        given = iter(indices)
        return x[tuple(next(given) if is_index else slice(None) for is_index in form)]

    p.add("index", read, left, *places)


@_draw
def index_select(p: Program) -> None:
    left = p.tensor(_ALL, 1)
    axis = p.axis(p.of(left).ndim)
    places = _places(p, [p.number(1, 4)], p.of(left).shape[axis], from_end=False)
    p.add("index_select", lambda x, k: x.index_select(axis, k), left, places)


@_draw
def gather(p: Program) -> None:
    left = p.tensor(_ALL, 1)
    value = p.of(left)
    axis = p.axis(value.ndim)
    shape = [p.number(1, extent) if extent else 0 for extent in value.shape]
    shape[axis] = p.number(1, 4)
    places = _places(p, shape, value.shape[axis], from_end=False)
    p.add("gather", lambda x, k: x.gather(axis, k), left, places)


@_draw
def take(p: Program) -> None:
    left = p.tensor(_ALL)
    p.add("take", torch.take, left, _places(p, p.shape(0, 2), p.of(left).numel(), from_end=True))


@_draw
def embedding(p: Program) -> None:
    table = p.array(p.pick(_WIDE), [p.number(1, 9), p.number(1, 6)])
    places = _places(p, p.shape(1, 3), table.shape[0], from_end=False)
    p.add("embedding", F.embedding, places, p.either(table))


@_draw
def scatter(p: Program) -> None:
    left = p.tensor((torch.float32, torch.float64, torch.int64), 1)
    value = p.of(left)
    axis = p.axis(value.ndim)
    shape = [p.number(1, extent) if extent else 0 for extent in value.shape]
    # Of two elements for one place it is not said which one stays.
    shape[axis] = 1
    places = _places(p, shape, value.shape[axis], from_end=False)
    source = p.either(p.array(value.dtype, shape))
    function = p.pick([torch.scatter, torch.scatter_add])
    p.add("scatter", lambda x, k, s: function(x, axis, k, s), left, places, source)


@_draw
def index_add(p: Program) -> None:
    left = p.tensor((torch.float32, torch.float64, torch.int64), 1)
    value = p.of(left)
    axis = p.axis(value.ndim)
    shape = list(value.shape)
    shape[axis] = p.number(1, 3)
    places = _places(p, [shape[axis]], value.shape[axis], from_end=False)
    source = p.either(p.array(value.dtype, shape))
    p.add("index_add", lambda x, k, s: x.index_add(axis, k, s), left, places, source)


@_draw
def index_put(p: Program) -> None:
    left = p.tensor((torch.float32, torch.float64, torch.int64), 1)
    value = p.of(left)
    places = _places(p, [1], value.shape[0], from_end=True)
    source = p.either(p.array(value.dtype, [1, *value.shape[1:]]))
    accumulate = p.chance(0.5)
    p.add("index_put", lambda x, k, s: x.index_put((k,), s, accumulate), left, places, source)


@_draw
def assign(p: Program) -> None:
    left = p.tensor(NUMBERS, 1)
    extent = p.of(left).shape[0]
    begin, end, step = p.number(-extent, extent), p.pick([None, extent]), p.number(1, 2)
    number = p.number(-3, 3)

    def write(x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y[begin:end:step] = number
        return y

    p.add("assign", write, left)


@_draw
def masked_fill(p: Program) -> None:
    left = p.tensor(NUMBERS)
    mask = p.either(p.array(torch.bool, p.broadcastable(p.of(left).shape)))
    p.add("masked_fill", lambda x, m: x.masked_fill(m, 2), left, mask)


@_draw
def one_hot(p: Program) -> None:
    count = p.number(1, 6)
    p.add("one_hot", lambda k: F.one_hot(k, count), _places(p, p.shape(0, 3), count, from_end=False))


@_draw
def kthvalue(p: Program) -> None:
    left = p.fresh(_WIDE, 1)
    axis = p.axis(p.of(left).ndim)
    place, keep = p.number(1, max(1, p.of(left).shape[axis])), p.chance(0.5)
    p.add("kthvalue", lambda x: torch.kthvalue(x, place, axis, keep), left)


@_draw
def clamp_one_side(p: Program) -> None:
    bound = p.number(-2, 2)
    functions = [lambda x: x.clamp(min=bound), lambda x: x.clamp(max=bound)]
    p.add("clamp", p.pick(functions), p.tensor((*NUMBERS, torch.int16)))


@_draw
def scatter_reduce(p: Program) -> None:
    left = p.tensor((torch.float32, torch.float64), 1, low=0.5, high=2)
    value = p.of(left)
    axis = p.axis(value.ndim)
    shape = [p.number(1, extent) if extent else 0 for extent in value.shape]
    places = _places(p, shape, value.shape[axis], from_end=False)
    source = p.either(p.array(value.dtype, shape, 0.5, 2))
    how, own = p.pick(["sum", "prod", "mean", "amax", "amin"]), p.chance(0.5)
    p.add(
        "scatter_reduce",
        lambda x, k, s: x.scatter_reduce(axis, k, s, how, include_self=own),
        left,
        places,
        source,
    )


@_draw
def diagonal_scatter(p: Program) -> None:
    left = p.tensor(NUMBERS, 2, 2)
    offset = p.number(-1, 1)
    source = p.array(p.of(left).dtype, p.of(left).diagonal(offset).shape)
    p.add("diagonal_scatter", lambda x, s: torch.diagonal_scatter(x, s, offset), left, p.either(source))


@_draw
def masked_scatter(p: Program) -> None:
    left = p.tensor(NUMBERS)
    value = p.of(left)
    mask = p.either(p.array(torch.bool, value.shape))
    source = p.either(p.array(value.dtype, [value.numel() + 1]))
    p.add("masked_scatter", torch.masked_scatter, left, mask, source)


@_draw
def searchsorted(p: Program) -> None:
    edges = p.either(torch.sort(p.array(torch.float32, [3, p.number(1, 6)])).values)
    right = p.chance(0.5)
    values = p.input(p.array(torch.float32, [3, p.number(1, 4)]))
    p.add("searchsorted", lambda e, v: torch.searchsorted(e, v, right=right), edges, values)


@_draw
def embedding_bag(p: Program) -> None:
    rows, count = p.number(2, 9), p.number(1, 8)
    table = p.either(p.array(torch.float32, [rows, p.number(1, 5)]))
    mode = p.pick(["sum", "mean", "max"])
    if p.chance(0.5):
        places = _places(p, [p.number(1, 3), count], rows, from_end=False)
        p.add("embedding_bag", lambda k, w: F.embedding_bag(k, w, mode=mode), places, table)
        return
    starts = sorted(p.number(0, count) for _ in range(p.number(0, 3)))
    offsets = p.constant(torch.tensor([0, *starts]))
    padding = p.pick([None, 1])
    places = _places(p, [count], rows, from_end=False)
    p.add(
        "embedding_bag",
        lambda k, w, o: F.embedding_bag(k, w, o, mode=mode, padding_idx=padding),
        places,
        table,
        offsets,
    )


@_draw
def cdist(p: Program) -> None:
    width, order = p.number(1, 5), p.pick([1.0, 2.0, torch.inf])
    pair = [p.input(p.array(torch.float32, [2, p.number(1, 5), width])) for _ in range(2)]
    p.add("cdist", lambda x, y: torch.cdist(x, y, order), *pair)


@_draw
def histc(p: Program) -> None:
    bins = p.number(1, 9)
    p.add("histc", lambda x: torch.histc(x, bins, -3, 3), p.fresh((torch.float32,), 1, 3))


@_draw
def bucketize(p: Program) -> None:
    right = p.chance(0.5)
    bounds = p.constant(torch.sort(p.array(torch.float32, [p.number(1, 6)])).values)
    p.add(
        "bucketize", lambda x, b: torch.bucketize(x, b, right=right), p.fresh((torch.float32,)), bounds
    )


# -- layers


@_draw
def matmul(p: Program) -> None:
    left = p.tensor((*_WIDE, torch.float16, torch.int64), 1)
    value = p.of(left)
    batch = p.broadcastable(value.shape[:-2]) if value.ndim > 2 and p.chance(0.5) else []
    shape = [*batch, value.shape[-1], p.number(1, 6)]
    if p.chance(0.2):
        shape = [value.shape[-1]]
    p.add("matmul", torch.matmul, left, p.either(p.array(value.dtype, shape, -1, 1)))


@_draw
def linear(p: Program) -> None:
    left = p.tensor((torch.float32, torch.float32, torch.float64), 1)
    value = p.of(left)
    layer = p.layer(nn.Linear(value.shape[-1], p.number(1, 9), bias=p.chance(0.7)), value.dtype)
    p.add("linear", layer, left)


@_draw
def einsum(p: Program) -> None:
    i, j, k, b = (p.number(1, 5) for _ in range(4))
    text, left, right = p.pick(
        [
            ("bij,bkj->bik", [b, i, j], [b, k, j]),
            ("ij,jk->ki", [i, j], [j, k]),
            ("bij,j->bi", [b, i, j], [j]),
            ("i,j->ij", [i], [j]),
            ("bhij,bhjk->bihk", [b, 2, i, j], [b, 2, j, k]),
        ]
    )
    pair = [p.either(p.array(torch.float32, shape)) for shape in (left, right)]
    p.add("einsum", lambda x, y: torch.einsum(text, x, y), *pair)


def _conv(p: Program, rank: int, *, transposed: bool) -> None:
    groups = p.pick([1, 1, 2])
    ins, outs = groups * p.number(1, 4), groups * p.number(1, 4)
    size, stride = p.number(1, 3), p.number(1, 2)
    options: dict[str, Any] = {"stride": stride, "groups": groups, "bias": p.chance(0.5)}
    options["padding"] = p.number(0, size // 2)
    options["dilation"] = p.number(1, 2)
    if transposed:
        options["output_padding"] = p.number(0, max(stride, options["dilation"]) - 1)
    elif p.chance(0.2):
        options["padding_mode"] = p.pick(["reflect", "replicate", "circular", "zeros"])
    kind = getattr(nn, f"Conv{'Transpose' if transposed else ''}{rank}d")
    layer = p.layer(kind(ins, outs, size, **options))
    shape = [p.number(1, 2), ins, *(p.number(4, 8) for _ in range(rank))]
    p.add(kind.__name__, layer, p.input(p.array(torch.float32, shape if p.chance(0.9) else shape[1:])))


for _rank in (1, 2, 3):
    for _is in (False, True):
        DRAWS[f"conv{'_transpose' if _is else ''}{_rank}d"] = lambda p, rank=_rank, transposed=_is: (
            _conv(p, rank, transposed=transposed)
        )


@_draw
def pool(p: Program) -> None:
    rank = p.number(1, 3)
    shape = [p.number(1, 2), p.number(1, 3), *(p.number(3, 8) for _ in range(rank))]
    size, stride, ceil = p.number(2, 3), p.number(1, 3), p.chance(0.3)
    padding = p.number(0, 1)
    if p.chance(0.5):
        function = getattr(F, f"max_pool{rank}d")
        dilation = p.number(1, 2)
        p.add(
            "max_pool",
            lambda x: function(x, size, stride, padding, dilation, ceil),
            p.input(p.array(torch.float32, shape)),
        )
        return
    average, counts = getattr(F, f"avg_pool{rank}d"), p.chance(0.5)
    p.add(
        "avg_pool",
        lambda x: average(x, size, stride, padding, ceil, counts),
        p.input(p.array(torch.float32, shape)),
    )


@_draw
def pool_places(p: Program) -> None:
    rank = p.number(1, 3)
    shape = [p.number(1, 2), p.number(1, 3), *(p.number(3, 7) for _ in range(rank))]
    size, stride, padding, ceil = p.number(2, 3), p.number(1, 3), p.number(0, 1), p.chance(0.3)
    values = p.input(p.array(torch.float32, shape))
    if p.chance(0.3):
        wanted = [p.number(1, 4) for _ in range(rank)]
        function = getattr(F, f"adaptive_max_pool{rank}d")
        p.add("adaptive_max_pool", lambda x: function(x, wanted, return_indices=True), values)
        return
    function, dilation = getattr(F, f"max_pool{rank}d"), p.number(1, 2)
    p.add(
        "max_pool_places",
        lambda x: function(x, size, stride, padding, dilation, ceil, return_indices=True),
        values,
    )


@_draw
def unpool(p: Program) -> None:
    values = p.input(p.array(torch.float32, [1, p.number(1, 2), 2 * p.number(2, 3), 2 * p.number(2, 3)]))
    p.add("unpool", lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2), values)


@_draw
def antialias(p: Program) -> None:
    shape = [1, p.number(1, 3), p.number(2, 9), p.number(2, 9)]
    # To one column torch 2.13 repeats the first row of its result.
    size, mode = [p.number(1, 9), p.number(2, 9)], p.pick(["bilinear", "bicubic"])
    corners = p.chance(0.5)
    p.add(
        "antialias",
        lambda x: F.interpolate(x, size, mode=mode, antialias=True, align_corners=corners),
        p.input(p.array(torch.float32, shape)),
    )


@_draw
def grid_sample_3d(p: Program) -> None:
    shape = [p.number(1, 2), p.number(1, 3), *(p.number(2, 5) for _ in range(3))]
    grid = p.array(torch.float32, [shape[0], *(p.number(1, 3) for _ in range(3)), 3], -1.3, 1.3)
    mode, outside = p.pick(["bilinear", "nearest"]), p.pick(["zeros", "border", "reflection"])
    corners = p.chance(0.5)
    p.add(
        "grid_sample_3d",
        lambda x, g: F.grid_sample(x, g, mode, outside, corners),
        p.input(p.array(torch.float32, shape)),
        p.input(grid),
    )


@_draw
def adaptive_pool(p: Program) -> None:
    rank = p.number(1, 3)
    shape = [p.number(1, 2), p.number(1, 3), *(p.number(2, 7) for _ in range(rank))]
    size = [p.number(1, 4) for _ in range(rank)]
    function = getattr(F, f"adaptive_{p.pick(['avg', 'max'])}_pool{rank}d")
    p.add("adaptive_pool", lambda x: function(x, size), p.input(p.array(torch.float32, shape)))


@_draw
def interpolate(p: Program) -> None:
    rank = p.number(1, 3)
    mode = p.pick(["nearest", "nearest-exact", ("linear", "bilinear", "trilinear")[rank - 1], "area"])
    mode = "bicubic" if rank == 2 and p.chance(0.2) else mode
    shape = [1, p.number(1, 3), *(p.number(2, 6) for _ in range(rank))]
    options: dict[str, Any] = {"mode": mode}
    if p.chance(0.5):
        options["size"] = [p.number(1, 9) for _ in range(rank)]
    else:
        options["scale_factor"] = p.pick([2, 1.5, 0.7, 3])
    if "linear" in mode or mode == "bicubic":
        options["align_corners"] = p.chance(0.5)
    p.add("interpolate", lambda x: F.interpolate(x, **options), p.input(p.array(torch.float32, shape)))


@_draw
def grid_sample(p: Program) -> None:
    shape = [p.number(1, 2), p.number(1, 3), p.number(2, 6), p.number(2, 6)]
    grid = p.array(torch.float32, [shape[0], p.number(1, 4), p.number(1, 4), 2], -1.3, 1.3)
    mode, outside = p.pick(["bilinear", "nearest"]), p.pick(["zeros", "border", "reflection"])
    corners = p.chance(0.5)
    p.add(
        "grid_sample",
        lambda x, g: F.grid_sample(x, g, mode, outside, corners),
        p.input(p.array(torch.float32, shape)),
        p.input(grid),
    )


@_draw
def normalise(p: Program) -> None:
    channels = 2 * p.number(1, 4)
    shape = [p.number(1, 3), channels, *(p.number(2, 5) for _ in range(p.number(1, 2)))]
    batch_norm = nn.BatchNorm1d if len(shape) == 3 else nn.BatchNorm2d
    instance_norm = nn.InstanceNorm1d if len(shape) == 3 else nn.InstanceNorm2d
    layers = [
        batch_norm(channels),
        instance_norm(channels, affine=True),
        nn.LayerNorm(shape[p.number(1, len(shape) - 1) :]),
        nn.GroupNorm(2, channels),
        nn.RMSNorm(shape[-1]),
    ]
    p.add("norm_layer", p.layer(p.pick(layers)), p.input(p.array(torch.float32, shape)))


@_draw
def attention(p: Program) -> None:
    batch, heads, rows, columns, width = (
        1,
        p.number(1, 2),
        p.number(1, 5),
        p.number(1, 5),
        p.number(1, 6),
    )
    query, key, value = (
        p.input(p.array(torch.float32, [batch, heads, count, width]))
        for count in (rows, columns, columns)
    )
    if p.chance(0.3):
        p.add(
            "attention",
            lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
            query,
            key,
            value,
        )
        return
    mask = p.input(p.array(torch.float32, [rows, columns]))
    p.add("attention", F.scaled_dot_product_attention, query, key, value, mask)


@_draw
def recurrent(p: Program) -> None:
    kind = p.pick([nn.LSTM, nn.GRU, nn.RNN])
    width, hidden = p.number(1, 5), p.number(1, 5)
    layer = p.layer(
        kind(width, hidden, p.number(1, 2), batch_first=p.chance(0.5), bidirectional=p.chance(0.4))
    )
    shape = [p.number(1, 3), p.number(1, 4), width]
    p.add("recurrent", lambda x: layer(x)[0][:, -1], p.input(p.array(torch.float32, shape)))


@_draw
def losses(p: Program) -> None:
    left = p.fresh((torch.float32,), 1)
    other = p.input(p.array(torch.float32, p.of(left).shape))
    p.add("loss", p.pick([F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss]), left, other)


@_draw
def made(p: Program) -> None:
    left = p.tensor(NUMBERS, 1)
    extent = p.of(left).shape[-1]
    function = p.pick(
        [
            lambda x: x + torch.arange(extent),
            lambda x: x + x.new_full((extent,), 2),
            lambda x: x * torch.ones_like(x) + torch.linspace(0, 1, extent),
            lambda x: torch.full_like(x, 3),
            lambda x: torch.zeros(extent) + x,
        ]
    )
    p.add("made", function, left)
