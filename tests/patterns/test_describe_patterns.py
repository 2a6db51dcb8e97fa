"""The tree and the drawing of patterns."""

from __future__ import annotations

import re
from itertools import combinations
from xml.etree import ElementTree

import pytest

from tvm_sphinx.errors import ProblemError
from tvm_sphinx.patterns import (
    describe_patterns,
    find_patterns,
    patterns_dot,
    patterns_html,
    patterns_svg,
)

from .network_graphs import Builder, inception, transformer, two_towers

TRANSFORMER = """\
transformer: 172 tasks of 13 kernels, 2 patterns
├─ P1 x 12: 14 tasks, up to 12 in a row
│  ├─ P0 x 2, 24 in all: 2 tasks: dense_qkv, transpose_h
│  └─ 10 tasks: dense_qkv, transpose_ht, matmul_qk, softmax, matmul_sv, dense_out, 2 layer_norm, \
dense_up_gelu, dense_down
└─ 4 tasks in no pattern: embed, layer_norm, dense_pool, tanh
   └─ layer_norm x 1, 25 in all"""


def test_tree_of_a_transformer() -> None:
    graph = transformer(12)
    assert describe_patterns(graph, find_patterns(graph)) == TRANSFORMER


def test_tree_spells_each_pattern_out_once() -> None:
    graph = two_towers(3)
    tree = describe_patterns(graph, find_patterns(graph))
    assert tree.count("dense_qkv, transpose_h\n") == 1
    assert "P2 x 2: 45 tasks" in tree
    assert "P1 x 3, 6 in all" in tree


def test_tree_without_patterns() -> None:
    b = Builder()
    graph = b.graph(b.add("only"), name="one")
    expected = "one: 1 task of 1 kernel, 0 patterns\n└─ 1 task in no pattern: only"
    assert describe_patterns(graph, find_patterns(graph)) == expected


def test_tree_counts_kernels_that_recur_alone() -> None:
    b = Builder()
    graph = b.graph(b.chain(b.add("first"), *["relu"] * 63, "last"), name="chain")
    expected = """\
chain: 65 tasks of 3 kernels, 0 patterns
└─ 65 tasks in no pattern: first, 63 relu, last
   └─ relu x 63, up to 63 in a row"""
    assert describe_patterns(graph, find_patterns(graph)) == expected


def test_kernels_of_one_kind_recur_by_themselves() -> None:
    graph = inception("ab")
    tree = describe_patterns(graph, find_patterns(graph))
    assert "2 conv1" in tree
    assert " x " not in tree


@pytest.mark.parametrize(
    "graph", [transformer(3), two_towers(3), inception("aab")], ids=lambda g: g.name
)
def test_drawing_has_each_task_and_edge_once_and_boxes_that_close(graph) -> None:
    hierarchy = find_patterns(graph)
    drawing = patterns_dot(graph, hierarchy)
    assert len(re.findall(r"^ *t\d+ \[label=", drawing, re.M)) == graph.num_tasks
    assert len(re.findall(r"^ *t\d+ -> t\d+;", drawing, re.M)) == len(graph.edges)
    boxes = re.findall(r"subgraph (cluster_\d+_\d+)", drawing)
    assert len(boxes) == len(set(boxes)) == sum(pattern.count for pattern in hierarchy.patterns)
    assert drawing.count("{") == drawing.count("}")


@pytest.mark.parametrize(
    "graph", [transformer(3), two_towers(3), inception("aab")], ids=lambda g: g.name
)
def test_svg_nests_boxes_that_do_not_overlap_and_has_each_task_once(graph) -> None:
    hierarchy = find_patterns(graph)
    root = ElementTree.fromstring(patterns_svg(graph, hierarchy))
    groups = {"task": [], "occurrence": []}
    for group in root.iter("{http://www.w3.org/2000/svg}g"):
        if group.get("class") in groups:
            box = next(group.iter("{http://www.w3.org/2000/svg}rect"))
            x, y, width, height = (float(box.get(k)) for k in ("x", "y", "width", "height"))
            groups[group.get("class")].append((x, y, x + width, y + height))
    assert len(groups["task"]) == graph.num_tasks
    assert len(groups["occurrence"]) == sum(pattern.count for pattern in hierarchy.patterns)
    page = (0.0, 0.0, float(root.get("width")) + 1, float(root.get("height")) + 1)
    boxes = [page, *groups["occurrence"], *groups["task"]]
    for a, b in combinations(boxes, 2):
        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert apart or _holds(a, b) or _holds(b, a)
    assert all(_holds(page, box) for box in boxes)


def _holds(outer: tuple[float, ...], inner: tuple[float, ...]) -> bool:
    return (
        outer[0] <= inner[0] and outer[1] <= inner[1] and outer[2] >= inner[2] and outer[3] >= inner[3]
    )


def test_page_has_tree_and_drawing_with_names_escaped() -> None:
    b = Builder()
    b.add("a<b>")
    graph = b.graph(name="<&>")
    page = patterns_html(graph, find_patterns(graph))
    assert "Patterns of &lt;&amp;&gt;" in page
    assert "<svg " in page
    assert "<b>" not in page


def test_names_are_quoted() -> None:
    b = Builder()
    b.add('say "hi"\\')
    graph = b.graph(name='a "b"')
    assert 'digraph "a \\"b\\"" {' in patterns_dot(graph, find_patterns(graph))


def test_patterns_of_another_graph_are_refused() -> None:
    with pytest.raises(ProblemError, match="another"):
        describe_patterns(transformer(2), find_patterns(transformer(3)))
    with pytest.raises(ProblemError, match="another"):
        patterns_dot(transformer(2), find_patterns(transformer(3)))
    with pytest.raises(ProblemError, match="another"):
        patterns_svg(transformer(2), find_patterns(transformer(3)))
