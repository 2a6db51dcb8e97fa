"""What `find_patterns` finds, on graphs that have the shape of networks and on random ones."""

from __future__ import annotations

import random

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_sphinx.errors import ProblemError
from tvm_sphinx.patterns import PatternHierarchy, find_patterns, operator_labels
from tvm_sphinx.scheduling.graph import TaskGraph

from .network_graphs import (
    Builder,
    bilstm,
    inception,
    long_chain,
    random_block,
    random_graph,
    renumbered,
    resnet,
    ring,
    stacked,
    transformer,
    two_towers,
    wide_fan,
    with_kernel,
)

NETWORKS = [transformer(4), two_towers(3), inception("aabb"), resnet(), bilstm(6), long_chain(120)]

seeds = st.integers(0, 2**32 - 1)


@st.composite
def random_graphs(draw: st.DrawFn) -> TaskGraph:
    return random_graph(
        draw(st.integers(1, 40)),
        draw(st.integers(1, 6)),
        draw(seeds),
        draw(st.integers(1, 3)),
        draw(st.sampled_from([0.0, 0.5, 1.0])),
    )


@st.composite
def stacks(draw: st.DrawFn) -> tuple[TaskGraph, int, int]:
    """A stack of random blocks, the number of blocks, and the tasks in each."""
    count = draw(st.integers(3, 6))
    graph = stacked(random_block(draw(seeds), draw(st.integers(2, 10)), draw(st.integers(2, 6))), count)
    return graph, count, (graph.num_tasks - 2) // count


def sizes(hierarchy: PatternHierarchy) -> list[tuple[int, int]]:
    return [(pattern.count, pattern.num_tasks) for pattern in hierarchy.patterns]


def labelled(graph: TaskGraph, tasks: tuple[int, ...]) -> nx.DiGraph:
    """The subgraph of the given tasks, with what an isomorphism has to keep."""
    inside = set(tasks)
    result = nx.DiGraph()
    for task in tasks:
        result.add_node(task, kernel=graph.tasks[task].kernel)
        for slot, (producer, output) in enumerate(graph.tasks[task].operands):
            if producer in inside:
                slots = result.get_edge_data(producer, task, {"slots": ()})["slots"]
                result.add_edge(producer, task, slots=(*slots, (slot, output)))
    return result


def are_isomorphic(one: nx.DiGraph, other: nx.DiGraph) -> bool:
    return nx.is_isomorphic(
        one,
        other,
        node_match=lambda a, b: a["kernel"] == b["kernel"],
        edge_match=lambda a, b: a["slots"] == b["slots"],
    )


def test_a_transformer_is_equal_layers_with_equal_branches() -> None:
    hierarchy = find_patterns(transformer(12))
    # Query and value projections have equal kernels; the key is transposed another way.
    assert sizes(hierarchy) == [(24, 2), (12, 14)]
    assert len(hierarchy.tasks_outside) == 4
    assert [part.pattern for part in hierarchy.patterns[1].parts].count(0) == 2


def test_two_towers_are_found_above_their_layers() -> None:
    hierarchy = find_patterns(two_towers(6))
    assert sizes(hierarchy) == [(24, 2), (12, 14), (2, 6 * 14 + 3)]
    assert [pattern.level for pattern in hierarchy.patterns] == [1, 2, 3]
    assert len(hierarchy.outermost) == 2


def test_inception_blocks_match_only_where_their_shapes_do() -> None:
    graph = inception("aabc")
    assert sizes(find_patterns(graph)) == [(2, 8)]
    assert sizes(find_patterns(graph, operator_labels(graph))) == [(4, 8)]


def test_residual_stages_are_rows_of_bottlenecks() -> None:
    hierarchy = find_patterns(resnet((3, 4, 6, 3)))
    assert sorted(sizes(hierarchy)) == sorted(
        [(3, 2), (4, 2), (6, 2), (3, 2), (2, 3), (3, 3), (5, 3), (2, 3)]
    )


def test_both_directions_of_a_recurrent_net_have_the_same_cell() -> None:
    assert sizes(find_patterns(bilstm(20)))[0] == (40, 3)


def test_layer_ends_where_fewest_tensors_cross() -> None:
    """Pre-norm layers begin with their norm, though the norm after the last is the same kernel."""
    b = Builder()
    x = b.add("embed")
    for _ in range(5):
        attended = b.add("attend_add", b.add("norm", x), x)
        x = b.add("mlp_add", b.add("norm2", attended), attended)
    graph = b.graph(b.chain(x, "norm", "head"))
    (pattern,) = find_patterns(graph).patterns
    assert pattern.count == 5
    assert pattern.labels == ("norm", "attend_add", "norm2", "mlp_add")


def test_what_feeds_many_alike_ends_before_them() -> None:
    hierarchy = find_patterns(wide_fan(50))
    assert hierarchy.patterns == ()
    assert [len(tasks) for tasks in hierarchy.recurring_kernels] == [48]


def test_same_kernel_with_other_operands_does_not_match() -> None:
    b = Builder()
    x, y = b.add("left"), b.add("right")
    b.add("tail", b.add("join", x, y))
    b.add("tail", b.add("join", y, x))
    graph = b.graph()
    for pattern in find_patterns(graph).patterns:
        assert "left" not in pattern.labels


@pytest.mark.parametrize("graph", NETWORKS, ids=lambda graph: graph.name)
def test_occurrences_are_isomorphic_with_their_given_matching(graph: TaskGraph) -> None:
    for pattern in find_patterns(graph).patterns:
        first = labelled(graph, pattern.occurrences[0])
        for occurrence in pattern.occurrences:
            renamed = dict(zip(pattern.occurrences[0], occurrence, strict=True))
            other = labelled(graph, occurrence)
            moved = nx.relabel_nodes(first, renamed)
            assert dict(moved.nodes(data="kernel")) == dict(other.nodes(data="kernel"))
            assert {(u, v): s for u, v, s in moved.edges(data="slots")} == {
                (u, v): s for u, v, s in other.edges(data="slots")
            }
            assert nx.is_weakly_connected(other)


@given(random_graphs())
@settings(max_examples=150, deadline=None)
def test_random_occurrences_are_isomorphic(graph: TaskGraph) -> None:
    for pattern in find_patterns(graph).patterns:
        first = labelled(graph, pattern.occurrences[0])
        assert all(are_isomorphic(first, labelled(graph, row)) for row in pattern.occurrences)


@given(random_graphs(), seeds)
@settings(max_examples=200, deadline=None)
def test_numbering_does_not_matter(graph: TaskGraph, seed: int) -> None:
    """Another topological order of the same graph gives the same patterns, renumbered."""
    other, new_id = renumbered(graph, seed)
    expected = [
        (p.labels, p.parts, p.level, tuple(tuple(new_id[t] for t in row) for row in p.occurrences))
        for p in find_patterns(graph).patterns
    ]
    found = [(p.labels, p.parts, p.level, p.occurrences) for p in find_patterns(other).patterns]
    assert sorted(found, key=repr) == sorted(expected, key=repr)


def test_equal_ends_that_nothing_returns_lie_in_no_pattern() -> None:
    graph = ring(5)
    hierarchy = find_patterns(graph)
    assert hierarchy.patterns == hierarchy.recurring_kernels == ()
    assert hierarchy.alike == tuple(range(graph.num_tasks))
    assert sorted(hierarchy.tasks_outside) == list(range(graph.num_tasks))


@given(random_graphs())
@settings(max_examples=100, deadline=None)
def test_what_the_graph_returns_and_all_that_it_depends_on_is_told_apart(graph: TaskGraph) -> None:
    needed = {output.producer for output in graph.outputs}
    for task in reversed(range(graph.num_tasks)):
        if task in needed:
            needed.update(graph.predecessors[task])
    assert needed.isdisjoint(find_patterns(graph).alike)


@given(stacks(), seeds)
@settings(max_examples=60, deadline=None)
def test_isomorphic_stacks_give_isomorphic_patterns(
    stack: tuple[TaskGraph, int, int], seed: int
) -> None:
    graph, _, _ = stack
    other, _ = renumbered(graph, seed)
    here = [labelled(graph, p.occurrences[0]) for p in find_patterns(graph).patterns]
    there = [labelled(other, p.occurrences[0]) for p in find_patterns(other).patterns]
    assert len(here) == len(there)
    for one in here:
        match = next((two for two in there if are_isomorphic(one, two)), None)
        assert match is not None
        there.remove(match)


@given(stacks())
@settings(max_examples=150, deadline=None)
def test_blocks_in_a_row_are_found_whole(stack: tuple[TaskGraph, int, int]) -> None:
    graph, count, size = stack
    blocks = [frozenset(range(1 + i * size, 1 + (i + 1) * size)) for i in range(count)]
    assert any(
        sorted(map(sorted, pattern.occurrences)) == sorted(map(sorted, blocks))
        for pattern in find_patterns(graph).patterns
    )


@given(stacks(), seeds)
@settings(max_examples=150, deadline=None)
def test_a_change_breaks_its_own_match_and_no_other(
    stack: tuple[TaskGraph, int, int], seed: int
) -> None:
    """A changed shape, dtype or attribute is another kernel id: only its own block stops matching."""
    graph, count, size = stack
    draw = random.Random(seed)
    block, place = draw.randrange(count), draw.randrange(size)
    changed = 1 + block * size + place
    mutated = with_kernel(graph, changed, "changed")
    hierarchy = find_patterns(mutated)
    broken = set(range(1 + block * size, 1 + (block + 1) * size))
    assert not any(
        broken <= set(row) for p in hierarchy.patterns for row in p.occurrences if p.num_tasks == size
    )
    inside = {task for p in hierarchy.patterns for row in p.occurrences for task in row}
    assert changed not in inside
    row_of = {task: tasks for tasks in hierarchy.recurring_kernels for task in tasks}
    for position in range(size):
        others = {1 + i * size + position for i in range(count) if i != block}
        assert all(others <= set(row_of[task]) for task in others)


@given(random_graphs())
@settings(max_examples=100, deadline=None)
def test_patterns_nest_and_never_overlap_otherwise(graph: TaskGraph) -> None:
    rows = [set(row) for p in find_patterns(graph).patterns for row in p.occurrences]
    for index, one in enumerate(rows):
        for other in rows[index + 1 :]:
            assert not one & other or one < other or other < one


def test_the_empty_graph_has_no_patterns() -> None:
    assert find_patterns(TaskGraph("empty", ())).patterns == ()


def test_labels_must_be_one_per_task() -> None:
    with pytest.raises(ProblemError, match="Expected 4 labels"):
        find_patterns(wide_fan(4), ["a", "b"])


def test_hierarchy_refuses_overlapping_occurrences() -> None:
    hierarchy = find_patterns(transformer(3))
    pattern = hierarchy.patterns[0]
    doubled = type(pattern)(pattern.labels, (pattern.occurrences[0],) * 2, pattern.parts, 1)
    with pytest.raises(ProblemError, match="disjoint occurrences"):
        PatternHierarchy(
            hierarchy.graph_fingerprint, hierarchy.labels, hierarchy.canonical_order, (doubled,)
        )
