"""The regression: sound on little, constant or broken data, and the same on every run."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_sphinx.cost.model.features import FEATURE_NAMES
from tvm_sphinx.cost.model.regression import (
    TrainingSet,
    cross_validate,
    held_out,
    predict_ns,
    predict_spread,
    train_booster,
    train_spread,
)
from tvm_sphinx.errors import SphinxError

ANALYTIC = FEATURE_NAMES.index("analytic_ns")


def made(rows: int, seed: int = 0) -> TrainingSet:
    """Return rows whose time is the analytic one times a power of one feature."""
    rng = np.random.default_rng(seed)
    features = rng.uniform(0.0, 10.0, (rows, len(FEATURE_NAMES)))
    times = np.exp(features[:, ANALYTIC] + 0.2 * features[:, 3])
    return TrainingSet(features, times, np.array([f"kernel{row}" for row in range(rows)]))


def test_it_learns_what_the_analytic_time_lacks() -> None:
    data = made(250)
    predicted = cross_validate(data, 0)
    analytic = held_out(data, np.exp(data.features[:, ANALYTIC]))
    assert held_out(data, predicted).median_error < 0.5 * analytic.median_error


def test_equal_data_and_seed_give_equal_models() -> None:
    first, second = (train_booster(made(80), 3).save_raw("json") for _ in range(2))
    assert first == second
    assert train_booster(made(80), 4).save_raw("json") != first


def test_one_row_is_enough_to_predict_it() -> None:
    data = made(1)
    predicted = cross_validate(data, 0)
    assert predicted == pytest.approx(np.exp(data.features[:, ANALYTIC]))
    times = predict_ns(train_booster(data, 0), data.features)
    assert times.shape == (1,)
    assert times[0] > 0
    assert predict_spread(train_spread(data, predicted, 0), data.features)[0] >= 0


def test_constant_features_give_one_positive_time() -> None:
    features = np.ones((20, len(FEATURE_NAMES)))
    data = TrainingSet(features, np.full(20, 1000.0), np.array([str(row) for row in range(20)]))
    times = predict_ns(train_booster(data, 0), features)
    assert len(set(times.tolist())) == 1
    assert 900 < times[0] < 1100


def test_predictions_are_positive_far_outside_of_the_training_data() -> None:
    booster = train_booster(made(50), 0)
    for value in (-1e3, 0.0, 1e3):
        times = predict_ns(booster, np.full((2, len(FEATURE_NAMES)), value))
        assert np.isfinite(times).all()
        assert (times > 0).all()


@pytest.mark.parametrize("time", [float("nan"), 0.0, -1.0, float("inf")])
def test_a_time_that_is_none_is_refused(time: float) -> None:
    data = made(3)
    times = data.times_ns.copy()
    times[1] = time
    with pytest.raises(SphinxError, match="time of row 1"):
        TrainingSet(data.features, times, data.groups)


def test_a_feature_that_is_no_number_is_refused_by_name() -> None:
    data = made(3)
    features = data.features.copy()
    features[2, 5] = np.nan
    with pytest.raises(SphinxError, match=f"'{FEATURE_NAMES[5]}' of row 2"):
        TrainingSet(features, data.times_ns, data.groups)


def test_a_group_is_never_in_training_and_testing() -> None:
    data = made(40)
    doubled = TrainingSet(
        np.concatenate([data.features] * 2),
        np.concatenate([data.times_ns] * 2),
        np.concatenate([data.groups] * 2),
    )
    predicted = cross_validate(doubled, 0)
    # A copy of a row that was in training would be predicted almost exactly.
    assert np.allclose(predicted[:40], predicted[40:])
    assert held_out(doubled, predicted).median_error > 0.02


def test_no_rows_give_no_predictions() -> None:
    booster = train_booster(made(5), 0)
    assert predict_ns(booster, np.zeros((0, len(FEATURE_NAMES)))).shape == (0,)


def test_training_ends_near_the_times_however_far_they_are_from_the_analytic_ones() -> None:
    data = made(120)
    for factor in (1e-3, 1e4):
        far = TrainingSet(data.features, np.maximum(1.0, data.times_ns * factor), data.groups)
        times = predict_ns(train_booster(far, 0), data.features)
        assert held_out(far, times).median_error < 0.3
