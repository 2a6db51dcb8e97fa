"""What people write in torch, by kind: a function and its inputs, each beside torch itself."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from . import complex_idioms, mask_idioms, precision_idioms, small_idioms

_seeded = torch.Generator().manual_seed(0)


def r(*shape):
    return torch.randn(*shape, generator=_seeded)


def i(low, high, *shape, dtype=torch.int64):
    return torch.randint(low, high, shape, generator=_seeded).to(dtype)


def module(layer):
    torch.manual_seed(0)
    return layer.eval()


class Of(nn.Module):
    """Calls a layer in a way of its own."""

    def __init__(self, layer, call):
        super().__init__()
        self.layer, self.call = module(layer), call

    def forward(self, *tensors):
        return self.call(self.layer, *tensors)


X2, X3, X4, X5 = r(4, 6), r(3, 4, 5), r(2, 4, 7, 6), r(1, 2, 5, 4, 6)
POS = r(4, 6).abs() + 0.1
INT, INT2, BYTE, BOOL = i(-5, 6, 4, 6), i(1, 4, 4, 6), i(0, 200, 4, 6, dtype=torch.uint8), r(4, 6) > 0
I32, I16 = i(-9, 9, 4, 6, dtype=torch.int32), i(-9, 9, 4, 6, dtype=torch.int16)
EDGES = torch.tensor(
    [0.0, 0.3, -0.3, 3.0, -3.0, 5.5, -5.5, 0.9, 7.0, math.inf, -math.inf, math.nan, 1e-8]
)
HALF, DOUBLE = r(4, 6).half(), r(4, 6).double()

INDEXING = {
    "select last": (lambda x: x[:, -1], X3),
    "select negative": (lambda x: x[-2], X3),
    "slice negative": (lambda x: x[:, -3:-1], X3),
    "slice step": (lambda x: x[::2, 1::2], X3),
    "ellipsis": (lambda x: x[..., -1], X3),
    "narrow": (lambda x: x.narrow(1, -2, 2), X3),
    "index list": (lambda x: x[[0, -1]], X3),
    "index tensor": (lambda x, k: x[k], X3, torch.tensor([0, -1, 2])),
    "index 2-d": (lambda x, k: x[:, k], X3, torch.tensor([[0, -1], [1, 3]])),
    "index pair": (lambda x, k, j: x[k, j], X3, torch.tensor([0, -1]), torch.tensor([-1, 2])),
    "index pair apart": (lambda x: x[torch.tensor([0, 2]), :, torch.tensor([1, 3])], X3),
    "index pair behind": (lambda x, k, j: x[:, k, j], X3, torch.tensor([0, -1]), torch.tensor([1, 3])),
    "index outer": (
        lambda x, k, j: x[k[:, None], :, j],
        X3,
        torch.tensor([0, 2]),
        torch.tensor([1, -1]),
    ),
    "index mask to where": (lambda x: torch.where(x > 0, x, -x), X3),
    "index_select": (lambda x, k: x.index_select(1, k), X3, torch.tensor([3, 0])),
    "gather": (lambda x, k: x.gather(1, k), X3, i(0, 4, 3, 2, 5)),
    "gather smaller": (lambda x, k: x.gather(2, k), X3, i(0, 5, 2, 3, 7)),
    "take": (lambda x, k: x.take(k), X3, torch.tensor([0, 59, 7])),
    "take_along_dim": (lambda x, k: torch.take_along_dim(x, k, 1), X3, i(0, 4, 3, 2, 5)),
    "embedding": (lambda k, w: F.embedding(k, w), i(0, 4, 2, 3), X2),
    "embedding padded": (module(nn.Embedding(9, 5, padding_idx=0)), i(0, 9, 2, 3)),
    "embedding_bag": (module(nn.EmbeddingBag(9, 5, mode="mean")), i(0, 9, 2, 3)),
    "scatter": (lambda x, k, s: x.scatter(1, k, s), X3, torch.tensor([[[1], [3]]]), r(3, 4, 5)),
    "scatter value": (lambda x, k: x.scatter(0, k, 2.5), X3, i(0, 3, 2, 4, 5)),
    "scatter_add": (lambda x, k, s: x.scatter_add(0, k, s), X3, i(0, 3, 2, 3, 4), r(3, 4, 5)),
    "scatter_reduce": (
        lambda x, k, s: x.scatter_reduce(1, k, s, "amax"),
        X3,
        i(0, 4, 3, 4, 5),
        r(3, 4, 5),
    ),
    "index_add": (lambda x, k, s: x.index_add(1, k, s), X3, torch.tensor([0, 2, 0]), r(3, 3, 5)),
    "index_copy": (lambda x, k, s: x.index_copy(1, k, s), X3, torch.tensor([0, 2]), r(3, 2, 5)),
    "index_fill": (lambda x, k: x.index_fill(1, k, 7.0), X3, torch.tensor([0, -1])),
    "index_put": (lambda x, k, v: x.index_put((k,), v), X3, torch.tensor([0, -1]), r(2, 4, 5)),
    "index_put add": (
        lambda x, k, j, v: x.index_put((k, j), v, accumulate=True),
        X3,
        torch.tensor([0, 0, -1]),
        torch.tensor([1, 1, -1]),
        r(3, 5),
    ),
    "index_put apart": (
        lambda x, k, j: torch.ops.aten.index_put(x, [k, None, j], torch.tensor(9.0)),
        X3,
        torch.tensor([0, -1]),
        torch.tensor([1, 2]),
    ),
    "assign slice": (lambda x: _assigned(x, (slice(None), slice(1, 3))), X3),
    "assign column": (lambda x: _assigned(x, (slice(None), -1)), X3),
    "assign step": (lambda x: _assigned(x, (slice(0, None, 2),)), X3),
    "select_scatter": (lambda x, v: x.select_scatter(v, 1, -1), X3, r(3, 5)),
    "slice_scatter": (lambda x, v: x.slice_scatter(v, 1, 1, 3), X3, r(3, 2, 5)),
    "diagonal": (lambda x: x.diagonal(0, 1, 2), X3),
    "diagonal offset": (lambda x: x.diagonal(1, 0, 1), X3),
    "diag_embed": (torch.diag_embed, X2),
    "masked_fill": (lambda x: x.masked_fill(x > 0, -1.0), X3),
    "masked_fill tensor": (lambda x: x.masked_fill(x > 0, torch.tensor(3.0)), X3),
    "tril": (lambda x: x.tril(-1), X3),
    "triu": (lambda x: x.triu(1), X3),
    "roll": (lambda x: x.roll((1, -2), (0, 2)), X3),
    "roll flat": (lambda x: x.roll(3), X3),
    "flip": (lambda x: x.flip((0, -1)), X3),
    "rot90": (lambda x: x.rot90(1, (1, 2)), X3),
    "unfold": (lambda x: x.unfold(2, 3, 2), X3),
    "one_hot": (lambda k: F.one_hot(k, 6), i(0, 6, 2, 3)),
    "bucketize": (lambda x: torch.bucketize(x, torch.tensor([-1.0, 0.0, 1.0])), X3),
    "searchsorted": (lambda x: torch.searchsorted(torch.tensor([-1.0, 0.0, 1.0]), x), X3),
}

SHAPES = {
    "view": (lambda x: x.view(4, -1), X3),
    "flatten": (lambda x: x.flatten(1), X4),
    "unflatten": (lambda x: x.unflatten(1, (2, 2)), X4),
    "permute": (lambda x: x.permute(0, 2, 3, 1), X4),
    "transpose": (lambda x: x.transpose(-1, -2), X3),
    "expand": (lambda x: x[:, :, None].expand(-1, -1, 2, -1), X3),
    "repeat": (lambda x: x.repeat(2, 1, 3), X3),
    "repeat more axes": (lambda x: x.repeat(2, 1, 1, 3), X3),
    "repeat_interleave": (lambda x: x.repeat_interleave(2, 1), X3),
    "tile": (lambda x: x.tile(2), X3),
    "squeeze": (lambda x: x[None, :, None].squeeze(), X2),
    "squeeze dims": (lambda x: x[None, :, None].squeeze((0, 2)), X2),
    "squeeze kept": (lambda x: x.squeeze(1), X3),
    "unsqueeze": (lambda x: x.unsqueeze(-1), X3),
    "cat": (lambda x, y: torch.cat([x, y], -1), X3, r(3, 4, 2)),
    "cat mixed": (lambda x, y: torch.cat([x, y]), X2, INT),
    "stack": (lambda x, y: torch.stack([x, y], -1), X2, POS),
    "split": (lambda x: x.split(2, 1), X3),
    "split uneven": (lambda x: x.split(3, 1), X3),
    "split sizes": (lambda x: x.split((1, 3), 1), X3),
    "chunk": (lambda x: x.chunk(3, 2), X3),
    "unbind": (lambda x: x.unbind(1), X3),
    "tensor_split": (lambda x: x.tensor_split(3, 2), X3),
    "movedim": (lambda x: x.movedim(0, -1), X3),
    "as_strided": (lambda x: x.as_strided((2, 3), (6, 2)), X2),
    "meshgrid": (lambda x, y: torch.meshgrid(x, y, indexing="ij"), r(3), r(4)),
    "meshgrid xy": (lambda x, y: torch.meshgrid(x, y, indexing="xy"), r(3), r(4)),
    "broadcast_to": (lambda x: x.broadcast_to(2, 4, 6), X2),
    "cartesian": (lambda x, y: torch.cartesian_prod(x, y), r(3), r(4)),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), X4),
    "pixel_unshuffle": (lambda x: F.pixel_unshuffle(x[..., :6, :], 2), X4),
    "channel_shuffle": (lambda x: F.channel_shuffle(x, 2), X4),
    "im2col": (lambda x: F.unfold(x, 3, padding=1), X4),
    "col2im": (lambda x: F.fold(x, (4, 4), 2, stride=2), r(1, 8, 4)),
    "zeros": (lambda x: x + torch.zeros(6), X2),
    "arange": (lambda x: x + torch.arange(6), X2),
    "arange step": (lambda x: x + torch.arange(0, 3, 0.5), X2),
    "grouped_mm bf16": (
        lambda x: F.grouped_mm(
            x.bfloat16().reshape(-1, 8),
            torch.arange(384.0).sin().reshape(3, 8, 16).bfloat16(),
            offs=torch.tensor([1, 1, 6], dtype=torch.int32),
        ),
        r(6, 8),
    ),
    "arange falling": (lambda x: x + torch.arange(5, -1, -1), X2),
    "arange falling by halves": (lambda x: x + torch.arange(2.75, 0, -0.5), X2),
    "arange falling by three": (lambda x: x + torch.arange(start=8, end=-10, step=-3), X2),
    "arange falling, rounded": (lambda x: x + torch.arange(5, -1, -1, dtype=torch.bfloat16), X2),
    "linspace": (lambda x: x + torch.linspace(0, 1, 6), X2),
    "eye": (lambda x: x @ torch.eye(6), X2),
    "full": (lambda x: x + torch.full((6,), 2), X2),
    "new_full": (lambda x: x + x.new_full((6,), 2), X2),
    "full_like": (lambda x: torch.full_like(x, 3), INT),
    "none output": (lambda x: (x + 1, None), X2),
    "nested outputs": (lambda x: {"a": x + 1, "b": [x * 2, (x - 1,)]}, X2),
}

ARITHMETIC = {
    "add alpha": (lambda x, y: torch.add(x, y, alpha=2), X2, POS),
    "sub alpha": (lambda x, y: torch.sub(x, y, alpha=2), X2, POS),
    "rsub": (lambda x: 3 - x, INT),
    "int + float": (lambda x, y: x + y, INT, X2),
    "int * float scalar": (lambda x: x * 2.5, INT),
    "int / int": (lambda x, y: x / y, INT, INT2),
    "int / scalar": (lambda x: x / 4, INT),
    "scalar / int": (lambda x: 7 / x, INT2),
    "byte / int": (lambda x: x / 255, BYTE),
    "int32 + int64": (lambda x, y: x + y, I32, INT),
    "int16 * int32": (lambda x, y: x * y, I16, I32),
    "byte + int16": (lambda x, y: x + y, BYTE, I16),
    "byte wraps": (lambda x: x + 100, BYTE),
    "bool + bool": (lambda x: x + x, BOOL),
    "bool * float": (lambda x, y: x * y, BOOL, X2),
    "half + float": (lambda x, y: x + y, HALF, X2),
    "half + bf16": (lambda x, y: x.bfloat16() + y, X2, HALF),
    "float + double": (lambda x, y: x + y, X2, DOUBLE),
    "0-d double": (lambda x: x * torch.tensor(2.0, dtype=torch.float64), X2),
    "// ints": (lambda x, y: x // y, INT, INT2),
    "// negative": (lambda x: x // -3, INT),
    "// floats": (lambda x, y: x // y, X2, POS),
    "% ints": (lambda x, y: x % y, INT, -INT2),
    "% floats": (lambda x: x % 0.7, X2),
    "fmod ints": (lambda x, y: torch.fmod(x, y), INT, INT2),
    "fmod floats": (lambda x: torch.fmod(x, 0.7), X2),
    "div trunc": (lambda x, y: torch.div(x, y, rounding_mode="trunc"), INT, INT2),
    "div floor": (lambda x, y: torch.div(x, y, rounding_mode="floor"), INT, INT2),
    "div trunc floats": (lambda x: torch.div(x, 0.3, rounding_mode="trunc"), X2),
    "div floor scalar": (lambda x: torch.div(x, 3, rounding_mode="floor"), I32),
    "pow int": (lambda x: x**3, INT),
    "pow ints": (lambda x, y: x**y, INT, INT2),
    "pow int half": (lambda x: x**0.5, INT2),
    "pow 2": (lambda x: x**2, X2),
    "pow negative": (lambda x: x**-1, X2),
    "pow base": (lambda x: 2**x, INT2),
    "float ** int": (lambda x, y: x**y, X2, INT2),
    "int > float": (lambda x: x > 0.5, INT),
    "int == float tensor": (lambda x, y: x == y, INT, X2),
    "compare mixed ints": (lambda x, y: x < y, I32, BYTE),
    "where mixed": (lambda c, x, y: torch.where(c, x, y), BOOL, INT, X2),
    "where scalar": (lambda x: torch.where(x > 0, x, 0), INT),
    "where float scalar": (lambda x: torch.where(x > 0, x, 0.5), X2),
    "clamp": (lambda x: x.clamp(-0.5, 0.5), X2),
    "clamp ints": (lambda x: x.clamp(-2, 2), INT),
    "clamp int float": (lambda x: x.clamp(max=1.5), INT),
    "clamp tensor": (lambda x, y: x.clamp(min=y), X2, POS),
    "maximum mixed": (lambda x, y: torch.maximum(x, y), INT, X2),
    "logical_and ints": (lambda x, y: torch.logical_and(x, y), INT, INT2),
    "logical_not": (lambda x: torch.logical_not(x), INT),
    "~ bool": (lambda x: ~x, BOOL),
    "~ int": (lambda x: ~x, INT),
    "& mixed": (lambda x, y: x & y, INT, INT2),
    "| bool": (lambda x, y: x | y, BOOL, BOOL),
    "shift": (lambda x: (x << 2) >> 1, INT),
    "shift tensor": (lambda x, y: x << y, INT, INT2),
    "sort of other types": (
        lambda x, b, i: (
            x.bfloat16().sort(1).values,
            i.sort(1, descending=True).values,
            (x > 0).sort(1).values,
            b.topk(3, 1).values,
            (x * 8).to(torch.int16).topk(2, 0).values,
        ),
        X2,
        BYTE,
        I16,
    ),
    "argsort of other types": (lambda x: x.gather(1, x.bfloat16().argsort(1)), X2),
    "floor division of edges": (lambda x, y: x[:, None] // y, EDGES, EDGES),
    "floor division of edges by a number": (lambda x: (x // 0.3, x // -3.0), EDGES),
    "remainder of edges": (lambda x, y: x[:, None] % y, EDGES, EDGES),
    "remainder of edges by a number": (lambda x: (x % 0.3, x % -3.0), EDGES),
    "remainder of a number": (lambda x: 3.0 % x, EDGES),
    "remainder of halves": (lambda x, y: (x[:, None] % y, x[:, None] // y), EDGES.half(), EDGES.half()),
    "length of edges": (lambda x, y: torch.hypot(x[:, None], y), EDGES * 1e30, EDGES * 1e30),
    "length of halves": (lambda x, y: torch.hypot(x[:, None], y), EDGES.half(), EDGES.half()),
    "shift by more than all bits": (lambda x, b: (x << 70, x >> 70, b << 9, b >> 8, b >> -1), INT, BYTE),
    "shift by counts out of range": (lambda x, k: (x << k, x >> k), I16, I16 * 3),
    "shift bytes by any count": (lambda x: (x << x, x >> x, 255 - x >> x), BYTE % 12),
    "abs int": (lambda x: x.abs(), INT),
    "neg byte": (lambda x: -x, BYTE),
    "sign int": (lambda x: x.sign(), INT),
    "float to int": (lambda x: (x * 3).to(torch.int32), X2),
    "float to byte": (lambda x: (x.abs() * 9).to(torch.uint8), X2),
    "float to bool": (lambda x: x.bool(), torch.tensor([0.0, 0.3, -2.0])),
    "half round trip": (lambda x: (x.half() * 2).float(), X2),
    "bf16 round trip": (lambda x: (x.bfloat16() * 2).float(), X2),
    "bf16 sum": (lambda x: (x.bfloat16() + 1).sum(-1).float(), X2),
    "type_as": (lambda x, y: x.type_as(y), X2, INT),
    "addcmul": (lambda x, y: torch.addcmul(x, x, y, value=0.5), X2, POS),
    "addcdiv": (lambda x, y: torch.addcdiv(x, x, y, value=0.5), X2, POS),
    "lerp": (lambda x, y: torch.lerp(x, y, 0.3), X2, POS),
    "hypot": (lambda x, y: torch.hypot(x, y), X2, POS),
    "atan2 ints": (lambda x, y: torch.atan2(x, y), INT, INT2),
    "logaddexp": (lambda x, y: torch.logaddexp(x, y), X2, POS),
    "copysign": (lambda x, y: torch.copysign(x, y), POS, X2),
    "xlogy": (lambda x, y: torch.xlogy(x, y), POS, POS),
    "isin": (lambda x: torch.isin(x, torch.tensor([1, -2, 5])), INT),
    "isclose": (lambda x, y: torch.isclose(x, y), X2, X2),
    "nan_to_num": (lambda x: torch.nan_to_num(torch.log(x)), X2),
    "item": (lambda x: x * x.sum().item(), POS),
}

FUNCTIONS = {
    name: (getattr(torch, name), POS if name in "log log2 log10 log1p sqrt rsqrt".split() else X2)
    for name in """exp exp2 expm1 log log2 log10 log1p sqrt rsqrt sin cos tan sinh cosh tanh atan asinh
    erf erfc sigmoid floor ceil round trunc frac sign abs neg reciprocal square isnan isinf isfinite
    logit sinc deg2rad softmax_""".split()
    if hasattr(torch, name)
} | {
    "asin": (lambda x: torch.asin(x.clamp(-1, 1)), X2),
    "acos": (lambda x: torch.acos(x.clamp(-1, 1)), X2),
    "atanh": (lambda x: torch.atanh(x.clamp(-0.9, 0.9)), X2),
    "acosh": (lambda x: torch.acosh(x + 1), POS),
    "exp int": (torch.exp, INT2),
    "sqrt int": (torch.sqrt, INT2),
    "sigmoid int": (torch.sigmoid, INT),
    "sin byte": (torch.sin, BYTE),
    "tanh half": (torch.tanh, HALF),
    "sinh half": (torch.sinh, HALF),
    "exp bf16": (lambda x: torch.exp(x.bfloat16()).float(), X2),
    "sin double": (torch.sin, DOUBLE),
    "erf double": (torch.erf, DOUBLE),
    "floor int": (torch.floor, INT),
    "round decimals": (lambda x: x.round(decimals=2), X2),
    "round half even": (torch.round, torch.tensor([0.5, 1.5, 2.5, -0.5])),
}

ACTIVATIONS = {
    name: (layer, X2)
    for name, layer in {
        "relu": F.relu,
        "relu6": F.relu6,
        "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
        "elu": F.elu,
        "elu alpha": lambda x: F.elu(x, 0.5),
        "celu": lambda x: F.celu(x, 0.7),
        "selu": F.selu,
        "gelu": F.gelu,
        "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
        "silu": F.silu,
        "mish": F.mish,
        "softplus": F.softplus,
        "softplus beta": lambda x: F.softplus(x, 2.0, 1.0),
        "softsign": F.softsign,
        "softshrink": F.softshrink,
        "hardshrink": F.hardshrink,
        "tanhshrink": F.tanhshrink,
        "hardtanh": lambda x: F.hardtanh(x, -0.3, 0.4),
        "hardsigmoid": F.hardsigmoid,
        "hardswish": F.hardswish,
        "threshold": lambda x: F.threshold(x, 0.1, 9),
        "logsigmoid": F.logsigmoid,
        "softmax": lambda x: F.softmax(x, 0),
        "softmin": lambda x: F.softmin(x, 1),
        "log_softmax": lambda x: F.log_softmax(x, -1),
        "glu": F.glu,
        "prelu": module(nn.PReLU(init=0.3)),
        "rrelu": F.rrelu,
        "normalize": F.normalize,
        "dropout": module(nn.Dropout()),
        "gumbel-free softmax dtype": lambda x: F.softmax(x, -1, dtype=torch.float64),
        "cosine": lambda x: F.cosine_similarity(x, x.flip(0)),
        "pairwise": lambda x: F.pairwise_distance(x, x.flip(0)),
        "cdist": lambda x: torch.cdist(x[None], x.flip(0)[None]),
    }.items()
}

REDUCTIONS = {
    "sum all": (lambda x: x.sum(), X3),
    "sum dims": (lambda x: x.sum((0, -1)), X3),
    "sum keepdim": (lambda x: x.sum(1, keepdim=True), X3),
    "sum bool": (lambda x: x.sum(-1), BOOL),
    "sum byte": (lambda x: x.sum(-1), BYTE),
    "sum dtype": (lambda x: x.sum(-1, dtype=torch.float64), X2),
    "sum half": (lambda x: x.sum(), r(64, 64).half()),
    "mean": (lambda x: x.mean((1, 2)), X3),
    "mean int dtype": (lambda x: x.mean(-1, dtype=torch.float32), INT),
    "mean half": (lambda x: x.mean(), r(64, 64).half() + 1),
    "amax": (lambda x: x.amax((1, 2)), X3),
    "amin keepdim": (lambda x: x.amin(-1, keepdim=True), X3),
    "aminmax": (lambda x: torch.aminmax(x, dim=1), X3),
    "max all": (lambda x: x.max(), X3),
    "max dim": (lambda x: x.max(1), X3),
    "min dim": (lambda x: x.min(-1, keepdim=True), X3),
    "max other": (lambda x, y: torch.max(x, y), X2, POS),
    "argmax": (lambda x: x.argmax(), X3),
    "argmax dim": (lambda x: x.argmax(-1, keepdim=True), X3),
    "argmin": (lambda x: x.argmin(0), X3),
    "argmax ties": (lambda x: x.argmax(-1), torch.tensor([[1.0, 3, 3], [2, 2, 2]])),
    "argmax infinities": (lambda x: x.argmax(-1), torch.full((2, 3), -torch.inf)),
    "prod": (lambda x: x.prod(1), X3),
    "prod all": (lambda x: x.prod(), X2),
    "prod int": (lambda x: x.prod(1), I32),
    "any": (lambda x: (x > 1).any(), X3),
    "any dim": (lambda x: (x > 1).any(1), X3),
    "any int": (lambda x: x.any(-1), INT),
    "all": (lambda x: (x > -1).all(-1), X3),
    "all all": (lambda x: (x > -9).all(), X3),
    "var": (lambda x: x.var(1), X3),
    "var biased": (lambda x: x.var(1, unbiased=False), X3),
    "var all": (lambda x: x.var(), X3),
    "std": (lambda x: x.std(-1), X3),
    "std correction": (lambda x: x.std(-1, correction=0, keepdim=True), X3),
    "std_mean": (lambda x: torch.std_mean(x, dim=1), X3),
    "var_mean": (lambda x: torch.var_mean(x, dim=1), X3),
    "norm": (lambda x: x.norm(dim=-1), X3),
    "norm 1": (lambda x: x.norm(1, dim=1), X3),
    "norm inf": (lambda x: torch.linalg.vector_norm(x, torch.inf, dim=1), X3),
    "norm 0": (lambda x: torch.linalg.vector_norm(x, 0, dim=1), X3),
    "logsumexp": (lambda x: x.logsumexp(1), X3),
    "logsumexp large": (lambda x: (x * 200).logsumexp(1), X3),
    "cumsum": (lambda x: x.cumsum(-1), X3),
    "cumsum bool": (lambda x: x.cumsum(-1), BOOL),
    "cumsum int32": (lambda x: x.cumsum(0), I32),
    "cumsum dtype": (lambda x: x.cumsum(0, dtype=torch.float64), X2),
    "cumprod": (lambda x: x.cumprod(1), X3),
    "causal mask": (
        lambda x: x[:, 1:] + (torch.diff(torch.arange(x.shape[-1])[None]) != 1).cumsum(-1).float(),
        X2,
    ),
    "count_nonzero": (lambda x: torch.count_nonzero(x, dim=1), INT),
    "median": (lambda x: x.median(-1), X3),
    "sort": (lambda x: x.sort(1, descending=True), X3),
    "argsort": (lambda x: x.argsort(-1), X3),
    "topk": (lambda x: x.topk(2, 1), X3),
    "topk in any order": (lambda x: [part.sort(-1)[0] for part in x.topk(2, -1, sorted=False)], X3),
    "topk smallest": (lambda x: x.topk(2, -1, largest=False), X3),
    "kthvalue": (lambda x: x.kthvalue(2, -1), X3),
    "diff": (lambda x: x.diff(dim=1), X3),
    "trace": (lambda x: x.trace(), X2),
    "dist": (lambda x, y: torch.dist(x, y), X2, POS),
}

LINEAR = {
    "matmul": (lambda x, y: x @ y, X3, r(5, 2)),
    "matmul batched": (lambda x, y: x @ y, X4, r(2, 4, 6, 3)),
    "matmul double": (lambda x, y: x @ y, DOUBLE, r(6, 3).double()),
    "matmul half": (lambda x, y: x @ y, HALF, r(6, 3).half()),
    "matmul int": (lambda x, y: x @ y, INT, INT2.T.contiguous()),
    "matvec": (lambda x, y: x @ y, X2, r(6)),
    "dot": (torch.dot, r(6), r(6)),
    "bmm": (torch.bmm, X3, r(3, 5, 2)),
    "addmm": (lambda b, x, y: torch.addmm(b, x, y, beta=0.5, alpha=2), r(4, 3), X2, r(6, 3)),
    "baddbmm": (lambda b, x, y: torch.baddbmm(b, x, y, beta=0.5, alpha=2), r(3, 4, 2), X3, r(3, 5, 2)),
    "einsum": (lambda x, y: torch.einsum("bij,bkj->bik", x, y), X3, r(3, 2, 5)),
    "outer": (torch.outer, r(3), r(4)),
    "linear": (module(nn.Linear(6, 3)), X2),
    "linear 4-d": (module(nn.Linear(6, 3, bias=False)), X4),
    "bilinear": (module(nn.Bilinear(6, 6, 2)), X2, POS),
    "conv1d": (module(nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2)), X3),
    "conv1d same": (module(nn.Conv1d(4, 6, 4, padding="same")), X3),
    "conv2d": (module(nn.Conv2d(4, 6, 3, stride=2, padding=(1, 2), dilation=2)), X4),
    "conv2d depthwise": (module(nn.Conv2d(4, 8, 3, groups=4)), X4),
    "conv2d reflect": (module(nn.Conv2d(4, 6, 3, padding=2, padding_mode="reflect")), X4),
    "conv2d circular": (module(nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular")), X4),
    "conv2d double": (module(nn.Conv2d(4, 6, 3).double()), X4.double()),
    "conv2d no batch": (module(nn.Conv2d(4, 6, 3)), X4[0]),
    "conv3d": (module(nn.Conv3d(2, 3, 3, padding=1)), X5),
    "convT1d": (module(nn.ConvTranspose1d(4, 6, 3, stride=2, output_padding=1)), X3),
    "convT2d": (module(nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1)), X4),
    "convT2d groups": (module(nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2)), X4),
    "convT2d dilation": (module(nn.ConvTranspose2d(4, 6, 3, stride=2, dilation=2)), X4),
    "convT3d": (module(nn.ConvTranspose3d(2, 3, 2, stride=2)), X5),
    "attention": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v),
        *(r(1, 2, 5, 4) for _ in "qkv"),
    ),
    "attention causal": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        *(r(1, 2, 5, 4) for _ in "qkv"),
    ),
    "attention bool mask": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, torch.ones(5, 5).tril().bool()),
        *(r(1, 2, 5, 4) for _ in "qkv"),
    ),
    "attention scale": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.3),
        *(r(1, 2, 5, 4) for _ in "qkv"),
    ),
    "attention 3-d": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v),
        *(r(2, 5, 4) for _ in "qkv"),
    ),
    "attention grouped": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
        r(1, 4, 5, 4),
        r(1, 2, 5, 4),
        r(1, 2, 5, 4),
    ),
    "multihead": (
        Of(nn.MultiheadAttention(6, 2, batch_first=True), lambda layer, x: layer(x, x, x)[0]),
        r(2, 5, 6),
    ),
    "encoder layer": (module(nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)), r(2, 5, 6)),
}

POOLING = {
    "max_pool1d": (lambda x: F.max_pool1d(x, 2), X3),
    "max_pool2d": (lambda x: F.max_pool2d(x, 3, 2, 1), X4),
    "max_pool2d ceil": (lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True), X4),
    "max_pool2d dilation": (lambda x: F.max_pool2d(x, 2, 1, dilation=2), X4),
    "max_pool2d padding, no stride": (lambda x: F.max_pool2d(x, 3, padding=1), X4),
    "max_pool2d dilation, no stride": (lambda x: F.max_pool2d(x, 2, dilation=2, ceil_mode=True), X4),
    "max_pool3d padding, no stride": (lambda x: F.max_pool3d(x, 3, padding=1), X5),
    "max_pool2d indices": (lambda x: F.max_pool2d(x, 2, return_indices=True), X4),
    "max_pool3d": (lambda x: F.max_pool3d(x, 2), X5),
    "max_pool2d int": (lambda x: F.max_pool2d(x.float(), 2), i(-9, 9, 1, 2, 4, 4)),
    "avg_pool1d": (lambda x: F.avg_pool1d(x, 2), X3),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 3, 2, 1), X4),
    "avg_pool2d no pad": (lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), X4),
    "avg_pool2d ceil": (lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True), X4),
    "avg_pool2d ceil no pad": (lambda x: F.avg_pool2d(x, 2, 2, 0, True, False), X4),
    "avg_pool2d divisor": (lambda x: F.avg_pool2d(x, 2, 2, divisor_override=3), X4),
    "avg_pool2d divisor uncounted": (
        lambda x: F.avg_pool2d(x, 2, 1, 1, count_include_pad=False, divisor_override=3),
        X4,
    ),
    "avg_pool3d": (lambda x: F.avg_pool3d(x, 2), X5),
    "avg_pool3d divisor": (lambda x: F.avg_pool3d(x, 2, divisor_override=3), X5),
    "adaptive_avg 1": (lambda x: F.adaptive_avg_pool2d(x, 1), X4),
    "adaptive_avg": (lambda x: F.adaptive_avg_pool2d(x, (3, 4)), X4),
    "adaptive_avg 1-d": (lambda x: F.adaptive_avg_pool1d(x, 3), X3),
    "adaptive_avg None": (lambda x: F.adaptive_avg_pool2d(x, (None, 2)), X4),
    "adaptive_max": (lambda x: F.adaptive_max_pool2d(x, (3, 3)), X4),
    "adaptive_max of all": (lambda x: F.adaptive_max_pool2d(x, 1), X4),
    "adaptive_max of equal windows": (lambda x: F.adaptive_max_pool2d(x[..., 1:, :], (3, 2)), X4),
    "adaptive_max 1-d": (lambda x: F.adaptive_max_pool1d(x, 2), X3),
    "lp_pool": (lambda x: F.lp_pool2d(x.abs(), 2, 2), X4),
    "max_unpool": (
        lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
        X4[..., :6, :],
    ),
    "pad": (lambda x: F.pad(x, (1, 2, 0, 3), value=2.0), X3),
    "pad negative": (lambda x: F.pad(x, (-1, 2)), X3),
    "pad int": (lambda x: F.pad(x, (1, 1), value=5), INT),
    "pad bool": (lambda x: F.pad(x, (1, 1), value=True), BOOL),
    "pad reflect": (lambda x: F.pad(x, (2, 2, 1, 0), mode="reflect"), X4),
    "pad reflect 1-d": (lambda x: F.pad(x, (2, 1), mode="reflect"), X3),
    "pad replicate": (lambda x: F.pad(x, (2, 2, 1, 0), mode="replicate"), X4),
    "pad circular": (lambda x: F.pad(x, (2, 2, 1, 0), mode="circular"), X4),
}

RESIZING = {
    "nearest 2x": (lambda x: F.interpolate(x, scale_factor=2.0), X4),
    "nearest size": (lambda x: F.interpolate(x, size=(9, 10)), X4),
    "nearest down": (lambda x: F.interpolate(x, size=(3, 4)), X4),
    "nearest 1.5": (lambda x: F.interpolate(x, scale_factor=1.5), X4),
    "nearest 1.5 recompute": (
        lambda x: F.interpolate(x, scale_factor=1.5, recompute_scale_factor=True),
        X4,
    ),
    "nearest-exact": (lambda x: F.interpolate(x, size=(9, 10), mode="nearest-exact"), X4),
    "nearest 1-d": (lambda x: F.interpolate(x, size=9), X3),
    "nearest 3-d": (lambda x: F.interpolate(x, size=(7, 3, 9)), X5),
    "bilinear 2x": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), X4),
    "bilinear size": (lambda x: F.interpolate(x, size=(9, 5), mode="bilinear"), X4),
    "bilinear align": (
        lambda x: F.interpolate(x, size=(9, 10), mode="bilinear", align_corners=True),
        X4,
    ),
    "bilinear 0.7": (lambda x: F.interpolate(x, scale_factor=0.7, mode="bilinear"), X4),
    "bilinear 1.3 align": (
        lambda x: F.interpolate(x, scale_factor=1.3, mode="bilinear", align_corners=True),
        X4,
    ),
    "bilinear antialias": (lambda x: F.interpolate(x, size=(3, 3), mode="bilinear", antialias=True), X4),
    "linear": (lambda x: F.interpolate(x, scale_factor=2, mode="linear"), X3),
    "linear align": (lambda x: F.interpolate(x, size=8, mode="linear", align_corners=True), X3),
    "bicubic": (lambda x: F.interpolate(x, size=(9, 9), mode="bicubic"), X4),
    "bicubic align": (lambda x: F.interpolate(x, size=(9, 9), mode="bicubic", align_corners=True), X4),
    "bicubic 0.6": (lambda x: F.interpolate(x, scale_factor=0.6, mode="bicubic"), X4),
    "trilinear": (lambda x: F.interpolate(x, size=(7, 7, 7), mode="trilinear"), X5),
    "area": (lambda x: F.interpolate(x, size=(3, 2), mode="area"), X4),
    "interpolate to 1": (
        lambda x: F.interpolate(x, size=(1, 1), mode="bilinear", align_corners=True),
        X4,
    ),
    "grid_sample": (
        lambda x, g: F.grid_sample(x, g, align_corners=False),
        X4,
        2.4 * torch.rand(2, 3, 3, 2) - 1.2,
    ),
    "grid_sample nearest": (
        lambda x, g: F.grid_sample(x, g, mode="nearest", padding_mode="border", align_corners=True),
        X4,
        2.4 * torch.rand(2, 3, 3, 2) - 1.2,
    ),
    "grid_sample cubic": (
        lambda x, g: F.grid_sample(x, g, "bicubic", "reflection", align_corners=False),
        X4,
        3 * torch.arange(36.0).reshape(2, 3, 3, 2) / 36 - 1.5,
    ),
    "embedding of nothing": (
        lambda k, table: F.embedding(k, table) * 2,
        torch.zeros(3, 0, dtype=torch.int64),
        r(4, 2),
    ),
    "select by a tensor": (
        lambda x, k: x[k] + x[:, k].sum() + x[-1, k],
        X4,
        torch.tensor(1),
    ),
    "grid_sample reflection": (
        lambda x, g: F.grid_sample(x, g, padding_mode="reflection", align_corners=False),
        X4,
        2.4 * torch.rand(2, 3, 3, 2) - 1.2,
    ),
    "affine_grid": (lambda t: F.affine_grid(t, (2, 4, 5, 6), align_corners=False), r(2, 2, 3)),
}

NORMS = {
    "batch_norm 2-d": (module(nn.BatchNorm2d(4)), X4),
    "batch_norm 1-d": (module(nn.BatchNorm1d(6)), X2),
    "batch_norm plain": (module(nn.BatchNorm2d(4, affine=False)), X4),
    "batch_norm no stats": (module(nn.BatchNorm2d(4, track_running_stats=False)), X4),
    "layer_norm": (module(nn.LayerNorm(6)), X4),
    "layer_norm 2 axes": (module(nn.LayerNorm((7, 6), eps=0.1)), X4),
    "layer_norm plain": (lambda x: F.layer_norm(x, (6,)), X4),
    "group_norm": (module(nn.GroupNorm(2, 4)), X4),
    "group_norm plain": (lambda x: F.group_norm(x, 2), X4),
    "instance_norm": (module(nn.InstanceNorm2d(4)), X4),
    "instance_norm affine": (module(nn.InstanceNorm2d(4, affine=True)), X4),
    "instance_norm stats": (module(nn.InstanceNorm2d(4, track_running_stats=True)), X4),
    "rms_norm": (module(nn.RMSNorm(6)), X4),
    "local_response": (module(nn.LocalResponseNorm(2)), X4),
    "weight_norm": (module(nn.utils.parametrizations.weight_norm(nn.Linear(6, 3))), X2),
    "cross_entropy": (lambda x, t: F.cross_entropy(x, t), X2, torch.tensor([0, 5, 2, 1])),
    "nll_loss": (lambda x, t: F.nll_loss(x, t), X2, torch.tensor([0, 5, 2, 1])),
    "mse_loss": (lambda x, y: F.mse_loss(x, y), X2, POS),
    "smooth_l1": (lambda x, y: F.smooth_l1_loss(x, y), X2, POS),
    "bce": (lambda x, y: F.binary_cross_entropy_with_logits(x, y), X2, POS),
}

RECURRENT = {
    "lstm": (Of(nn.LSTM(5, 3, batch_first=True), lambda layer, x: layer(x)[0]), X3),
    "lstm states": (Of(nn.LSTM(5, 3), lambda layer, x: layer(x)), X3),
    "lstm two ways": (Of(nn.LSTM(5, 3, bidirectional=True), lambda layer, x: layer(x)[0]), X3),
    "lstm two layers": (Of(nn.LSTM(5, 3, num_layers=2), lambda layer, x: layer(x)[0]), X3),
    "gru": (Of(nn.GRU(5, 3, batch_first=True), lambda layer, x: layer(x)[0]), X3),
    "gru states": (Of(nn.GRU(5, 3), lambda layer, x: layer(x)), X3),
    "rnn": (Of(nn.RNN(5, 3), lambda layer, x: layer(x)[0]), X3),
    "rnn relu": (Of(nn.RNN(5, 3, nonlinearity="relu"), lambda layer, x: layer(x)[0]), X3),
    "lstm cell": (Of(nn.LSTMCell(6, 3), lambda layer, x: layer(x)), X2),
    "gru cell": (Of(nn.GRUCell(6, 3), lambda layer, x: layer(x)), X2),
}


def _assigned(x, place):
    x = x.clone()
    x[place] = 7.0
    return x


SPIKES = torch.tensor(
    [0.0, -0.0, 1.0, -1.0, 2.0, -2.5, 1e-30, -3e-41, 1e30, torch.inf, -torch.inf, torch.nan]
)
BITS = i(-99, 99, 4, 6)
ROW = torch.sort(r(9)).values
X6 = r(1, 4, 4, 5, 6)
CHANNELS = {1: r(2, 4, 5), 2: r(2, 4, 5, 6), 3: X6}
PLACES, GRID = i(0, 6, 3, 4), torch.rand(1, 2, 3, 4, 3, generator=_seeded) * 2.6 - 1.3

SPECIAL = {
    **{
        f"{function.__name__} {kind}": (function, x)
        for function in (
            torch.lgamma,
            torch.digamma,
            torch.erf,
            torch.special.erfcx,
            torch.special.i0e,
            torch.special.i1,
            torch.special.log_ndtr,
            torch.signbit,
            torch.frexp,
            torch.angle,
        )
        for kind, x in (("", POS * 4), ("left", -POS * 3), ("half", HALF))
        if kind != "half" or function not in (torch.special.erfcx, torch.special.log_ndtr)
    },
    "erfinv": (torch.erfinv, r(4, 6).clamp(-1, 1)),
    "logit": (torch.logit, torch.rand(4, 6, generator=_seeded)),
    "trigamma": (lambda x: torch.polygamma(1, x), X2),
    "polygamma": (lambda x: torch.polygamma(2, x), POS),
    "igamma": (torch.igamma, POS, POS + 1),
    "mvlgamma": (lambda x: torch.mvlgamma(x, 2), POS + 1),
    "signbit of spikes": (torch.signbit, SPIKES),
    "signbit of int": (torch.signbit, INT),
    "frexp of spikes": (torch.frexp, SPIKES),
    "frexp double": (torch.frexp, torch.tensor([5e-324, 1.5, -1e308, 0.0], dtype=torch.float64)),
    "nextafter": (torch.nextafter, SPIKES, SPIKES.flip(0)),
    "nextafter down": (torch.nextafter, SPIKES, torch.full((12,), -3.0)),
    "copysign of spikes": (torch.copysign, SPIKES, SPIKES.flip(0)),
    "copysign of number": (lambda x: torch.copysign(x, -0.0), INT),
    "fmax": (torch.fmax, SPIKES, SPIKES.flip(0)),
    "fmin": (torch.fmin, SPIKES, SPIKES.flip(0)),
    "ldexp": (torch.ldexp, X2, i(-3, 4, 4, 6)),
    "heaviside": (torch.heaviside, X2, POS),
    "xlogy": (torch.xlogy, SPIKES, SPIKES.flip(0).abs()),
    "view bits": (lambda x: x.view(torch.int32), SPIKES),
    "shifts": (
        lambda x, y: (torch.bitwise_left_shift(x, y), torch.bitwise_right_shift(x, y)),
        BITS,
        i(0, 5, 4, 6),
    ),
    "full infinite": (lambda x: x + torch.full((6,), -torch.inf), X2),
    "clamp int from below": (lambda x: x.clamp(min=1), INT),
    "clamp int from above": (lambda x: x.clamp(max=2), I32),
}
SCANS = {
    **{
        f"{name} {kind}": (lambda x, name=name, dim=dim: getattr(torch, name)(x, dim), x)
        for name in ("cummax", "cummin")
        for kind, dim, x in (
            ("", 1, X3), ("ties", 0, INT), ("spikes", 0, SPIKES), ("bytes", -1, BYTE), ("bool", 0, BOOL),
            ("number", 0, torch.tensor(2.5)), ("one", 0, r(1, 3)),
        )
    },
    "logcumsumexp": (lambda x: torch.logcumsumexp(x, 1), X3),
    "logcumsumexp infinite": (lambda x: torch.logcumsumexp(x, 0), SPIKES),
    "kthvalue keepdim": (lambda x: x.kthvalue(3, 1, keepdim=True), X3),
    "nanmedian": (lambda x: torch.nanmedian(x, 1).values, X2.where(X2 > -1, torch.tensor(torch.nan))),
    "nanmedian of NaN": (lambda x: torch.nanmedian(x), torch.full((3,), torch.nan)),
    "histc": (lambda x: torch.histc(x, 5, -1, 1), X2),
    "histc of all": (lambda x: torch.histc(x, 7), X2),
    "sort stable": (lambda x: torch.sort(x, dim=0, stable=True), INT),
    "sort stable down": (lambda x: torch.sort(x, dim=-1, stable=True, descending=True), INT),
    "searchsorted rows": (
        lambda x, y: (torch.searchsorted(x, y), torch.searchsorted(x, y, right=True)),
        torch.sort(X2, 1).values, r(4, 3),
    ),
    "searchsorted NaN": (lambda x, y: torch.searchsorted(x, y, side="right"), ROW, SPIKES),
    "isin": (torch.isin, INT, i(-3, 3, 40)),
    "unique": (torch.unique, INT),
}  # fmt: skip
PARTS = {
    "bags of sums": (lambda k, w: F.embedding_bag(k, w, mode="sum"), PLACES, X2.repeat(2, 1)),
    "bags of most": (lambda k, w: F.embedding_bag(k, w, mode="max"), PLACES, X2.repeat(2, 1)),
    "bags at offsets": (
        lambda k, w, o: F.embedding_bag(k, w, o, mode="mean"),
        i(0, 6, 9),
        X2.repeat(2, 1),
        torch.tensor([0, 3, 3, 7]),
    ),
    "bags padded": (
        lambda k, w, o: F.embedding_bag(k, w, o, mode="max", padding_idx=2),
        i(0, 4, 9),
        X2,
        torch.tensor([0, 3, 3, 7]),
    ),
    "bags weighed": (
        lambda k, w, o, f: F.embedding_bag(
            k, w, o, mode="sum", per_sample_weights=f, include_last_offset=True
        ),
        i(0, 4, 9),
        X2,
        torch.tensor([0, 3, 3, 7]),
        r(9),
    ),
    "masked_scatter": (torch.masked_scatter, X2, BOOL, r(30)),
    "put": (lambda x, k, v: x.put(k, v, accumulate=True), X2, torch.tensor([1, -1, 1]), r(3)),
    **{
        f"scatter_reduce {reduce} {own}": (
            lambda x, k, s, reduce=reduce, own=own: x.scatter_reduce(0, k, s, reduce, include_self=own),
            x,
            i(0, 3, 2, 6),
            source,
        )
        for reduce in ("sum", "prod", "mean", "amax", "amin")
        for own in (True, False)
        for x, source in ((X2, r(4, 6)), (INT, INT2))[: 1 + (reduce == "mean")][::-1]
    },
    "index_reduce": (
        lambda x, k, s: x.index_reduce(1, k, s, "mean", include_self=False),
        X3,
        torch.tensor([0, 2, 0]),
        r(3, 3, 5),
    ),
    "diagonal_scatter": (lambda x, s: torch.diagonal_scatter(x, s, 1), X2, r(4)),
    "diagonal_scatter below": (lambda x, s: torch.diagonal_scatter(x, s, -2, 2, 1), X3, r(3, 3)),
    "pdist": (F.pdist, X2),
    "cdist of order 1": (lambda x, y: torch.cdist(x, y, 1.0), X2, r(3, 6)),
    "cdist of a batch": (torch.cdist, X3, r(3, 2, 5)),
    "addbmm": (lambda x, y, z: torch.addbmm(x, y, z, beta=2, alpha=0.5), r(4, 2), X3, r(3, 5, 2)),
    "addmv": (lambda x, y, z: torch.addmv(x, y, z, beta=0, alpha=2), r(4), X2, r(6)),
    "hinge": (F.hinge_embedding_loss, X2, X2.sign()),
    "cosine loss": (F.cosine_embedding_loss, X2, X2.flip(0), torch.tensor([1.0, -1.0, 1.0, -1.0])),
    "conv_tbc": (lambda x, w, b: torch.conv_tbc(x, w, b, 1), r(5, 2, 3), r(3, 3, 4), r(4)),
    "inverse": (torch.linalg.inv, r(3, 3)),
}
PLACED = {
    "max_pool3d indices": (lambda x: F.max_pool3d(x, 2, 1, 1, 2, return_indices=True), X5),
    "max_pool1d indices": (lambda x: F.max_pool1d(x, 3, 2, 1, ceil_mode=True, return_indices=True), X3),
    "max_pool2d low": (lambda x: F.max_pool2d(x - torch.inf, 3, 2, 1, return_indices=True), X4),
    "max_pool2d NaN": (
        lambda x: F.max_pool2d(x, 2, 1, return_indices=True),
        SPIKES.repeat(2).reshape(1, 1, 4, 6),
    ),
    "adaptive_max indices": (lambda x: F.adaptive_max_pool2d(x, (3, 4), return_indices=True), X4),
    "adaptive_max 3-d": (lambda x: F.adaptive_max_pool3d(x, (3, 2, 4), return_indices=True), X5),
}
VOLUMES = {
    **{
        f"grid_sample 3-d {mode} {outside} {corners}": (
            lambda x, g, mode=mode, outside=outside, corners=corners: F.grid_sample(
                x, g, mode, outside, corners
            ),
            X5,
            GRID,
        )
        for mode in ("bilinear", "nearest")
        for outside in ("zeros", "border", "reflection")
        for corners in (False, True)
    },
}
FILTERS = {
    **{
        f"{mode} antialias {size} {corners}": (
            lambda x, mode=mode, size=size, corners=corners: F.interpolate(
                x, size, mode=mode, antialias=True, align_corners=corners
            ),
            X4,
        )
        for mode in ("bilinear", "bicubic")
        for size in ((3, 4), (2, 9), (9, 11))
        for corners in (False, True)
    },
    "bilinear antialias scaled": (
        lambda x: F.interpolate(x, scale_factor=0.6, mode="bilinear", antialias=True),
        X4,
    ),
}
TRANSPOSED = {
    **{
        f"convT{axes}d {options}": (
            module(getattr(nn, f"ConvTranspose{axes}d")(4, 6, 3, **options)), CHANNELS[axes]
        )
        for axes in (1, 2, 3)
        for options in (
            {"dilation": 2},
            {"groups": 2, "stride": 2, "padding": 1, "output_padding": 1},
            {"groups": 2, "stride": 2, "dilation": 3, "padding": 1, "output_padding": 2},
            {"stride": 3, "padding": 2},
        )
    },
    "convT2d double": (module(nn.ConvTranspose2d(4, 6, 3, stride=2).double()), X4.double()),
    "borders below and right": (
        module(
            nn.Sequential(
                *(nn.Conv2d(4, 8, 1), nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(8, 8, 3, 2)),
                *(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(8, 8, 3, 2, padding=1)),
                *(nn.ZeroPad2d((0, 2, 0, 0)), nn.Conv2d(8, 8, 1)),
            )
        ),
        *(r(1, 4, 16, 16),),
    ),
    "conv3d double": (module(nn.Conv3d(2, 3, 2, padding=1, groups=1).double()), X5.double()),
}  # fmt: skip

KINDS = {
    "complex": complex_idioms.COMPLEX,
    "doubles": precision_idioms.DOUBLES,
    "halves": precision_idioms.HALVES,
    "fourier": complex_idioms.FOURIER,
    "numbers": small_idioms.NUMBERS,
    "byte images": small_idioms.BYTE_IMAGES,
    "labels": small_idioms.LABELLED,
    "masks": mask_idioms.MASKS,
    "indexing": INDEXING,
    "shapes": SHAPES,
    "arithmetic": ARITHMETIC,
    "functions": FUNCTIONS,
    "activations": ACTIVATIONS,
    "reductions": REDUCTIONS,
    "linear": LINEAR,
    "pooling": POOLING,
    "resizing": RESIZING,
    "norms": NORMS,
    "recurrent": RECURRENT,
    "special": SPECIAL,
    "scans": SCANS,
    "parts": PARTS,
    "placed": PLACED,
    "volumes": VOLUMES,
    "filters": FILTERS,
    "transposed": TRANSPOSED,
}

#: What is refused, and the name in the message; NaN takes another way through TVM's kernels, see
#: ``tvm_sphinx.frontend.safe_operators``.
REFUSED = {
    **complex_idioms.REFUSED,
    **mask_idioms.REFUSED,
    **small_idioms.REFUSED,
    "polygamma": "polygamma of order 2",
    "igamma": "igamma",
    "inverse": "_linalg_check_errors",
}
