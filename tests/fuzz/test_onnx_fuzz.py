"""A sample of the random ONNX graphs of ``python -m tests.fuzz.run``, in a process that may die."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tests.fuzz.operators import DRAWS
from tests.fuzz.run import BAD, difference, draw_graph, figures, read_results, run_in_child
from tvm_sphinx.program.verify.exact_products import as_defined

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


@pytest.mark.parametrize("op", ["If", "Loop", "Scan", "SequenceConstruct", "QGemm"])
def test_the_whole_model_gives_what_its_nodes_gave(op: str) -> None:
    for seed in range(6):
        graph = draw_graph(seed, op)
        session = onnxruntime.InferenceSession(as_defined(graph.model()).SerializeToString())
        got = [np.asarray(value) for value in session.run(None, graph.feeds())]
        assert difference(got, graph.expected()) == ""


def test_a_run_goes_on_from_the_lines_that_were_written_whole(tmp_path: Path) -> None:
    entries = [
        {"seed": 1, "outcome": "equal", "ops": ["Add"], "said": "", "seconds": 0.25},
        {"seed": 2, "outcome": "refused", "ops": ["Exp"], "said": "no 'y' of 3", "seconds": 0.5},
        {"seed": 3, "outcome": "refused", "ops": ["Exp"], "said": "no 'z' of 4", "seconds": 0.5},
    ]
    path = tmp_path / "results.jsonl"
    assert read_results(path) == []
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries) + '{"seed": 4, "outc')
    assert read_results(path) == entries
    assert path.read_text().endswith("}\n")
    found = figures(entries)
    assert (found["equal"], found["refused"], found["operators"]) == (1, 2, 2)
    assert found["refused for"] == {"no _ of _": 2}
    assert found["median seconds"] == 0.5
