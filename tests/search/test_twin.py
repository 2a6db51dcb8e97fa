"""The native core agrees with the plain-Python twin, slice by slice."""

from __future__ import annotations

from dataclasses import astuple, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.search.twin import Rng, Twin
from tests.search.twin_heuristics import run_heuristic
from tests.strategies import draw_problem, problems
from tvm_sphinx.cpga_ext._cpga import Search
from tvm_sphinx.scheduling.problem import SchedulingProblem
from tvm_sphinx.search import CpgaParams
from tvm_sphinx.search.heuristics import KINDS
from tvm_sphinx.search.native import native_problem, to_int64

#: Small cycles, so that crossover and replacement come into play within a few thousand evaluations.
QUICK = CpgaParams(population=3, effort=10, focus=8, visit=16, sort_every=3)


def native_search(problem: SchedulingProblem, params: CpgaParams, seed: int) -> Search:
    return Search(native_problem(problem), np.array(astuple(params), dtype=np.int64), seed)


def assert_agree(search: Search, twin: Twin) -> None:
    """Same evaluations, same best, same moment of its improvement."""
    assert twin.best is not None
    evaluations, makespan, last, overflow = search.progress()
    assert (evaluations, makespan, last) == (
        twin.evaluations,
        twin.best.makespan,
        twin.last_improvement,
    )
    assert overflow == 0
    _, order, device, _ = search.best()
    assert to_int64(order).tolist() == twin.best.order
    assert to_int64(device).tolist() == twin.best.device


@pytest.mark.parametrize("seed", range(6))
def test_search_agrees_generation_by_generation(seed: int) -> None:
    problem = draw_problem(
        seed, 14 + 3 * seed, 2 + seed % 3, ccr=(0.1, 1.0, 10.0)[seed % 3], layout=seed, special=seed > 1
    )
    params = replace(QUICK, late_percent=20 * seed)
    search, twin = native_search(problem, params, seed), Twin(problem, params, seed)
    assert_agree(search, twin)
    for _ in range(8):
        search.run(300, 2400)
        twin.run(300, 2400)
        assert_agree(search, twin)
    assert twin.is_child, "the run must have reached crossover"


@settings(max_examples=25, deadline=None)
@given(problems(max_tasks=12), st.integers(0, 2**64 - 1), st.integers(0, 100))
def test_search_agrees_on_random_problems(
    problem: SchedulingProblem, seed: int, critical_percent: int
) -> None:
    if problem.num_tasks == 0:
        return
    params = replace(QUICK, critical_percent=critical_percent)
    search, twin = native_search(problem, params, seed), Twin(problem, params, seed)
    search.run(400, 800)
    twin.run(400, 800)
    assert_agree(search, twin)


def test_default_parameters_agree_with_one_long_annealing() -> None:
    problem = draw_problem(5, 90, 3)
    search, twin = native_search(problem, CpgaParams(), 3), Twin(problem, CpgaParams(), 3)
    search.run(5000, 5000)
    twin.run(5000, 5000)
    assert twin.worse_seen < twin.evaluations / 5, "the temperature must have been steered"
    assert_agree(search, twin)


def test_long_copies_make_for_short_cycles() -> None:
    problem = draw_problem(6, 8, 3, ccr=20.0)
    search, twin = native_search(problem, CpgaParams(), 1), Twin(problem, CpgaParams(), 1)
    for _ in range(3):
        search.run(5_000, 15_000)
        twin.run(5_000, 15_000)
        assert_agree(search, twin)
    assert twin.effort() == 300
    assert twin.is_child, "the run must have reached crossover"


@settings(max_examples=80, deadline=None)
@given(problems(max_tasks=16))
def test_heuristics_agree(problem: SchedulingProblem) -> None:
    native = native_problem(problem)
    for name, number in KINDS.items():
        found = run_heuristic(problem, name)
        assert found is not None
        _, order, device, finish = native.heuristic(number)
        assert [to_int64(part).tolist() for part in (order, device, finish)] == list(found), name


def test_random_stream_is_the_published_one() -> None:
    # xoshiro256** from state (1, 2, 3, 4), the values of the authors' reference implementation.
    rng = Rng(0)
    rng.s = [1, 2, 3, 4]
    assert [rng.next() for _ in range(5)] == [
        11520,
        0,
        1509978240,
        1215971899390074240,
        1216172134540287360,
    ]
    # splitmix64 from seed 1234567 (the first outputs of the reference implementation).
    assert Rng(1234567).s == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
    ]
