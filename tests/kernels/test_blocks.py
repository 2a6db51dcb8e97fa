"""What inlining does to the expressions of a kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import te, tirx

from tests.kernels.reference import check, run

_LINKS = 8


def _next(value: Any, link: int) -> Any:
    def step(*at: Any) -> Any:
        remainder = tirx.truncmod(value(*at), tirx.IntImm("int32", 7 + link))
        return tirx.Select(remainder > 3, value(*at) - remainder, value(*at) + link)

    return te.compute(value.shape, step, name=f"link{link}")


def test_a_chain_that_reads_each_link_several_times_stays_small() -> None:
    """Inlined as a whole it would hold its input 3 ** 8 times."""
    data = value = te.placeholder((2, 21), "int32", name="data")
    for link in range(_LINKS):
        value = _next(value, link)
    given = np.random.default_rng(0).integers(-100, 100, (2, 21)).astype("int32")
    scheduled = check(te.create_prim_func([data, value]), [given])
    expressions: list[tvm.ir.Expr] = []
    tvm_ffi.structural_walk(scheduled.body, (tvm.ir.Expr, expressions.append))
    assert len(expressions) < 150 * _LINKS
    expected = given
    for link in range(_LINKS):
        remainder = np.fmod(expected, 7 + link)
        expected = np.where(remainder > 3, expected - remainder, expected + link)
    (got,) = run(scheduled, [given])
    np.testing.assert_array_equal(got, expected)
