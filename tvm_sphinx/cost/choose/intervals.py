"""What kernels take that were not measured, and at least, by predictions and by others. Knows no TVM.

A prediction comes with the median error to expect of it. What was measured on this machine tells how far
off predictions really are: by a factor that all kernels on a class of devices share, by one that a
kernel has on all classes (what is odd about its code is so everywhere), and in the single case.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

# A kernel may be faster than expected by as many median errors as hold this share of what was measured,
# and by this many at least.
_REACH, _COVER = 3.0, 0.95
# The same of the factor of a class, in standard errors.
_FACTOR_REACH = 2.0
# Standard error of the logarithm of a class's factor where nothing was measured on it: on kinds of
# device that no training saw, predictions are 20 to 32 % off in the median.
_UNSEEN_ERROR = 0.4
# Pairs that speak for no correlation.
_PRIOR_PAIRS = 4.0
_MOST_CORRELATION = 0.95
# Errors beyond this many times the median one count as this in a correlation.
_OUTLIER = 5.0
# The median of absolute errors times this is a standard deviation, and a median is known less well than
# a mean by the other.
_SIGMA, _MEDIAN_LOSS = 1.4826, 1.2533
_LEAST_ERROR = 0.01


@dataclass(frozen=True, eq=False)
class Ranges:
    """Times of K kernels on C classes of devices, both (K, C).

    What a kernel is expected to take, and takes at least: the measured time where there is one, and
    infinite where it cannot run.
    """

    expected_ns: FloatArray
    low_ns: FloatArray


def ranges(
    predicted_ns: FloatArray, spread_ns: FloatArray, measured_ns: FloatArray, is_measured: BoolArray
) -> Ranges:
    """Return the ranges of times.

    Parameters
    ----------
    predicted_ns, spread_ns : (K, C)
        Predictions and the median errors to expect of them; NaN where there is none, which may be
        anything from 0 on.
    measured_ns : (K, C)
        Measured times, infinite where the kernel cannot run; not read where ``is_measured`` is false.
    """
    error = np.log1p(np.maximum(spread_ns / predicted_ns, _LEAST_ERROR))
    usable = is_measured & np.isfinite(measured_ns) & (measured_ns > 0) & np.isfinite(predicted_ns)
    off = np.full(predicted_ns.shape, np.nan)
    off[usable] = np.log(measured_ns[usable] / predicted_ns[usable])
    factor, doubt = _class_factors(off, error)
    odd = (off - factor) / error
    correlation = _correlation(odd)
    shift, share = _from_other_classes(odd, correlation)
    reach = _reach(np.abs(odd - shift) / share)
    expected = predicted_ns * np.exp(factor + shift * error)
    low = expected * np.exp(-np.hypot(reach * share * error, _FACTOR_REACH * doubt))
    unknown = np.isnan(predicted_ns)
    return Ranges(
        np.where(is_measured, measured_ns, np.where(unknown, 0.0, expected)),
        np.where(is_measured, measured_ns, np.where(unknown, 0.0, low)),
    )


def _class_factors(off: FloatArray, error: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the factor of each class, and its standard error, both (C,) and logarithms.

    ``off`` are logarithms of measured over predicted, NaN where there is none, ``error`` what is to be
    expected of them.
    """
    known = off[~np.isnan(off)]
    common = float(np.median(known)) if known.size else 0.0
    factors, doubts = [], []
    for column in range(off.shape[1]):
        is_here = ~np.isnan(off[:, column])
        here, count = off[is_here, column], int(is_here.sum())
        if not count:
            factors.append(common)
            doubts.append(_UNSEEN_ERROR)
            continue
        own = float(np.median(here))
        typical = max(float(np.median(np.abs(here - own))), float(np.median(error[is_here, column])))
        doubt = _SIGMA * _MEDIAN_LOSS * typical / math.sqrt(count)
        weight = _UNSEEN_ERROR**2 / (_UNSEEN_ERROR**2 + doubt**2)
        factors.append(weight * own + (1 - weight) * common)
        doubts.append(doubt * math.sqrt(weight))
    return np.array(factors), np.array(doubts)


def _correlation(odd: FloatArray) -> float:
    """Return how much of what is odd about a kernel on one class it has on another one, in [0, 1)."""
    known = np.abs(odd[~np.isnan(odd)])
    if not known.size:
        return 0.0
    most = _OUTLIER * max(1.0, float(np.median(known)))
    bounded = np.clip(odd, -most, most)
    products, squares, pairs = 0.0, 0.0, 0
    for column in range(odd.shape[1]):
        for other in range(column):
            both = ~np.isnan(bounded[:, column]) & ~np.isnan(bounded[:, other])
            left, right = bounded[both, column], bounded[both, other]
            products += float(left @ right)
            squares += float(left @ left + right @ right) / 2
            pairs += int(both.sum())
    if squares <= 0:
        return 0.0
    seen = max(0.0, products / squares) * pairs / (pairs + _PRIOR_PAIRS)
    return min(_MOST_CORRELATION, seen)


def _from_other_classes(odd: FloatArray, correlation: float) -> tuple[FloatArray, FloatArray]:
    """Return what the other classes tell of each kernel on a class: its mean, and what error is left.

    Both (K, C): in expected errors, and as a share of them.
    """
    known = ~np.isnan(odd)
    others = known.sum(axis=1, keepdims=True) - known
    total = np.where(known, odd, 0.0)
    total = total.sum(axis=1, keepdims=True) - total
    weight = correlation / (1 + np.maximum(others - 1, 0) * correlation)
    left = 1 - others * correlation * weight
    return total * weight, np.sqrt(left)


def _reach(beyond: FloatArray) -> FloatArray:
    """Return for each class, (C,), by how many errors a kernel may be off.

    ``beyond`` are the errors of what was measured, each predicted from the other classes; NaN is none.
    """
    reach = []
    for column in beyond.T:
        here = np.sort(column[~np.isnan(column)])
        place = min(len(here), math.ceil(_COVER * (len(here) + 1))) - 1
        reach.append(max(_REACH, float(here[place])) if len(here) else _REACH)
    return np.array(reach)
