"""Functions of half floats give what NumPy gives, rounded."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

from tests.frontend.evaluate import evaluate
from tvm_sphinx.frontend.half_functions import FUNCTIONS

NAMES = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "asinh": "arcsinh", "acosh": "arccosh"}
NAMES["atanh"] = "arctanh"


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_functions(dtype: str) -> None:
    x = np.linspace(-0.9, 0.9, 24).astype(dtype)
    builder = relax.BlockBuilder()
    var = relax.Var("x", relax.TensorType(x.shape, dtype))
    with builder.function("main", [var]):
        with builder.dataflow():
            one = relax.const(np.asarray(2, dtype))
            results = []
            for name in FUNCTIONS:
                operand = relax.op.add(var, one) if name == "acosh" else var
                results.append(builder.emit(getattr(relax.op, name)(operand)))
            output = builder.emit_output(relax.Tuple(results))
        builder.emit_func_output(output)
    for name, got in zip(FUNCTIONS, evaluate(builder.get(), {"x": x}), strict=True):
        operand = (x + x.dtype.type(2)) if name == "acosh" else x
        want = getattr(np, NAMES.get(name, name))(operand.astype(np.float64))
        np.testing.assert_allclose(got, want, rtol=2e-3 if dtype == "float16" else 1e-5)
        assert got.dtype == x.dtype


def test_norms_of_bfloat16() -> None:
    x = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
    builder = relax.BlockBuilder()
    var = relax.Var("x", relax.TensorType(x.shape, "float32"))
    with builder.function("main", [var]):
        with builder.dataflow():
            narrow = builder.emit(relax.op.astype(var, "bfloat16"))
            ones, zeros = (
                builder.emit(make([16], "bfloat16")) for make in (relax.op.ones, relax.op.zeros)
            )
            normal = builder.emit(relax.op.nn.layer_norm(narrow, ones, zeros, [-1], 1e-5))
            output = builder.emit_output(relax.op.astype(normal, "float32"))
        builder.emit_func_output(output)
    want = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
    np.testing.assert_allclose(evaluate(builder.get(), {"x": x})[0], want, atol=3e-2)
