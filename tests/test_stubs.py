"""Type information: it ships, and that of the C extension is what the extension has."""

from __future__ import annotations

import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent


def test_the_package_is_marked_as_typed() -> None:
    assert resources.files("tvm_sphinx").joinpath("py.typed").is_file()


def test_the_stub_of_the_extension_is_true() -> None:
    pytest.importorskip("mypy", reason="of the dev extra")
    options = ("--mypy-config-file", str(_ROOT / "pyproject.toml"))
    found = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", *options, "tvm_sphinx.cpga_ext._cpga"],
        capture_output=True,
        text=True,
        check=False,
        cwd=_ROOT,
    )
    assert found.returncode == 0, found.stdout
