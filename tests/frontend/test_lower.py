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
