"""Loops are as in ONNX Runtime: written out where they can be counted, else a task of their own."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

from tests.frontend.evaluate import build, evaluate, onnx_runtime, parse_model
from tests.frontend.run_module import TARGET, run_default
from tests.relax_modules import cpu_platform
from tvm_sphinx.errors import ModelError
from tvm_sphinx.frontend.extract import extract_task_graph
from tvm_sphinx.frontend.load import load_model
from tvm_sphinx.frontend.lower import lower_to_kernels
from tvm_sphinx.frontend.unroll_loops import holds_loops, unroll_loops
from tvm_sphinx.platform.targets import device_target

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


COMPUTED = "k = ReduceSum <keepdims = 0> (x) a = Abs (k) n = Cast <to = 7> (a)"
BODY = "body = b (int64 i, bool c, float[3,4] s) => (bool c, float[3,4] t) { t = Neg (s) }"
# What the network computes decides how long they go on.
OPEN_LOOPS = {
    "as often as the network computes, with what is around it": f"{COMPUTED} u = Tanh (x)"
    " y = Loop (n, , x) <body = b (int64 i, bool c, float[3,4] s) => (bool c, float[3,4] t)"
    " { p = MatMul (s, w) f = Cast <to = 1> (i) q = Add (p, f) r = Tanh (q) t = Add (r, u) }>"
    " z = Exp (y)",
    "whether it begins": f"{COMPUTED} two = Constant <value = int64 {{2}}> () b = Less (n, two)"
    f" four = Constant <value = int64 {{4}}> () y = Loop (four, b, x) <{BODY}> z = Abs (y)",
    "while a value is small": " y = Loop (, , x) <body = b (int64 i, bool c, float[3,4] s) =>"
    " (bool d, float[3,4] t) { e = Abs (s) t = Add (e, s2) m = ReduceSum <keepdims = 0> (t)"
    " o = Constant <value = float {90}> () d = Less (m, o) }> z = Neg (y)",
    "one value in the place of the other": f"{COMPUTED} p = Exp (x) q = Neg (x)"
    " y, z = Loop (n, , p, q) <body = b (int64 i, bool c, float[3,4] s, float[3,4] r) =>"
    " (bool c, float[3,4] r, float[3,4] s) { e = Exp (s) }>",
    "one in another, beside one that can be counted": COMPUTED
    + " two = Constant <value = int64 {2}> () y = Loop (n, , x) <body ="
    " b (int64 i, bool c, float[3,4] s) => (bool c, float[3,4] t)"
    "   { m = Add (i, two) v = Loop (m, , s) <body = b2 (int64 i2, bool c2, float[3,4] g) =>"
    "     (bool c2, float[3,4] h) { h = Sin (g) }>"
    "     t = Loop (two, , v) <body = b3 (int64 i3, bool c3, float[3,4] j) =>"
    "     (bool c3, float[3,4] k3) { k3 = Add (j, w3) }> }> z = Neg (y)",
    "too many to be written out": f" n = Constant <value = int64 {{200000}}> ()"
    f" y = Loop (n, , x) <{BODY}> z = Abs (y)",
    "a counter of one element with an axis": f"{COMPUTED} one = Constant <value_ints = [1]> ()"
    " n1 = Reshape (n, one) y = Loop (n1, , x) <body = b (int64[1] i, bool[1] c, float[3,4] s) =>"
    " (bool[1] c, float[3,4] t) { f = Cast <to = 1> (i) t = Add (s, f) }> z = Neg (y)",
}


@pytest.mark.parametrize("body", OPEN_LOOPS.values(), ids=OPEN_LOOPS)
def test_what_cannot_be_counted_stays_a_loop_and_is_one_task(body: str) -> None:
    model = _model(f"row = Constant <value_floats = [1.5]> () w3 = Mul (x, row) s2 = Abs (x) {body}")
    assert holds_loops(unroll_loops(model).graph)
    run, by_tvm = build(model, num_devices=2), run_default(load_model(model), TARGET)
    for x in (X, X * 0.2, -X, np.zeros_like(X) + np.float32(0.3)):
        expected = onnx_runtime(model, {"x": x})
        for found in (run({"x": x}), by_tvm([x])):
            for got, want in zip(found, expected, strict=True):
                assert (got.shape, got.dtype) == (want.shape, want.dtype)
                np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_a_loop_is_a_task_that_is_named_as_its_node() -> None:
    body = OPEN_LOOPS["as often as the network computes, with what is around it"]
    target = device_target(cpu_platform(1).devices[0])
    graph = extract_task_graph(lower_to_kernels(load_model(_model(body)), target)).graph
    (task,) = (task for task in graph.tasks if task.op_kinds == ("loop",))
    assert task.origin == ("Loop Loop_4",)
    assert {task.origin[0].split()[0] for task in graph.tasks} >= {"Tanh", "Loop", "Exp"}


COLLECTS = (
    "body = b (int64 i, bool c, float[3,4] s) => (bool c, float[3,4] t, float[3,4] t) { t = Neg (s) }"
)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (f"{COMPUTED} y, z = Loop (n, , x) <{COLLECTS}>", "its number of iterations is computed by the"),
        (
            f"{COMPUTED} zero = Constant <value = int64 {{0}}> () b = Greater (n, zero)"
            f" y, z = Loop (, b, x) <{COLLECTS}>",
            "whether it begins is computed by the network",
        ),
        (
            "y, z = Loop (, , x) <body = b (int64 i, bool c, float[3,4] s) =>"
            " (bool d, float[3,4] t, float[3,4] t) { t = Neg (s) m = ReduceSum <keepdims = 0> (s)"
            " o = Constant <value = float {1}> () d = Less (m, o) }>",
            "whether it goes on is computed by the network",
        ),
        (f"{TRUE} y, z = Loop (, on, x) <{COLLECTS}>", "more than 4096 nodes"),
        (
            f"{COMPUTED} y = Loop (n, , x) <body = b (int64 i, bool c, float[r,4] s) =>"
            " (bool c, float[q,4] t) { t = Concat <axis = 0> (s, s) }> z = Neg (y)",
            "a step leaves the shapes and types",
        ),
    ],
)
def test_others_are_refused_in_one_line_that_names_the_node(body: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        load_model(_model(body))
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
