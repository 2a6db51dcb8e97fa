"""``tvm-sphinx bench kernels``: a table of kernels beside the peak, and one message for bad input."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest
import tvm

from tests.networks import recurrent_net
from tvm_sphinx.cli import main
from tvm_sphinx.platform.machine import usable_cores


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("bench") / "model.json"
    path.write_text(tvm.ir.save_json(recurrent_net(steps=2)))
    return str(path)


def test_kernels_are_printed_worst_first_and_measured_once(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = tmp_path / "records.jsonl"
    command = ["bench", "kernels", model, "--cores", "1", "--records", str(records)]
    assert main(command) == 0
    printed = capsys.readouterr()
    for words in ("GFLOP/s", "GB/s", "of peak", "peak   ", "distinct", "without a rule"):
        assert words in printed.out
    assert "measure on core" in printed.err
    recorded = records.read_text()
    assert main([*command, "--json"]) == 0
    assert records.read_text() == recorded, "measured again"
    (device,) = json.loads(capsys.readouterr().out)["devices"]
    rows = device["kernels"]
    assert device["peak"]["gflops"] > 0
    assert device["peak"]["gbytes_per_s"] > 0
    assert [row["lost_ns"] for row in rows] == sorted((row["lost_ns"] for row in rows), reverse=True)
    assert all(row["total_ns"] == row["calls"] * row["time_ns"] for row in rows)
    assert all(0 <= row["peak_share"] <= 1 for row in rows)
    assert {row["rule"] for row in rows} <= {"PackedKernel", "Reduction", "Injective", ""}


def test_every_kind_of_device_has_a_table(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = ["--records", str(tmp_path / "records.jsonl")]
    targets = ["--target", "host", "--target", "baseline"]
    assert main(["bench", "kernels", model, *targets, *records, "-q", "--limit", "2"]) == 0
    printed = capsys.readouterr().out
    assert f"{model} on device0" in printed
    assert f"{model} on device1" in printed


OTHER = "x86_64" if platform.machine() == "aarch64" else "aarch64"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cores", "0"], f"--cores from 1 to {len(usable_cores())}; got 0"),
        (["--cores", "999"], f"--cores from 1 to {len(usable_cores())}; got 999"),
        (["--platform", "nowhere.toml"], "Cannot read platform file 'nowhere.toml'"),
        (["--target", f"llvm -mtriple={OTHER}-linux-gnu"], f"'device0' is {OTHER}; this machine"),
        (["--entry", "missing"], "missing"),
    ],
)
def test_bad_input_is_one_message(
    model: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "kernels", model, *arguments]) == 4
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
