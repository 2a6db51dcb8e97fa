"""A sample of the random torch programs of ``python -m tests.fuzz.run --torch``."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

from tests.fuzz.run import BAD, draw_torch, run_in_child
from tests.fuzz.torch_functions import DRAWS

#: A prime step spreads the sample over the functions, whose number the seed chooses.
SEEDS = range(10_000, 10_000 + 12 * 13, 13)


def test_programs_are_equal_to_torch_or_refused() -> None:
    entries: list[dict[str, Any]] = []
    run_in_child(list(SEEDS), None, entries.append, of_torch=True)
    assert sorted(entry["seed"] for entry in entries) == list(SEEDS)
    assert [entry for entry in entries if entry["outcome"] in BAD] == []
    assert sum(entry["outcome"] == "equal" for entry in entries) > len(SEEDS) // 2


def test_a_seed_draws_the_same_program() -> None:
    first, second = draw_torch(11), draw_torch(11)
    assert [name for name, *_ in first.steps] == [name for name, *_ in second.steps]
    assert [tensor.tolist() for tensor in first.feeds()] == [
        tensor.tolist() for tensor in second.feeds()
    ]


def test_functions_have_a_draw() -> None:
    assert len(DRAWS) > 150
