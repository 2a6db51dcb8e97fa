"""What people write of single numbers, bytes and labels; see `torch_idioms`."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from .precision_idioms import InHalf

_seeded = torch.Generator().manual_seed(2)
NUMBER, WHOLE = torch.tensor(-2.5), torch.tensor(3)
PLACE, PLACES = torch.tensor(0), torch.tensor([0])
BYTES = torch.randint(0, 256, (2, 3, 9, 8), generator=_seeded, dtype=torch.uint8)
MANY_BYTES = torch.randint(0, 256, (1, 6, 5, 12), generator=_seeded, dtype=torch.uint8)
SCORES = torch.randn(4, 5, generator=_seeded)
# What follows -1 is no label, whatever it is.
LABELS = torch.tensor([[3, 0, -1, 1, 2], [0, -1, 1, 1, 1], [4, 1, 2, 0, 3], [-1, 0, 0, 0, 0]])
BASES, EXPONENTS = (
    torch.tensor([3, -3, 1, -1, 0, 2, -1, 17]),
    torch.tensor([-1, -2, -3, -3, -1, 0, -2, -2]),
)
ODD_HALVES = torch.tensor([0.5, -0.0, math.inf, -math.inf, math.nan, 3.0])


class Shaped(nn.Module):
    """Makes shapes and parts of what its buffers hold."""

    def __init__(self):
        super().__init__()
        self.register_buffer("sizes", torch.tensor([2, 10]))

    def forward(self, x):
        rows, columns = self.sizes.tolist()
        first = self.sizes[0].item()
        parts = x.flatten().split([*self.sizes.tolist(), 8])
        set_here = torch.empty(2, dtype=torch.int64)
        set_here[0], set_here[1] = 5, 4
        torch._check(torch.all(set_here.sum() == 9).item(), lambda: "expected 9")
        return x.reshape(rows, columns), x[:first], x * first, x * set_here[0].item(), *parts


class Set(nn.Module):
    """Sets elements by a mask to a number of another type, and measures halves in single precision."""

    def __init__(self, dtype):
        super().__init__()
        self.dtype = dtype

    def forward(self, x):
        changed = x.to(self.dtype).clone()
        changed[changed > 0] = torch.tensor(3.0)
        norm = torch.linalg.vector_norm(x.to(self.dtype), dim=1, dtype=torch.float64)
        return changed.float(), norm.float(), torch.renorm(x.to(self.dtype), 2, 0, 1.0).float()


#: Operators along an axis of a tensor that has none.
NUMBERS = {
    **{
        f"{name} of one {x.dtype}": (function, x)
        for x in (NUMBER, WHOLE)
        for name, function in {
            "sum": lambda x: (x.sum(0), x.sum(-1, keepdim=True), x.nansum(0)),
            "extremes": lambda x: (x.amax(0), x.amin(-1), *x.max(0), *x.min(-1)),
            "places": lambda x: (x.argmax(0), x.argmin(-1), x.argsort(0)),
            "truth": lambda x: (x.any(0), x.all(-1), torch.count_nonzero(x, 0)),
            "product": lambda x: (x.prod(0), x.cumsum(0), x.cumprod(-1)),
            "order": lambda x: (*x.sort(0), *x.topk(1, 0), *x.median(0), *x.kthvalue(1, 0)),
            "moves": lambda x: (x.flip(0), x.squeeze(0), torch.squeeze(x, (0,))),
        }.items()
    },
    "picks of one": (
        lambda x, k, j: (x.gather(0, k), x.index_select(0, j), x.take(j)),
        NUMBER,
        PLACE,
        PLACES,
    ),
    "scatters of one": (
        lambda x, k, y: (
            x.scatter(0, k, 2.0),
            x.scatter(0, k, y),
            x.scatter_add(0, k, y),
            x.scatter_reduce(0, k, y, "amax"),
        ),
        *(NUMBER, PLACE, NUMBER + 1),
    ),
    "reduced into one": (lambda x, k, y: x.index_reduce(0, k, y, "prod"), NUMBER, PLACES, NUMBER + 1),
    "median of one": (lambda x: x.nanmedian(0, keepdim=True), NUMBER),
    "statistics of one": (
        lambda x: (x.mean(0), x.var(0, correction=0), x.std(0, correction=0), x.logsumexp(0)),
        NUMBER,
    ),
    "norms of one": (
        lambda x: (x.norm(), torch.linalg.vector_norm(x, dim=0), x.norm(p=1, dim=0)),
        NUMBER,
    ),
    "softmax of one": (lambda x: (x.softmax(0), x.log_softmax(-1), F.softmin(x, 0)), NUMBER),
}
BYTE_IMAGES = {
    **{
        f"{mode} {options} of {count} channels": (
            lambda x, mode=mode, options=options: F.interpolate(x, mode=mode, **options),
            x,
        )
        for x, count in ((BYTES, 3), (MANY_BYTES, 6))
        for mode in ("bilinear", "bicubic")
        for options in (
            {"size": (5, 13)},
            {"size": (4, 3), "antialias": True},
            {"size": (14, 8), "align_corners": True},
            {"scale_factor": 2, "antialias": True},
            {"scale_factor": 1.7},
        )
    },
    "nearest of bytes": (lambda x: F.interpolate(x, size=(5, 13), mode="nearest-exact"), BYTES),
    "signs of bytes": (lambda x: (x.sign(), x - x.sign(), torch.sgn(x)), BYTES),
}
LABELLED = {
    **{
        f"multilabel margin {reduction}": (
            lambda x, t, reduction=reduction: F.multilabel_margin_loss(x, t, reduction=reduction),
            *(SCORES, LABELS),
        )
        for reduction in ("none", "mean", "sum")
    },
    "multilabel margin of one": (F.multilabel_margin_loss, SCORES[0], LABELS[0]),
    **{
        f"whole powers {dtype}": (
            lambda x, y, z: (x**y, 3**y, x**2, (-1) ** y, x**z),
            *(BASES.to(dtype), EXPONENTS.to(dtype), EXPONENTS.to(dtype).abs()),
        )
        for dtype in (torch.int64, torch.int32, torch.int8)
    },
    **{
        f"medians {dtype}": (lambda x: (*x.median(1), x.median()), (50 * SCORES).to(dtype))
        for dtype in (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)
    },
    "medians bf16": (InHalf(lambda x: (x.median(1)[0], x.median())), SCORES),
    "nothing bf16": (
        InHalf(lambda x: (torch.zeros_like(x), x.new_ones(3), x.new_full((2,), 0.5))),
        SCORES,
    ),
    **{
        f"products added to {dtype}": (
            lambda x: (
                torch.addmv(x[0, 0, :, 0], x[0, 0], x[0, 0, 0], beta=2, alpha=3),
                torch.addbmm(x[0, 0], x[0, :, :, :8], x[0, :, :8]),
                F.bilinear(x[0, 0], x[0, 1], x[0, :, :8]),
            ),
            BYTES.to(dtype),
        )
        for dtype in (torch.int64, torch.uint8)
    },
    "extremes of truth": (lambda x: (*(x > 0).max(1), *(x > 0).min(0), (x > 0).amax(0)), SCORES),
    "numbers of weights": (Shaped(), SCORES),
    "numbers beside bytes": (
        lambda x: (
            x > -1,
            x >= 300,
            x != 256,
            x + 200,
            300 - x,
            x - 300,
            x * 300,
            x.clamp(-5, 50),
            torch.where(x > 5, x, -1),
        ),
        BYTES,
    ),
    "numbers beside small ones": (
        lambda x: (x < 300, x <= -200, x + 200, x.masked_fill(x > 5, 3)),
        BYTES.to(torch.int8),
    ),
    "bounds the wrong way round": (lambda x: (x.clamp(1, -1), x.clamp(1.0, math.inf)), SCORES),
    **{
        f"set and norms {name}": (Set(dtype), SCORES)
        for name, dtype in (("f16", torch.float16), ("bf16", torch.bfloat16), ("f64", torch.float64))
    },
    "finite bf16": (
        InHalf(
            lambda x: (x.isnan(), x.isinf(), x.isfinite(), x.isposinf(), x.isneginf(), x.nan_to_num())
        ),
        ODD_HALVES,
    ),
    "cummax bf16": (InHalf(lambda x: x.cummax(0)), ODD_HALVES),
    "noise": (lambda x: x + torch.randn(4, 5), SCORES),
    "noise alike": (lambda x: x + torch.rand_like(x), SCORES),
    "dropout of a net in training": (lambda x: F.dropout(x, 0.5, True), SCORES),
    "shuffle": (lambda x: x[torch.randperm(4)], SCORES),
    "statistics of a norm": (
        lambda x: torch.ops.aten._native_batch_norm_legit_no_training(
            x, None, None, torch.zeros(5), torch.ones(5), 0.1, 1e-5
        ),
        SCORES,
    ),
}
#: What is refused, and the name in the message.
REFUSED = {
    "noise": "aten.randn.default draws random numbers",
    "noise alike": "aten.rand_like.default draws random numbers",
    "dropout of a net in training": "aten.native_dropout.default draws random numbers",
    "shuffle": "aten.randperm.default draws random numbers",
    "statistics of a norm": "first result of aten._native_batch_norm_legit_no_training.default",
}
