"""A sample of the random ONNX graphs of ``python -m tests.fuzz.run``, in a process that may die."""

from __future__ import annotations

from typing import Any

from tests.fuzz.operators import DRAWS
from tests.fuzz.run import BAD, difference, draw_graph, run_in_child

#: A prime step spreads the sample over the operators, whose number the seed chooses.
SEEDS = range(10_000, 10_000 + 24 * 7, 7)


def test_graphs_are_equal_to_onnx_runtime_or_refused() -> None:
    entries: list[dict[str, Any]] = []
    run_in_child(list(SEEDS), None, entries.append)
    assert sorted(entry["seed"] for entry in entries) == list(SEEDS)
    assert [entry for entry in entries if entry["outcome"] in BAD] == []
    assert sum(entry["outcome"] == "equal" for entry in entries) > len(SEEDS) // 2


def test_a_seed_draws_the_same_graph() -> None:
    first, second = draw_graph(11), draw_graph(11)
    assert first.model() == second.model()
    assert difference(first.expected(), second.expected()) == ""


def test_a_wrong_element_is_seen() -> None:
    want = draw_graph(0, "Gemm").expected()
    got = [value.copy() for value in want]
    got[0].flat[0] += 1 + abs(got[0].flat[0])
    assert "1 differ" in difference(got, want)
    assert difference([value.astype("float64") for value in want], want)
    assert difference(want[:-1], want)


def test_operators_have_a_draw() -> None:
    assert len(DRAWS) > 120
