"""The checker: it accepts what is valid and names each rule that is broken."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tvm_sphinx.errors import InvalidScheduleError
from tvm_sphinx.scheduling.problem import SchedulingProblem
from tvm_sphinx.scheduling.schedule import Schedule, peak_memory_bytes, validate
from tvm_sphinx.search.bounds import lower_bound_ns

PROBLEM = SchedulingProblem(
    name="diamond",
    devices=("a", "b", "ab"),
    device_cores=((0,), (1,), (0, 1)),
    exec_ns=np.array([[10, 20, 6], [10, 12, 7], [9, 10, -1], [5, 5, 4]]),
    edges=np.array([[0, 1], [0, 2], [1, 3], [2, 3]]),
    copy_class=np.array([0, 0, 0, 0]),
    copy_ns=np.array([[[0, 3, 1], [3, 0, 1], [1, 1, 0]]]),
    release_ns=np.array([[0, 4, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]),
    delivery_ns=np.array([[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 2, 0]]),
    colocation=np.array([0, -1, -1, 0]),
    memory_bytes=np.array([100, -1, -1]),
    weight_bytes=np.array([10, 20, 30, 5]),
    output_bytes=np.array([7, 6, 5, 4]),
)
# 0 on a at 0-10; 1 on a at 10-20; 2 on b at 13-23; 3 on a, after the copy of 2, at 26-31.
VALID = Schedule([0, 0, 1, 0], [0, 10, 13, 26], [10, 20, 23, 31], 31, 20, PROBLEM.fingerprint)


def test_valid_schedule_is_accepted() -> None:
    validate(PROBLEM, VALID)
    assert lower_bound_ns(PROBLEM) <= VALID.makespan_ns
    assert VALID.gap == pytest.approx(11 / 20)
    assert VALID.order == (0, 1, 2, 3)
    again = Schedule.from_json(VALID.to_json())
    validate(PROBLEM, again)
    np.testing.assert_array_equal(again.start_ns, VALID.start_ns)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"problem_fingerprint": "other"}, "schedule of problem"),
        ({"device": [0, 0, 7, 0]}, "devices 0..2"),
        ({"device": [0, 0, 2, 0]}, "Task 2 cannot run on 'ab'"),
        ({"finish_ns": [10, 21, 23, 31]}, "Task 1 takes 10 ns"),
        ({"start_ns": [0, 9, 13, 26], "finish_ns": [10, 19, 23, 31]}, "Task 1 starts at 9 ns"),
        ({"start_ns": [0, 10, 12, 26], "finish_ns": [10, 20, 22, 31]}, "arrives at 13 ns"),
        ({"makespan_ns": 30}, "delivered at 31 ns"),
        ({"lower_bound_ns": 32}, "Lower bound 32"),
        (
            {
                "device": [0, 0, 1, 2],
                "start_ns": [0, 10, 13, 24],
                "finish_ns": [10, 20, 23, 28],
                "makespan_ns": 28,
            },
            "colocation group 0",
        ),
        (
            {
                "device": [0, 2, 1, 0],
                "start_ns": [0, 11, 13, 26],
                "finish_ns": [10, 18, 23, 31],
            },
            "both run on core 1",
        ),
        ({"device": [0, 0, 1]}, "one shape"),
        ({"device": [0, 0, 0.7, 0]}, r"integers in device, each in int64; got 0\.7"),
        ({"device": ["0", 0, 1, 0]}, "integers in device, each in int64; got '0'"),
        ({"finish_ns": [10, 20, 23, 2**70]}, f"integers in finish_ns, each in int64; got {2**70}"),
        ({"makespan_ns": 31.0}, r"makespan_ns as an integer; got 31\.0"),
        ({"lower_bound_ns": True}, "lower_bound_ns as an integer; got True"),
        ({"makespan_ns": 2**70}, f"makespan_ns in 0..*; got {2**70}"),
        ({"lower_bound_ns": -1}, "lower_bound_ns in 0..*; got -1"),
        ({"start_ns": [0, -1, 13, 26]}, "start_ns in 0..*; got -1"),
        ({"finish_ns": [10, 20, 23, 2**62]}, f"finish_ns in 0..*; got {2**62}"),
    ],
)
def test_broken_rule_is_named(change: dict, rule: str) -> None:
    with pytest.raises(InvalidScheduleError, match=rule):
        validate(PROBLEM, replace(VALID, **change))


def test_times_that_wrap_around_are_refused() -> None:
    """From 2**63 - 1 on, each finish, its delivery and each arrival lies below 0 in int64."""
    start = np.full(4, 2**63 - 1)
    wrapped = replace(
        VALID,
        device=[0, 0, 0, 0],
        start_ns=start,
        finish_ns=start + PROBLEM.exec_ns[:, 0],
        makespan_ns=0,
        lower_bound_ns=0,
    )
    with pytest.raises(InvalidScheduleError, match=f"start_ns in 0..*; got {2**63 - 1}"):
        validate(PROBLEM, wrapped)


def test_tasks_on_one_core_through_two_devices_overlap() -> None:
    """Device ab owns both cores, so nothing may run on a or b meanwhile."""
    problem = replace(PROBLEM, colocation=np.full(4, -1))
    schedule = Schedule([2, 0, 1, 0], [0, 5, 9, 22], [6, 15, 19, 27], 27, 0, problem.fingerprint)
    with pytest.raises(InvalidScheduleError, match=r"Task 1 starts at 5|core 0"):
        validate(problem, schedule)


def test_release_and_delivery_count() -> None:
    problem = replace(PROBLEM, colocation=np.full(4, -1))
    early = Schedule([1, 1, 1, 1], [0, 20, 32, 42], [20, 32, 42, 47], 49, 0, problem.fingerprint)
    with pytest.raises(InvalidScheduleError, match="Task 0 starts at 0 ns, before 4 ns"):
        validate(problem, early)
    late = Schedule([1, 1, 1, 1], [4, 24, 36, 46], [24, 36, 46, 51], 53, 0, problem.fingerprint)
    validate(problem, late)
    with pytest.raises(InvalidScheduleError, match="delivered at 53 ns"):
        validate(problem, replace(late, makespan_ns=51))


def test_memory_counts_weights_and_live_tensors() -> None:
    # Device a: weights 10 + 20 + 5; while task 3 runs, the outputs of 1 (6) and 3 (4) and a copy of
    # that of 2 (5). Device b: weights 30; while task 2 runs, its output (5) and a copy of that of 0 (7).
    peaks = peak_memory_bytes(PROBLEM, VALID)
    assert peaks.tolist() == [35 + 15, 30 + 12, 0]
    tight = replace(PROBLEM, memory_bytes=np.array([49, -1, -1]))
    with pytest.raises(InvalidScheduleError, match="holds 50 bytes"):
        validate(tight, replace(VALID, problem_fingerprint=tight.fingerprint))


def test_a_device_holds_weights_as_they_are_on_it() -> None:
    """Task 2 runs on b, where it takes 3 bytes; a, which runs the others, has not room for 90 more."""
    sizes = np.array([[10, 10, 10], [20, 20, 20], [30, 3, 30], [5, 5, 5]])
    problem = replace(PROBLEM, weight_bytes=sizes)
    before, after = (peak_memory_bytes(one, VALID) for one in (PROBLEM, problem))
    assert (before - after).tolist() == [0, 27, 0]
    sizes[1, 0] += 90
    heavier = replace(problem, weight_bytes=sizes)
    schedule = replace(VALID, problem_fingerprint=heavier.fingerprint)
    with pytest.raises(InvalidScheduleError, match=r"Device 'a' holds 1\d\d bytes at its peak"):
        validate(heavier, schedule)
