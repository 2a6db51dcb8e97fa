"""How the kernels of a GPU are launched, as an executable keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import ArtifactError


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel.

    ``operands`` are positions in the operands of the step: the PrimFunc's arguments, and behind them its
    workspaces. ``grid`` and ``block`` have three extents, ``shared_bytes`` is dynamic shared memory.
    """

    kernel: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    shared_bytes: int
    operands: tuple[int, ...]

    def __post_init__(self) -> None:
        sizes = (*self.grid, *self.block, self.shared_bytes, *self.operands)
        if len(self.grid) != 3 or len(self.block) != 3 or min(sizes) < 0:
            raise ArtifactError(f"Expected a launch with three extents of grid and block; got {self}.")

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serialisable form."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Launch:
        """Rebuild a launch from `to_json`."""
        grid, block, operands = (tuple(content[key]) for key in ("grid", "block", "operands"))
        return cls(content["kernel"], grid, block, content["shared_bytes"], operands)


@dataclass(frozen=True)
class GpuFunction:
    """How to run a PrimFunc: its launches in order, and the bytes of its workspaces."""

    launches: tuple[Launch, ...]
    workspaces: tuple[int, ...]
