"""Smaller search spaces, folding, and the search that uses both."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_sphinx.errors import ProblemError
from tvm_sphinx.patterns import (
    PruningReport,
    find_patterns,
    fold_problem,
    log10_size,
    prune_problem,
    prune_search_space,
    report_pruning,
    report_structure,
    search_with_pruning,
    tie_occurrences,
)
from tvm_sphinx.patterns.fold import Tiling
from tvm_sphinx.patterns.prune import best_heuristic_ns
from tvm_sphinx.patterns.series import Reach
from tvm_sphinx.scheduling.graph import FROM_INPUT, GraphInput, Operand, TaskGraph
from tvm_sphinx.scheduling.problem import CANNOT_RUN, SchedulingProblem
from tvm_sphinx.scheduling.schedule import validate
from tvm_sphinx.search import SearchSpace, Stop, search_schedule, solve_series
from tvm_sphinx.search.series import cut_tasks

from .network_graphs import (
    Builder,
    bilstm,
    inception,
    random_block,
    random_graph,
    renumbered,
    resnet,
    ring,
    stacked,
    transformer,
    two_towers,
    wide_fan,
)

NETWORKS = [transformer(4), two_towers(3), inception("aabb"), resnet(), wide_fan(40)]

seeds = st.integers(0, 2**32 - 1)


def problem_of(
    graph: TaskGraph, seed: int = 0, devices: int = 3, copy_ns: int = 40
) -> SchedulingProblem:
    """Costs drawn per kernel; one device can not run every kernel."""
    draw = random.Random(seed)
    rows: dict[str, list[int]] = {}
    for task in graph.tasks:
        row = [draw.randint(50, 300) for _ in range(devices)]
        if draw.random() < 0.2:
            row[-1] = CANNOT_RUN
        rows.setdefault(task.kernel, row)
    copies = copy_ns * (1 - np.eye(devices, dtype=np.int64))[None]
    return SchedulingProblem(
        name=graph.name,
        devices=tuple(f"d{index}" for index in range(devices)),
        device_cores=tuple((index,) for index in range(devices)),
        exec_ns=np.array([rows[task.kernel] for task in graph.tasks]),
        edges=np.array([(edge.src, edge.dst) for edge in graph.edges]).reshape(-1, 2),
        copy_class=np.zeros(len(graph.edges), dtype=np.int64),
        copy_ns=copies,
    )


def partition(space: SearchSpace, new_id: list[int] | None = None) -> list[list[int]]:
    return sorted(sorted(t if new_id is None else new_id[t] for t in gene) for gene in space.genes)


@given(st.integers(1, 40), st.integers(1, 6), seeds)
@settings(max_examples=80, deadline=None)
def test_genes_partition_the_tasks_and_expand_inverts_pruning(
    tasks: int, kernels: int, seed: int
) -> None:
    graph = random_graph(tasks, kernels, seed)
    problem = problem_of(graph, seed)
    space = prune_search_space(graph, problem=problem)
    assert sorted(task for gene in space.genes for task in gene) == list(range(tasks))
    chosen = [np.flatnonzero(row)[seed % row.sum()] for row in space.allowed(problem)]
    device = space.expand(chosen)
    assert [device[gene[0]] for gene in space.genes] == chosen
    assert (problem.exec_ns[np.arange(tasks), device] != CANNOT_RUN).all()


@given(st.integers(1, 40), st.integers(1, 6), seeds, st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=80, deadline=None)
def test_numbering_does_not_change_the_genes(
    tasks: int, kernels: int, seed: int, dropped: float
) -> None:
    graph = random_graph(tasks, kernels, seed, dropped=dropped)
    other, new_id = renumbered(graph, seed + 1)
    assert partition(prune_search_space(graph), new_id) == partition(prune_search_space(other))


@pytest.mark.parametrize("count", [2, 3, 5])
def test_numbering_does_not_change_the_genes_of_a_ring(count: int) -> None:
    graph = ring(count)
    for seed in range(30):
        assert prune_search_space(renumbered(graph, seed)[0]).num_genes == 2 * count


@given(st.integers(2, 40), st.integers(1, 6), seeds)
@settings(max_examples=50, deadline=None)
def test_only_equal_kernels_share_a_gene_without_costs(tasks: int, kernels: int, seed: int) -> None:
    graph = random_graph(tasks, kernels, seed)
    for gene in prune_search_space(graph).genes:
        assert len({graph.tasks[task].kernel for task in gene}) == 1


def test_layers_in_a_row_share_genes() -> None:
    # The two norms of a layer are one kernel, as is that before the first layer.
    assert prune_search_space(transformer(12)).num_genes == (14 - 1) + 3


def test_towers_side_by_side_do_not_share_genes() -> None:
    graph = two_towers(6)
    assert prune_search_space(graph).num_genes == 2 * (14 - 1 + 3) + 1
    # For comparison: query and value branches and both towers together.
    assert prune_search_space(graph, parallel=True).num_genes == 13 + 1


def test_like_branches_of_a_fan_stay_free() -> None:
    assert prune_search_space(wide_fan(40)).num_genes == 40


def test_tasks_in_one_gene_can_run_on_a_common_device() -> None:
    graph = transformer(3)
    problem = problem_of(graph)
    assert prune_search_space(graph, problem=problem).allowed(problem).any(axis=1).all()


def test_pruning_refuses_what_belongs_to_another_graph() -> None:
    graph = transformer(2)
    with pytest.raises(ProblemError, match="Expected patterns of graph"):
        prune_search_space(graph, find_patterns(transformer(3)))
    with pytest.raises(ProblemError, match=f"Expected a problem of {graph.num_tasks} tasks"):
        prune_search_space(graph, problem=problem_of(transformer(3)))
    problem = problem_of(graph)
    with pytest.raises(ProblemError, match="edges of the graph"):
        prune_problem(
            replace(problem, edges=problem.edges[:-1], copy_class=problem.copy_class[:-1]), graph
        )
    with pytest.raises(ProblemError, match="Expected patterns of graph"):
        prune_problem(problem_of(graph), graph, find_patterns(transformer(3)))


def test_report_counts_genes_and_placements() -> None:
    graph = transformer(6)
    problem = problem_of(graph)
    hierarchy = find_patterns(graph)
    space = prune_search_space(graph, hierarchy, problem)
    report = report_pruning(graph, hierarchy, space, problem)
    assert (report.tasks, report.genes_before, report.genes_after) == (88, 88, space.num_genes)
    can_run = (problem.exec_ns != CANNOT_RUN).sum(axis=1)
    assert report.log10_before == pytest.approx(np.log10(can_run).sum())
    assert report.log10_after == pytest.approx(log10_size(space, problem))
    assert report.log10_after < 10
    assert report.to_json()["gene_ratio"] == report.gene_ratio > 4
    assert PruningReport.from_json(report.to_json()) == report


def test_report_by_structure_alone_counts_every_device_for_every_task() -> None:
    graph = transformer(6)
    report = report_structure(graph, find_patterns(graph), 3)
    genes = prune_search_space(graph).num_genes
    assert (report.genes_before, report.genes_after) == (88, genes)
    assert report.log10_before == pytest.approx(88 * np.log10(3))
    assert report.log10_after == pytest.approx(genes * np.log10(3))
    assert f"88 genes, pruned {genes}; " in report.describe()


@pytest.mark.parametrize("graph", NETWORKS, ids=lambda graph: graph.name)
def test_upper_bound_is_the_best_heuristic(graph: TaskGraph) -> None:
    problem = problem_of(graph)
    names = ("heft", "cpop", "peft", "fastest", "single")
    found = []
    for name in names:
        with suppress(ProblemError):  # no device may be able to run everything
            found.append(search_schedule(problem, algorithm=name).best.makespan_ns)
    assert best_heuristic_ns(problem) == min(found)


@pytest.mark.parametrize(
    "graph", [transformer(12), stacked(random_block(7, 9, 4), 11)], ids=lambda graph: graph.name
)
def test_unfolded_schedules_are_valid_and_repeat_the_folded_devices(graph: TaskGraph) -> None:
    problem = problem_of(graph)
    folding = fold_problem(problem, graph, find_patterns(graph))
    assert folding is not None
    assert folding.folded.num_tasks * 2 <= problem.num_tasks
    short = search_schedule(folding.folded, algorithm="heft").best
    schedule = folding.unfold(short)
    validate(problem, schedule)
    assert (schedule.device == short.device[folding.stands_for]).all()
    kept = {int(folding.stands_for[task]): task for task in reversed(range(problem.num_tasks))}
    assert all(
        (problem.exec_ns[task] == folding.folded.exec_ns[short]).all() for short, task in kept.items()
    )


@pytest.mark.parametrize("graph", [two_towers(6), bilstm(12)], ids=lambda graph: graph.name)
def test_series_that_run_side_by_side_are_not_folded(graph: TaskGraph) -> None:
    problem = problem_of(graph)
    assert fold_problem(problem, graph, find_patterns(graph)) is None
    stop = Stop(max_evaluations=3000)
    pruned = search_with_pruning(problem, prune_problem(problem, graph), seed=4, stop=stop)
    whole = search_schedule(problem, seed=4, stop=stop)
    assert pruned.history[-1].makespan_ns == pruned.best.makespan_ns == whole.best.makespan_ns
    assert pruned.evaluations == whole.evaluations


@pytest.mark.parametrize(
    "graph", [*NETWORKS, *(random_graph(count) for count in (1, 2, 9, 40))], ids=lambda graph: graph.name
)
def test_cut_tasks_are_comparable_with_all_others(graph: TaskGraph) -> None:
    ancestors = Reach(graph).ancestors
    comparable = [
        all(ancestors[max(a, b)] >> min(a, b) & 1 for b in range(graph.num_tasks))
        for a in range(graph.num_tasks)
    ]
    assert cut_tasks(problem_of(graph)) == [task for task, is_cut in enumerate(comparable) if is_cut]


@pytest.mark.parametrize("count", [3, 4, 5, 6, 7, 11, 12, 30, 50, 151])
def test_a_tiling_keeps_neighbours_as_neighbours(count: int) -> None:
    tiling = Tiling.of([(task,) for task in range(count)])
    kept = sorted({tiling.stand_in(index) for index in range(count)})
    assert len(kept) == tiling.head + tiling.tile + tiling.tail < count
    assert [tiling.stand_in(index) for index in kept] == kept
    for index in range(1, count):
        before, after = tiling.stand_in(index - 1), tiling.stand_in(index)
        first, last = tiling.head, tiling.head + tiling.tile - 1
        # A step along the series, from tile to tile, or from the last tile to the tail.
        assert after == before + 1 or (before == last and after in (first, count - tiling.tail))
    repetitions = [tiling.repetition(index) for index in range(count)]
    assert repetitions == sorted(repetitions)
    assert repetitions[kept[0]] == 0
    assert repetitions[-1] * tiling.tile == count - len(kept)


def test_a_repeated_schedule_of_a_few_blocks_is_nearly_as_good_as_one_of_all() -> None:
    graph = stacked(random_block(3, 18, 6), 30)
    problem = problem_of(graph)
    folding = fold_problem(problem, graph, find_patterns(graph))
    assert folding is not None
    assert folding.folded.num_tasks * 4 < problem.num_tasks
    short = search_schedule(folding.folded, stop=Stop(max_evaluations=5_000)).best
    whole = search_schedule(problem, stop=Stop(max_evaluations=20_000)).best
    assert folding.unfold(short).makespan_ns <= 1.05 * whole.makespan_ns


@pytest.mark.parametrize(
    "graph", [transformer(2), inception("aabb"), wide_fan(40)], ids=lambda g: g.name
)
def test_what_has_no_three_in_a_row_is_not_folded(graph: TaskGraph) -> None:
    assert fold_problem(problem_of(graph), graph, find_patterns(graph)) is None


@pytest.mark.parametrize("graph", NETWORKS, ids=lambda graph: graph.name)
def test_pruned_search_is_valid_deterministic_and_never_above_a_heuristic(graph: TaskGraph) -> None:
    problem = problem_of(graph)
    pruning = prune_problem(problem, graph)
    stop = Stop(max_evaluations=4000)
    result = search_with_pruning(problem, pruning, seed=3, stop=stop)
    validate(problem, result.best)
    again = search_with_pruning(problem, prune_problem(problem, graph), seed=3, stop=stop)
    assert (result.best.device == again.best.device).all()
    assert result.best.makespan_ns == again.best.makespan_ns == result.history[-1].makespan_ns
    makespans = [point.makespan_ns for point in result.history]
    assert makespans == sorted(makespans, reverse=True)
    assert result.evaluations <= 4000
    for name in ("heft", "cpop", "peft", "fastest"):
        assert result.best.makespan_ns <= search_schedule(problem, algorithm=name).best.makespan_ns


def blocks_beside_the_input(count: int) -> tuple[TaskGraph, SchedulingProblem]:
    """Equal blocks in a row, and ten tasks beside them that only d1 can run.

    d1 is faster for a block, but the model's input is at d0 and large.
    """
    b = Builder()
    x = Operand(FROM_INPUT, 0)
    blocks = [x := b.add("block", x) for _ in range(count)]
    beside = [b.add(f"beside{i}", Operand(FROM_INPUT, 1)) for i in range(10)]
    outputs = (blocks[-1], *beside)
    graph = TaskGraph(
        "beside the input", tuple(b.tasks), (GraphInput("x", 10**6), GraphInput("y", 4)), outputs
    )
    release = np.zeros((count + 10, 2), dtype=np.int64)
    release[0, 1] = 200
    problem = SchedulingProblem(
        name=graph.name,
        devices=("d0", "d1"),
        device_cores=((0,), (1,)),
        exec_ns=np.array([[10, 6]] * count + [[CANNOT_RUN, 10]] * 10),
        edges=np.array([(i, i + 1) for i in range(count - 1)]),
        copy_class=np.zeros(count - 1, dtype=np.int64),
        copy_ns=np.array([[[0, 20], [20, 0]]]),
        release_ns=release,
    )
    return graph, problem


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("how", ["pruned", "tied"])
def test_refinement_unties_the_blocks_beside_the_input(how: str, seed: int) -> None:
    """All blocks on d0 take 700, all on d1 620; eight to ten on d0 and the rest on d1 take 480.

    No heuristic sees that the other tasks should use the time before the blocks come to d1.
    """
    graph, problem = blocks_beside_the_input(70)
    tied = SearchSpace.from_labels(tie_occurrences(graph, find_patterns(graph)))
    assert tied.num_genes == 11
    assert solve_series(problem) is None
    heuristics = [
        search_schedule(problem, algorithm=name) for name in ("heft", "cpop", "peft", "fastest")
    ]
    assert min(found.best.makespan_ns for found in heuristics) > 500
    stop = Stop(max_evaluations=60_000)
    if how == "pruned":
        found = search_with_pruning(problem, prune_problem(problem, graph), seed=seed, stop=stop).best
    else:
        found = search_schedule(problem, space=tied, seed=seed, stop=stop).best
    assert found.makespan_ns <= 484
    assert set(found.device[:70].tolist()) == {0, 1}
    assert found.device[0] == 0
    assert found.device[69] == 1
