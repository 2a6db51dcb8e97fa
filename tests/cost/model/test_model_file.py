"""The model on disk: read back as it was, and refused in one sentence where it does not match."""

from __future__ import annotations

import hashlib
import itertools
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tvm
from hypothesis import given
from hypothesis import strategies as st

import tvm_sphinx
from tests.cost.model.test_regression import made
from tests.relax_modules import cpu_platform, random_module
from tests.scale import SCALE
from tvm_sphinx.cost.choose.costing import decide_kernels
from tvm_sphinx.cost.measure.kernel_timing import kernel_of
from tvm_sphinx.cost.model.model_file import (
    SHIPPED,
    CostModel,
    default_model_path,
    find_cost_model,
    load_cost_model,
    meta_digest,
    save_cost_model,
)
from tvm_sphinx.cost.model.predictor import KernelPredictor
from tvm_sphinx.cost.model.regression import cross_validate, held_out, train_booster, train_spread
from tvm_sphinx.cost.records.store import RecordStore
from tvm_sphinx.errors import ArtifactError
from tvm_sphinx.kernels import compute
from tvm_sphinx.platform import Device
from tvm_sphinx.platform.machine import usable_cores
from tvm_sphinx.platform.targets import host_target


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


def _rewrite_meta(meta: Path, change: dict[str, object]) -> None:
    content = {**json.loads(meta.read_text()), **change}
    meta.write_text(json.dumps({**content, "meta_sha256": meta_digest(content)}))


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
    [
        ("schema", 1),
        ("schema", 99),
        ("kind", "gpu"),
        ("feature_version", 0),
        ("feature_names", ["a"]),
        ("tvm", "0.1"),
    ],
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


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("heldout", {"median_error": 0.0, "within_quarter": 1.0}),
        ("xgboost", "0.1"),
        ("training_fingerprint", "0" * 32),
        ("num_rows", 10**6),
        ("remark", "of another hand"),
        ("meta_sha256", "0" * 64),
        ("meta_sha256", None),
    ],
)
def test_an_altered_meta_file_is_refused(
    model: CostModel, tmp_path: Path, key: str, value: object
) -> None:
    save_cost_model(model, tmp_path / "model.json")
    meta = tmp_path / "model.meta.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), key: value}))
    with pytest.raises(ArtifactError, match=r"was altered.*tvm-sphinx train"):
        load_cost_model(tmp_path / "model.json", "0.27")


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


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "\x00", "[" * 100_000, '{"schema": ' + "9" * 5000 + "}"]
)
def test_a_meta_file_that_is_none_is_refused(model: CostModel, tmp_path: Path, text: str) -> None:
    save_cost_model(model, tmp_path / "model.json")
    (tmp_path / "model.meta.json").write_text(text)
    with pytest.raises(ArtifactError):
        load_cost_model(tmp_path / "model.json", "0.27")


@pytest.mark.parametrize("name", ["model.json", "model.spread.json", "model.meta.json"])
def test_a_file_cut_anywhere_is_refused(model: CostModel, tmp_path: Path, name: str) -> None:
    save_cost_model(model, tmp_path / "model.json")
    file = tmp_path / name
    content = file.read_bytes()
    whole = len(content.rstrip())
    step = max(1, whole // (50 * SCALE))
    for length in range(0, whole, step):
        file.write_bytes(content[:length])
        with pytest.raises(ArtifactError):
            load_cost_model(tmp_path / "model.json", "0.27")


@given(st.data())
def test_an_altered_file_is_refused_or_says_the_same(model: CostModel, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        save_cost_model(model, path)
        name = data.draw(st.sampled_from(["model.json", "model.spread.json", "model.meta.json"]))
        file = path.with_name(name)
        content = bytearray(file.read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        file.write_bytes(content)
        features = made(5, seed=1).features
        try:
            read = load_cost_model(path, "0.27")
        except ArtifactError:
            return
        assert (read.heldout, read.num_rows) == (model.heldout, model.num_rows)
        assert read.training_fingerprint == model.training_fingerprint
        for first, second in zip(model.predict(features), read.predict(features), strict=True):
            assert np.array_equal(first, second)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_rows", 1e999),
        ("num_rows", "many"),
        ("heldout", {"median_error": float("nan"), "within_quarter": 0.5}),
        ("heldout", {"median_error": 0.1}),
        ("heldout", 3),
        ("training_fingerprint", None),
    ],
)
def test_a_meta_file_with_values_that_are_none_is_refused(
    model: CostModel, tmp_path: Path, key: str, value: object
) -> None:
    save_cost_model(model, tmp_path / "model.json")
    _rewrite_meta(tmp_path / "model.meta.json", {key: value})
    with pytest.raises(ArtifactError, match="Not a cost model's meta file"):
        load_cost_model(tmp_path / "model.json", "0.27")


def test_trees_that_this_xgboost_cannot_read_are_refused(model: CostModel, tmp_path: Path) -> None:
    """As those of a later version may be: the meta file matches them."""
    save_cost_model(model, tmp_path / "model.json")
    trees, meta = tmp_path / "model.json", tmp_path / "model.meta.json"
    trees.write_text('{"learner": {}}')
    digest = hashlib.sha256(trees.read_bytes()).hexdigest()
    _rewrite_meta(meta, {"trees_sha256": digest})
    with pytest.raises(ArtifactError, match="tvm-sphinx train"):
        load_cost_model(trees, "0.27")


def test_the_model_of_this_machine_goes_before_the_one_that_is_shipped(
    model: CostModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TVM_SPHINX_HOME", str(tmp_path))
    assert find_cost_model() == SHIPPED
    save_cost_model(model, default_model_path())
    assert find_cost_model() == default_model_path()
    default_model_path().unlink()  # what is left of one is no reason to use another without a word
    with pytest.raises(ArtifactError, match="Cannot read the cost model"):
        load_cost_model(find_cost_model(), "0.27")


def test_the_shipped_model_is_for_the_installed_tvm_and_predicts_kernels_it_has_not_seen() -> None:
    """Times follow work, whatever the processor; an untrained device needs its probes alone."""
    shipped = load_cost_model(SHIPPED, str(tvm.__version__))
    assert shipped.heldout.within_quarter > 0.7
    sizes = (32, 64, 128, 256, 512)
    device = Device("one", host_target(), "cpu:0", usable_cores()[:1])
    products = [compute.matmul((size,), size, size, "float32", "float32") for size in sizes]
    kernels = [kernel_of(f, f"product{size}") for f, size in zip(products, sizes, strict=True)]
    predictor = KernelPredictor(shipped, RecordStore(None))
    costs = decide_kernels(kernels, (device,), RecordStore(None), predictor=predictor, unseen=False)
    times = [cost.rule.time_ns for cost in costs.values()]
    assert not any(cost.rule.is_measured for cost in costs.values())
    assert all(after > before for before, after in itertools.pairwise(times))


def test_a_budget_of_nothing_needs_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TVM_SPHINX_HOME", str(tmp_path))
    compiled = tvm_sphinx.compile(random_module(3), cpu_platform(2), measure_budget_s=0)
    assert compiled.report is not None
    assert compiled.report.measured_share == 0
