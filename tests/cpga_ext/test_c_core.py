"""The C core's own tests, built without Python, under warnings as errors and every checker."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

C_TESTS = Path(__file__).parents[1] / "c"


@pytest.mark.parametrize("checker", ["plain", "address", "thread", "valgrind"])
def test_c_core(checker: str, tmp_path: Path) -> None:
    made = subprocess.run(
        ["make", "-C", str(C_TESTS), checker, f"BUILD={tmp_path}"], capture_output=True, text=True
    )
    assert made.returncode == 0, made.stdout + made.stderr
    assert "all C tests passed" in made.stdout
