"""Every algorithm through its one interface."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import re
import signal
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import draw_problem, problems
from tvm_sphinx.cli import main
from tvm_sphinx.errors import SphinxError
from tvm_sphinx.scheduling.problem import SchedulingProblem
from tvm_sphinx.scheduling.problem_file import write_problem
from tvm_sphinx.scheduling.schedule import validate
from tvm_sphinx.search import (
    ALGORITHMS,
    NoRoomError,
    ParamsError,
    Stop,
    StopError,
    check_search,
    exact,
    search_schedule,
)
from tvm_sphinx.search.coarse import coarsen
from tvm_sphinx.search.native import native_problem

SMALL = Stop(max_evaluations=2_000)
HEURISTICS = ("heft", "cpop", "peft", "fastest")


@settings(max_examples=60, deadline=None)
@given(problems())
def test_every_heuristic_gives_a_valid_schedule(problem: SchedulingProblem) -> None:
    for name in HEURISTICS:
        validate(problem, search_schedule(problem, algorithm=name).best)


@settings(max_examples=60, deadline=None)
@given(problems(max_tasks=30), st.integers(0, 2**64 - 1))
def test_cpga_is_never_above_any_cheap_heuristic(problem: SchedulingProblem, seed: int) -> None:
    found = search_schedule(problem, seed=seed, stop=SMALL).best
    validate(problem, found)
    rivals = [search_schedule(problem, algorithm=name).best.makespan_ns for name in HEURISTICS]
    if (problem.exec_ns >= 0).all(axis=0).any():
        rivals.append(search_schedule(problem, algorithm="single").best.makespan_ns)
    assert found.lower_bound_ns <= found.makespan_ns <= min(rivals)


def test_same_seed_gives_the_same_schedule_and_another_seed_another() -> None:
    problem = draw_problem(1, 60, ccr=2.0)
    first, again, other = (search_schedule(problem, seed=s, stop=SMALL) for s in (7, 7, 8))
    assert np.array_equal(first.best.device, again.best.device)
    assert np.array_equal(first.best.start_ns, again.best.start_ns)
    assert first.evaluations == again.evaluations
    assert [(p.evaluations, p.makespan_ns) for p in first.history] == [
        (p.evaluations, p.makespan_ns) for p in again.history
    ]
    assert not np.array_equal(first.best.start_ns, other.best.start_ns)


def test_best_so_far_never_rises() -> None:
    points = search_schedule(draw_problem(2, 80), stop=Stop(max_evaluations=50_000)).history
    values = [point.makespan_ns for point in points]
    assert len(values) > 2
    assert values == sorted(values, reverse=True)


@settings(max_examples=60, deadline=None)
@given(problems(max_tasks=15, memory=True))
def test_a_schedule_that_is_found_fits_the_memory(problem: SchedulingProblem) -> None:
    # search_schedule validates what it returns, so any other error fails this test.
    with contextlib.suppress(NoRoomError):
        validate(problem, search_schedule(problem, stop=SMALL).best)


def test_memory_that_holds_nothing_is_reported() -> None:
    problem = dataclasses.replace(
        draw_problem(3, 10, memory=True), memory_bytes=np.zeros(3, dtype=np.int64)
    )
    with pytest.raises(NoRoomError, match=r"lacks \d+ bytes"):
        search_schedule(problem, stop=SMALL)


def test_tight_memory_moves_tasks_off_the_fastest_device() -> None:
    exec_ns = [[10, 30]] * 6
    problem = SchedulingProblem(
        name="tight",
        devices=("fast", "slow"),
        device_cores=((0,), (1,)),
        exec_ns=np.array(exec_ns),
        edges=np.array([[i, i + 1] for i in range(5)]),
        copy_class=np.zeros(5, dtype=np.int64),
        copy_ns=np.zeros((1, 2, 2), dtype=np.int64),
        memory_bytes=np.array([25, 100]),
        weight_bytes=np.full(6, 10),
        output_bytes=np.full(6, 1),
    )
    assert search_schedule(problem, stop=SMALL).best.makespan_ns == 2 * 10 + 4 * 30


def test_unknown_algorithm_lists_the_known_ones() -> None:
    with pytest.raises(SphinxError, match=r"Unknown algorithm 'cgpa'; known: .*cpga.*heft"):
        search_schedule(draw_problem(0, 3), algorithm="cgpa")


@pytest.mark.parametrize("name", sorted(set(ALGORITHMS) - {"exact"}))
def test_every_algorithm_says_its_seed_and_refuses_one_out_of_range(name: str) -> None:
    problem = draw_problem(11, 10)
    assert search_schedule(problem, algorithm=name, seed=2**64 - 1, stop=SMALL).seed == 2**64 - 1
    for seed in (-1, 2**64, 0.5, True):
        with pytest.raises(ParamsError, match=re.escape(f"2**64 - 1; got {seed}.")):
            search_schedule(problem, algorithm=name, seed=seed, stop=SMALL)


def test_ctrl_c_after_a_proof_is_a_keyboard_interrupt() -> None:
    """CP-SAT catches SIGINT while it works, and would leave it to kill the process."""
    pytest.importorskip("ortools")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        search_schedule(draw_problem(0, num_tasks=6, num_devices=2), algorithm="exact")
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_algorithms_are_named() -> None:
    heuristics = {"heft", "cpop", "peft", "fastest", "single"}
    assert set(ALGORITHMS) == {"annealing", "cpga", "exact", *heuristics}


@pytest.mark.parametrize("name", ["cpop", "fastest"])
def test_heuristics_that_pass_the_memory_say_so(name: str) -> None:
    """Two tasks whose weights fit one device each; these heuristics want both on the fast one."""
    problem = SchedulingProblem(
        name="weights",
        devices=("fast", "slow"),
        device_cores=((0,), (1,)),
        exec_ns=np.array([[10, 100], [10, 100]]),
        edges=np.array([(0, 1)]),
        copy_class=np.zeros(1, dtype=np.int64),
        copy_ns=np.array([[[0, 50], [50, 0]]]),
        memory_bytes=np.array([10, 10]),
        weight_bytes=np.array([8, 8]),
    )
    with pytest.raises(NoRoomError, match=f"schedule of '{name}' does not fit the memory"):
        search_schedule(problem, algorithm=name)
    assert search_schedule(problem, stop=SMALL).best.makespan_ns == 160


@pytest.mark.parametrize("seed", [-5, 2**64, 0.0, None, "1"])
def test_a_seed_is_refused_before_any_work(seed: object) -> None:
    with pytest.raises(ParamsError, match=r"Expected seed as an integer of 0\.\.2\*\*64 - 1"):
        check_search(seed=seed)


@pytest.mark.parametrize("stop", [5, 0.1, "fast", (1, 2)])
def test_a_budget_that_is_none_is_refused(stop: object) -> None:
    with pytest.raises(StopError, match="Expected stop as a Stop or None"):
        check_search(stop=stop)
    with pytest.raises(StopError, match="Expected stop as a Stop or None"):
        search_schedule(draw_problem(0, 3), stop=stop)


def test_steps_share_one_budget_and_one_history() -> None:
    """Blocks are searched first, with what is left for the whole; evaluations are counted once."""
    problem = draw_problem(8, 90, 3, ccr=10.0)
    assert coarsen(problem) is not None
    seen: list[int] = []
    stop = Stop(max_evaluations=20_000)
    found = search_schedule(problem, stop=stop, progress=lambda point: seen.append(point.makespan_ns))
    assert found.evaluations == 20_000
    assert found.stop_reason == "evaluations"
    assert seen == [point.makespan_ns for point in found.history]
    assert seen == sorted(set(seen), reverse=True)
    assert seen[-1] == found.best.makespan_ns


def test_ctrl_c_among_the_blocks_ends_the_whole_search(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = draw_problem(8, 90, 3, ccr=10.0)

    def interrupted(_: SchedulingProblem) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tvm_sphinx.search.portfolio.REDUCTIONS", (interrupted,))
    found = search_schedule(problem, stop=Stop(max_evaluations=10**7))
    assert found.stop_reason == "interrupted"
    assert found.evaluations < 10**6
    assert found.best.makespan_ns <= search_schedule(problem, algorithm="heft").best.makespan_ns


def test_a_problem_is_made_native_once() -> None:
    problem = draw_problem(8, 90, 3, ccr=10.0)
    assert native_problem(problem) is native_problem(problem)
    alive = weakref.ref(problem)
    del problem
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("with_ortools", [True, False])
def test_every_door_gives_the_same_schedule(
    with_ortools: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A problem in memory and in a file, with and without OR-Tools at hand."""
    if not with_ortools:
        monkeypatch.setitem(sys.modules, "ortools", None)
    for seed, num_tasks, ccr in ((0, 12, 1.0), (1, 38, 3.0), (2, 90, 10.0)):
        problem = draw_problem(seed, num_tasks, ccr=ccr)
        path, out = tmp_path / "problem.json", tmp_path / "schedule.json"
        write_problem(problem, path)
        args = ["search", str(path), "--seed", "7", "--max-evaluations", "5000", "-o", str(out)]
        assert main(args) == 0
        written = json.loads(out.read_text())
        found = search_schedule(problem, seed=7, stop=Stop(max_evaluations=5_000))
        assert written["device"] == found.best.device.tolist()
        assert written["start_ns"] == found.best.start_ns.tolist()
        assert written["algorithm"] == found.algorithm == "cpga"
        assert main([*args[:4], "-o", str(out)]) == 0
        assert json.loads(out.read_text())["algorithm"] == "cpga"


@pytest.mark.parametrize("has_solver", [True, False])
def test_what_is_left_of_a_time_limit_proves_the_schedule(
    has_solver: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_solver:
        monkeypatch.setattr(exact, "find_spec", lambda name: None)
    problem = draw_problem(5, 45, 3, ccr=10.0)
    few = Stop(max_evaluations=2_000)
    hasty = search_schedule(problem, stop=few)
    found = search_schedule(problem, stop=dataclasses.replace(few, time_limit_s=3.0))
    validate(problem, found.best)
    assert hasty.stop_reason == "evaluations"
    assert hasty.best.lower_bound_ns < found.best.lower_bound_ns <= found.best.makespan_ns
    assert found.best.makespan_ns <= hasty.best.makespan_ns
    assert found.algorithm == "cpga"
    assert (found.stop_reason == "optimal") == (found.best.gap == 0)
    assert hasty.runtime_s < found.runtime_s
