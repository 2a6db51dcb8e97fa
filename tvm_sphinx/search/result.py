"""What a search returns, whatever its algorithm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ..scheduling.schedule import Schedule
from .pruning import PruningReport


class HistoryPoint(NamedTuple):
    """A moment at which the best makespan fell."""

    evaluations: int
    cpu_s: float
    makespan_ns: int


@dataclass(frozen=True, repr=False)
class SearchResult:
    """The best schedule that a search found, and how it came to it.

    ``history`` never rises. ``stop_reason`` says why the search ended: ``"optimal"`` (no
    schedule of what was searched is shorter), ``"evaluations"``, ``"stagnation"``, ``"time"`` or
    ``"interrupted"``. ``pruning`` says what was decided once because it recurs; None where the search
    did not look for that.
    """

    best: Schedule
    algorithm: str
    seed: int
    history: tuple[HistoryPoint, ...]
    evaluations: int
    runtime_s: float
    stop_reason: str
    pruning: PruningReport | None = None

    def __repr__(self) -> str:
        return (
            f"<SearchResult of {self.algorithm}, seed {self.seed}: makespan {self.best.makespan_ns} ns "
            f"after {self.evaluations} evaluations in {self.runtime_s:.2f} s, stopped by "
            f"{self.stop_reason}>"
        )
