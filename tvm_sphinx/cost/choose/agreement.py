"""Whether two implementations of a kernel compute the same numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Sums in another order differ by some multiple of the type's precision, relative to the largest value.
_TOLERANCES = {"float16": 2e-2, "bfloat16": 1e-1, "float32": 1e-4, "float64": 1e-9}


def agree(
    ours: Sequence[Any], expected: Sequence[Any], tolerances: Mapping[str, float] = _TOLERANCES
) -> bool:
    """Return whether arrays are equal: floats within the tolerance of their type, all else exactly.

    Parameters
    ----------
    ours, expected
        The same number of arrays, of equal shapes and types. NaN and infinity have to be where they
        are expected.
    tolerances
        By type, as a share of an array's largest value.
    """
    pairs = zip(ours, expected, strict=True)
    return all(_agree(left, right, tolerances.get(str(right.dtype))) for left, right in pairs)


def _agree(left: Any, right: Any, tolerance: float | None) -> bool:
    if tolerance is None or not right.size:
        return bool(np.array_equal(left, right))
    wide, wanted = left.astype(np.float64), right.astype(np.float64)
    finite = np.isfinite(wanted)
    if not np.array_equal(wide[~finite], wanted[~finite], equal_nan=True):
        return False
    scale = float(np.abs(wanted[finite]).max(initial=0.0))
    difference = np.abs(wide[finite] - wanted[finite])
    return bool((difference <= tolerance * max(scale, 1e-30)).all())
