"""What random graphs and programs of both frameworks draw alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

_EXTENTS = (1, 1, 2, 3, 4, 5, 7, 16)


class Drawing:
    """Draws from ``rng``; with ``has_empty`` some shapes have no elements."""

    rng: np.random.Generator
    has_empty: bool

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def pick(self, choices: Sequence[Any]) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def number(self, least: int, most: int) -> int:
        """Return a whole number, both ends included."""
        return int(self.rng.integers(least, most + 1))

    def shape(self, least: int = 0, most: int = 5) -> list[int]:
        rank = self.number(least, most)
        shape = [int(self.pick(_EXTENTS)) for _ in range(rank)]
        while np.prod(shape) > 4096:
            shape[int(np.argmax(shape))] = 1
        if self.has_empty and rank and self.chance(0.5):
            shape[self.number(0, rank - 1)] = 0
        return shape
