"""The compile report counts and names the kernels that keep TVM's default loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax

import tvm_sphinx
from tvm_sphinx.cost.measure.kernels import MeasureConfig
from tvm_sphinx.kernels import rule_of, schedule_kernel
from tvm_sphinx.platform import platform_of_targets
from tvm_sphinx.report.placement import PlacementReport


def compiled_report(body: Any) -> tuple[PlacementReport, str]:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((6, 8), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            out = builder.emit_output(body(x))
        builder.emit_func_output(out)
    compiled = tvm_sphinx.compile(
        builder.get(),
        platform_of_targets(["host"]),
        records=None,
        measure=MeasureConfig(sample_ms=0.1),
        with_reference=False,
    )
    assert compiled.report is not None
    return compiled.report, compiled.describe()


def test_a_kernel_that_no_rule_fits_is_named() -> None:
    where = relax.const(np.zeros((2, 3), "int64"))
    updates = relax.const(np.ones((2, 3), "float32"))
    report, text = compiled_report(lambda x: relax.op.scatter_elements(x, where, updates, 1))
    assert report.num_kernels == 1
    (name,) = report.default_kernels
    assert "scatter" in name
    assert "on device0" in name
    assert f"1 distinct; 1 default; 1 in TVM's default loops: {name}" in text
    assert PlacementReport.from_json(report.to_json()) == report


def test_kernels_that_rules_fit_are_counted() -> None:
    report, text = compiled_report(relax.op.nn.relu)
    # Plain loops may turn out faster on so small a tensor; then they are what runs.
    assert report.implementations in ({"rule": 1}, {"default": 1})
    assert len(report.default_kernels) == report.implementations.get("default", 0)
    assert "1 distinct; 1 " in text


def test_a_scheduled_kernel_tells_its_rule_and_keeps_its_name() -> None:
    data = tvm.te.placeholder((4, 64), name="data")
    func = tvm.te.create_prim_func([data, tvm.topi.nn.relu(data)])
    target = tvm.target.Target("llvm")
    assert rule_of(func) == ""
    for name in ("first", "second"):
        named = func.with_attr("global_symbol", name).with_attr("target", target)
        scheduled = schedule_kernel(named, target, 1)
        assert scheduled is not None
        assert rule_of(scheduled) == "Injective"
        assert str(scheduled.attrs["global_symbol"]) == name
        assert scheduled.attrs["target"] == target
