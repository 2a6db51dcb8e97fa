"""Forms of kernels of which TVM's code generator refuses some, or takes minutes for."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.frontend.evaluate import evaluate, make_model, onnx_runtime

X = np.linspace(0.1, 0.9, 48).reshape(6, 8)


@pytest.mark.parametrize(
    ("op", "dtype"), [("Exp", "float32"), ("Tanh", "float32"), ("Log", "float32"), ("Tanh", "float64")]
)
def test_a_chain_of_functions_compiles_to_what_onnx_runtime_gives(op: str, dtype: str) -> None:
    """Each level of a chain in one kernel made its expression tens of times as large."""
    data = (X if op != "Exp" else X - 3).astype(dtype)
    nodes, last = [], "x"
    for number in range(8):
        inputs = [last]
        if op in ("Exp", "Log"):  # back into the range that the function takes
            scale = "Sigmoid" if op == "Exp" else "Abs"
            nodes.append(onnx.helper.make_node(scale, [last], [f"s{number}"]))
            inputs = [f"s{number}"]
        nodes.append(onnx.helper.make_node(op, inputs, [f"v{number}"]))
        last = f"v{number}"
    model = make_model(nodes, {"x": data}, [last])
    (want,) = onnx_runtime(model, {"x": data})
    (got,) = evaluate(model, {"x": data})
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("shape", [(0, 5, 16, 1), (2, 5, 16, 1)])
def test_a_reflected_border_compiles_whatever_the_extents(shape: tuple[int, ...]) -> None:
    data = np.random.default_rng(1).normal(size=shape)
    pad = onnx.helper.make_node("Pad", ["x", "pads"], ["y"], mode="reflect")
    model = make_model([pad], {"x": data}, ["y"], {"pads": np.array([0, 1, 3, 0, 0, 3, 2, 0])})
    (want,) = onnx_runtime(model, {"x": data})
    (got,) = evaluate(model, {"x": data})
    np.testing.assert_array_equal(got, want)


def test_elements_written_into_a_matrix_beside_which_nothing_is_inlined() -> None:
    feeds = {"x": np.ones((7, 7, 1), np.float32), "u": np.arange(3, dtype=np.float32)}
    places = np.array([[1, 2, 0], [5, 3, 0], [2, 1, 0]])
    node = onnx.helper.make_node("ScatterND", ["x", "i", "u"], ["y"])
    model = make_model([node], feeds, ["y"], {"i": places})
    (want,) = onnx_runtime(model, feeds)
    np.testing.assert_array_equal(evaluate(model, feeds)[0], want)


@pytest.mark.parametrize(("left", "right"), [((5,), (5,)), ((2, 5), (5,)), ((5,), (5, 16))])
def test_products_with_vectors(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    feeds = {
        name: rng.normal(size=shape).astype(np.float32) for name, shape in (("x", left), ("w", right))
    }
    model = make_model([onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], feeds, ["y"])
    (want,) = onnx_runtime(model, feeds)
    (got,) = evaluate(model, feeds)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
