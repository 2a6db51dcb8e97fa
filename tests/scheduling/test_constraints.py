"""Pins: what a pattern matches, what the problem becomes, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.report.decisions import drawn_problem, layered_graph
from tvm_sphinx.errors import ProblemError, SphinxError
from tvm_sphinx.scheduling.constraints import Pin, find_tasks, parse_pin, pin_tasks, read_pins
from tvm_sphinx.search import ALGORITHMS, Stop, search_schedule


def test_a_pattern_matches_names_operators_and_the_source() -> None:
    graph = layered_graph(2)
    assert find_tasks(graph, "conv2d_4") == [4]
    assert find_tasks(graph, "conv2d") == [0, 4]
    assert find_tasks(graph, "Concat block1") == [7]
    assert find_tasks(graph, "block?") == [3, 7]
    assert find_tasks(graph, "*net.py:2:*") == [1]


def test_a_pin_leaves_its_devices_and_the_last_counts() -> None:
    graph = layered_graph(2)
    problem = drawn_problem(graph)
    pinned = pin_tasks(problem, graph, [parse_pin("*=core1"), parse_pin("matmul=core0|both")])
    for task, entry in enumerate(graph.tasks):
        can = [n for n, t in zip(pinned.devices, pinned.exec_ns[task], strict=True) if t >= 0]
        assert can == (["core0", "both"] if "matmul" in entry.op_kinds else ["core1"])
    assert pin_tasks(problem, graph, []) is problem


@pytest.mark.parametrize("algorithm", sorted(set(ALGORITHMS) - {"single"}))
def test_every_search_obeys(algorithm: str) -> None:
    graph = layered_graph(3)
    pins = [parse_pin("matmul=core0"), parse_pin("add=core1"), parse_pin("softmax=both")]
    problem = pin_tasks(drawn_problem(graph), graph, pins)
    stop = Stop(max_evaluations=300, time_limit_s=5.0)
    best = search_schedule(problem, algorithm=algorithm, stop=stop).best
    wanted = {"matmul": 0, "add": 1, "softmax": 2}
    for task, entry in enumerate(graph.tasks):
        kind = entry.op_kinds[0]
        assert best.device[task] == wanted.get(kind, best.device[task])


def test_a_file_of_pins(tmp_path: Path) -> None:
    path = tmp_path / "pins"
    path.write_text("# all\nconv*=core0 # here\n\nx#1=core1|both\n")
    assert read_pins(path) == (Pin("conv*", ("core0",)), Pin("x#1", ("core1", "both")))
    path.write_text("conv*=core0\nconv\n")
    with pytest.raises(SphinxError, match=r"line 2: Expected a pin in the form 'conv\*=core0'"):
        read_pins(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SphinxError, match="it is not text"):
        read_pins(path)


def test_a_pin_on_what_cannot_run_there_is_refused() -> None:
    graph = layered_graph(1)
    problem = pin_tasks(drawn_problem(graph), graph, [parse_pin("add=core0")])
    with pytest.raises(ProblemError, match="leaves no device for task 'add_2', which can run on: core0"):
        pin_tasks(problem, graph, [parse_pin("add=core1")])
