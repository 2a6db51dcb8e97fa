"""The model that a machine makes by itself, and predictions that are made once."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import pytest
import tvm

from tvm_sphinx.cost.choose.kernel_costs import Implementation, read_kernel_costs
from tvm_sphinx.cost.measure.kernel_timing import MeasureConfig
from tvm_sphinx.cost.model import automatic
from tvm_sphinx.cost.model.automatic import automatic_model, automatic_path, find_guide
from tvm_sphinx.cost.model.generate import draw_kernels
from tvm_sphinx.cost.model.guide import Guide, Source
from tvm_sphinx.cost.model.model_file import SHIPPED, load_cost_model, save_cost_model
from tvm_sphinx.cost.model.training import train_model
from tvm_sphinx.cost.records.kernel_archive import KernelArchive
from tvm_sphinx.cost.records.predictions import KeptPredictions, PredictedLine, predictions_path
from tvm_sphinx.cost.records.store import RecordStore
from tvm_sphinx.errors import ArtifactError
from tvm_sphinx.platform import Device, unlike_cpus
from tvm_sphinx.platform.targets import device_target
from tvm_sphinx.program.options import CompileOptions

DEVICES = unlike_cpus().devices
QUICK = MeasureConfig(sample_ms=0.02, under_load=False)
VERSION = str(tvm.__version__)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of records of 12 drawn kernels, half of them on each device."""
    path = tmp_path_factory.mktemp("measured") / "records.jsonl"
    train_model(DEVICES, RecordStore(path), samples=12, config=QUICK)
    return path.parent


@pytest.fixture
def records(measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a record file of enough times for a model, as few as these are."""
    for file in measured.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(automatic, "FEWEST_TIMES", 12)
    monkeypatch.setattr(automatic, "FEWEST_OF_CLASS", 6)
    monkeypatch.setenv("TVM_SPHINX_HOME", str(tmp_path / "home"))
    return tmp_path / "records.jsonl"


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the sizes of the training sets that models are made of."""
    sizes, fit = [], automatic.fit_model

    def note(data: object, *rest: int) -> object:
        sizes.append(len(data.times_ns))  # type: ignore[attr-defined]
        return fit(data, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(automatic, "fit_model", note)
    return sizes


def drawn(count: int = 3) -> list[Implementation]:
    """Return kernels, on both devices, that no record is of."""
    kernels = list(draw_kernels(count, 77, [device_target(device) for device in DEVICES]))
    costs = read_kernel_costs(kernels, DEVICES, RecordStore(None))
    return [cost.rule for cost in costs.values()]


def test_too_little_on_record_makes_no_model(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, least in (("FEWEST_TIMES", 13), ("FEWEST_OF_CLASS", 7)):
        with monkeypatch.context() as patch:
            patch.setattr(automatic, name, least)
            assert automatic_model(DEVICES, RecordStore(records), QUICK) is None
    assert automatic_model(DEVICES, RecordStore(records), QUICK) is not None


def test_a_model_is_made_once_of_the_same_records(records: Path, fits: list[int]) -> None:
    made = automatic_model(DEVICES, RecordStore(records), QUICK)
    again = automatic_model(DEVICES, RecordStore(records), QUICK)
    assert made is not None
    assert again is not None
    assert fits == [12]
    assert again.training_fingerprint == made.training_fingerprint
    automatic_path(records, DEVICES).unlink()
    anew = automatic_model(DEVICES, RecordStore(records), QUICK)
    assert anew is not None
    assert anew.booster.save_raw("json") == made.booster.save_raw("json")


def test_a_model_of_far_fewer_times_is_made_anew(
    records: Path, fits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(automatic, "_MOST_TIMES", 8)
        automatic_model(DEVICES, RecordStore(records), QUICK)
    automatic_model(DEVICES, RecordStore(records), QUICK)
    assert fits == [8, 12]


@pytest.mark.parametrize("file", ["", ".spread", ".meta"])
@pytest.mark.parametrize("content", [b"", b"{}", None])
def test_a_damaged_model_is_made_anew(
    records: Path, fits: list[int], file: str, content: bytes | None
) -> None:
    made = automatic_model(DEVICES, RecordStore(records), QUICK)
    path = automatic_path(records, DEVICES)
    damaged = path.with_name(f"{path.stem}{file}.json")
    damaged.write_bytes(damaged.read_bytes()[:-40] if content is None else content)
    again = automatic_model(DEVICES, RecordStore(records), QUICK)
    assert made is not None
    assert again is not None
    assert fits == [12, 12]
    assert again.training_fingerprint == made.training_fingerprint
    assert load_cost_model(path, VERSION).num_rows == 12


def test_there_is_no_model_of_no_cpu(records: Path) -> None:
    gpu = Device("gpu", '{"kind": "cuda", "arch": "sm_90"}', "cuda:0")
    assert automatic_model([gpu], RecordStore(records), QUICK) is None


def test_a_budget_is_predicted_by_what_is_on_record(
    records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = unlike_cpus()
    asked = CompileOptions(measure_budget_s=0.0, measure=QUICK)
    predictor = asked.predictor(platform, RecordStore(records))
    assert predictor is not None
    assert predictor.label == "a model of what is on record, learned from 12 times"
    assert predictor.model.num_rows == 12
    monkeypatch.setattr(automatic, "FEWEST_TIMES", 13)
    again = asked.predictor(platform, RecordStore(records))
    assert again is not None
    assert again.label.startswith("the model that is shipped")


def test_devices_have_models_of_their_own(records: Path) -> None:
    both, one = automatic_path(records, DEVICES), automatic_path(records, DEVICES[:1])
    assert both != one
    assert both == automatic_path(records, tuple(reversed(DEVICES)))


class Constant:
    """Predicts one time for all, and notes how many it was asked for."""

    label = "a constant"

    def __init__(self, time_ns: int) -> None:
        self.time_ns, self.asked = time_ns, 0

    def can_predict(self, device: Device) -> bool:
        return device.is_cpu

    def predict(self, implementations: Sequence[Implementation]) -> list[tuple[int, int]]:
        self.asked += len(implementations)
        return [(self.time_ns, 1)] * len(implementations)


def test_a_kernel_is_predicted_once(tmp_path: Path) -> None:
    records, kernels = RecordStore(tmp_path / "records.jsonl"), drawn()
    first, second = Constant(5000), Constant(9000)
    guide = Guide(records, lambda: Source("a", "the first", first))
    assert guide.predict(kernels[:4]) == [(5000, 1)] * 4
    later = Guide(records, lambda: Source("b", "the second", second))
    assert later.predict(kernels) == [(5000, 1)] * 4 + [(9000, 1)] * 2
    assert (first.asked, second.asked) == (4, 2)
    assert later.label == "the first, the second"
    assert Guide(records, lambda: pytest.fail("asked")).predict(kernels) == later.predict(kernels)


def test_a_model_that_was_named_has_its_own_predictions(tmp_path: Path) -> None:
    records, kernels = RecordStore(tmp_path / "records.jsonl"), drawn()
    Guide(records, lambda: Source("a", "the first", Constant(5000))).predict(kernels)
    named = Guide(records, lambda: Source("b", "the named", Constant(9000)), only="b")
    assert named.predict(kernels) == [(9000, 1)] * 6
    assert named.label == "the named"


def test_torn_and_foreign_lines_predict_nothing(tmp_path: Path) -> None:
    path = predictions_path(tmp_path / "records.jsonl")
    kept = KeptPredictions(tmp_path / "records.jsonl")
    kept.add(PredictedLine("here", "0.27", "a", "the first", {"kernel": (5000, 1)}))
    good = path.read_bytes()
    content = json.loads(good)
    changes: list[dict[str, object]] = [{"schema": 9}, {"method": 0}, {"times": [1]}, {"class": 1}]
    changes += [{"times": {"kernel": value}} for value in (7, [1], [0, 1], [1.5, 1], [-1, 1], ["a", 1])]
    for change in changes:
        path.write_text(json.dumps({**content, **change}) + "\n")
        assert KeptPredictions(tmp_path / "records.jsonl").get("kernel", "here", "0.27", None) is None
    path.write_bytes(good[:-9] + b"\n" + good)
    assert KeptPredictions(tmp_path / "records.jsonl").get("kernel", "here", "0.27", None) == (5000, 1)


def _write(path: Path, name: str) -> None:
    kept = KeptPredictions(path)
    for number in range(100):
        kept.add(PredictedLine("here", "0.27", name, name, {f"{name}{number}": (number + 1, 1)}))


def test_two_writers_lose_no_prediction(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(path, name)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    kept = KeptPredictions(path)
    for name in "ab":
        for number in range(100):
            assert kept.get(f"{name}{number}", "here", "0.27", None) == (number + 1, 1)


def test_the_model_is_a_named_one_or_of_train_or_made_here_or_shipped(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def label(model: str | Path = "default") -> str:
        store = RecordStore(records)
        predictions_path(records).unlink(missing_ok=True)
        guide = find_guide(model, DEVICES, store, QUICK)
        assert all(time_ns > 0 for time_ns, _ in guide.predict(drawn(1)))
        return guide.label

    assert label() == "a model of what is on record, learned from 12 times"
    monkeypatch.setattr(automatic, "FEWEST_TIMES", 13)
    shipped = load_cost_model(SHIPPED, VERSION).num_rows
    assert label() == f"the model that is shipped, learned from {shipped} times"
    made = train_model(DEVICES, RecordStore(records), samples=0, config=QUICK)
    named = tmp_path / "named.json"
    save_cost_model(made, named)
    assert label(named) == f"the model {str(named)!r}, learned from 12 times"
    save_cost_model(made, tmp_path / "home" / "cpu-model.json")
    assert label() == "the model of 'tvm-sphinx train', learned from 12 times"
    (tmp_path / "home" / "cpu-model.spread.json").unlink()
    with pytest.raises(ArtifactError, match="Cannot read the cost model"):
        label()


def test_probes_are_no_kernels_to_learn_from(records: Path) -> None:
    archive = KernelArchive.beside(RecordStore(records))
    counts = automatic._num_times(DEVICES, RecordStore(records), archive)
    assert counts == [6, 6]
    assert len(archive) > 12
