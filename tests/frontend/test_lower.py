"""Lowering: sorts and scans become kernels, of the host if they call TVM's runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax

import tvm_sphinx
from tests.frontend.evaluate import evaluate
from tests.relax_modules import cpu_platform
from tvm_sphinx.cost.measure.kernels import MeasureConfig
from tvm_sphinx.frontend.extract import extract_task_graph
from tvm_sphinx.frontend.lower import lower_to_kernels
from tvm_sphinx.frontend.without_weights import WithoutWeights
from tvm_sphinx.platform.targets import device_target

X = np.random.default_rng(5).normal(size=(4, 9)).astype(np.float32)


def _module(last: Callable[[Any], Any]) -> tvm.IRModule:
    """Return a module that takes absolute values, then does what is given."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType(X.shape, "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            output = builder.emit_output(last(builder.emit(relax.op.abs(x))))
        builder.emit_func_output(output)
    return builder.get()


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        (lambda x: relax.op.sort(x, 1), lambda x: [np.sort(x, 1)]),
        (lambda x: relax.op.argsort(x, 0, True, "int64"), lambda x: [np.argsort(-x, 0)]),
        (lambda x: relax.op.topk(x, 3, 1), lambda x: [-np.sort(-x, 1)[:, :3], np.argsort(-x, 1)[:, :3]]),
        (lambda x: relax.op.cumsum(x, 0), lambda x: [np.cumsum(x, 0)]),
        (lambda x: relax.op.cumprod(x, 1), lambda x: [np.cumprod(x, 1)]),
    ],
)
def test_sorts_and_scans_are_kernels(operator: Any, expected: Any) -> None:
    for got, want in zip(evaluate(_module(operator), {"x": X}), expected(np.abs(X)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5)


def test_what_calls_the_runtime_belongs_to_the_host() -> None:
    target = device_target(cpu_platform(1).devices[0])
    module = _module(lambda x: relax.op.topk(x, 3))
    extraction = extract_task_graph(lower_to_kernels(module, target, targets=[target]))
    kinds = {
        kinds: extraction.kernels[task.kernel].target_kind
        for task in extraction.graph.tasks
        for kinds in task.op_kinds
    }
    assert kinds == {"compute": None, "topk_cpu": "llvm"}


def test_a_model_with_a_sort_is_scheduled_and_measured() -> None:
    compiled = tvm_sphinx.compile(
        _module(lambda x: relax.op.sort(x)),
        "unlike-cpus",
        records=None,
        measure=MeasureConfig(sample_ms=0.1, under_load=False),
    )
    assert compiled.report is not None
    assert compiled.report.measured_share == 1.0
    np.testing.assert_array_equal(compiled.run([X])[0], np.sort(np.abs(X)))


def test_equal_expressions_become_one_beside_large_weights_that_are_hidden() -> None:
    rng = np.random.default_rng(1)
    weight, mask = rng.normal(size=(600, 600)).astype(np.float32), rng.integers(0, 2, (8, 600)) > 0
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((8, 600), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            large = relax.const(weight)
            masked = [
                builder.emit(relax.op.where(relax.const(mask), x, relax.const(0.0))) for _ in range(2)
            ]
            products = [builder.emit(relax.op.matmul(each, large)) for each in masked]
            again = builder.emit(relax.op.matmul(x, relax.const(weight + 1)))
            flat = builder.emit(relax.op.reshape(products[0], (4800,)))
            same = builder.emit(relax.op.reshape(flat, (8, 600)))
            total = builder.emit(relax.op.add(builder.emit(relax.op.add(same, products[1])), again))
            output = builder.emit_output(total)
        builder.emit_func_output(output)
    module, before = builder.get(), builder.get().script(show_meta=True)
    inner = relax.transform.RemoveRedundantReshape()
    hidden, whole = WithoutWeights(inner)(module), inner(module)
    tvm.ir.assert_structural_equal(hidden, whole)
    assert hidden.script().count("R.where") == 1
    assert hidden.script().count("R.matmul") == 2
    assert "R.reshape" not in hidden.script()
    assert module.script(show_meta=True) == before, "the input changed"


def test_a_private_function_keeps_its_parameters_beside_hidden_weights() -> None:
    weight = np.ones((600, 600), np.float32)
    builder = relax.BlockBuilder()
    y = relax.Var("y", relax.TensorType((8, 600), "float32"))
    with builder.function("inner", [y], private=True):
        builder.emit_func_output(builder.emit(relax.op.matmul(y, relax.const(weight))))
    inner = builder.get().get_global_var("inner")
    x = relax.Var("x", relax.TensorType((8, 600), "float32"))
    with builder.function("main", [x]):
        made = builder.emit(relax.Call(inner, [x]))
        builder.emit_func_output(builder.emit(relax.op.matmul(made, relax.const(weight + 1))))
    module = builder.get()
    passed = WithoutWeights(relax.transform.RemoveRedundantReshape())(module)
    tvm.ir.assert_structural_equal(passed, module)
