"""Indices over loops: what splitting and fusing make of them, and how they move within a vector."""

from __future__ import annotations

from typing import Any

import pytest
from tvm import tirx

from tvm_sphinx.cost.model.indices import LoopIndices
from tvm_sphinx.cost.model.nest import Loop

ROW, LANE = tirx.Var("i", "int32"), tirx.Var("j", "int32")


@pytest.fixture
def indices() -> LoopIndices:
    """Return a loop of 6 round a vectorized one of 8, with variables i and j."""
    found = LoopIndices([Loop(0, 6, "serial"), Loop(1, 8, "vectorized")])
    found.bind(ROW, {0: 1.0})
    found.bind(LANE, {1: 1.0})
    return found


@pytest.mark.parametrize(
    ("node", "affine"),
    [
        (ROW * 8 + LANE - 3, {0: 8.0, 1: 1.0}),
        (ROW - LANE, {0: 1.0, 1: -1.0}),
        (tirx.const(5, "int32"), {}),
        # A fused loop of 48 that is split by 8 again; a loop that just fills the divisor counts in part.
        (tirx.floordiv(ROW * 8 + LANE, 8), {0: 1.0, 1: 0.125}),
        (tirx.floormod(ROW * 8 + LANE, 8), {1: 1.0}),
        # All that stays below the divisor has a quotient of 0.
        (tirx.floordiv(ROW, 6), {}),
        (tirx.floordiv(ROW * 16, 32), {0: 0.5}),
    ],
)
def test_an_index_is_affine_in_the_loops(
    indices: LoopIndices, node: Any, affine: dict[int, float]
) -> None:
    assert indices.affine(node) == affine


def test_a_division_may_differ_between_the_elements_of_a_vector(indices: LoopIndices) -> None:
    assert indices.lanes(indices.affine(ROW * 8 + LANE)) == 8
    assert indices.lanes(indices.affine(ROW * 8)) == 0
    assert indices.kind_of_quotient(tirx.floordiv(ROW * 8 + LANE, 8)) == "index"
    assert indices.kind_of_quotient(tirx.floordiv(ROW * 8 + LANE, 5)) == "lane_index"
    assert (
        indices.lane_divisions(tirx.floormod(LANE, 3) + tirx.floordiv(LANE, 3) + tirx.floordiv(ROW, 3))
        == 2
    )


@pytest.mark.parametrize(
    ("condition", "varies"), [(LANE < 5, True), (LANE < 16, False), (ROW < 5, False)]
)
def test_a_bound_of_whole_vectors_divides_none(
    indices: LoopIndices, condition: Any, varies: bool
) -> None:
    assert indices.varies_in_vector(condition) == varies


def test_reach_counts_the_values_of_an_index(indices: LoopIndices) -> None:
    assert indices.reach(indices.affine(ROW * 8 + LANE)) == 48
