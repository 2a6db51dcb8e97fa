"""The C core's own tests, by two compilers, under warnings as errors and every checker."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

C_TESTS = Path(__file__).parents[1] / "c"


@pytest.mark.parametrize(
    ("compiler", "checker"),
    [*(("gcc", checker) for checker in ("plain", "address", "thread", "valgrind")), ("clang", "plain")],
)
def test_c_core(compiler: str, checker: str, tmp_path: Path) -> None:
    """One compiler's sanitizers suffice here; `make -C tests/c CC=clang` runs the other's, too."""
    for tool in (compiler, *(["valgrind"] if checker == "valgrind" else [])):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    made = subprocess.run(
        ["make", "-C", str(C_TESTS), checker, f"BUILD={tmp_path}", f"CC={compiler}"],
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    assert "all C tests passed" in made.stdout
