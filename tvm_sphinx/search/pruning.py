"""What a search decided once because it recurs, and what that left of the space of placements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..scheduling.problem import CANNOT_RUN, SchedulingProblem
from ..wording import counted
from .native import colocated_sets
from .series import SeriesPlan


@dataclass(frozen=True)
class PruningReport:
    """What a search did with the segments of its problem; sizes are log10 of numbers of placements.

    Parameters
    ----------
    tasks
        Of the problem.
    segments, distinct_segments
        Of the series that the problem is, and those that no earlier one equals; 0 where the problem is
        no series of segments that are small enough.
    is_exact
        Whether the schedule is made of the optimal schedules of the segments; of a problem without
        segments, whether the schedule of a heuristic meets the first lower bound, so that nothing had to
        be searched. If not, the whole problem was searched as well.
    log10_before
        Of the placements of the tasks on devices that can run them.
    log10_after
        Of the placements that were searched: of all distinct segments, each for every device of the cut
        before it from which a shortest schedule may come; ``log10_before`` where the whole was searched.
    """

    tasks: int
    segments: int
    distinct_segments: int
    is_exact: bool
    log10_before: float
    log10_after: float

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serialisable form."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> PruningReport:
        """Rebuild a report from `to_json`."""
        return cls(**content)

    def describe(self) -> str:
        """Return what was decided once, and the sizes, in one line."""
        whole = f"10^{self.log10_before:.1f} placements of {counted(self.tasks, 'task')}"
        if not self.segments and self.is_exact:
            return f"{whole}; the schedule of a heuristic is optimal, so nothing had to be searched"
        if not self.segments:
            return f"{whole}; no series of segments small enough to solve, so nothing was decided once"
        found = f"{counted(self.segments, 'segment')}, {self.distinct_segments} distinct"
        if not self.is_exact:
            return f"{whole}; {found}, each searched once but not to its end, and then the whole"
        return f"{whole}; {found}, each searched once: 10^{self.log10_after:.1f}"


def report_pruning(
    problem: SchedulingProblem, plan: SeriesPlan | None, *, heuristic_is_optimal: bool = False
) -> PruningReport:
    """Return what a search did that solved the series of a problem first, or found that it is none.

    ``heuristic_is_optimal`` tells whether it had little to look for.
    """
    sets = colocated_sets(problem)
    can_run = np.ones((len(np.unique(sets)), problem.num_devices), dtype=np.bool_)
    np.logical_and.at(can_run, sets, problem.exec_ns != CANNOT_RUN)
    before = float(np.log10(can_run.sum(axis=1)).sum())
    after = before
    if plan is not None and plan.is_optimal:
        choices = np.log10((problem.exec_ns != CANNOT_RUN).sum(axis=1))
        after = log10_sum(
            [float(choices[begin:end].sum() + np.log10(count)) for begin, end, count in plan.distinct]
        )
    return PruningReport(
        tasks=problem.num_tasks,
        segments=0 if plan is None else plan.num_segments,
        distinct_segments=0 if plan is None else len(plan.distinct),
        is_exact=heuristic_is_optimal if plan is None else plan.is_optimal,
        log10_before=before,
        log10_after=after,
    )


def log10_sum(sizes: Sequence[float]) -> float:
    """Return log10 of the sum of numbers that are given by their log10."""
    largest = max(sizes)
    return float(largest + np.log10((10.0 ** (np.asarray(sizes) - largest)).sum()))
