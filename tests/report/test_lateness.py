"""What is told of a run that parts ways with its prediction."""

from __future__ import annotations

import pytest

from tvm_sphinx.report.lateness import describe_lateness, fastest, parts_ways
from tvm_sphinx.runtime.trace import Trace, TracedStep

_MS = 1_000_000


def _trace(*steps: tuple[int, int, int, int], predicted_ms: int = 10) -> Trace:
    """Return a trace of steps (device, begin, end, predicted duration) in ms, on two devices."""
    made = tuple(
        TracedStep(
            f"task{number}",
            "kernel",
            "k",
            device,
            begin * _MS,
            end * _MS,
            number,
            (0, predicted * _MS),
            (),
            (),
        )
        for number, (device, begin, end, predicted) in enumerate(steps)
    )
    return Trace(("core0", "cores1-2"), ((0,), (1, 2)), made, predicted_ms * _MS)


@pytest.mark.parametrize(("end", "parts"), [(10, False), (15, False), (16, True), (7, False), (6, True)])
def test_a_factor_of_one_and_a_half_is_told(end: int, parts: bool) -> None:
    assert parts_ways(_trace((0, 0, end, 10))) is parts


def test_some_microseconds_are_not() -> None:
    step = TracedStep("t", "kernel", "k", 0, 0, 90_000, 0, (0, 10_000), (), ())
    assert not parts_ways(Trace(("core0",), ((0,),), (step,), 10_000))


def test_without_a_prediction_nothing_is_told() -> None:
    step = TracedStep("t", "kernel", "k", 0, 0, 90 * _MS, None, None, (), ())
    assert not parts_ways(Trace(("core0",), ((0,),), (step,), None))


def test_the_late_lane_is_named() -> None:
    told = describe_lateness(_trace((0, 0, 9, 8), (1, 0, 6, 4), (1, 6, 30, 5)))
    assert told.startswith(
        "A run takes 30 ms, and 10 ms was predicted: 'cores1-2' (cores 1, 2) is late, its 2 tasks took "
        "30 ms in place of 9 ms."
    )


def test_waiting_is_told_apart_from_slow_tasks() -> None:
    told = describe_lateness(_trace((0, 0, 9, 8), (1, 20, 25, 5)))
    assert "what it waits for between them takes longer" in told


def test_a_run_that_is_much_faster_is_told() -> None:
    assert "on a busier or another machine" in describe_lateness(_trace((0, 0, 5, 9)))


def test_the_shortest_run_counts() -> None:
    short, long = _trace((0, 0, 9, 8)), _trace((0, 0, 30, 8))
    assert fastest([long, short]) is short
