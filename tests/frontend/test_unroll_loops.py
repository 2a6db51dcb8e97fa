"""Loops of a constant number of iterations are written out, as in ONNX Runtime; others are refused."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

from tests.frontend.evaluate import evaluate, onnx_runtime, parse_model
from tvm_sphinx.errors import ModelError
from tvm_sphinx.frontend.load import load_model
from tvm_sphinx.frontend.unroll_loops import holds_loops, unroll_loops

X = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
WEIGHT = np.random.default_rng(2).normal(size=(4, 4)).astype(np.float32)
TRUE = "on = Constant <value = bool {1}> ()"


def _model(body: str, outputs: str = "y, z", version: int = 17) -> onnx.ModelProto:
    head = f"net (float[3,4] x) => ({outputs}) <float[4,4] w>"
    return parse_model(f"{head} {{ {body} }}", WEIGHT, version=version)


LOOPS = {
    "a constant number, what is around it, and a row of values": f"{TRUE}"
    " n = Constant <value = int64 {3}> () u = Tanh (x)"
    " y, z = Loop (n, on, x) <body = b (int64 i, bool c, float[3,4] s) => "
    "(bool c, float[3,4] t, float[3,4] r) { p = MatMul (s, w) f = Cast <to = 1> (i)"
    " q = Add (p, f) t = Add (q, u) r = Neg (t) }>",
    "while a counter of its own is small": f"{TRUE} k = Constant <value = int64 {{2}}> ()"
    " k2, y = Loop (, on, k, x) <body = b (int64 i, bool c, int64 j, float[3,4] s) => "
    "(bool d, int64 j2, float[3,4] t) { one = Constant <value = int64 {3}> () j2 = Add (j, one)"
    " most = Constant <value = int64 {10}> () d = Less (j2, most) t = Sin (s) }>"
    " z = Cast <to = 1> (k2)",
    "fewer than it may, by the number of the iteration": " n = Constant <value = int64 {9}> ()"
    " y, z = Loop (n, , x) <body = b (int64 i, bool c, float[3,4] s) => "
    "(bool d, float[3,4] t, int64 j) { most = Constant <value = int64 {2}> ()"
    " d = Less (i, most) t = Mul (s, s) j = Identity (i) }>",
    "no iteration at all": " n = Constant <value = int64 {0}> ()"
    " y = Loop (n, , x) <body = b (int64 i, bool c, float[3,4] s) => (bool c, float[3,4] t)"
    " { t = Mul (s, s) }> z = Abs (y)",
    "a loop in a loop, with a choice in it": f"{TRUE} n = Constant <value = int64 {{2}}> ()"
    " y = Loop (n, on, x) <body = b (int64 i, bool c, float[3,4] s) => (bool c, float[3,4] t)"
    " { two = Constant <value = int64 {2}> () m = Add (i, two)"
    "   t = Loop (m, , s) <body = b2 (int64 i2, bool c2, float[3,4] v) => (bool c2, float[3,4] q)"
    "   { sum = ReduceSum <keepdims = 0> (v) zero = Constant <value = float {0}> ()"
    "     up = Greater (sum, zero) q = If (up) <then_branch = t () =>"
    "     (float[3,4] e) { e = Sub (v, w3) }, else_branch = e () =>"
    "     (float[3,4] f) { f = Exp (v) }> }> } > z = Neg (y)",
    "the slices of a tensor": " h = ReduceMean <axes = [0], keepdims = 0> (x)"
    " y, z = Scan <num_scan_inputs = 1, body = b (float[4] s, float[4] r) =>"
    " (float[4] t, float[4] o) { a = Add (s, r) t = Tanh (a) o = MatMul (a, w) }> (h, x)",
    "columns from the last to the first, of two tensors, stacked at the end": " e = Exp (x)"
    " y, z = Scan <num_scan_inputs = 2, scan_input_axes = [1, -1], scan_input_directions = [1, 0],"
    " scan_output_axes = [-1, 0], scan_output_directions = [0, 1],"
    " body = b (float[3] r, float[3] q) => (float[3] t, float[3] o) { t = Sub (r, q) o = Neg (r) }>"
    " (x, e)",
}


@pytest.mark.parametrize("version", [12, 17])
@pytest.mark.parametrize("body", LOOPS.values(), ids=LOOPS)
def test_loops_are_as_in_onnx_runtime(body: str, version: int) -> None:
    if version == 12:
        body = body.replace("ReduceSum <keepdims = 0>", "ReduceSum <axes = [0, 1], keepdims = 0>")
    body = f"row = Constant <value_floats = [1.5]> () w3 = Mul (x, row) {body}"
    model = _model(body, version=version)
    assert holds_loops(model.graph)
    unrolled = unroll_loops(model)
    assert not holds_loops(unrolled.graph)
    expected = onnx_runtime(model, {"x": X})
    for found in (onnx_runtime(unrolled, {"x": X}), evaluate(model, {"x": X})):
        for got, want in zip(found, expected, strict=True):
            assert (got.shape, got.dtype) == (want.shape, want.dtype)
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_copies_lead_back_to_the_loop_and_the_node_in_it() -> None:
    model = _model(LOOPS["a constant number, what is around it, and a row of values"])
    names = [node.name for node in unroll_loops(model).graph.node]
    assert {f"Loop_3/{number}/p" for number in range(3)} <= set(names)
    assert len(names) == len(set(names))


COMPUTED = "k = ReduceSum <keepdims = 0> (x) n = Cast <to = 7> (k)"
BODY = "body = b (int64 i, bool c, float[3,4] s) => (bool c, float[3,4] t) { t = Neg (s) }"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (f"{COMPUTED} y = Loop (n, , x) <{BODY}>", "its number of iterations is computed by the"),
        (
            f"{COMPUTED} zero = Constant <value = int64 {{0}}> () b = Greater (n, zero)"
            f" y = Loop (, b, x) <{BODY}>",
            "whether it begins is computed by the network",
        ),
        (
            "y = Loop (, , x) <body = b (int64 i, bool c, float[3,4] s) => (bool d, float[3,4] t)"
            " { t = Neg (s) m = ReduceSum <keepdims = 0> (s) o = Constant <value = float {1}> ()"
            " d = Less (m, o) }>",
            "whether it goes on is computed by the network",
        ),
        (f"{TRUE} y = Loop (, on, x) <{BODY}>", "more than 4096 nodes"),
    ],
)
def test_others_are_refused_in_one_line_that_names_the_node(body: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        load_model(_model(body, "y"))
    assert "Loop (node 'Loop_" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_loop_along_an_open_extent_names_the_option_that_settles_it() -> None:
    text = '<ir_version: 8, opset_import: ["": 17]> net (float[t,4] x) => (float[t,4] y) {'
    text += "y = Scan <num_scan_inputs = 1, body = b (float[4] r) => (float[4] o) { o = Exp (r) }> (x) }"
    model = onnx.parser.parse_model(text)
    with pytest.raises(ModelError, match=r"the extent of 'x' .*\[t,4\]: --input-shapes settles them"):
        load_model(model)
    module = load_model(model, input_shapes={"x": [3, 4]})
    np.testing.assert_allclose(evaluate(module, {"x": X})[0], np.exp(X), rtol=1e-5)
