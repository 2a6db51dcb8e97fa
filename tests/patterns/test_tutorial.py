"""The tutorial on patterns runs, and its own assertions hold."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).resolve().parents[2] / "tutorials" / "03_patterns.py"


def test_the_tutorial_shows_patterns_and_two_searches(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(TUTORIAL), run_name="__main__")
    printed = capsys.readouterr().out
    assert "P1 x 12: 20 tasks" in printed
    assert "genes: 247 -> " in printed
    assert printed.count("above the optimum") == 2
