"""LSTM, GRU and RNN from ONNX compute what ONNX Runtime computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from tests.frontend.evaluate import evaluate, make_model, onnx_runtime
from tvm_sphinx.errors import ModelError
from tvm_sphinx.frontend.load import load_model

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
STEPS, BATCH, FEATURES, HIDDEN = 3, 2, 5, 4


def _model(
    op: str, direction: str = "forward", *, given: str = "XWR", lengths: Any = None, **attributes: Any
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Return a model of one node with random weights, and its inputs.

    ``given`` tells which inputs there are: B bias, H and C initial states, P peepholes.
    """
    rng = np.random.default_rng(7)

    def draw(*shape: int) -> np.ndarray:
        return rng.uniform(-1, 1, shape).astype(np.float32)

    count, gates = 2 if direction == "bidirectional" else 1, GATES[op]
    first = attributes.get("layout", 0)
    state = (BATCH, count, HIDDEN) if first else (count, BATCH, HIDDEN)
    x = draw(BATCH, STEPS, FEATURES) if first else draw(STEPS, BATCH, FEATURES)
    weights = {
        "W": draw(count, gates * HIDDEN, FEATURES),
        "R": draw(count, gates * HIDDEN, HIDDEN),
        "B": draw(count, 2 * gates * HIDDEN),
        "H": draw(*state),
        "C": draw(*state),
        "P": draw(count, 3 * HIDDEN),
    }
    feeds = {"X": x}
    if "H" in given:
        feeds["H"] = weights.pop("H")
    if isinstance(lengths, str):
        feeds["L"] = np.array([STEPS, 1], np.int32)
    elif lengths is not None:
        weights["L"] = np.array(lengths, np.int32)
    order = "XWRBLHCP" if op == "LSTM" else "XWRBLH"
    present = set(given) | ({"L"} if lengths is not None else set())
    names = [name if name in present else "" for name in order]
    outputs = ["Y", "Y_h", "Y_c"] if op == "LSTM" else ["Y", "Y_h"]
    node = onnx.helper.make_node(
        op, names, outputs, name="cell", hidden_size=HIDDEN, direction=direction, **attributes
    )
    used = {name: value for name, value in weights.items() if name in present}
    return make_model([node], feeds, outputs, used), feeds


def _agrees(op: str, direction: str = "forward", **options: Any) -> None:
    model, feeds = _model(op, direction, **options)
    for got, want in zip(evaluate(model, feeds), onnx_runtime(model, feeds), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_direction(op: str, direction: str) -> None:
    _agrees(op, direction, given="XWRBH")


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_without_bias_and_states(op: str) -> None:
    _agrees(op)


def test_peepholes_and_both_states() -> None:
    _agrees("LSTM", "bidirectional", given="XWRBHCP")


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_linear_before_reset(direction: str) -> None:
    _agrees("GRU", direction, given="XWRBH", linear_before_reset=1)


def test_coupled_input_and_forget_gates() -> None:
    _agrees("LSTM", given="XWRB", input_forget=1)


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_clipped_gates(op: str) -> None:
    _agrees(op, given="XWRB", clip=0.5)


@pytest.mark.parametrize("lengths", [[3, 1], [3, 3], "at run time"])
@pytest.mark.parametrize("op", ["LSTM", "GRU"])
def test_sequence_lengths(op: str, lengths: Any) -> None:
    _agrees(op, "bidirectional", given="XWRB", lengths=lengths)


@pytest.mark.parametrize(
    ("names", "alphas", "betas"),
    [
        (["Relu", "Softsign"], [], []),
        (["HardSigmoid", "ScaledTanh"], [0.3, 1.5], [0.4, 0.7]),
        (["Affine", "Elu"], [0.9, 0.6], [0.1]),
        (["LeakyRelu", "ThresholdedRelu"], [0.2, 0.3], []),
        (["Sigmoid", "Softplus"], [], []),
    ],
)
def test_activations(names: list[str], alphas: list[float], betas: list[float]) -> None:
    parameters = {"activation_alpha": alphas, "activation_beta": betas}
    given = {name: values for name, values in parameters.items() if values}
    _agrees("GRU", given="XWRB", activations=names, **given)


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_batch_first_is_the_same_transposed(op: str) -> None:
    """ONNX Runtime knows no such layout."""
    model, feeds = _model(op, "bidirectional", given="XWRBH", layout=1)
    other, _ = _model(op, "bidirectional", given="XWRBH")
    del other.graph.initializer[:]
    other.graph.initializer.extend(model.graph.initializer)
    swapped = {name: value.swapaxes(0, 1).copy() for name, value in feeds.items()}
    y, *states = onnx_runtime(other, swapped)
    want = [y.transpose(2, 0, 1, 3), *(state.swapaxes(0, 1) for state in states)]
    for got, expected in zip(evaluate(model, feeds), want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_unknown_activation_is_refused_by_name() -> None:
    model, _ = _model("RNN", activations=["Swish"])
    with pytest.raises(
        ModelError, match=r"RNN \(node 'cell'\): unknown activation 'Swish'; known: affine"
    ):
        load_model(model)


@pytest.mark.parametrize("per_column", [False, True])
def test_weights_that_are_quantised(per_column: bool) -> None:
    """ONNX Runtime quantises the inputs, and the state at each step, by their range."""
    rng = np.random.default_rng(3)
    shape = (2, 4 * HIDDEN) if per_column else (2,)
    weights = {
        "W": rng.integers(-100, 100, (2, FEATURES, 4 * HIDDEN)).astype(np.int8),
        "R": rng.integers(-100, 100, (2, HIDDEN, 4 * HIDDEN)).astype(np.int8),
        "B": rng.uniform(-1, 1, (2, 8 * HIDDEN)).astype(np.float32),
        "Ws": rng.uniform(0.005, 0.01, shape).astype(np.float32),
        "Wz": np.zeros(shape, np.int8),
        "Rs": rng.uniform(0.005, 0.01, shape).astype(np.float32),
        "Rz": np.zeros(shape, np.int8),
    }
    feeds = {"X": rng.uniform(-1, 1, (STEPS, BATCH, FEATURES)).astype(np.float32)}
    node = onnx.helper.make_node(
        "DynamicQuantizeLSTM",
        ["X", "W", "R", "B", "", "", "", "", "Ws", "Wz", "Rs", "Rz"],
        ["Y", "Y_h", "Y_c"],
        domain="com.microsoft",
        hidden_size=HIDDEN,
        direction="bidirectional",
    )
    model = make_model([node], feeds, ["Y", "Y_h", "Y_c"], weights)
    for got, want in zip(evaluate(model, feeds), onnx_runtime(model, feeds), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
