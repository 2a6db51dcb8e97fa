"""Type information: it ships, and that of the C extension is what the extension has."""

from __future__ import annotations

import subprocess
import sys
from importlib import resources

import pytest


def test_the_package_is_marked_as_typed() -> None:
    assert resources.files("tvm_sphinx").joinpath("py.typed").is_file()


def test_the_stub_of_the_extension_is_true() -> None:
    pytest.importorskip("mypy", reason="of the dev extra")
    found = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "tvm_sphinx.cpga_ext._cpga"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout
