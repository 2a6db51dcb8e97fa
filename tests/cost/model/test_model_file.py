"""The model on disk: read back as it was, and refused in one sentence where it does not match."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cost.model.test_regression import made
from tvm_sphinx.cost.model.model_file import CostModel, load_cost_model, save_cost_model
from tvm_sphinx.cost.model.regression import cross_validate, held_out, train_booster, train_spread
from tvm_sphinx.errors import ArtifactError


@pytest.fixture(scope="module")
def model() -> CostModel:
    data = made(60)
    predicted = cross_validate(data, 0)
    return CostModel(
        train_booster(data, 0),
        train_spread(data, predicted, 0),
        "0.27",
        data.fingerprint,
        60,
        held_out(data, predicted),
    )


def test_a_model_is_read_back_as_it_was(model: CostModel, tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    save_cost_model(model, path)
    read = load_cost_model(path, "0.27")
    features = made(30, seed=1).features
    for first, second in zip(model.predict(features), read.predict(features), strict=True):
        assert np.array_equal(first, second)
    assert read.heldout == model.heldout
    assert read.training_fingerprint == model.training_fingerprint


def test_the_trees_are_xgboosts_own_json(model: CostModel, tmp_path: Path) -> None:
    save_cost_model(model, tmp_path / "model.json")
    assert "learner" in json.loads((tmp_path / "model.json").read_text())


def test_a_missing_model_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="tvm-sphinx train"):
        load_cost_model(tmp_path / "model.json", "0.27")


@pytest.mark.parametrize(
    ("key", "value"),
    [("schema", 99), ("kind", "gpu"), ("feature_version", 0), ("feature_names", ["a"]), ("tvm", "0.1")],
)
def test_a_model_that_does_not_match_is_refused(
    model: CostModel, tmp_path: Path, key: str, value: object
) -> None:
    path = tmp_path / "model.json"
    save_cost_model(model, path)
    meta = tmp_path / "model.meta.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), key: value}))
    with pytest.raises(ArtifactError, match=f"expected {key} = .*tvm-sphinx train"):
        load_cost_model(path, "0.27")


@pytest.mark.parametrize("name", ["model.json", "model.spread.json"])
def test_trees_of_another_model_are_refused(model: CostModel, tmp_path: Path, name: str) -> None:
    save_cost_model(model, tmp_path / "model.json")
    file = tmp_path / name
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ArtifactError, match="is not the one"):
        load_cost_model(tmp_path / "model.json", "0.27")
    file.unlink()
    with pytest.raises(ArtifactError, match="Cannot read"):
        load_cost_model(tmp_path / "model.json", "0.27")


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00"])
def test_a_meta_file_that_is_none_is_refused(model: CostModel, tmp_path: Path, text: str) -> None:
    save_cost_model(model, tmp_path / "model.json")
    (tmp_path / "model.meta.json").write_text(text)
    with pytest.raises(ArtifactError):
        load_cost_model(tmp_path / "model.json", "0.27")
