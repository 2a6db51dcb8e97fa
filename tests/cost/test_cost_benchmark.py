"""The cost model's benchmark: what a table leaves out is out of its training; it runs to its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.networks import recurrent_net
from tvm_sphinx.cost.measure.kernels import MeasureConfig
from tvm_sphinx.cost.model import regression
from tvm_sphinx.cost.model.features import FEATURE_NAMES, feature_rows
from tvm_sphinx.cost.model.profile import DeviceProfile
from tvm_sphinx.cost.model.terms import TERM_NAMES, CoreShape
from tvm_sphinx.cost.records.store import RecordStore
from tvm_sphinx.errors import SphinxError
from tvm_sphinx.frontend.extract import extract_task_graph
from tvm_sphinx.frontend.lower import lower_to_kernels
from tvm_sphinx.platform import Platform
from tvm_sphinx.platform.targets import device_target

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CACHES = (32 << 10, 1 << 20, 32 << 20)
PROFILES = {
    "wide": DeviceProfile(CoreShape(64, 1, CACHES), 32, 100.0, 80.0, 10.0, 8.0, 300.0, 1.0),
    "narrow": DeviceProfile(CoreShape(16, 1, CACHES), 16, 25.0, 60.0, 10.0, 8.0, 300.0, 1.0),
    "team": DeviceProfile(CoreShape(64, 2, CACHES), 32, 200.0, 160.0, 15.0, 12.0, 300.0, 900.0),
}


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    # Few trees that learn fast: some eighty models are made here.
    monkeypatch.setattr(regression, "_TREES", 40)
    monkeypatch.setattr(regression, "PARAMETERS", {**regression.PARAMETERS, "eta": 0.2})


def _rows(slower: dict[str, float], kernels: int = 60) -> list[Any]:
    """Return rows of kernels on three devices, each of which takes a factor of its analytic time."""
    from cost_rows import Row

    rng = np.random.default_rng(0)
    counts = rng.uniform(0, 1e5, (kernels, 1 + len(TERM_NAMES)))
    own = np.exp(rng.normal(0, 0.2, kernels))
    rows = []
    for device, profile in PROFILES.items():
        features = feature_rows(counts, np.array([profile.numbers] * kernels))
        times = analytic(features) * own * slower.get(device, 1.0)
        rows += [
            Row("model", f"kernel{n}", device, counts[n].tolist(), float(times[n]), 0.0)
            for n in range(kernels)
        ]
    return rows


def analytic(features: Any) -> Any:
    return np.exp(features[:, FEATURE_NAMES.index("analytic_ns")])


@pytest.mark.usefixtures("benchmarks")
def test_times_of_the_device_that_is_left_out_change_no_prediction() -> None:
    from cost_devices import leave_one_device_out

    plain = leave_one_device_out(_rows({}), PROFILES, 0)
    slower = leave_one_device_out(_rows({"narrow": 4.0}), PROFILES, 0)
    assert set(plain) == set(PROFILES)
    for case in ("device", "both", "roofline", "linear"):
        # The sum of predictions over the sum of measurements: only the latter has changed.
        assert slower["narrow"][case]["total"] == pytest.approx(plain["narrow"][case]["total"] / 4)
    assert slower["narrow"]["kernel"]["total"] > 2 * slower["narrow"]["device"]["total"]
    # What a kernel takes beyond its analytic time is the same on all devices here.
    for entry in plain.values():
        assert entry["device"]["error"] < 0.8 * entry["both"]["error"]
        assert (entry["rows"], entry["trained_on"]) == (60, 120)


@pytest.mark.usefixtures("benchmarks")
def test_a_kernel_of_several_networks_counts_once_and_is_in_one_fold() -> None:
    from cost_devices import _folds, leave_one_device_out
    from cost_rows import training_set

    rows = _rows({})
    fold = _folds(training_set(rows, PROFILES).groups, 0)
    assert len(set(fold.tolist())) == 5
    assert all(len({fold[n], fold[n + 60], fold[n + 120]}) == 1 for n in range(60))
    few = _rows({}, kernels=12)
    once, twice = (leave_one_device_out(some, PROFILES, 0) for some in (few, few * 2))
    for name, entry in once.items():
        for key in ("rows", "trained_on", "device", "both"):
            assert twice[name][key] == entry[key]


@pytest.mark.usefixtures("benchmarks")
@pytest.mark.parametrize(
    ("rows", "rule"), [(slice(0, 60), "2 devices"), (slice(0, 180, 60), "2 measured")]
)
def test_too_little_to_leave_anything_out_is_told(rows: slice, rule: str) -> None:
    from cost_devices import leave_one_device_out

    with pytest.raises(SphinxError, match=rule):
        leave_one_device_out(_rows({})[rows], PROFILES, 0)


@pytest.mark.usefixtures("benchmarks")
def test_no_records_at_all_are_told() -> None:
    from cost_rows import read_rows

    with pytest.raises(SphinxError, match="none is on record"):
        read_rows({}, [], {}, PROFILES, RecordStore(None), measure=False)


@pytest.mark.usefixtures("benchmarks")
def test_the_benchmark_runs_on_a_small_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import cost_model
    import cost_rows
    from kernel_sets import KernelSet

    def load(_names: object, platform: Platform, _cache: Path) -> dict[str, KernelSet]:
        targets = [device_target(device) for device in platform.devices]
        found = extract_task_graph(lower_to_kernels(recurrent_net(2), targets[0], targets=targets))
        return {"bilstm": KernelSet(found.graph, found.kernels)}

    quick = MeasureConfig(sample_ms=0.02)
    for module in (cost_model, cost_rows):
        monkeypatch.setattr(module, "MeasureConfig", lambda: quick)
    monkeypatch.setattr(cost_model, "_load_sets", load)
    arguments = ["--records", str(tmp_path / "records.jsonl"), "--samples", "6"]
    cost_model.main([*arguments, "--json", str(tmp_path / "out.json")])
    printed = capsys.readouterr().out
    assert "device left out" in printed
    assert "prediction of 500 kernels x 4 devices" in printed
    found = json.loads((tmp_path / "out.json").read_text())
    rows = sum(entry["rows"] for entry in found["devices"].values())
    assert rows >= found["models"]["bilstm"]["rows"] + 6  # the drawn ones too
    assert found["speed"]["models"]["bilstm"]["seconds"] > 0
    assert [entry["model"] for entry in found["regrets"]] == ["bilstm", "bilstm"]
    lines = (tmp_path / "records.jsonl").read_text().count("\n")
    cost_model.main([*arguments, "--no-measure", "--no-schedules"])
    assert (tmp_path / "records.jsonl").read_text().count("\n") == lines
