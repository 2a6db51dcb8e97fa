"""Quantised ONNX operators give the integers that ONNX Runtime gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from tests.frontend.evaluate import evaluate, make_model, onnx_runtime
from tvm_sphinx.errors import ModelError
from tvm_sphinx.frontend.load import load_model

F32 = np.float32
_RNG = np.random.default_rng(3)


def _draw(dtype: str, *shape: int) -> np.ndarray:
    bounds = np.iinfo(dtype)
    return _RNG.integers(bounds.min, bounds.max, shape, dtype, endpoint=True)


def _node(op: str, inputs: list[str], outputs: list[str] | None = None, **attributes: Any) -> Any:
    outputs = outputs or ["y"]
    name = "node" if outputs == ["y"] else f"node of {outputs[0]}"
    return onnx.helper.make_node(op, inputs, outputs, name=name, **attributes)


def _equal(model: onnx.ModelProto, feeds: dict[str, np.ndarray], most: int = 0) -> None:
    for got, want in zip(evaluate(model, feeds), onnx_runtime(model, feeds), strict=True):
        assert got.dtype == want.dtype
        if want.dtype == F32:
            np.testing.assert_allclose(got, want, rtol=1e-6)
        else:
            assert np.abs(got.astype(np.int64) - want.astype(np.int64)).max(initial=0) <= most


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
def test_quantize_rounds_half_to_even_and_saturates(dtype: str) -> None:
    zero = np.array(3, dtype)
    x = np.array([-1e9, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.49, 250.5, 1e9, np.inf, -np.inf], F32)
    node = _node("QuantizeLinear", ["x", "s", "z"])
    _equal(make_model([node], {"x": x}, ["y"], {"s": np.array(1, F32), "z": zero}, opset=21), {"x": x})


def test_quantize_takes_nan_for_the_least() -> None:
    x = np.array([np.nan, 1.0] * 20, F32)
    weights = {"s": np.array(1, F32), "z": np.array(3, np.uint8)}
    model = make_model([_node("QuantizeLinear", ["x", "s", "z"])], {"x": x}, ["y"], weights)
    np.testing.assert_array_equal(evaluate(model, {"x": x})[0], [0, 4] * 20)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32"])
def test_quantised_along_an_axis(dtype: str) -> None:
    x = _draw(dtype, 2, 3, 4) if dtype != "int32" else _draw("int16", 2, 3, 4).astype(np.int32)
    scale = np.array([0.5, 0.01, 2], F32)
    zero = {} if dtype == "int32" else {"z": np.array([1, 2, 3], dtype)}
    node = _node("DequantizeLinear", ["x", "s", *zero], axis=1)
    _equal(make_model([node], {"x": x}, ["y"], {"s": scale, **zero}), {"x": x})
    if zero:
        real = _RNG.normal(0, 20, (2, 3, 4)).astype(F32)
        node = _node("QuantizeLinear", ["x", "s", "z"], axis=-2)
        _equal(make_model([node], {"x": real}, ["y"], {"s": scale, **zero}), {"x": real})


def test_blocks_of_four_bits() -> None:
    packed = onnx.helper.make_tensor("w", onnx.TensorProto.INT4, [4, 6], _RNG.integers(-8, 7, 24))
    scale = _RNG.uniform(0.1, 1, (4, 2)).astype(F32)
    x = _RNG.normal(size=(2, 4)).astype(F32)
    nodes = [
        _node("DequantizeLinear", ["w", "s"], ["d"], axis=1, block_size=3),
        _node("MatMul", ["x", "d"]),
    ]
    model = make_model(nodes, {"x": x}, ["y"], {"s": scale}, opset=21)
    model.graph.initializer.append(packed)
    (got,), (want,) = evaluate(model, {"x": x}), onnx_runtime(model, {"x": x})
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("x", [_RNG.normal(2, 5, (3, 7)), np.zeros((2, 3)), np.array([[2.0, 5.0]])])
def test_dynamic_quantize(x: np.ndarray) -> None:
    feeds = {"x": x.astype(F32)}
    node = _node("DynamicQuantizeLinear", ["x"], ["y", "s", "z"])
    _equal(make_model([node], feeds, ["y", "s", "z"]), feeds)


@pytest.mark.parametrize("weight_dtype", ["uint8", "int8"])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("channels", [4, 64])
def test_qlinear_conv(weight_dtype: str, per_channel: bool, channels: int) -> None:
    """64 channels have sums that float32 does not hold."""
    outputs = 6
    x = _draw("uint8", 1, channels, 7, 6)
    count = outputs if per_channel else 1
    weights = {
        "xs": np.array(0.02, F32),
        "xz": np.array(120, np.uint8),
        "w": _draw(weight_dtype, outputs, channels, 3, 3),
        "ws": _RNG.uniform(0.001, 0.01, count).astype(F32).reshape(count if per_channel else ()),
        "wz": np.zeros(count, weight_dtype).reshape(count if per_channel else ()),
        "ys": np.array(0.1, F32),
        "yz": np.array(130, np.uint8),
        "b": _RNG.integers(-5000, 5000, outputs).astype(np.int32),
    }
    attributes = {"pads": [1, 0, 1, 2], "strides": [2, 1]}
    node = _node("QLinearConv", ["x", *weights], **attributes)
    _equal(make_model([node], {"x": x}, ["y"], weights), {"x": x})


def test_grouped_conv_with_a_zero_point_of_the_weights() -> None:
    x = _draw("uint8", 2, 4, 9)
    weights = {
        "xs": np.array(0.02, F32),
        "xz": np.array(7, np.uint8),
        "w": _draw("uint8", 6, 2, 3),
        "ws": np.array(0.03, F32),
        "wz": np.array(99, np.uint8),
        "ys": np.array(0.9, F32),
        "yz": np.array(5, np.uint8),
    }
    model = make_model([_node("QLinearConv", ["x", *weights], group=2)], {"x": x}, ["y"], weights)
    _equal(model, {"x": x})


@pytest.mark.parametrize(("left", "right"), [("uint8", "int8"), ("int8", "int8"), ("uint8", "uint8")])
def test_qlinear_matmul(left: str, right: str) -> None:
    a = _draw(left, 2, 5, 300)
    weights = {
        "as": np.array(0.02, F32),
        "az": np.array(3, left),
        "b": _draw(right, 300, 7),
        "bs": np.array(0.01, F32),
        "bz": np.array(0 if right == "int8" else 100, right),
        "ys": np.array(0.5, F32),
        "yz": np.array(9, left),
    }
    model = make_model([_node("QLinearMatMul", ["a", *weights])], {"a": a}, ["y"], weights)
    _equal(model, {"a": a})


@pytest.mark.parametrize("known", [True, False])
def test_matmul_integer(known: bool) -> None:
    a, b = _draw("uint8", 5, 900), _draw("int8", 900, 7)
    weights = {"az": np.array(17, np.uint8), "bz": np.array([0] * 7, np.int8)}
    feeds = {"a": a} if known else {"a": a, "b": b}
    if known:
        weights["b"] = b
    model = make_model([_node("MatMulInteger", ["a", "b", "az", "bz"])], feeds, ["y"], weights)
    _equal(model, feeds)


@pytest.mark.parametrize("known", [True, False])
def test_conv_integer(known: bool) -> None:
    x, w = _draw("uint8", 1, 3, 5, 5), _draw("uint8", 4, 3, 3, 3)
    weights = {"xz": np.array(17, np.uint8), "wz": np.array(4, np.uint8)}
    feeds = {"x": x} if known else {"x": x, "w": w}
    if known:
        weights["w"] = w
    node = _node("ConvInteger", ["x", "w", "xz", "wz"], pads=[1, 1, 1, 1], dilations=[2, 1])
    _equal(make_model([node], feeds, ["y"], weights), feeds)


def _parameters(*names: str, scale: float = 0.05, zero: int = 120) -> dict[str, np.ndarray]:
    found = {}
    for number, name in enumerate(names):
        found[f"{name}s"] = np.array(scale * (1 + number), F32)
        found[f"{name}z"] = np.array(zero + number, np.uint8)
    return found


@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
def test_elementwise(op: str) -> None:
    """ONNX Runtime fuses products and sums in its own order, so that ties may fall elsewhere."""
    feeds = {"a": _draw("uint8", 3, 40), "b": _draw("uint8", 40)}
    names = ["a", "as", "az", "b", "bs", "bz", "ys", "yz"]
    node = _node(op, names, domain="com.microsoft")
    _equal(make_model([node], feeds, ["y"], _parameters("a", "b", "y")), feeds, most=1)


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("QLinearSigmoid", {}),
        ("QLinearLeakyRelu", {"alpha": 0.1}),
        ("QLinearGlobalAveragePool", {}),
        ("QLinearGlobalAveragePool", {"channels_last": 1}),
        ("QLinearAveragePool", {"kernel_shape": [2, 2], "strides": [2, 1], "pads": [1, 0, 0, 1]}),
        ("QLinearSoftmax", {"axis": -1, "opset": 13}),
    ],
)
def test_one_operand(op: str, attributes: dict[str, Any]) -> None:
    feeds = {"x": _draw("uint8", 1, 4, 5, 6)}
    node = _node(op, ["x", "xs", "xz", "ys", "yz"], domain="com.microsoft", **attributes)
    scales = {"ys": np.array(1 / 256, F32), "yz": np.array(0, np.uint8)}
    weights = _parameters("x", "y") | (scales if "Soft" in op or "Sigmoid" in op else {})
    _equal(make_model([node], feeds, ["y"], weights), feeds, most=1)


def test_concat_of_unlike_scales() -> None:
    feeds = {"a": _draw("uint8", 2, 3), "b": _draw("uint8", 2, 5)}
    node = _node(
        "QLinearConcat", ["ys", "yz", "a", "as", "az", "b", "bs", "bz"], domain="com.microsoft", axis=1
    )
    _equal(make_model([node], feeds, ["y"], _parameters("a", "b", "y")), feeds, most=1)


@pytest.mark.parametrize("with_result_scale", [True, False])
def test_qgemm(with_result_scale: bool) -> None:
    feeds = {"a": _draw("uint8", 4, 30)}
    weights = {
        **_parameters("a"),
        "b": _draw("int8", 5, 30),
        "bs": _RNG.uniform(0.01, 0.1, 5).astype(F32),
        "bz": np.zeros(5, np.int8),
        "c": _RNG.integers(-100, 100, 5).astype(np.int32),
    }
    if with_result_scale:
        weights |= {"ys": np.array(0.9, F32), "yz": np.array(100, np.uint8)}
    names = ["a", "as", "az", "b", "bs", "bz", "c", *(["ys", "yz"] if with_result_scale else [])]
    node = _node("QGemm", names, domain="com.microsoft", transB=1, alpha=0.5)
    _equal(make_model([node], feeds, ["y"], weights), feeds, most=1)


def test_products_of_what_is_quantised_at_run_time() -> None:
    feeds = {"x": _RNG.normal(size=(3, 20)).astype(F32)}
    weights = {"b": _draw("int8", 20, 4), "bs": np.array(0.1, F32), "c": np.ones(4, F32)}
    node = _node("DynamicQuantizeMatMul", ["x", "b", "bs", "", "c"], domain="com.microsoft")
    model = make_model([node], feeds, ["y"], weights)
    (got,), (want,) = evaluate(model, feeds), onnx_runtime(model, feeds)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_eight_bit_floats_are_refused_by_name() -> None:
    x = np.ones(3, F32)
    zero = onnx.helper.make_tensor("z", onnx.TensorProto.FLOAT8E4M3FN, [], [0.0])
    model = make_model(
        [_node("QuantizeLinear", ["x", "s", "z"])], {"x": x}, ["y"], {"s": np.array(1, F32)}, opset=21
    )
    model.graph.initializer.append(zero)
    with pytest.raises(ModelError, match=r"QuantizeLinear \(node 'node'\): expected one of int8, uint8"):
        load_model(model)
