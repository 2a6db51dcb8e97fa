"""What a search may spend, over all of its steps, and what it has found so far."""

from __future__ import annotations

import time
from collections.abc import Callable

from .result import HistoryPoint
from .stop import Stop

#: Called with every improvement.
Progress = Callable[[HistoryPoint], None]

# Evaluations per second, until there is something to go by.
_USUAL_RATE = 1e6
_FEWEST = 4096
_ENDLESS = 1 << 44


class Budget:
    """One budget for all steps of a search, and one history of its best schedule.

    Time counts from when it is made.

    Parameters
    ----------
    stop
        The budgets.
    progress
        Called with a `HistoryPoint` at every improvement.
    """

    def __init__(self, stop: Stop, progress: Progress | None = None) -> None:
        self.stop, self.progress = stop, progress
        self.evaluations = self.last_improvement = 0
        self.history: list[HistoryPoint] = []
        self.is_interrupted = False
        self._begin_s, self._begin_cpu_s = time.monotonic(), time.thread_time()

    @property
    def elapsed_s(self) -> float:
        """Wall time since the search began."""
        return time.monotonic() - self._begin_s

    @property
    def cpu_s(self) -> float:
        """CPU time of this thread since the search began."""
        return time.thread_time() - self._begin_cpu_s

    def note(self, makespan_ns: int) -> None:
        """Add a makespan to the history, and report it, if it is the best so far."""
        if not self.history or makespan_ns < self.history[-1].makespan_ns:
            self.history.append(HistoryPoint(self.evaluations, self.cpu_s, makespan_ns))
            if self.progress is not None:
                self.progress(self.history[-1])

    def reason(self) -> str | None:
        """Return why the search has to end, as `SearchResult.stop_reason` names it, or None."""
        if self.is_interrupted:
            return "interrupted"
        stale = self.evaluations - self.last_improvement
        return self.stop.reason(self.evaluations, stale, self.elapsed_s, self.cpu_s)

    def part(self, share: float) -> Budget:
        """Return up to a share of the whole, as far as it is left, for a step with another problem.

        What is spent of it has to be added to `evaluations`.
        """
        stop = self.stop
        spent = {
            "max_evaluations": self.evaluations,
            "time_limit_s": self.elapsed_s,
            "cpu_limit_s": self.cpu_s,
        }
        left = {
            name: min(getattr(stop, name) * share, max(getattr(stop, name) - used, 0))
            for name, used in spent.items()
            if getattr(stop, name) is not None
        }
        if "max_evaluations" in left:
            left["max_evaluations"] = int(left["max_evaluations"])
        return Budget(Stop(**left, stagnation=stop.stagnation))

    def evaluations_left(self, done: int, begin_s: float, begin_cpu_s: float) -> int:
        """Return how many more evaluations the budget is expected to allow; at least one.

        ``done`` of them took the time since ``begin_s`` and ``begin_cpu_s`` on the budget's clocks.
        """
        left = [_ENDLESS - done]
        if self.stop.max_evaluations is not None:
            left.append(self.stop.max_evaluations - self.evaluations)
        for limit_s, used_s, before_s in (
            (self.stop.time_limit_s, self.elapsed_s, begin_s),
            (self.stop.cpu_limit_s, self.cpu_s, begin_cpu_s),
        ):
            if limit_s is not None:
                rate = done / max(used_s - before_s, 1e-6) if done > _FEWEST else _USUAL_RATE
                left.append(int(rate * max(0.0, limit_s - used_s)) + 1)
        return max(1, min(left))
