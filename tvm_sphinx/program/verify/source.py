"""The source of a model as something that runs: what a program is verified against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ...errors import SphinxError
from .tolerance import Array

#: Threads that a source may run with: it is not what this machine is for.
SOURCE_THREADS = 2


class NotVerifiedError(SphinxError):
    """A program cannot be verified here; the message says why. It is not at fault."""


@dataclass(frozen=True)
class Range:
    """Whole numbers from ``low`` to below ``high`` suit an input; ``known`` tells if that is sure."""

    low: int
    high: int
    known: bool = True


#: What is drawn where nothing is known of the use of an input: 0 and 1 suit masks, types and indices.
MASK = Range(0, 2, known=False)


class RunnableSource(Protocol):
    """A model that its own framework runs."""

    @property
    def runtime(self) -> str:
        """What runs it, with its version."""

    @property
    def computed_dtypes(self) -> frozenset[str]:
        """Types that decide how well its outputs are known; ``quantised`` where it rounds to 8 bits."""

    def example_shape(self, position: int) -> tuple[int, ...] | None:
        """Return a shape that an input is known to have, or None."""

    def ranges(self) -> list[Range]:
        """Return what suits each input, if it is of whole numbers, by what reads it."""

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Return the outputs for these inputs; raise whatever the framework raises."""

    def values(self, arrays: Sequence[Array], names: Sequence[str]) -> list[Array]:
        """Return values inside the model for these inputs."""

    def known_values(self) -> frozenset[str]:
        """Return the names that `values` knows."""
