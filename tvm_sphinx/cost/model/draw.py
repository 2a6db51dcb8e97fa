"""Draws of extents as they occur in networks, and a network under construction. [TVM]"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..._tvm import relax

_IMAGE_SIDES = (7, 8, 10, 12, 13, 14, 17, 18, 20, 24, 26, 28, 32, 35, 40, 48, 54, 56, 64, 71, 73, 80)
_LARGE_SIDES = (96, 109, 112, 128, 147, 149, 150, 192, 224)
#: What one operator may cost: larger ones are rare, and would take the time of a hundred others.
MOST_MACS = 600_000_000
MOST_ELEMENTS = 3_000_000


class Draw:
    """A seeded source of extents and choices."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def chance(self, share: float) -> bool:
        """Return True in that share of the draws."""
        return bool(self.rng.random() < share)

    def pick(self, choices: Sequence[Any], weights: Sequence[float] | None = None) -> Any:
        """Return one of the choices."""
        share = None if weights is None else np.asarray(weights, dtype=np.float64) / sum(weights)
        return choices[int(self.rng.choice(len(choices), p=share))]

    def between(self, low: int, high: int) -> int:
        """Return an integer of [low, high], uniform in its logarithm."""
        drawn = math.exp(float(self.rng.uniform(math.log(low), math.log(high))))
        return min(high, max(low, round(drawn)))

    def channels(self, low: int = 8, high: int = 1280) -> int:
        """Return a number of channels: mostly a multiple of 8 or 16, as networks have them."""
        drawn = self.between(low, high)
        step = self.pick((1, 2, 4, 8, 16, 32, 64), (1, 1, 2, 6, 6, 4, 2))
        return int(max(low, round(drawn / step) * step))

    def side(self) -> int:
        """Return the height or width of an image or a feature map."""
        if self.chance(0.25):
            return int(self.pick(_LARGE_SIDES))
        return int(self.pick(_IMAGE_SIDES)) if self.chance(0.85) else self.between(4, 80)

    def image(self, low: int = 8, high: int = 1280) -> tuple[int, int, int, int]:
        """Return the shape of one feature map, NCHW: the more channels, the smaller the sides."""
        while True:
            side, channels = self.side(), self.channels(low, high)
            if side * side * channels <= 1_000_000 and side * math.sqrt(channels) <= 1300:
                return 1, channels, side, side

    def tokens(self) -> tuple[int, int]:
        """Return a number of tokens and a width."""
        tokens = self.pick((1, 8, 20, 32, 36, 49, 50, 64, 77, 128, 196, 197, 256, 512, 784, 3136))
        width = self.pick((32, 64, 96, 128, 192, 256, 320, 384, 512, 640, 768, 1024))
        if self.chance(0.3):
            tokens, width = self.between(1, 600), 8 * self.between(4, 128)
        while tokens * width > 600_000:
            tokens = max(1, tokens // 2)
        return tokens, width


class Sketch:
    """A small Relax module under construction, with one dataflow block."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.builder = relax.BlockBuilder()
        self.inputs: list[Any] = []

    def input(self, shape: Sequence[int], dtype: str = "float32") -> Any:
        """Return a new argument of the module."""
        name = f"x{len(self.inputs)}"
        self.inputs.append(relax.Var(name, relax.TensorType(list(shape), dtype)))
        return self.inputs[-1]

    def emit(self, value: Any) -> Any:
        """Bind a value."""
        return self.builder.emit(value)

    def reshape(self, value: Any, *shape: int) -> Any:
        """Return a value in another shape."""
        return self.emit(relax.op.reshape(value, shape))

    def permute(self, value: Any, *order: int) -> Any:
        """Return a value with its axes in another order."""
        return self.emit(relax.op.permute_dims(value, list(order)))

    def rearrange(
        self, value: Any, apart: Sequence[int], order: Sequence[int], together: Sequence[int]
    ) -> Any:
        """Return a value with its axes split apart, put in another order, and joined again."""
        return self.reshape(self.permute(self.reshape(value, *apart), *order), *together)

    def weight(self, *shape: int) -> Any:
        """Return a constant; no kernel's time depends on what it holds."""
        return relax.const(np.full(shape, 0.01, dtype=np.float32))


def shape_of(value: Any) -> tuple[int, ...]:
    """Return the static extents of a tensor."""
    return tuple(int(extent) for extent in value.ty.shape.values)
