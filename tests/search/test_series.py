"""Problems that are a series of small ones: cuts, proofs, reuse, and what is not solved this way."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.synthetic import BOARDS, Board, make_problem
from tests.scale import SCALE
from tests.search.test_known_problems import brute_force_ns
from tests.strategies import CORE_LAYOUTS, problems
from tvm_sphinx.scheduling.graph import TaskGraph
from tvm_sphinx.scheduling.problem import CANNOT_RUN, NO_GROUP, UNLIMITED, SchedulingProblem
from tvm_sphinx.scheduling.schedule import validate
from tvm_sphinx.search import Stop, search_schedule, solve_series

GRAPHS = Path(__file__).parents[1] / "data" / "graphs"


def draw_series(
    seed: int,
    blocks: int,
    *,
    width: int = 3,
    num_devices: int = 3,
    ccr: float = 1.0,
    layout: int = 0,
    kinds: int = 0,
) -> SchedulingProblem:
    """Return blocks in a row, each of tasks side by side that a last one joins; some edges jump.

    With ``kinds``, every block is one of so many, equal in its edges and all its costs.
    """
    rng = np.random.default_rng(seed)
    drawn = [np.random.default_rng([seed, kind]) for kind in range(kinds)]
    edges: dict[tuple[int, int], int] = {}
    exec_rows: list[list[int]] = []
    copies: list[np.ndarray] = []

    def edge(source: np.random.Generator, src: int, dst: int) -> None:
        table = source.integers(0, max(1, int(100 * ccr)) + 1, (num_devices, num_devices))
        table[range(num_devices), range(num_devices)] = 0
        if (src, dst) not in edges:
            edges[src, dst] = len(copies)
            copies.append(table)

    last = -1
    for block in range(blocks):
        source = np.random.default_rng([seed, block % kinds]) if drawn else rng
        first, count = len(exec_rows), 1 + int(source.integers(0, width))
        for task in range(first, first + count):
            exec_rows.append(source.integers(1, 100, num_devices).tolist())
            if last >= 0:
                edge(source, last, task)
            if task > first and source.random() < 0.3:
                edge(source, task - 1, task)
        exec_rows.append(source.integers(1, 100, num_devices).tolist())
        for task in range(first, first + count):
            edge(source, task, first + count)
        if not drawn and last > 0 and rng.random() < 0.5:
            edge(rng, int(rng.integers(max(0, last - 4), last)), first)
        last = first + count
    return SchedulingProblem(
        name=f"series-{seed}",
        devices=tuple(f"d{i}" for i in range(num_devices)),
        device_cores=CORE_LAYOUTS[num_devices][layout % len(CORE_LAYOUTS[num_devices])],
        exec_ns=np.array(exec_rows),
        edges=np.array(list(edges)),
        copy_class=np.array(list(edges.values())),
        copy_ns=np.array(copies),
    )


@settings(max_examples=20 * SCALE, deadline=None)
@given(problems(max_tasks=6))
def test_agrees_with_brute_force_on_problems_of_every_kind(problem: SchedulingProblem) -> None:
    found = solve_series(problem)
    groups = problem.colocation[problem.colocation != NO_GROUP]
    if problem.num_tasks == 0 or len(np.unique(groups)) < len(groups):
        assert found is None
        return
    assert found is not None
    validate(problem, found.schedule)
    optimum = brute_force_ns(problem)
    assert found.schedule.lower_bound_ns <= optimum <= found.schedule.makespan_ns
    if (problem.release_ns == 0).all() and (problem.delivery_ns == 0).all():
        assert found.schedule.makespan_ns == optimum
        assert found.is_optimal


@pytest.mark.parametrize("seed", range(40))
def test_agrees_with_brute_force_on_short_series(seed: int) -> None:
    """Cuts, jumping edges whose data is and is not there in time, devices that share cores."""
    problem = draw_series(
        seed,
        2 + seed % 2,
        width=2,
        num_devices=2 + seed % 2,
        ccr=(0.1, 1.0, 5.0)[seed % 3],
        layout=seed // 2,
    )
    if problem.num_tasks > 6:
        problem = draw_series(seed, 2, width=1, num_devices=3, layout=seed, ccr=2.0)
    found = solve_series(problem)
    assert found is not None
    validate(problem, found.schedule)
    assert found.is_optimal
    assert found.schedule.makespan_ns == brute_force_ns(problem)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    blocks=st.integers(1, 12),
    width=st.integers(1, 5),
    num_devices=st.integers(1, 4),
    ccr=st.sampled_from([0.0, 0.1, 1.0, 10.0]),
    layout=st.integers(0, 2),
)
def test_no_search_beats_what_is_proven(
    seed: int, blocks: int, width: int, num_devices: int, ccr: float, layout: int
) -> None:
    problem = draw_series(seed, blocks, width=width, num_devices=num_devices, ccr=ccr, layout=layout)
    found = solve_series(problem)
    assert found is not None
    validate(problem, found.schedule)
    searched = search_schedule(problem, stop=Stop(max_evaluations=5_000), prune=False).best
    assert searched.makespan_ns >= found.schedule.lower_bound_ns
    if found.is_optimal:
        assert found.schedule.makespan_ns <= searched.makespan_ns


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), data=st.data(), cannot=st.booleans(), ends=st.booleans())
def test_inputs_outputs_and_devices_that_cannot_run_a_task(
    seed: int, data: st.DataObject, cannot: bool, ends: bool
) -> None:
    problem = draw_series(seed, 4, ccr=2.0)
    rng = np.random.default_rng(seed)
    shape = problem.exec_ns.shape
    if cannot:
        exec_ns = np.where(rng.random(shape) < 0.3, CANNOT_RUN, problem.exec_ns)
        exec_ns[:, 0] = problem.exec_ns[:, 0]
        problem = replace(problem, exec_ns=exec_ns)
    if ends:
        most = data.draw(st.sampled_from([10, 400]))
        problem = replace(
            problem,
            release_ns=rng.integers(0, most, shape),
            delivery_ns=rng.integers(0, most, shape),
        )
    found = solve_series(problem)
    assert found is not None
    validate(problem, found.schedule)
    searched = search_schedule(problem, stop=Stop(max_evaluations=5_000)).best
    assert found.schedule.lower_bound_ns <= searched.makespan_ns <= found.schedule.makespan_ns


def test_segments_end_at_tasks_that_are_comparable_with_all_others() -> None:
    for seed in range(60):
        problem = draw_series(seed, 6, ccr=0.0)
        reach = np.eye(problem.num_tasks, dtype=bool)
        for task in range(problem.num_tasks):
            for src, dst in problem.edges.tolist():
                if dst == task:
                    reach[:, task] |= reach[:, src]
        comparable = (reach | reach.T).all(axis=0)
        found = solve_series(problem)
        assert found is not None
        # Without copies no data is ever on its way; the last task of all ends the last segment anyhow.
        assert found.num_segments == comparable[:-1].sum() + 1


def test_data_on_its_way_joins_segments() -> None:
    """A copy that outlasts what lies between keeps its ends in one segment; a shorter one does not."""

    def chain(copy_ns: int) -> SchedulingProblem:
        tables = np.zeros((2, 2, 2), dtype=np.int64)
        tables[1, 0, 1] = tables[1, 1, 0] = copy_ns
        return SchedulingProblem(
            name="jump",
            devices=("a", "b"),
            device_cores=((0,), (1,)),
            exec_ns=np.full((5, 2), 10),
            edges=np.array([(0, 1), (1, 2), (2, 3), (3, 4), (0, 3)]),
            copy_class=np.array([0, 0, 0, 0, 1]),
            copy_ns=tables,
        )

    found = [solve_series(chain(copy_ns)) for copy_ns in (10, 11, 20, 21)]
    segments = [plan.num_segments for plan in found if plan is not None]
    # After 0, 1, 2 and 3; the data of 0 is pending after 1 for 10 and after 2 for 20.
    assert segments == [5, 4, 4, 3]


def test_equal_blocks_are_solved_once_and_a_changed_cost_breaks_one() -> None:
    problem = draw_series(5, 40, kinds=2)
    found = solve_series(problem)
    assert found is not None
    # The first block has no cut before it, and the last none after it.
    assert len(found.distinct) <= 2 * (2 + 2)
    assert found.num_segments >= 40
    exec_ns = np.array(problem.exec_ns)
    exec_ns[problem.num_tasks // 2] += 1
    changed = solve_series(replace(problem, exec_ns=exec_ns))
    assert changed is not None
    assert len(found.distinct) < len(changed.distinct) <= len(found.distinct) + 2
    assert found.is_optimal
    assert changed.is_optimal


def test_what_segments_would_share_is_left_to_the_search() -> None:
    problem = draw_series(7, 6)
    limits = np.array([problem.num_tasks, UNLIMITED, UNLIMITED])
    weights = np.ones(problem.num_tasks, dtype=np.int64)
    assert solve_series(replace(problem, memory_bytes=limits, weight_bytes=weights)) is None
    groups = np.full(problem.num_tasks, NO_GROUP)
    groups[[0, problem.num_tasks - 1]] = 0
    tied = replace(problem, colocation=groups)
    assert solve_series(tied) is None
    validate(tied, search_schedule(tied, stop=Stop(max_evaluations=2_000)).best)


def test_more_than_64_tasks_without_a_cut_are_left_to_the_search() -> None:
    for count, is_solved in ((64, True), (65, False)):
        wide = SchedulingProblem(
            name="wide",
            devices=("a", "b"),
            device_cores=((0,), (1,)),
            exec_ns=np.arange(1, 2 * count + 1).reshape(count, 2),
            edges=np.zeros((0, 2), dtype=np.int64),
            copy_class=np.zeros(0, dtype=np.int64),
            copy_ns=np.zeros((1, 2, 2), dtype=np.int64),
        )
        assert (solve_series(wide, Stop(max_evaluations=100_000)) is not None) == is_solved


def test_a_small_budget_gives_a_valid_schedule_without_a_proof() -> None:
    problem = draw_series(11, 12, width=9, num_devices=4, ccr=1.0)
    small = Stop(max_evaluations=5_000)
    whole, hasty = solve_series(problem), solve_series(problem, small)
    assert whole is not None
    assert hasty is not None
    validate(problem, hasty.schedule)
    assert hasty.work < whole.work
    assert hasty.schedule.makespan_ns >= whole.schedule.lower_bound_ns
    assert not hasty.is_optimal
    again = solve_series(problem, small)
    assert again is not None
    assert np.array_equal(again.schedule.start_ns, hasty.schedule.start_ns)


def test_work_stays_within_the_budget() -> None:
    """Many devices and wide segments: even narrow beams take more than there is."""
    problem = draw_series(11, 8, width=9, num_devices=4, ccr=1.0)
    budget = 100
    assert solve_series(problem, Stop(max_evaluations=budget)) is None
    found = search_schedule(problem, stop=Stop(max_evaluations=budget))
    validate(problem, found.best)
    assert found.evaluations <= budget + problem.num_devices + 10, "seeds come on top"


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
@pytest.mark.parametrize(
    "name", ["bert_base", "densenet121", "googlenet", "mobilenet_v2", "resnet50", "swin_t", "vit_b16"]
)
def test_networks_are_scheduled_optimally(name: str, board: Board) -> None:
    content = gzip.decompress((GRAPHS / f"{name}.json.gz").read_bytes())
    problem = make_problem(TaskGraph.from_json(json.loads(content)), board)
    found = search_schedule(problem)
    assert (found.stop_reason, found.best.gap) == ("optimal", 0.0)
    searched = search_schedule(problem, prune=False, stop=Stop(max_evaluations=20_000)).best
    assert found.best.makespan_ns <= searched.makespan_ns
    again = search_schedule(problem, seed=1)
    assert np.array_equal(again.best.start_ns, found.best.start_ns)
