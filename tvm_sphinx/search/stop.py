"""When a search ends."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real

from ..errors import SphinxError
from ..scheduling.integers import MAX_TOTAL, is_whole

_COUNTS = ("max_evaluations", "stagnation")


class StopError(SphinxError, ValueError):
    """A stop criterion is out of range."""


@dataclass(frozen=True)
class Stop:
    """Budgets of a search; it ends at the first that is used up, or when the best is proven optimal.

    Budgets in evaluations give the same schedule on every machine; budgets in time do not.

    Parameters
    ----------
    max_evaluations
        Schedules valued.
    time_limit_s, cpu_limit_s
        Wall time, and CPU time of the calling thread.
    stagnation
        Evaluations since the best last improved.

    Raises
    ------
    StopError
        If a budget is no number, negative or not below 2**62, as no infinite one is, a count is not
        whole, or none is given.
    """

    max_evaluations: int | None = None
    time_limit_s: float | None = None
    cpu_limit_s: float | None = None
    stagnation: int | None = None

    def __post_init__(self) -> None:
        budgets = {name: value for name, value in vars(self).items() if value is not None}
        if not budgets:
            raise StopError(f"Expected at least one budget of {', '.join(vars(self))}; got none.")
        for name, value in budgets.items():
            is_real = isinstance(value, Real) and not isinstance(value, bool)
            if not (is_whole(value) if name in _COUNTS else is_real):
                kind = "an integer" if name in _COUNTS else "a number"
                raise StopError(f"Expected {name} as {kind}; got {name} = {value!r:.40}.")
            if not 0 <= value < MAX_TOTAL:
                raise StopError(f"Expected {name} >= 0, and below 2**62; got {name} = {value}.")

    @classmethod
    def default(cls, num_tasks: int) -> Stop:
        """Return a budget in evaluations that takes well under a second for up to 1,000 tasks."""
        return cls(max_evaluations=min(500_000, 20_000 * max(1, num_tasks)))

    def reason(self, evaluations: int, stale: int, elapsed_s: float, cpu_s: float) -> str | None:
        """Return which budget is used up, as `SearchResult.stop_reason` names it, or None."""
        if self.max_evaluations is not None and evaluations >= self.max_evaluations:
            return "evaluations"
        if self.stagnation is not None and stale >= self.stagnation:
            return "stagnation"
        if self.time_limit_s is not None and elapsed_s >= self.time_limit_s:
            return "time"
        if self.cpu_limit_s is not None and cpu_s >= self.cpu_limit_s:
            return "time"
        return None
