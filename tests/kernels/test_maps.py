"""Maps are cut where their conditions turn; axes that all accesses walk alike become one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import s_tir, te, tirx

from tests.kernels.reference import check, draw
from tvm_sphinx.kernels import schedule_kernel
from tvm_sphinx.kernels.injective import cut_and_join_axes

SHAPE = (2, 28, 28, 44)  # a vector's lanes divide 28 * 28 * 44, but not 44
COLUMN = (2, 28, 1, 1)


def elementwise(data: Any, other: Any, column: Any) -> Any:
    return lambda n, h, w, c: tirx.Max(data[n, h, w, c] + other[n, h, w, c], tirx.const(0.0, "float32"))


def scaled_rows(data: Any, other: Any, column: Any) -> Any:
    return lambda n, h, w, c: data[n, h, w, c] * column[n, h, 0, 0]


def joined_rows(data: Any, other: Any, column: Any) -> Any:
    def pick(n: Any, h: Any, w: Any, c: Any) -> Any:
        return tirx.if_then_else(h < 5, data[n, h + 20, w, c], other[n, h - 5, w, c])

    return pick


def transposed(data: Any, other: Any, column: Any) -> Any:
    return lambda n, h, w, c: data[n, w, h, c]


def masked(data: Any, other: Any, column: Any) -> Any:
    return lambda n, h, w, c: tirx.if_then_else(c < 7, data[n, h, w, c], other[n, h, w, c])


def bordered(data: Any, other: Any, column: Any) -> Any:
    def pick(n: Any, h: Any, w: Any, c: Any) -> Any:
        inside = tirx.all(h >= 1, h < 27, c > 2, tirx.const(42, c.ty) >= c)
        return tirx.if_then_else(inside, data[n, h - 1, w, c - 3], tirx.const(0.0, "float32"))

    return pick


def shifted(data: Any, other: Any, column: Any) -> Any:
    return lambda n, h, w, c: data[n, h, w, (c + 1) % 44] + data[n, h, w, c]


def kernel(body: Callable[[Any, Any, Any], Any], index_dtype: str = "int32") -> tirx.PrimFunc:
    data, other, column = (
        te.placeholder(shape, name=name)
        for shape, name in ((SHAPE, "data"), (SHAPE, "other"), (COLUMN, "column"))
    )
    out = te.compute(SHAPE, body(data, other, column), name="out")
    return te.create_prim_func([data, other, column, out], index_dtype_override=index_dtype)


def loop_extents(func: tirx.PrimFunc) -> list[list[int]]:
    """Return the extents of the loops around each block, in order."""

    def below(node: Any, outer: list[int]) -> list[list[int]]:
        if isinstance(node, tirx.SeqStmt):
            return [found for part in node for found in below(part, outer)]
        if isinstance(node, tirx.For):
            return below(node.body, [*outer, int(node.extent)])
        return [outer] if isinstance(node, s_tir.SBlockRealize) else []

    return below(func.body.block.body, [])


@pytest.mark.parametrize("index_dtype", ["int32", "int64"])
@pytest.mark.parametrize(
    ("body", "extents"),
    [
        (elementwise, [[2 * 28 * 28 * 44]]),
        (scaled_rows, [[2, 28, 28 * 44]]),
        (joined_rows, [[2, 5, 28 * 44], [2, 23, 28 * 44]]),
        (bordered, [[2, 1, 28 * 44], *([[2, 26, 28, c] for c in (3, 40, 1)]), [2, 1, 28 * 44]]),
        (transposed, [[2, 28, 28, 44]]),
        (masked, [[2, 28, 28, 7], [2, 28, 28, 37]]),
        (shifted, [[2, 28, 28, 44]]),
    ],
)
def test_maps_are_cut_at_bounds_and_joined_where_all_accesses_agree(
    body: Callable[[Any, Any, Any], Any], extents: list[list[int]], index_dtype: str
) -> None:
    func = kernel(body, index_dtype)
    collapsed = cut_and_join_axes(func, 1)
    assert loop_extents(collapsed) == extents
    assert (collapsed is func) == (extents == [list(SHAPE)])
    assert [list(param.shape) for param in collapsed.params] == [list(p.shape) for p in func.params]
    rng = np.random.default_rng(8)
    inputs = [draw(shape, "float32", rng) for shape in (SHAPE, SHAPE, COLUMN)]
    for cores in (1, 2):
        check(func, inputs, cores)


def test_a_vector_that_crosses_rows_is_stored_whole() -> None:
    """Without the view, TVM 0.27 stores 16 lanes one by one here."""
    target = tvm.target.Target({"kind": "llvm", "mcpu": "skylake-avx512"})
    scheduled = schedule_kernel(kernel(elementwise), target, 1)
    assert scheduled is not None
    named = scheduled.with_attrs({"global_symbol": "main", "target": target})
    text = tvm.compile(tvm.IRModule({"main": named}), target).mod.inspect_source("ll")
    assert "store <16 x float>" in text
    assert "store float " not in text
