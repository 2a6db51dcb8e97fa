"""Products of bytes by ONNX Runtime are what ONNX says, on processors with and without VNNI."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from tvm_sphinx.program.verify.exact_products import saturates, with_exact_products

_HEAD = '<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>'


def _run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    moved = with_exact_products(model)
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(moved.SerializeToString(), options, providers=providers)
    return session.run(None, feeds)[0]


@pytest.mark.parametrize("zero", [None, -3])
@pytest.mark.parametrize("is_constant", [False, True])
def test_sums_of_products_are_whole(is_constant: bool, zero: int | None) -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (4, 64)).astype(np.uint8)
    b = rng.integers(-128, 128, (64, 8)).astype(np.int8)
    inputs = "uint8[4,64] a" if is_constant else "uint8[4,64] a, int8[64,8] b"
    call = "MatMulInteger(a, b)" if zero is None else "MatMulInteger(a, b, one, zero)"
    model = parser.parse_model(f"{_HEAD} g ({inputs}) => (int32[4,8] y) {{ y = {call} }}")
    if is_constant:
        model.graph.initializer.append(numpy_helper.from_array(b, "b"))
    if zero is not None:
        model.graph.initializer.append(numpy_helper.from_array(np.array(1, np.uint8), "one"))
        model.graph.initializer.append(numpy_helper.from_array(np.array(zero, np.int8), "zero"))
    feeds = {"a": a} if is_constant else {"a": a, "b": b}
    left = a.astype(np.int32) - (0 if zero is None else 1)
    right = b.astype(np.int32) - (0 if zero is None else zero)
    np.testing.assert_array_equal(_run(model, feeds), left @ right)


def test_a_quantised_convolution_is_that_of_the_reference() -> None:
    rng = np.random.default_rng(1)
    model = parser.parse_model(
        f"{_HEAD} g (uint8[1,16,6,6] x) => (uint8[1,4,6,6] y) {{"
        " y = QLinearConv<pads=[1,1,1,1]>(x, s, zx, w, s, zw, t, zx) }"
    )
    weights = {
        "s": np.array(0.05, np.float32),
        "t": np.array(4.0, np.float32),
        "zx": np.array(120, np.uint8),
        "zw": np.array(0, np.int8),
        "w": rng.integers(-128, 128, (4, 16, 3, 3)).astype(np.int8),
    }
    for name, value in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    x = rng.integers(0, 256, (1, 16, 6, 6)).astype(np.uint8)
    (want,) = ReferenceEvaluator(model).run(None, {"x": x})
    assert np.abs(_run(model, {"x": x}).astype(int) - np.asarray(want).astype(int)).max() <= 1


def test_what_has_no_such_products_stays_as_it_is() -> None:
    plain = parser.parse_model(f"{_HEAD} g (float[4] x) => (float[4] y) {{ y = Relu(x) }}")
    assert with_exact_products(plain) is plain
    signed = parser.parse_model(
        f"{_HEAD} g (int8[4,8] a, int8[8,2] b) => (int32[4,2] y) {{ y = MatMulInteger(a, b) }}"
    )
    assert with_exact_products(signed) == signed


def test_whether_this_machine_needs_it_is_asked_of_onnx_runtime() -> None:
    a, b = np.full((1, 64), 255, np.uint8), np.full((64, 1), 127, np.int8)
    model = parser.parse_model(
        f"{_HEAD} g (uint8[1,64] a, int8[64,1] b) => (int32[1,1] y) {{ y = MatMulInteger(a, b) }}"
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (found,) = session.run(None, {"a": a, "b": b})
    assert saturates() == (int(found[0, 0]) != 64 * 255 * 127)
