"""Budgets, interruption, threads and parameters of CPGA."""

from __future__ import annotations

import dataclasses
import re
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.strategies import draw_problem
from tvm_sphinx.cpga_ext._cpga import Search
from tvm_sphinx.scheduling.schedule import validate
from tvm_sphinx.search import CpgaParams, ParamsError, Stop, search_schedule
from tvm_sphinx.search.native import native_problem
from tvm_sphinx.search.result import HistoryPoint
from tvm_sphinx.search.stop import StopError

HARD = draw_problem(21, 120, ccr=3.0)


@pytest.mark.parametrize(
    ("stop", "reason"),
    [
        (Stop(max_evaluations=3_000), "evaluations"),
        (Stop(time_limit_s=0.05), "time"),
        (Stop(cpu_limit_s=0.05), "time"),
        (Stop(stagnation=500, max_evaluations=10**7), "stagnation"),
    ],
)
def test_each_budget_ends_the_search(stop: Stop, reason: str) -> None:
    found = search_schedule(HARD, stop=stop)
    assert found.stop_reason == reason
    if stop.max_evaluations and reason == "evaluations":
        assert found.evaluations == stop.max_evaluations


def test_a_problem_at_its_bound_is_proven_optimal_at_once() -> None:
    found = search_schedule(draw_problem(4, 30, 1))
    assert (found.stop_reason, found.best.gap) == ("optimal", 0.0)
    assert found.evaluations < 100


def test_default_budget_depends_on_nothing_but_the_number_of_tasks() -> None:
    first, again = search_schedule(HARD), search_schedule(HARD)
    assert first.evaluations == again.evaluations == Stop.default(120).max_evaluations
    assert np.array_equal(first.best.start_ns, again.best.start_ns)


def test_progress_sees_every_improvement() -> None:
    seen: list[HistoryPoint] = []
    found = search_schedule(HARD, stop=Stop(max_evaluations=30_000), progress=seen.append)
    assert tuple(seen) == found.history


def test_an_error_in_the_callback_reaches_the_caller() -> None:
    def fail(_: HistoryPoint) -> None:
        raise RuntimeError("from the callback")

    with pytest.raises(RuntimeError, match="from the callback"):
        search_schedule(HARD, progress=fail)


def test_ctrl_c_returns_the_best_so_far() -> None:
    main = threading.get_ident()
    timer = threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    found = search_schedule(HARD, stop=Stop(time_limit_s=20.0))
    timer.join()
    assert found.stop_reason == "interrupted"
    validate(HARD, found.best)


def test_threads_run_their_own_searches() -> None:
    def run(seed: int) -> int:
        return search_schedule(HARD, seed=seed, stop=Stop(max_evaluations=40_000)).best.makespan_ns

    alone = [run(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, range(4))) == alone


def test_one_native_search_in_two_threads_is_an_error_not_a_crash() -> None:
    values = np.array(dataclasses.astuple(CpgaParams()), dtype=np.int64)
    search = Search(native_problem(HARD), values, 0)
    go, errors = threading.Barrier(3), []

    def run() -> None:
        go.wait()
        try:
            search.run(1_000_000, 1 << 40)
        except RuntimeError as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # The others came to run while it searched: it does not hold the interpreter's lock.
    assert errors
    assert all("another thread" in str(error) for error in errors)
    assert search.progress()[0] >= 1_000_000


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(CpgaParams)])
def test_parameters_out_of_range_are_refused(field: str) -> None:
    for value in (-1, 2**40):
        with pytest.raises(ParamsError, match="in range"):
            search_schedule(HARD, params=dataclasses.replace(CpgaParams(), **{field: value}))


def test_stops_out_of_range_are_refused() -> None:
    with pytest.raises(StopError, match="at least one budget"):
        Stop()
    with pytest.raises(StopError, match="max_evaluations = -1"):
        Stop(max_evaluations=-1)
    for field, value in (("max_evaluations", 0.5), ("stagnation", True), ("time_limit_s", "1")):
        with pytest.raises(StopError, match=f"got {field} = {value!r}"):
            Stop(**{field: value})
    for name in ("time_limit_s", "cpu_limit_s"):
        for value in (float("nan"), float("inf"), 1e308):
            with pytest.raises(StopError, match=rf"below 2\*\*62; got {name} = {re.escape(str(value))}"):
                Stop(**{name: value})


def test_ten_thousand_tasks_on_eight_devices_improve_on_the_seeds() -> None:
    rng = np.random.default_rng(1)
    num = 10_000
    src = rng.integers(0, num - 1, 3 * num)
    edges = np.unique(
        np.stack([src, np.minimum(num - 1, src + rng.integers(1, 200, 3 * num))], 1), axis=0
    )
    edges = edges[edges[:, 0] < edges[:, 1]]
    copy_ns = rng.integers(1, 5_000, (16, 8, 8)) * (1 - np.eye(8, dtype=np.int64))
    problem = dataclasses.replace(
        draw_problem(0, 0, 1),
        devices=tuple(f"d{i}" for i in range(8)),
        device_cores=tuple((i,) for i in range(8)),
        exec_ns=rng.integers(100, 10_000, (num, 8)),
        edges=edges,
        copy_class=rng.integers(0, 16, len(edges)),
        copy_ns=copy_ns,
        **dict.fromkeys(
            ("release_ns", "delivery_ns", "colocation", "memory_bytes", "weight_bytes", "output_bytes")
        ),
    )
    found = search_schedule(problem, stop=Stop(max_evaluations=100_000))
    validate(problem, found.best)
    assert found.best.makespan_ns < min(
        search_schedule(problem, algorithm=name).best.makespan_ns
        for name in ("heft", "cpop", "peft", "fastest", "single")
    )
