"""The command that tries public models: which are meant, what a killed run leaves, how it is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.public_models import add_result, chosen, differences, read_results
from benchmarks.public_table import table

NAMES = ["torchvision/resnet18", "torchvision/resnet18-float16", "timm/levit_128s"]


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ([], NAMES),
        (["torchvision/resnet18"], NAMES[:1]),
        (["resnet18"], NAMES[:2]),
        (["float16", "timm/levit_128s"], NAMES[1:]),
        (["vgg"], []),
    ],
)
def test_a_full_name_means_that_model_alone(asked: list[str], meant: list[str]) -> None:
    assert chosen(NAMES, asked) == meant


def entry(model: str, outcome: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "outcome": outcome, "stages_s": {"load": 0.25}, **more}


def test_a_run_that_was_killed_leaves_what_was_known(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    first, second = entry("a/x", "verified"), entry("b/y", "too long")
    path.write_text(f"{json.dumps(first)}\n{json.dumps(second)}\n" + json.dumps(first)[:20])
    assert read_results(path) == {"a/x": first, "b/y": second}
    third = entry("c/z", "verified")
    add_result(path, third)
    add_result(path, first)
    assert read_results(path) == {"a/x": first, "b/y": second, "c/z": third}


def test_a_table_has_a_row_for_each_model_that_was_tried() -> None:
    verified = entry("a/x", "verified", difference=2.5e-7, tasks=7, kernels=5, source="a 1.0")
    late = {"model": "b/y", "outcome": "too long", "why": "more than 3 s"}
    _, _, *rows = table([verified, late, {"model": "c/z", "outcome": "absent"}]).splitlines()
    assert rows == [
        "| x | a 1.0 | verified | 2e-07 | 7 (5) | 0.2 |  |  |",
        "| y | b | too long: more than 3 s |  |  |  |  |  |",
        "",
        "2 models: 1 verified, 1 too long.",
    ]


@pytest.mark.parametrize(
    ("ours", "share", "problem"),
    [
        ([1.0, -4.0], 0.0, ""),
        ([1.0, -3.0], 0.25, "differs by 0.25"),
        ([1.0, np.nan], np.inf, "differs by inf"),
        ([1.0], np.inf, "expected float32"),
    ],
)
def test_a_difference_is_a_share_of_the_largest_value(
    ours: list[float], share: float, problem: str
) -> None:
    want = [np.array([1.0, -4.0], dtype=np.float32)]
    found, wrong = differences([np.array(ours, dtype=np.float32)], want)
    assert found == pytest.approx(share)
    assert problem in wrong
    assert bool(wrong) == bool(problem)
