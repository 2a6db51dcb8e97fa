"""How well the time of each kernel has to be known, by how much of a model's time it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from .sampling import Goal

# An uncertain kernel may move the time of a model by this share of it. Errors of many kernels mostly
# cancel out: those of a hundred kernels add up to ten times this.
_SHARE_OF_MODEL = 0.001
# No kernel is known worse than this where the machine allows it.
_WIDEST = 0.1
# A first look takes this share of what a kernel is timed for, and this long at most.
_LOOK_SHARE = 0.2
_LOOK_WALL_S = 0.08


@dataclass(frozen=True)
class Demand:
    """What a model asks of the times of its kernels.

    Parameters
    ----------
    calls
        How often the model calls each kernel, by kernel id; one that is not there it calls once.
    total_ns
        What the model takes on the device, kernel after kernel; 0 is the sum of what is timed together.
    """

    calls: Mapping[str, int]
    total_ns: float = 0.0

    def of_total(self, medians_ns: Mapping[str, float]) -> Demand:
        """Return the same demand with the total that the medians of all kernels by id tell."""
        total = sum(self.spent_ns(kernel, median) for kernel, median in medians_ns.items())
        return self if self.total_ns else replace(self, total_ns=total)

    def spent_ns(self, kernel: str, median_ns: float) -> float:
        """Return what all calls of a kernel take together."""
        return self.calls.get(kernel, 1) * median_ns

    def half_width(self, kernel: str, median_ns: float, least: float) -> float:
        """Return the confidence interval that will do, as `Goal.half_width`; ``least`` is the best."""
        spent_ns = self.spent_ns(kernel, median_ns)
        if spent_ns <= 0:
            return _WIDEST
        return min(_WIDEST, max(least, _SHARE_OF_MODEL * self.total_ns / spent_ns))


def first_look(goal: Goal) -> Goal:
    """Return a goal that tells about what a kernel takes."""
    return replace(
        goal,
        half_width=max(goal.half_width, _WIDEST),
        min_ns=max(1, round(_LOOK_SHARE * goal.min_ns)),
        max_ns=max(1, round(_LOOK_SHARE * goal.max_ns)),
        max_wall_s=min(goal.max_wall_s, _LOOK_WALL_S),
    )
