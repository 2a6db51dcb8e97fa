"""The loops, operations and accesses of a scheduled kernel, as plain numbers. Knows nothing of TVM."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

#: Coefficients of an index by the position of the loop in the nest; what is not affine is rounded so.
Affine = dict[int, float]

#: Kinds of operations that are counted apart, because they cost unlike times.
OPERATIONS = (
    "add",
    "mul",
    "div",
    "max",
    "compare",
    "select",
    "branch",
    "root",
    "bit",
    "cast",
    "index",
    "library",
    "lane_index",
)
#: Those that are carried out for each element, also in vectorized loops.
BY_ELEMENT = frozenset({"library", "lane_index"})


@dataclass(frozen=True)
class Loop:
    """One loop of a nest; ``id`` tells loops of one kernel apart."""

    id: int
    extent: int
    kind: str


@dataclass
class Access:
    """One read or write of an element; ``dims`` holds the index of each axis over the loops.

    ``flat`` is the place in memory over the loops where that is simpler than what the axes say.
    """

    buffer: int
    dims: tuple[Affine, ...]
    is_write: bool
    gathers: bool = False
    flat: Affine | None = None


@dataclass
class Buffer:
    """A tensor of a kernel, or a view of one.

    ``parameter`` is its position among the arguments, -1 for a temporary.
    """

    shape: tuple[int, ...]
    element_bytes: int
    parameter: int
    shared_loops: tuple[int, ...] | None = None

    @property
    def bytes(self) -> int:
        """Size in memory."""
        return math.prod(self.shape) * self.element_bytes


@dataclass
class Statement:
    """One store with the loops round it, outermost first.

    ``share`` is the part of the iterations that a guard lets pass; ``operations`` counts what one
    iteration computes. ``is_scalar`` tells that a vectorized loop runs element by element all the same,
    because a condition inside of it is not the same for all of them; ``lane_share`` is the share of a
    guard that moves with a vectorized loop.
    """

    loops: tuple[Loop, ...]
    share: float
    operations: dict[str, int]
    accesses: list[Access] = field(default_factory=list)
    is_scalar: bool = False
    lane_share: float = 1.0

    @property
    def iterations(self) -> float:
        """How often it runs."""
        return math.prod(loop.extent for loop in self.loops) * self.share


@dataclass
class Nest:
    """All statements of a kernel and the tensors that they touch."""

    statements: list[Statement]
    buffers: list[Buffer]
    roles: set[str] = field(default_factory=set)
