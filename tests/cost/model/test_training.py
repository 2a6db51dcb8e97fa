"""Training on little, on foreign and on damaged records: a sound model, or one sentence."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax, te, tirx

from tests.networks import recurrent_net
from tvm_sphinx.cli import main
from tvm_sphinx.cost.choose.costing import cost_kernels
from tvm_sphinx.cost.measure.kernels import MeasureConfig
from tvm_sphinx.cost.model.predictor import KernelPredictor
from tvm_sphinx.cost.model.training import train_model
from tvm_sphinx.cost.records.kernel_lines import archive_path
from tvm_sphinx.cost.records.store import RecordStore
from tvm_sphinx.errors import SphinxError
from tvm_sphinx.frontend.extract import extract_task_graph
from tvm_sphinx.frontend.lower import lower_to_kernels
from tvm_sphinx.platform import Platform, unlike_cpus
from tvm_sphinx.platform.targets import device_target

DEVICE = unlike_cpus().devices[0]
QUICK = MeasureConfig(sample_ms=0.02)


RELAX_FUNCTION = relax.Function([relax.Var("x", relax.TensorType([2], "float32"))], relax.const(1.0))


def _symbolic_kernel() -> Any:
    source = te.placeholder((tirx.Var("n", "int64"),), name="source")
    return te.create_prim_func([source, te.compute(source.shape, lambda i: source[i] + 1.0)])


def _packed(content: Any) -> str:
    return base64.b85encode(zlib.compress(str(tvm.ir.save_json(content)).encode())).decode()


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """Return a record file of the probes and one drawn kernel."""
    path = tmp_path / "records.jsonl"
    assert train_model([DEVICE], RecordStore(path), samples=1, config=QUICK).num_rows == 1
    return path


def _drawn(path: Path) -> dict[str, object]:
    """Return the line of the drawn kernel, the last if it was measured a second time."""
    probes = {
        line["kernel"] for line in map(json.loads, archive_path(path).open()) if line["group"] == "probe"
    }
    return [line for line in map(json.loads, path.open()) if line["kernel"] not in probes][-1]


def test_one_record_and_times_that_are_none_make_a_sound_model(one: Path) -> None:
    before = train_model([DEVICE], RecordStore(one), samples=0, config=QUICK)
    with one.open("a") as file:
        for sample in (float("nan"), float("inf"), -1.0):
            file.write(json.dumps({**_drawn(one), "samples_ns": [sample]}) + "\n")
    with pytest.warns(UserWarning, match="3 torn or malformed"):
        store = RecordStore(one)
    model = train_model([DEVICE], store, samples=0, config=QUICK)
    assert model.training_fingerprint == before.training_fingerprint
    target = device_target(DEVICE)
    extraction = extract_task_graph(lower_to_kernels(recurrent_net(2), target, targets=[target]))
    predictor = KernelPredictor(model, store, QUICK)
    costs = cost_kernels(
        extraction, Platform((DEVICE,)), store, budget_s=0.0, predictor=predictor, config=QUICK
    ).table
    assert (costs.exec_ns > 0).all()
    assert np.isfinite(costs.spread_ns).all()


def test_a_merged_file_is_training_data_as_its_sources_are(one: Path, tmp_path: Path) -> None:
    merged = tmp_path / "merged.jsonl"
    assert main(["records", "merge", str(one), "-o", str(merged)]) == 0
    models = [
        train_model([DEVICE], RecordStore(path), samples=0, config=QUICK) for path in (one, merged)
    ]
    assert models[0].training_fingerprint == models[1].training_fingerprint


@pytest.mark.parametrize(
    "change", [{"tvm": "0.26.0"}, {"machine": "another"}, {"target": '{"kind": "cuda"}'}, {"schema": 1}]
)
@pytest.mark.filterwarnings("ignore:.*lines that are not used", "ignore:.*kernels were measured")
def test_foreign_records_are_no_training_data(one: Path, change: dict[str, object]) -> None:
    lines = [json.dumps({**json.loads(line), **change}) + "\n" for line in one.open()]
    one.write_text("".join(lines))
    with pytest.raises(SphinxError, match="none is on record for these devices"):
        train_model([DEVICE], RecordStore(one), samples=0, config=QUICK)


@pytest.mark.parametrize(
    "change",
    [
        {"packed": "?"},
        {"packed": "VPaz"},
        {"packed": _packed(relax.BlockBuilder().get())},
        {"packed": _packed(RELAX_FUNCTION), "weights": []},
        {"packed": _packed(tirx.PrimFunc([tirx.Var("x", "float32")], tirx.Evaluate(0))), "weights": []},
        {"packed": _packed(_symbolic_kernel()), "weights": []},
        {"weights": [99]},
        {"weights": [0.5]},
        {"weights": [-1]},
        {"reuse_bytes": 10**400},
    ],
)
def test_kernels_that_cannot_be_read_back_are_left_out_and_told(
    one: Path, change: dict[str, object]
) -> None:
    drawn, path = _drawn(one)["kernel"], archive_path(one)
    lines = [json.loads(line) for line in path.open()]
    changed = [{**line, **change} if line["kernel"] == drawn else line for line in lines]
    path.write_text("".join(json.dumps(line) + "\n" for line in changed))
    with (
        pytest.warns(UserWarning, match="not used|cannot be read"),
        pytest.raises(SphinxError, match="none is on record"),
    ):
        train_model([DEVICE], RecordStore(one), samples=0, config=QUICK)
