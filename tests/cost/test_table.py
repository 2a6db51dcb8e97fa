"""Cost tables: the problem that they make, and the fit of a link."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tvm_sphinx.cost.table import CostTable, build_problem, fit_link
from tvm_sphinx.errors import ProblemError
from tvm_sphinx.platform import Device, Platform
from tvm_sphinx.scheduling.graph import FROM_INPUT, GraphInput, Operand, Task, TaskGraph

LLVM = '{"kind": "llvm"}'
PLATFORM = Platform(
    (
        Device("one", LLVM, "cpu:0", (0,)),
        Device("both", LLVM, "cpu:0", (0, 1)),
        Device("gpu", '{"kind": "cuda"}', "cuda:0", memory_bytes=10**6),
    )
)
GRAPH = TaskGraph(
    "g",
    (
        Task("a", "k", (Operand(FROM_INPUT, 0),), (1000,), weight_bytes=5),
        Task("b", "k", (Operand(0, 0),), (2000,)),
    ),
    (GraphInput("x", 4000),),
    (Operand(1, 0),),
)


def _costs(exec_ns: list[list[int]]) -> CostTable:
    latency = np.array([[0, 1, 10], [1, 0, 10], [10, 10, 0]])
    bandwidth = np.array([[math.inf, math.inf, 1e9]] * 2 + [[1e9, 1e9, math.inf]])
    times = np.array(exec_ns)
    measured = np.ones(times.shape, dtype=bool)
    return CostTable(times, times * 0, measured, latency, bandwidth, GRAPH.fingerprint)


def test_inputs_and_outputs_cost_their_copies() -> None:
    problem = build_problem(GRAPH, PLATFORM, _costs([[5, 3, 1], [5, 3, 1]]))
    np.testing.assert_array_equal(problem.release_ns, [[0, 1, 4010], [0, 0, 0]])
    np.testing.assert_array_equal(problem.delivery_ns, [[0, 0, 0], [0, 1, 2010]])
    assert problem.copy_ns[problem.copy_class[0]].tolist() == [
        [0, 1, 1010],
        [1, 0, 1010],
        [1010, 1010, 0],
    ]
    assert problem.memory_bytes.tolist() == [-1, -1, 10**6]
    assert problem.weight_bytes.tolist() == [5, 0]


def test_what_a_feeder_stages_comes_beside_a_copy_in_and_after_a_copy_out() -> None:
    costs = _costs([[5, 3, 1], [5, 3, 1]])
    slow = replace(costs, staging_bytes_per_s=np.array([math.inf, math.inf, 5e8]))
    assert build_problem(GRAPH, PLATFORM, slow).release_ns.tolist() == [[0, 1, 8010], [0, 0, 0]]
    assert build_problem(GRAPH, PLATFORM, slow).delivery_ns.tolist() == [[0, 0, 0], [0, 1, 6010]]
    fast = replace(costs, staging_bytes_per_s=np.array([math.inf, math.inf, 4e9]))
    assert build_problem(GRAPH, PLATFORM, fast).release_ns.tolist() == [[0, 1, 4010], [0, 0, 0]]
    assert build_problem(GRAPH, PLATFORM, fast).delivery_ns.tolist() == [[0, 0, 0], [0, 1, 2510]]
    with pytest.raises(ProblemError, match="staging_bytes_per_s of shape"):
        replace(costs, staging_bytes_per_s=np.ones(2))


def test_no_more_is_fetched_than_can_be_in_a_cache() -> None:
    costs = replace(_costs([[5, 3, 1]]), most_bytes=np.full((3, 3), 500.0))
    assert costs.copy_ns([400, 500, 4000])[:, 0, 2].tolist() == [410, 510, 510]
    with pytest.raises(ProblemError, match="most_bytes of shape"):
        replace(costs, most_bytes=np.ones((2, 2)))


def test_devices_exclude_each_other_by_their_cores() -> None:
    costs = _costs([[5, 3, 1], [5, 3, 1]])
    one, both, gpu = build_problem(GRAPH, PLATFORM, costs).device_cores
    assert set(one) < set(both)
    assert not set(gpu) & set(both)
    one, both, gpu = build_problem(GRAPH, PLATFORM, costs, concurrent=False).device_cores
    assert one == both
    assert not set(gpu) & set(both)


def test_a_task_that_no_device_can_run_is_named() -> None:
    with pytest.raises(ProblemError, match=r"task 'b'.*devices: one, both, gpu"):
        build_problem(GRAPH, PLATFORM, _costs([[5, 3, 1], [-1, -1, -1]]))


def test_costs_of_another_graph_are_refused() -> None:
    other = TaskGraph("h", GRAPH.tasks[:1], GRAPH.inputs, (Operand(0, 0),))
    with pytest.raises(ProblemError, match="Expected costs of task graph"):
        build_problem(other, PLATFORM, _costs([[5, 3, 1], [5, 3, 1]]))


def test_link_fit_finds_latency_and_bandwidth() -> None:
    sizes = [1 << 12, 1 << 16, 1 << 20, 1 << 23]
    times = [9000 + size * 1e9 / 12e9 for size in sizes]
    latency, bandwidth, error = fit_link(sizes, times)
    assert latency == pytest.approx(9000, rel=1e-3)
    assert bandwidth == pytest.approx(12e9, rel=1e-3)
    assert error < 1e-6
    assert fit_link(sizes, [times[0] * 1.2, times[1], times[2] * 0.8, times[3]]).error > 0.05


def test_link_fit_of_flat_and_of_steep_times() -> None:
    assert fit_link([1, 100], [50, 50])[0] == 50
    latency, bandwidth, _ = fit_link([1000, 2000], [900, 2000])
    assert latency == 0
    assert bandwidth == pytest.approx(1e9, rel=0.1)
    with pytest.raises(ProblemError, match="at least two sizes"):
        fit_link([5, 5], [1, 1])
