"""What people write in float64 and bfloat16, and with empty or overlapping parts; see `torch_idioms`."""

import torch
import torch.nn.functional as F
from torch import nn

_seeded = torch.Generator().manual_seed(2)
ROWS = torch.randn(2, 6, 8, generator=_seeded)
IMAGE = torch.randn(2, 8, 5, 5, generator=_seeded)


def _normed(layer, dtype):
    torch.manual_seed(0)
    for parameter in layer.parameters():
        parameter.data.uniform_(0.5, 1.5)
    return layer.to(dtype).eval()


class InHalf(nn.Module):
    """Computes in bfloat16 what comes and goes as float32."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        found = self.function(x.bfloat16())
        return [each.float() for each in (found if isinstance(found, tuple) else (found,))]


def _summed_by_index(x):
    """Sum rows by a number each, in all ways that torch sums in single precision."""
    place = torch.arange(len(x)) % 3
    zeros, wide = torch.zeros(3, 2, dtype=x.dtype), place[:, None].expand(-1, 2)
    return (
        zeros.scatter_add(0, wide, x),
        zeros.index_add(0, place, x),
        zeros.scatter_reduce(0, wide, x, "sum"),
        zeros.scatter_reduce(0, wide, x, "mean", include_self=False),
    )


_NORMS = {
    "layer norm": (lambda: nn.LayerNorm(8), ROWS),
    "layer norm of two axes": (lambda: nn.LayerNorm((6, 8), elementwise_affine=False), ROWS),
    "group norm": (lambda: nn.GroupNorm(2, 8), IMAGE),
    "group norm plain": (lambda: nn.GroupNorm(4, 8, affine=False), IMAGE),
}
DOUBLES = {
    **{
        f"{name} double": (_normed(make(), torch.float64), x.double())
        for name, (make, x) in _NORMS.items()
    },
    **{
        f"{mode} {options} double": (
            lambda x, mode=mode, options=options: F.interpolate(x, mode=mode, **options),
            IMAGE.double(),
        )
        for mode, options in (
            ("bilinear", {"scale_factor": 2}),
            ("bilinear", {"scale_factor": 1.7}),
            ("bicubic", {"size": (7, 9), "align_corners": True}),
            ("nearest", {"size": (7, 9)}),
            ("bilinear", {"size": (4, 3), "antialias": True}),
            ("bicubic", {"size": (9, 3), "antialias": True}),
        )
    },
    "angle double": (torch.angle, ROWS.double()),
}
HALVES = {
    **{
        f"{name} bf16": (InHalf(_normed(make(), torch.bfloat16)), x)
        for name, (make, x) in _NORMS.items()
    },
    "argmax bf16": (InHalf(lambda x: (x.argmax(-1), x.argmin(1), x.max(-1)[1])), ROWS),
    "fmod bf16": (InHalf(lambda x: torch.fmod(x, 0.75)), ROWS),
    "norms bf16": (InHalf(lambda x: (x.norm(p=1, dim=-1), x.norm(p=3, dim=-1))), ROWS),
    "normalize bf16": (InHalf(lambda x: F.normalize(x, dim=-1)), ROWS),
    "sums by index bf16": (InHalf(_summed_by_index), torch.ones(1000, 2)),
    "sums by index f16": (lambda x: _summed_by_index(x.half()), torch.full((3000, 2), 1.5)),
    "means of windows f16": (
        lambda x: (F.avg_pool2d(x.half(), 60), F.adaptive_avg_pool2d(x.half(), 3)),
        torch.rand(1, 2, 60, 90, generator=_seeded),
    ),
    "cat of nothing": (lambda x: torch.cat([torch.tensor([]), x], -2), ROWS),
    "cat around": (lambda x: torch.cat([torch.empty(0), x, torch.empty(0), x], 1), IMAGE),
    "windows of windows": (lambda x: x.unfold(2, 3, 2).unfold(3, 3, 2) + 0, IMAGE),
    "windows of a part": (lambda x: x.transpose(1, 2).unfold(1, 3, 2) + x[0, 0, 0], ROWS),
}
