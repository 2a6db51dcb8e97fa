"""Tests marked gpu: what they find reaches the report, and one that dies costs itself alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.gpu import fake
from tests.processes import module_command

_ROOT = Path(__file__).parents[2]
_TESTS = """
import ctypes, os
import pytest
from tests.gpu.driver_api import Cuda

pytestmark = pytest.mark.gpu

def test_right():
    assert Cuda().count() == 2

def test_wrong():
    assert Cuda().count() == 3

def test_dies():
    os.abort()

def test_fault(fake_gpu):
    cuda = Cuda(fake_gpu)
    cuda.call("MemcpyDtoDAsync_v2", cuda.memory(1), cuda.memory(1), 8, cuda.stream())
    cuda.status("CtxSynchronize")

def test_right_again():
    assert Cuda().count() == 2
"""


@pytest.mark.skipif(fake.why_unavailable() is not None, reason="needs the fake GPU")
def test_each_outcome_is_reported(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text((_ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "test_these.py").write_text(_TESTS)
    done = subprocess.run(
        module_command("pytest", "-v", "--import-mode=append", "--rootdir", tmp_path, tmp_path),
        cwd=_ROOT,
        capture_output=True,
        text=True,
    )
    outcomes = {
        line.split("::")[1].split()[0]: line.split()[1]
        for line in done.stdout.splitlines()
        if "test_these.py::" in line and line.split()[1] in ("PASSED", "FAILED", "ERROR")
    }
    assert outcomes == {
        "test_right": "PASSED",
        "test_wrong": "FAILED",
        "test_dies": "FAILED",
        "test_fault": "ERROR",
        "test_right_again": "PASSED",
    }, done.stdout
    assert "ended with -6 in this test" in done.stdout
    assert "which is not allocated" in done.stdout


_BACKWARDS = """
import pytest

@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session):
    for item in reversed(session.items):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
    return True
"""


@pytest.mark.skipif(fake.why_unavailable() is not None, reason="needs the fake GPU")
def test_an_item_before_those_that_ran_is_run(tmp_path: Path) -> None:
    """As in a worker of xdist that has taken it from another."""
    (tmp_path / "conftest.py").write_text((_ROOT / "tests" / "conftest.py").read_text() + _BACKWARDS)
    (tmp_path / "test_these.py").write_text(
        _TESTS.split("def test_wrong")[0] + "\ntest_again = test_right\n"
    )
    done = subprocess.run(
        module_command("pytest", "--import-mode=append", "--rootdir", tmp_path, tmp_path),
        cwd=_ROOT,
        capture_output=True,
        text=True,
    )
    assert "2 passed" in done.stdout, done.stdout
