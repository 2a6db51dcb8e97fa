"""Sequences of tensors whose lengths and places are known are as in ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

from tests.frontend.evaluate import evaluate, onnx_runtime
from tvm_sphinx.errors import ModelError
from tvm_sphinx.frontend.load import load_model

X = np.random.default_rng(1).normal(size=(9, 4)).astype(np.float32)
MADE = "a = Neg (x) b = Exp (x) s = SequenceConstruct (x, a) "


def _model(body: str) -> onnx.ModelProto:
    head = '<ir_version: 8, opset_import: ["": 17]> net (float[9,4] x) => (y)'
    numbers = " ".join(
        f"{name} = Constant <value = int64 {{{value}}}> ()"
        for name, value in (("minus2", -2), ("minus1", -1), ("zero", 0), ("one", 1), ("four", 4))
    )
    model = onnx.parser.parse_model(
        f"{head} {{ {numbers} sizes = Constant <value_ints = [2, 0, 7]> () {body} }}"
    )
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{number}"
    model.graph.output[0].ClearField("type")
    return model


@pytest.mark.parametrize(
    "body",
    [
        MADE + "t = SequenceInsert (s, b) y = ConcatFromSequence <axis = 1> (t)",
        MADE + "t = SequenceInsert (s, b, minus1) y = ConcatFromSequence <axis = 1> (t)",
        MADE + "t = SequenceInsert (s, b, minus2) y = ConcatFromSequence <axis = -1> (t)",
        MADE + "t = SequenceInsert (s, b, one) y = ConcatFromSequence <axis = 0, new_axis = 1> (t)",
        MADE + "t = SequenceErase (s) y = ConcatFromSequence <axis = 0> (t)",
        MADE + "t = SequenceErase (s, minus2) y = SequenceAt (t, zero)",
        MADE + "l = SequenceLength (s) f = Cast <to = 1> (l) y = Add (x, f)",
        "e = SequenceEmpty () t = SequenceInsert (e, x) y = SequenceAt (t, minus1)",
        "s = SplitToSequence <axis = 0> (x, four) y = SequenceAt (s, minus1)",
        "s = SplitToSequence <axis = 0> (x, four) y = SequenceAt (s, one)",
        "s = SplitToSequence <axis = -2> (x, sizes) y = SequenceAt (s, minus1)",
        "s = SplitToSequence <axis = 1, keepdims = 0> (x) y = SequenceAt (s, one)",
        "s = SplitToSequence <axis = 1> (x) y = ConcatFromSequence <axis = 0> (s)",
    ],
)
def test_they_are_as_in_onnx_runtime(body: str) -> None:
    model = _model(body)
    (want,) = onnx_runtime(model, {"x": X})
    (got,) = evaluate(model, {"x": X})
    assert (got.shape, got.dtype) == (want.shape, want.dtype)
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (MADE + "y = SequenceAt (s, four)", "expected a place from -2 to 1 in the sequence; got 4"),
        (
            MADE + "t = SequenceErase (s, four) y = SequenceAt (t, zero)",
            r"SequenceErase \(node 'SequenceErase_9'\): expected a place from -2 to 1",
        ),
        (
            "k = ReduceSum <keepdims = 0> (x) i = Cast <to = 7> (k) " + MADE + "y = SequenceAt (s, i)",
            "a place in the sequence that is known before the model runs",
        ),
    ],
)
def test_others_are_refused_by_name(body: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(_model(body))
