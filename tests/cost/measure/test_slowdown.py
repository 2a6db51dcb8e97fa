"""What kernels lose beside others: who is a neighbour, what is expected, and that it is on record."""

from __future__ import annotations

import os

import numpy as np
import pytest

from tvm_sphinx.cost.measure import slowdown
from tvm_sphinx.cost.measure.gpu_shares import stream_slowdown
from tvm_sphinx.cost.measure.slowdown import (
    CLASSES,
    PairLoad,
    average_parallelism,
    expected_slowdown,
    measure_pair,
    neighbour_shares,
    neighbours,
    streams_beside,
    task_classes,
)
from tvm_sphinx.cost.records.store import RecordStore
from tvm_sphinx.cost.table import CostTable, build_problem
from tvm_sphinx.platform import Device, Platform
from tvm_sphinx.platform.targets import host_target
from tvm_sphinx.scheduling.graph import FROM_INPUT, GraphInput, Operand, Task, TaskGraph

LLVM = '{"kind": "llvm"}'
PLATFORM = Platform(
    (
        Device("core0", LLVM, "cpu:0", (0,)),
        Device("core1", LLVM, "cpu:0", (1,)),
        Device("both", LLVM, "cpu:0", (0, 1)),
        Device("gpu", '{"kind": "cuda"}', "cuda:0"),
        Device("far", LLVM, "cpu:0", (2,), rpc_key="board"),
    )
)


def _graph(chain: bool) -> TaskGraph:
    """Two tasks, one bound by memory and one by arithmetic, in a chain or side by side."""
    from_input = (Operand(FROM_INPUT, 0),)
    second = (Operand(0, 0),) if chain else from_input
    tasks = (
        Task("stream", "a", from_input, (4000,), weight_bytes=10**6, flops=10),
        Task("product", "b", second, (4000,), flops=10**9),
    )
    return TaskGraph("g", tasks, (GraphInput("x", 4000),), (Operand(1, 0), Operand(0, 0)))


EXEC_NS = np.array([[100, 100, 60, 10, 50], [100, 100, 60, 10, 50]])
LOAD = PairLoad(np.array([[2.0, 1.5, 1.2], [1.0, 1.0, 1.4]]), 50.0, 10.0)


def test_devices_of_all_cores_and_devices_elsewhere_have_no_neighbours() -> None:
    assert [neighbours(PLATFORM, index) for index in range(5)] == [[1], [0], [], [], []]


def test_parallelism_is_work_over_the_critical_path() -> None:
    assert average_parallelism(_graph(chain=True), EXEC_NS) == 1.0
    assert average_parallelism(_graph(chain=False), EXEC_NS) == 2.0


def test_tasks_are_classed_by_what_they_need_most() -> None:
    assert [CLASSES[number] for number in task_classes(_graph(chain=True), LOAD)] == [
        "memory",
        "compute",
    ]
    np.testing.assert_allclose(
        neighbour_shares(np.array([0, 2, 1]), np.array([50, 25, 25])), [0.625, 0.375]
    )
    np.testing.assert_array_equal(neighbour_shares(np.array([0]), np.array([-1])), [0.0, 0.0])


def test_only_devices_that_work_side_by_side_are_expected_to_be_slower(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slowdown, "measure_pair", lambda *_, **__: LOAD)
    records = RecordStore(None)
    side_by_side = expected_slowdown(_graph(chain=False), PLATFORM, EXEC_NS, records)
    # Half of what the neighbour does is bound by memory, the other half by arithmetic.
    np.testing.assert_allclose(side_by_side[:, 0], [1 + 0.5 * 1.0, 1 + 0.5 * 0.2 + 0.5 * 0.4])
    np.testing.assert_array_equal(side_by_side[:, 0], side_by_side[:, 1])
    np.testing.assert_array_equal(side_by_side[:, 2:], 1.0)
    chain = expected_slowdown(_graph(chain=True), PLATFORM, EXEC_NS, records)
    np.testing.assert_array_equal(chain, 1.0)


def test_what_is_on_record_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slowdown, "measure_pair", lambda *_, **__: LOAD)
    told: list[tuple[str, int, int]] = []
    for missing in (["one"], []):
        monkeypatch.setattr(slowdown, "_missing", lambda *_, left=missing: left)
        graph, records = _graph(chain=False), RecordStore(None)
        expected_slowdown(graph, PLATFORM, EXEC_NS, records, lambda *step: told.append(step))
    assert told == [
        ("measure under load", 1, 2),
        ("measure under load", 2, 2),
        ("measure under load, all on record", 1, 2),
        ("measure under load, all on record", 2, 2),
    ]


STREAMS = Platform(
    (
        Device("core0", LLVM, "cpu:0", (0,)),
        *(Device(f"stream{number}", '{"kind": "cuda"}', "cuda:0") for number in range(3)),
    )
)


def test_streams_lose_what_their_kernels_do_not_leave_to_each_other() -> None:
    ones = np.ones(2)
    # Whoever fills the GPU by itself runs in turn with the two others; a quarter each leaves room.
    np.testing.assert_allclose(stream_slowdown(ones, ones, 2, 1.0), 3.0)
    np.testing.assert_allclose(stream_slowdown(ones / 4, ones, 2, 1.0), 1.0)
    np.testing.assert_allclose(stream_slowdown(ones, ones, 2, 0.0), 1.0)
    # Beside one other: a half of the time three quarters, a half of it a quarter.
    times = np.array([50.0, 50.0])
    shares = np.array([0.75, 0.25])
    np.testing.assert_allclose(stream_slowdown(shares, times, 1, 1.0), [(1.5 + 1.0) / 2, 1.0])
    # It works half of the time.
    np.testing.assert_allclose(stream_slowdown(shares, times, 1, 0.5), [1 + 0.5 * 0.25, 1.0])
    np.testing.assert_array_equal(stream_slowdown(shares, times * 0, 1, 1.0), 1.0)


def test_the_streams_of_a_gpu_have_each_other() -> None:
    assert [streams_beside(STREAMS, index) for index in range(4)] == [[], [2, 3], [1, 3], [1, 2]]
    assert [neighbours(STREAMS, index) for index in range(4)] == [[], [], [], []]
    graph, times = _graph(chain=False), np.array([[100, 10, 10, 10], [100, 10, 10, 10]])
    shares = {STREAMS.devices[1].cost_class: {"a": 1.0, "b": 1.0}}
    found = expected_slowdown(graph, STREAMS, times, RecordStore(None), shares=shares)
    # Two tasks side by side keep each of two other streams busy half of the time.
    np.testing.assert_allclose(found[:, 1:], 2.0)
    np.testing.assert_array_equal(found[:, 0], 1.0)
    alone = expected_slowdown(_graph(chain=True), STREAMS, times, RecordStore(None), shares=shares)
    np.testing.assert_array_equal(alone, 1.0)
    unknown = expected_slowdown(graph, STREAMS, times, RecordStore(None))
    np.testing.assert_array_equal(unknown, 1.0)
    some = {STREAMS.devices[1].cost_class: {"a": 0.5}}  # the other is taken for the usual one
    found = expected_slowdown(graph, STREAMS, times, RecordStore(None), shares=some)
    np.testing.assert_allclose(found[:, 1:], 0.25 * 1.5 + 0.75)


def test_the_problem_takes_the_slowdown_only_where_devices_work_at_the_same_time() -> None:
    platform = Platform(PLATFORM.devices[:3])
    graph = _graph(chain=False)
    times = np.array([[100, 100, 60], [100, -1, 60]])
    slowdown = np.array([[1.5, 1.2, 1.0], [1.1, 1.3, 1.0]])
    zeros, links = np.zeros((3, 3), dtype=np.int64), np.full((3, 3), np.inf)
    costs = CostTable(times, times * 0, times > 0, zeros, links, graph.fingerprint, slowdown)
    loaded = build_problem(graph, platform, costs).exec_ns
    np.testing.assert_array_equal(loaded, [[150, 120, 60], [111, -1, 60]])
    for alone in ({"loaded": False}, {"concurrent": False}):
        np.testing.assert_array_equal(build_problem(graph, platform, costs, **alone).exec_ns, times)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="kernels run side by side on two cores")
def test_what_a_pair_loses_is_measured_once() -> None:
    first, second = sorted(os.sched_getaffinity(0))[:2]
    one, other = (Device(f"core{c}", host_target(), "cpu:0", (c,)) for c in (first, second))
    records = RecordStore(None)
    assert measure_pair(one, other, records, may_measure=False) is None
    assert records.num_added == 0
    measured = measure_pair(one, other, records)
    assert measured is not None
    assert measured.slowdown.shape == (2, 3)
    assert (measured.slowdown >= 1).all()
    assert measured.flops_per_ns > 0 < measured.bytes_per_ns
    added = records.num_added
    assert added == 9
    assert slowdown._missing(other, one, records) == []
    again = measure_pair(other, one, records)  # the same kind of pair
    assert records.num_added == added
    np.testing.assert_array_equal(again.slowdown, measured.slowdown)
