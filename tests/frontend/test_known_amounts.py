"""Pad and Resize by amounts that are computed: folded where that can be, else refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from tests.frontend.evaluate import evaluate, onnx_runtime
from tests.fuzz.run import difference
from tvm_sphinx.errors import ModelError
from tvm_sphinx.frontend.load import load_model

X = np.random.default_rng(0).normal(size=(2, 3, 6, 5)).astype(np.float32)
CLOSED, BATCHES, OPEN = "float[2,3,6,5] x", "float[N,3,6,5] x", "float[N,3,H,W] x"
# How far the extents are from multiples of four, and the extents of images times one and a half.
REST = "s = Shape(x) h = Slice(s, two, four) q = Mod(h, four) p = Concat<axis = 0>(z, z, q, z, z, z, z)"
GROWN = """s = Shape(x) h = Slice(s, two, four) f = Cast<to = 1>(h)
    to = Constant<value_floats = [9.0, 7.5]>() r = Div(to, f)
    one = Constant<value_floats = [1.0, 1.0]>() w = Concat<axis = 0>(one, r)"""
BESIDE = """s = Shape(x) h = Slice(s, z, two) to = Constant<value = int64[2] {9, 7}>()
    w = Concat<axis = 0>(h, to)"""


def model(inputs: str, body: str) -> onnx.ModelProto:
    made = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["" : 18]>
        net ({inputs}) => (float[A,B,C,D] y)
        <int64[1] z = {{0}}, int64[1] two = {{2}}, int64[1] four = {{4}}>
        {{ {body} }}""")
    for node in made.graph.node:
        node.name = node.output[0]
    return made


@pytest.mark.parametrize(
    ("inputs", "body"),
    [
        (CLOSED, f"{REST} y = Pad(x, p)"),
        (BATCHES, f"{REST} y = Pad(x, p)"),
        (f"{CLOSED}, float v", "p = Concat<axis = 0>(z, two, two, z, z, four, z, z) y = Pad(x, p, v)"),
        (BATCHES, f'{GROWN} y = Resize<mode = "linear">(x, , w)'),
        (BATCHES, f'{BESIDE} y = Resize<mode = "linear">(x, , , w)'),
        (f"{BATCHES}, float[N,3,9,7] like", 'w = Shape(like) y = Resize<mode = "cubic">(x, , , w)'),
        (BATCHES, 'w = Constant<value_floats = [1.0, 1.0, 2.0, 1.5]>() y = Resize(x, , w)'),
    ],
)  # fmt: skip
def test_amounts_of_constants_and_extents_come_out_as_in_onnx_runtime(inputs: str, body: str) -> None:
    feeds: dict[str, Any] = {"x": X, "v": np.array(2.5, np.float32), "like": np.zeros((2, 3, 9, 7), "f")}
    made = model(inputs, body)
    given = {value.name: feeds[value.name] for value in made.graph.input}
    assert difference(evaluate(made, given, falls_back=True), onnx_runtime(made, given)) == ""


@pytest.mark.parametrize(
    ("inputs", "body", "message"),
    [
        (
            f"{CLOSED}, int64[8] p",
            "y = Pad(x, p)",
            r"Pad \(node 'y'\): expected pads that are known before",
        ),
        (OPEN, f"{REST} y = Pad(x, p)", r"Pad \(node 'y'\): .* open. Its input 'x' .* --input-shapes"),
        (
            f"{CLOSED}, int64[4] w",
            "y = Resize(x, , , w)",
            r"Resize \(node 'y'\): expected sizes that are k",
        ),
        (
            f"{CLOSED}, float[4] w",
            "y = Resize(x, , w)",
            r"Resize \(node 'y'\): expected scales that are k",
        ),
        (
            f"{BATCHES}, float[M,3,9,7] like",
            "w = Shape(like) y = Resize(x, , , w)",
            r"Resize \(node 'y'\): expected sizes that are known where they are not those of the input",
        ),
    ],
)
def test_amounts_that_depend_on_data_are_refused_by_name(inputs: str, body: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        load_model(model(inputs, body))
    assert "\n" not in str(caught.value)
