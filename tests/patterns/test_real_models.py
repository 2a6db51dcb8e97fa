"""The patterns of real networks are what a person would name, from their stored task graphs."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from tvm_sphinx.patterns import PatternHierarchy, find_patterns, operator_labels
from tvm_sphinx.scheduling.graph import TaskGraph

GRAPHS = Path(__file__).resolve().parents[1] / "data" / "graphs"


def load(name: str) -> TaskGraph:
    return TaskGraph.from_json(json.loads(gzip.decompress((GRAPHS / f"{name}.json.gz").read_bytes())))


def kinds(graph: TaskGraph, tasks: tuple[int, ...]) -> list[str]:
    return ["+".join(graph.tasks[task].op_kinds) for task in tasks]


def of_size(hierarchy: PatternHierarchy, count: int, num_tasks: int) -> int:
    """The index of the one pattern with so many occurrences of so many tasks."""
    (index,) = (
        i for i, p in enumerate(hierarchy.patterns) if (p.count, p.num_tasks) == (count, num_tasks)
    )
    return index


def test_bert_is_twelve_layers() -> None:
    graph = load("bert_base")
    hierarchy = find_patterns(graph)
    layer = hierarchy.patterns[of_size(hierarchy, 12, 20)]
    found = kinds(graph, layer.occurrences[0])
    # Query, key, value; scores and mix; output; up; down: eight products, one softmax, two norms.
    assert sum("matmul" in kind for kind in found) == 8
    assert sum("softmax" in kind for kind in found) == 1
    assert sum("layer_norm" in kind for kind in found) == 2
    # Post-norm: a layer ends with its second norm, and the norm of the embedding is outside.
    assert "layer_norm" in found[-1]
    outside = kinds(graph, hierarchy.tasks_outside)
    assert len(outside) == 7
    assert sum("layer_norm" in kind for kind in outside) == 1
    # Inside, the sum and norm after the attention and after the products is one pattern.
    assert of_size(hierarchy, 24, 2) in [part.pattern for part in layer.parts]
    # Each layer feeds the next.
    for first, second in zip(layer.occurrences, layer.occurrences[1:], strict=False):
        assert any(edge.src in first and edge.dst in second for edge in graph.edges)


def test_googlenet_is_nine_inception_blocks_of_different_widths() -> None:
    graph = load("googlenet")
    alike = find_patterns(graph, operator_labels(graph))
    block = alike.patterns[of_size(alike, 9, 8)]
    found = kinds(graph, block.occurrences[0])
    assert sum("conv2d" in kind for kind in found) == 6
    assert sum("pool_max" in kind for kind in found) == 1
    assert found[-1] == "concat"
    # Twice a pool is followed by two blocks, once by the first two of five.
    assert of_size(alike, 3, 17) == len(alike.patterns) - 1
    # With shapes only branches recur: a projected pool in 4b, 4c, 4d and in 5a, 5b; a 5x5 in 4b, 4c.
    equal = find_patterns(graph)
    assert sorted((p.count, p.num_tasks) for p in equal.patterns) == [(2, 2), (2, 2), (3, 2)]
    for pattern in equal.patterns:
        assert "conv2d" in kinds(graph, pattern.occurrences[0])[-1]


def test_resnet50_is_sixteen_bottlenecks_in_four_stages() -> None:
    graph = load("resnet50")
    alike = find_patterns(graph, operator_labels(graph))
    bottleneck = alike.patterns[of_size(alike, 16, 3)]
    assert all("conv2d" in kind for kind in kinds(graph, bottleneck.occurrences[0]))
    # A stage opens with three bottlenecks and the projection of the first.
    assert of_size(alike, 4, 10)
    # With shapes: of 3, 4, 6 and 3 blocks all but the first of each stage are equal.
    equal = find_patterns(graph)
    assert sorted(p.count for p in equal.patterns if p.num_tasks == 3) == [2, 2, 3, 5]


def test_clip_is_two_towers_of_twelve_unlike_layers() -> None:
    graph = load("clip")
    hierarchy = find_patterns(graph)
    text = hierarchy.patterns[of_size(hierarchy, 12, 20)]
    image = hierarchy.patterns[of_size(hierarchy, 12, 17)]
    for layer in (text, image):
        found = kinds(graph, layer.occurrences[0])
        assert sum("softmax" in kind for kind in found) == 1
        assert sum("matmul" in kind for kind in found) == 8
    # Only text is masked.
    assert any("where" in kind.split("+")[0] for kind in kinds(graph, text.occurrences[0]))
    assert not any("where" in kind.split("+")[0] for kind in kinds(graph, image.occurrences[0]))
    tower = {task for row in text.occurrences for task in row}
    assert tower.isdisjoint(task for row in image.occurrences for task in row)


def test_t5_decoder_layers_contain_what_encoder_layers_are() -> None:
    """A decoder layer is a self-attention before what an encoder layer is made of."""
    hierarchy = find_patterns(load("t5_small"))
    decoder = hierarchy.patterns[of_size(hierarchy, 6, 38)]
    encoder, attention = of_size(hierarchy, 12, 22), of_size(hierarchy, 18, 16)
    assert [part.pattern for part in decoder.parts] == [attention, encoder]
    assert attention in [part.pattern for part in hierarchy.patterns[encoder].parts]


def test_both_directions_of_a_bilstm_are_one_pattern_of_cells() -> None:
    hierarchy = find_patterns(load("bilstm"))
    direction = hierarchy.patterns[of_size(hierarchy, 2, 124)]
    cell = of_size(hierarchy, 62, 3)
    assert [part.pattern for part in direction.parts].count(cell) == 31
