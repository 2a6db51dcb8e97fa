"""Work on all cores: in order, under the caller's pass options, and the first failure decides."""

from __future__ import annotations

import threading

import pytest
import tvm

from tvm_sphinx.platform.machine import usable_cores
from tvm_sphinx.runtime.threads import map_in_threads


def test_results_come_in_order_under_the_callers_options() -> None:
    def seen(item: int) -> tuple[int, int]:
        return item, int(tvm.transform.PassContext.current().opt_level)

    with tvm.transform.PassContext(opt_level=1):
        assert map_in_threads(seen, range(50)) == [(item, 1) for item in range(50)]
    assert map_in_threads(seen, []) == []


def test_cores_work_at_once() -> None:
    if len(usable_cores()) < 2:
        pytest.skip("one core")
    both = threading.Barrier(2)
    assert map_in_threads(lambda _: both.wait(60) >= 0, range(2)) == [True, True]


def test_the_first_failure_is_raised_and_the_rest_left_out() -> None:
    begun: list[int] = []

    def fail(item: int) -> None:
        begun.append(item)
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 0"):
        map_in_threads(fail, range(10_000))
    assert len(begun) < 10_000


def test_instruments_see_one_pass_after_the_other() -> None:
    threads = set()

    @tvm.instrument.pass_instrument
    class Watch:
        pass

    with tvm.transform.PassContext(instruments=[Watch()]):
        map_in_threads(lambda _: threads.add(threading.get_ident()), range(10))
    assert threads == {threading.get_ident()}
