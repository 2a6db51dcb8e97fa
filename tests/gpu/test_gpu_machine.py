"""The run on a machine with a GPU, end to end, on the fake one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.gpu import fake
from tests.scale import SCALE

_ROOT = Path(__file__).parents[2]
_LIBRARIES = ("cublaslt", "cublaslt-tf32")
_SCRIPT = _ROOT / "scripts" / "gpu_machine.sh"
# A part of each step; a long run takes all checks, and compiles and times a small network.
_QUICK = {
    "CHECKS": "runtime devices without_xgboost",
    "TESTS": "tests/gpu/test_tvm.py::test_copy_to_the_gpu_and_back",
    "MODELS": "",
    "LATENCY_MODELS": "",
}
_LONG = {"TESTS": "tests/gpu/test_tvm.py", "MODELS": "small", "LATENCY_MODELS": "inception_v1"}


@pytest.mark.skipif(fake.why_unavailable() is not None, reason="needs the fake GPU")
def test_every_step_leaves_its_result(tmp_path: Path) -> None:
    out, work = tmp_path / "out", tmp_path / "work"
    settings = {"FAKE": "1", "OUT": str(out), "WORK": str(work), "KIT": str(tmp_path / "none")}
    _run("run", "1200" if (SCALE > 1) else "400", {**settings, **(_LONG if SCALE > 1 else _QUICK)})
    log = (out / "log.txt").read_text()
    assert json.loads((out / "probe.json").read_text())["device"] == "Fake GPU", log
    checks = [json.loads(line) for line in (out / "check.jsonl").read_text().splitlines()]
    assert len(checks) >= 3
    assert all(row["ok"] for row in checks), checks
    assert "passed" in (out / "pytest.txt").read_text(), log
    rows = [json.loads(line) for line in (out / "bench.jsonl").read_text().splitlines()]
    assert any(row.get("median_us", 0) > 0 for row in rows) == (SCALE > 1), log
    with tarfile.open(out / "more.tar.gz") as archive:
        assert any(name.startswith("logs/") for name in archive.getnames())
    # What comes back from such a machine: few files, none in a folder.
    assert len(list(out.iterdir())) <= 8
    assert all(path.is_file() for path in out.iterdir())


@pytest.mark.skipif(fake.why_unavailable() is not None, reason="needs the fake GPU")
def test_products_are_measured_beside_the_library(tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = {"FAKE": "1", "OUT": str(out), "WORK": str(tmp_path), "KIT": str(tmp_path / "none")}
    tests = "tests/gpu/test_libraries.py::test_a_sound_library_passes"
    _run("libraries", "400", {**settings, "MODELS": "small", "TESTS": tests})
    log = (out / "log.txt").read_text()
    assert "1 passed" in (out / "pytest.txt").read_text(), log
    *products, whole = map(json.loads, (out / "libraries.jsonl").read_text().splitlines())
    assert len(products) >= 5, log
    for row in products:
        assert all(row[name]["fault"] == "" and row[name]["ratio"] > 0 for name in _LIBRARIES), row
    assert all(whole[name]["relative_difference"] < 1e-2 for name in _LIBRARIES), whole


def _run(what: str, seconds: str, settings: dict[str, str]) -> None:
    # The script takes the python3 of the search path, and the tree that it lies in.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONSAFEPATH": "", **settings}
    subprocess.run(
        ["bash", str(_SCRIPT), what, seconds], env=environment, check=True, capture_output=True
    )
