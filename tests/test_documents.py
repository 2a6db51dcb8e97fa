"""The documents: every link leads somewhere; they build without a warning where Sphinx is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

_ROOT = Path(__file__).parent.parent
_PAGES = [_ROOT / "README.md", _ROOT / "CONTRIBUTING.md", *sorted((_ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.S)
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        made_by_the_gallery = page.parent.name == "docs" and link == "tutorials/index"
        assert made_by_the_gallery or (page.parent / link).exists(), link


def test_the_readme_is_short() -> None:
    text = (_ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) < 120
    assert not re.search(r"^[A-Z]{5,}$", text, re.M)  # a place that something is to be put into


def test_the_detector_of_the_tasks_runs_and_prints_what_is_printed_there(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    text = (_ROOT / "docs" / "tasks.md").read_text("utf-8")
    found = re.search(
        r"<!-- what a test runs -->\n```python\n(.*?)```\n\n```text\n(.*?)```\n<!-- end -->", text, re.S
    )
    assert found is not None
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(found[1], "docs/tasks.md", "exec"), names)
    assert capsys.readouterr().out == found[2]
    session = onnxruntime.InferenceSession(names["detector"].SerializeToString())
    boxes, chosen = session.run(None, {"image": names["image"]})
    np.testing.assert_array_equal(names["chosen"], chosen)
    np.testing.assert_allclose(names["boxes"], boxes, rtol=1e-5, atol=1e-5)


def test_every_page_is_in_the_contents() -> None:
    index = (_ROOT / "docs" / "index.md").read_text("utf-8")
    listed = {line.strip() for line in index.splitlines()}
    assert {page.stem for page in (_ROOT / "docs").glob("*.md")} - {"index"} <= listed


def test_they_build_without_a_warning() -> None:
    for package in ("sphinx", "myst_parser", "numpydoc", "sphinx_gallery", "furo"):
        pytest.importorskip(package, reason="of the docs extra")
    found = subprocess.run(
        [_ROOT / "scripts" / "docs.sh"],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr[-3000:]
