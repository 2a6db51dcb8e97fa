"""The task graph: its invariants, its edges, its fingerprint, its JSON form."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tvm_sphinx.errors import ProblemError
from tvm_sphinx.scheduling.graph import (
    FROM_CONSTANT,
    FROM_INPUT,
    Edge,
    GraphInput,
    Operand,
    Task,
    TaskGraph,
)


def _graph() -> TaskGraph:
    x, weight = Operand(FROM_INPUT, 0), Operand(FROM_CONSTANT, 0)
    return TaskGraph(
        "g",
        (
            Task("a", "k1", (x, weight), (8, 16), ("split",), flops=4, weight_bytes=32),
            Task("b", "k2", (Operand(0, 0), Operand(0, 0), Operand(0, 1)), (4,)),
            Task("c", "k2", (Operand(1, 0), x), (4,)),
        ),
        (GraphInput("x", 64),),
        (Operand(2, 0), Operand(0, 1), x),
    )


def test_edges_count_each_tensor_once() -> None:
    graph = _graph()
    assert graph.edges == (Edge(0, 1, 24), Edge(1, 2, 4))
    assert graph.predecessors == ((), (0,), (1,))
    assert graph.successors == ((1,), (2,), ())
    assert [graph.input_bytes(task) for task in range(3)] == [64, 0, 64]
    assert [graph.returned_bytes(task) for task in range(3)] == [16, 0, 4]


def test_json_round_trip() -> None:
    graph = _graph()
    assert TaskGraph.from_json(graph.to_json()) == graph
    with pytest.raises(ProblemError, match="Not a task graph"):
        TaskGraph.from_json({"name": "g"})


def test_fingerprint_depends_on_content_and_not_on_names() -> None:
    graph = _graph()
    renamed = replace(graph, name="h", tasks=(replace(graph.tasks[0], name="z"), *graph.tasks[1:]))
    assert renamed.fingerprint == graph.fingerprint
    other = replace(graph, tasks=(replace(graph.tasks[0], kernel="k9"), *graph.tasks[1:]))
    assert other.fingerprint != graph.fingerprint


@pytest.mark.parametrize(
    "operand",
    [Operand(1, 0), Operand(2, 0), Operand(0, 2), Operand(FROM_INPUT, 1), Operand(FROM_CONSTANT, -1)],
)
def test_operands_must_exist_before_their_task(operand: Operand) -> None:
    graph = _graph()
    broken = replace(graph.tasks[1], operands=(operand,))
    with pytest.raises(ProblemError, match="earlier task"):
        replace(graph, tasks=(graph.tasks[0], broken, graph.tasks[2]))


def test_names_are_unique_and_sizes_not_negative() -> None:
    graph = _graph()
    with pytest.raises(ProblemError, match="unique task names"):
        replace(graph, tasks=(*graph.tasks, graph.tasks[2]))
    with pytest.raises(ProblemError, match="sizes >= 0"):
        replace(graph, tasks=(replace(graph.tasks[0], flops=-1), *graph.tasks[1:]))
