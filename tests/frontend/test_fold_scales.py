"""Batch norms and chains of constant scales are one multiplication and addition of equal numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

from tests.frontend.evaluate import evaluate, onnx_runtime
from tests.frontend.run_module import TARGET
from tvm_sphinx.frontend.extract import extract_task_graph
from tvm_sphinx.frontend.load import load_model
from tvm_sphinx.frontend.lower import lower_to_kernels

rng = np.random.default_rng(0)
X = rng.standard_normal((2, 5, 4, 3)).astype("float32")


def _model(nodes: list[Any], weights: dict[str, Any], x: Any = X) -> Any:
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    inputs = [helper.make_tensor_value_info("x", kind, x.shape)]
    outputs = [helper.make_tensor_value_info("y", kind, None)]
    held = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)


def _statistics(dtype: str = "float32", channels: int = 5) -> dict[str, Any]:
    names = ("gamma", "beta", "mean", "variance")
    return {name: rng.uniform(0.2, 2, channels).astype(dtype) for name in names}


def _norm(output: str, epsilon: float = 1e-3) -> Any:
    names = ["x", "gamma", "beta", "mean", "variance"]
    return helper.make_node("BatchNormalization", names, [output], epsilon=epsilon)


def _operators(model: Any) -> set[str]:
    graph = extract_task_graph(lower_to_kernels(load_model(model), TARGET, targets=[TARGET])).graph
    return {kind for task in graph.tasks for kind in task.op_kinds}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_batch_norm_is_a_multiplication_and_an_addition(dtype: str) -> None:
    x = X.astype(dtype)
    model = _model([_norm("y")], _statistics(dtype), x)
    assert _operators(model) == {"multiply", "add"}
    (want,) = onnx_runtime(model, {"x": x})
    np.testing.assert_allclose(evaluate(model, {"x": x})[0], want, rtol=1e-5, atol=1e-6)


def test_scales_behind_a_batch_norm_are_part_of_it() -> None:
    """As in networks that were converted from Caffe."""
    nodes = [
        _norm("n"),
        helper.make_node("Mul", ["n", "scale"], ["m"]),
        helper.make_node("Add", ["m", "offset"], ["a"]),
        helper.make_node("Relu", ["a"], ["y"]),
    ]
    behind = {name: rng.standard_normal((5, 1, 1)).astype("float32") for name in ("scale", "offset")}
    model = _model(nodes, {**_statistics(), **behind})
    graph = extract_task_graph(lower_to_kernels(load_model(model), TARGET, targets=[TARGET])).graph
    (task,) = graph.tasks
    assert len(task.op_kinds) == 3
    (want,) = onnx_runtime(model, {"x": X})
    np.testing.assert_allclose(evaluate(model, {"x": X})[0], want, rtol=1e-5, atol=1e-5)


def test_statistics_without_a_finite_scale_stay_as_they_are() -> None:
    weights = {**_statistics(), "variance": np.array([1, 0, 4, 1, 2], "float32")}
    model = _model([_norm("y", epsilon=0.0)], weights)
    assert "divide" in _operators(model)


def test_a_scale_that_makes_a_tensor_larger_stays_as_it_is() -> None:
    x = X[:1]
    nodes = [
        helper.make_node("Mul", ["x", "a"], ["p"]),
        helper.make_node("Add", ["p", "b"], ["q"]),
        helper.make_node("Mul", ["q", "c"], ["r"]),
        helper.make_node("Add", ["r", "d"], ["y"]),
    ]
    weights = {name: rng.standard_normal((1, 5, 1, 1)).astype("float32") for name in "abd"}
    weights["c"] = rng.standard_normal((3, 1, 1, 1)).astype("float32")
    model = _model(nodes, weights, x)
    (want,) = onnx_runtime(model, {"x": x})
    np.testing.assert_allclose(evaluate(model, {"x": x})[0], want, rtol=1e-5, atol=1e-5)
