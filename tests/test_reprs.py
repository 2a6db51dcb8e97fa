"""What the main types show of themselves: a line that tells one from another, whatever they hold."""

from __future__ import annotations

import numpy as np

from tvm_sphinx.cost.table import CostTable, build_problem
from tvm_sphinx.platform import Device, Platform
from tvm_sphinx.scheduling.graph import GraphInput, Operand, Task, TaskGraph
from tvm_sphinx.search import search_schedule


def test_each_type_shows_itself_in_a_line() -> None:
    tasks = tuple(
        Task(f"t{i}", "k", (Operand(i - 1, 0) if i else Operand(-1, 0),), (4,)) for i in range(300)
    )
    graph = TaskGraph("net", tasks, (GraphInput("x", 4),), (Operand(299, 0),))
    platform = Platform(
        (
            Device("fast", '{"kind": "llvm", "mcpu": "znver4"}', "cpu:0", (0, 1)),
            Device("gpu", '{"kind": "cuda", "arch": "sm_90"}', "cuda:0"),
        )
    )
    times = np.full((300, 2), 5)
    costs = CostTable(
        times,
        np.zeros_like(times),
        np.arange(600).reshape(300, 2) < 150,
        np.zeros((2, 2), dtype=np.int64),
        np.full((2, 2), np.inf),
        graph.fingerprint,
    )
    problem = build_problem(graph, platform, costs)
    found = search_schedule(problem, algorithm="single")
    assert repr(graph) == "<TaskGraph 'net': 300 tasks of 1 kernel, 1 input, 1 output>"
    assert repr(platform) == (
        "<Platform of <Device 'fast': cpu:0 on cores 0, 1 for znver4>, "
        "<Device 'gpu': cuda:0 for sm_90>, host 'fast'>"
    )
    assert repr(costs) == "<CostTable of 300 tasks on 2 devices: 25% measured>"
    assert repr(problem) == "<SchedulingProblem 'net': 300 tasks, 299 edges, devices fast, gpu>"
    assert (
        repr(found.best) == "<Schedule of 300 tasks on 1 device: makespan 1500 ns, certified gap 0.0%>"
    )
    assert repr(found).startswith("<SearchResult of single, seed 0: makespan 1500 ns after ")
