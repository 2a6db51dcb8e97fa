"""What people write of single numbers, bytes and labels; see `torch_idioms`."""

import math

import torch
import torch.nn.functional as F

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
