"""Every tutorial runs in an empty folder, with the installed package, and ends with a picture."""

from __future__ import annotations

import re
import runpy
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

TUTORIALS = sorted((Path(__file__).parent.parent / "tutorials").glob("[0-9]*.py"))
_NEEDS = {"02_torch": "torch", "07_tune_and_share": "tornado"}


def test_there_are_nine() -> None:
    assert [path.name[:2] for path in TUTORIALS] == [f"0{number}" for number in range(1, 10)]


@pytest.mark.filterwarnings("ignore:The machine was busy")
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs_and_draws(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if path.stem in _NEEDS:
        pytest.importorskip(_NEEDS[path.stem])
    monkeypatch.setenv("TVM_SPHINX_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path), run_name="__main__")
    drawn = ElementTree.parse(tmp_path / f"{path.stem}.svg").getroot()
    assert len(list(drawn.iter())) > 5
    assert not (tmp_path / "home" / "records.jsonl").exists()  # it leaves the user's own records alone


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_needs_no_file_of_this_tree(path: Path) -> None:
    text = path.read_text("utf-8")
    assert not re.search(r"__file__|^\s*(?:from|import) (?:tests|benchmarks)\b", text, re.M)
    assert re.match(r'"""\n.+\n=+\n\n', text)
