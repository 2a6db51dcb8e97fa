"""The cost model: boosted trees that correct an analytic time, and a second set for their spread."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import SphinxError
from .features import FEATURE_NAMES, FloatArray

_ANALYTIC = FEATURE_NAMES.index("analytic_ns")
#: Of a cross validation.
FOLDS = 5
_TREES, _SPREAD_TREES = 400, 60
#: Chosen by cross validation over drawn kernels alone.
PARAMETERS: dict[str, Any] = {
    # Squares near 0 and absolute values beyond: a few kernels that LLVM treats unlike all others would
    # otherwise weigh as much as hundreds.
    "objective": "reg:pseudohubererror",
    "huber_slope": 0.15,
    # Its second derivative vanishes far from 0, where a Newton step would be as long as it likes.
    "max_delta_step": 0.5,
    "tree_method": "hist",
    "max_depth": 8,
    "eta": 0.06,
    "subsample": 0.7,
    "colsample_bytree": 0.4,
    "min_child_weight": 3,
    "lambda": 2.0,
    "max_bin": 256,
    # One thread: sums of floats come out the same on every run and machine.
    "nthread": 1,
    "verbosity": 0,
}
_SPREAD_PARAMETERS: dict[str, Any] = {
    **PARAMETERS,
    "objective": "reg:absoluteerror",
    "max_depth": 4,
    "min_child_weight": 8,
}


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Kernels with their features and times.

    Parameters
    ----------
    features : (N, F) float64
        As `feature_rows` returns them.
    times_ns : (N,) float64
        Median times, all > 0.
    groups : (N,) str
        What must not be divided between training and testing: the kernel before it is scheduled.
    """

    features: FloatArray
    times_ns: FloatArray
    groups: npt.NDArray[np.str_]

    def __post_init__(self) -> None:
        count = len(self.times_ns)
        if self.features.shape != (count, len(FEATURE_NAMES)) or self.groups.shape != (count,):
            raise SphinxError(
                f"Expected {count} rows of {len(FEATURE_NAMES)} features and {count} groups; got "
                f"{self.features.shape} and {self.groups.shape}."
            )
        if not np.isfinite(self.features).all():
            row, column = np.argwhere(~np.isfinite(self.features))[0].tolist()
            raise SphinxError(
                f"Expected finite features; feature {FEATURE_NAMES[column]!r} of row {row} is "
                f"{self.features[row, column]}."
            )
        if not (np.isfinite(self.times_ns) & (self.times_ns > 0)).all():
            row = int(np.flatnonzero(~(np.isfinite(self.times_ns) & (self.times_ns > 0)))[0])
            raise SphinxError(f"Expected times > 0; the time of row {row} is {self.times_ns[row]} ns.")

    def take(self, rows: Any) -> TrainingSet:
        """Return some of the rows."""
        return TrainingSet(self.features[rows], self.times_ns[rows], self.groups[rows])

    @property
    def fingerprint(self) -> str:
        """Hex digest of all rows."""
        digest = hashlib.sha256()
        for array in (self.features, self.times_ns):
            digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
        digest.update("\n".join(self.groups.tolist()).encode())
        return digest.hexdigest()[:32]


@dataclass(frozen=True)
class HeldOut:
    """Errors on kernels that were left out of training, by cross validation.

    ``median_error`` is the median of abs(predicted - measured) / measured, ``within_quarter`` the share
    of kernels for which that is at most 0.25.
    """

    median_error: float
    within_quarter: float


def train_booster(data: TrainingSet, seed: int) -> Any:
    """Return the boosted trees of a training set (Chen and Guestrin, KDD 2016)."""
    return _train(data.features, _residual(data), PARAMETERS, _TREES, seed)


def predict_ns(booster: Any, features: FloatArray) -> FloatArray:
    """Return predicted times of rows of features, shape (N,), ns, all > 0."""
    if not len(features):
        return np.zeros(0)
    residual = _predict(booster, features)
    result: FloatArray = np.exp(np.clip(features[:, _ANALYTIC] + residual, 0.0, 34.0))
    return result


def predict_spread(booster: Any, features: FloatArray) -> FloatArray:
    """Return the median error to expect of each prediction, relative, shape (N,)."""
    if not len(features):
        return np.zeros(0)
    return np.expm1(np.clip(_predict(booster, features), 0.0, 5.0))


def cross_validate(data: TrainingSet, seed: int, folds: int = FOLDS) -> FloatArray:
    """Return the prediction of each row by trees that saw none of its group, shape (N,), ns.

    With fewer groups than folds each group is a fold; with one group its rows are predicted by the
    analytic time alone.
    """
    names, place = np.unique(data.groups, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    fold = order[place] % min(folds, len(names))
    predicted = np.exp(data.features[:, _ANALYTIC])
    for number in range(int(fold.max()) + 1):
        held = fold == number
        if held.all():
            break
        booster = train_booster(data.take(~held), seed)
        predicted[held] = predict_ns(booster, data.features[held])
    return predicted


def held_out(data: TrainingSet, predicted: FloatArray) -> HeldOut:
    """Return the errors of predictions."""
    error = np.abs(predicted - data.times_ns) / data.times_ns
    return HeldOut(float(np.median(error)), float((error <= 0.25).mean()))


def train_spread(data: TrainingSet, predicted: FloatArray, seed: int) -> Any:
    """Return trees for the median of abs(log(measured / predicted)) of held-out predictions.

    Half of the measurements then lie within the spread: it is what half an interquartile range is to
    measured samples.
    """
    error = np.abs(np.log(data.times_ns) - np.log(predicted))
    return _train(data.features, error, _SPREAD_PARAMETERS, _SPREAD_TREES, seed)


def _residual(data: TrainingSet) -> FloatArray:
    result: FloatArray = np.log(data.times_ns) - data.features[:, _ANALYTIC]
    return result


def _train(
    features: FloatArray, labels: FloatArray, parameters: dict[str, Any], trees: int, seed: int
) -> Any:
    import xgboost

    matrix = xgboost.DMatrix(features, labels, feature_names=list(FEATURE_NAMES))
    start = {"seed": seed, "base_score": float(np.median(labels))}
    return xgboost.train({**parameters, **start}, matrix, num_boost_round=trees)


def _predict(booster: Any, features: FloatArray) -> FloatArray:
    return np.asarray(booster.inplace_predict(features, validate_features=False), dtype=np.float64)
