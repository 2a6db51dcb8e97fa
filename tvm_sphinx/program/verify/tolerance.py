"""How far an output may be from the source's, by its type, and how far it is."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

#: Largest difference of an output, as a share of its largest value. Other types, whole numbers and
#: booleans, have to be equal. ``quantised`` stands for float outputs of a model that rounds activations
#: to 8 bits inside: a sum that is rounded otherwise moves one by a whole step, 1/127 of their range.
TOLERANCES = {"float64": 1e-6, "float32": 1e-3, "float16": 1e-2, "bfloat16": 5e-2, "quantised": 5e-2}


def tolerance_of(dtype: str, computed: Collection[str] = ()) -> float:
    """Return the tolerance of an output of a type, which a model computes in the ``computed`` types.

    What went through a narrower type is known no better than that.
    """
    if dtype not in TOLERANCES:
        return 0.0
    return max(TOLERANCES[name] for name in (dtype, *computed) if name in TOLERANCES)


@dataclass(frozen=True)
class OutputCheck:
    """How an output compares with the source's.

    ``difference`` is the largest one as a share of the output's largest value (of whole numbers and
    booleans the share of elements that differ); it is infinite where one side alone is not finite.
    ``problem`` says what else does not fit: number, shape or type.
    """

    name: str
    dtype: str
    difference: float
    tolerance: float
    problem: str = ""

    @property
    def is_equal(self) -> bool:
        """Whether it is close enough."""
        return not self.problem and self.difference <= self.tolerance

    def describe(self) -> str:
        """Return what is wrong, in words that follow the output's name."""
        if self.problem:
            return self.problem
        if self.dtype not in TOLERANCES:
            return f"differs in {self.difference:.2%} of its elements, which have to be equal"
        return (
            f"differs by {self.difference:.2g} of its largest value; at most {self.tolerance:g} may be"
        )


def compare(name: str, ours: Array, theirs: Array, computed: Collection[str] = ()) -> OutputCheck:
    """Compare an output with the source's, whose type decides."""
    dtype = str(theirs.dtype)
    allowed = tolerance_of(dtype, computed)
    if ours.shape != theirs.shape:
        problem = f"has shape {list(ours.shape)}; that of the source is {list(theirs.shape)}"
        return OutputCheck(name, dtype, float("inf"), allowed, problem)
    if str(ours.dtype) != dtype:
        problem = f"is {ours.dtype}; that of the source is {dtype}"
        return OutputCheck(name, dtype, float("inf"), allowed, problem)
    return OutputCheck(name, dtype, difference(ours, theirs), allowed)


def difference(ours: Array, theirs: Array) -> float:
    """Return how far two arrays of one shape and type are apart, see `OutputCheck`."""
    if not theirs.size:
        return 0.0
    if str(theirs.dtype) not in TOLERANCES:
        return float(np.mean(ours != theirs))
    x, y = ours.astype(np.float64), theirs.astype(np.float64)
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(x - y))
    worst = float(np.nan_to_num(apart, nan=np.inf).max())
    scale = float(np.abs(y[np.isfinite(y)]).max(initial=0.0))
    return worst / scale if scale else worst


def worst(checks: Sequence[OutputCheck]) -> OutputCheck | None:
    """Return the check that is farthest beyond its tolerance, or nearest to it."""

    def excess(check: OutputCheck) -> float:
        if check.problem:
            return float("inf")
        return check.difference / check.tolerance if check.tolerance else 2e9 * check.difference

    return max(checks, key=excess, default=None)
