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
    # The script takes the python3 of the search path, and the tree that it lies in.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONSAFEPATH": ""}
    subprocess.run(
        ["bash", str(_ROOT / "scripts" / "gpu_machine.sh"), "run", "1200" if (SCALE > 1) else "400"],
        env={**environment, **settings, **(_LONG if SCALE > 1 else _QUICK)},
        check=True,
        capture_output=True,
    )
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
