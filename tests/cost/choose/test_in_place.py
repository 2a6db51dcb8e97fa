"""Costs corrected by traces of a run whose times are known."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_sphinx.cost.choose.in_place import Seen, correct_times, summarise
from tvm_sphinx.cost.table import CostTable
from tvm_sphinx.runtime.trace import Trace, TracedStep

#: Two tasks of one kernel and two of others; a third device, equal to the second, ran nothing.
KERNELS = ("conv", "conv", "pool", "copy")
CLASSES = ("fast", "slow", "slow")


def table() -> CostTable:
    exec_ns = np.array([[100, 200, 200], [100, 200, 200], [50, 80, 80], [10, -1, 20]])
    latency = np.full((3, 3), 40) - 40 * np.eye(3, dtype=np.int64)
    return CostTable(
        exec_ns,
        np.zeros_like(exec_ns),
        np.ones(exec_ns.shape, np.bool_),
        latency,
        np.full((3, 3), 1e9),
        "graph",
        slowdown=np.where(exec_ns > 0, 2.0, 1.0),
    )


def seen(device: list[int], took: list[float], alone: bool = False) -> Seen:
    return Seen(np.array(device), np.array(took), np.full((3, 3), np.nan), alone)


def test_what_was_seen_is_taken_and_carried_over_to_what_was_not() -> None:
    # Beside others 200 and 400 ns were expected of a convolution, and 100 of the pool.
    found = correct_times(table(), KERNELS, CLASSES, [seen([0, 1, 0, 0], [100, 600, 50, 20])])
    exec_ns = found.exec_ns
    assert exec_ns[0].tolist() == [50, 300, 300]  # seen; by the other task of the kernel; as that
    assert exec_ns[1].tolist() == [50, 300, 300]
    # The pool and the copy were not seen on the slow devices: 600 ns were seen there of 400.
    assert exec_ns[2].tolist() == [25, 120, 120]
    assert exec_ns[3].tolist() == [10, -1, 30]
    assert (found.slowdown == table().slowdown).all()


def test_a_device_that_worked_alone_is_compared_with_times_alone() -> None:
    found = correct_times(table(), KERNELS, CLASSES, [seen([0] * 4, [50, 50, 25, 5], alone=True)])
    assert found.exec_ns[:, 0].tolist() == [50, 50, 25, 5]
    assert found.exec_ns[2, 1] == 40  # all that was seen took half


def test_of_two_programs_the_middle_is_taken_and_outliers_are_bounded() -> None:
    one, other = seen([0] * 4, [100, 200, 50, 10], True), seen([0] * 4, [400, 200, 50, 1e9], True)
    found = correct_times(table(), KERNELS, CLASSES, [one, other])
    assert found.exec_ns[0, 0] == 200  # the geometric mean of 100 and 400
    assert found.exec_ns[3, 0] == round(10 * 5**0.5)


def test_what_was_kept_counts_alone_where_it_ran() -> None:
    kept = seen([0, 0, 1, 0], [80, 90, 320, 20])
    found = correct_times(
        table(), KERNELS, CLASSES, [seen([0] * 4, [100, 200, 50, 10], True), kept], kept
    )
    # 200 ns were expected of a convolution beside others, 160 of the pool, 20 of the copy.
    assert found.exec_ns[:, 0].tolist() == [40, 45, 50, 10]
    assert found.exec_ns[2, 1] == 160


def test_nothing_changes_where_all_took_what_was_measured() -> None:
    found = correct_times(table(), KERNELS, CLASSES, [seen([0, 1, 1, 0], [200, 400, 160, 20])])
    assert (found.exec_ns == table().exec_ns).all()
    assert (found.latency_ns == table().latency_ns).all()


def step(task: int, device: int, begin: int, end: int, producers: tuple[int, ...] = ()) -> TracedStep:
    previous = {2: (0,), 3: (1,)}.get(task, ())
    return TracedStep(f"t{task}", "kernel", "f", device, begin, end, task, None, producers, previous)


def test_the_faster_half_of_traces_is_summed_up() -> None:
    def trace(longer: int) -> Trace:
        steps = (
            step(0, 0, 0, 10 + longer),
            step(1, 1, 0, 5),
            step(2, 0, 12 + longer, 20 + longer, (1,)),  # waited 2 for its core
            step(3, 1, 40 + longer, 45 + longer, (2,)),  # waited 20 for what the other device made
        )
        return Trace(("a", "b"), ((0,), (1,)), steps, None)

    # Two of five are of a moment in which others used the cores.
    found = summarise([trace(0), trace(90), trace(8), trace(4), trace(95)])
    assert found.device.tolist() == [0, 1, 0, 1]
    assert found.took_ns.tolist() == [14 + 2, 5, 8 + 2, 5]
    assert np.isnan(found.handover_ns).all()  # one crossing in each is no median
    assert not found.alone


def test_hand_overs_that_were_seen_often_are_taken() -> None:
    steps = [step(0, 0, 0, 10)]
    for number in range(1, 9):
        begin = steps[-1].end_ns + (25 if number % 2 else 70)
        before = (number - 1,)
        name = f"t{number}"
        steps.append(
            TracedStep(name, "kernel", "f", number % 2, begin, begin + 10, number, None, before, ())
        )
    one = summarise([Trace(("a", "b", "c"), ((0,), (1,), (2,)), tuple(steps), None)])
    assert (one.handover_ns[0, 1], one.handover_ns[1, 0]) == (25, 70)
    costs = CostTable(
        np.full((9, 3), 10),
        np.zeros((9, 3), np.int64),
        np.ones((9, 3), np.bool_),
        np.full((3, 3), 40) - 40 * np.eye(3, dtype=np.int64),
        np.full((3, 3), 1e9),
        "graph",
    )
    found = correct_times(costs, ["k"] * 9, CLASSES, [one])
    assert found.latency_ns.tolist() == [[0, 25, 40], [70, 0, 40], [40, 40, 0]]


@pytest.mark.parametrize("took", [[0.0] * 4])
def test_tasks_that_take_no_time_tell_nothing(took: list[float]) -> None:
    assert (
        correct_times(table(), KERNELS, CLASSES, [seen([0] * 4, took)]).exec_ns == table().exec_ns
    ).all()
