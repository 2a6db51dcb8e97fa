"""Shape arithmetic is folded in branches too, and an ``if`` that a shape decides is gone."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser

from tests.frontend.evaluate import build, evaluate, make_model, onnx_runtime
from tvm_sphinx.frontend.fold_shapes import fold_shapes

X = np.random.default_rng(0).normal(size=(1, 6, 4)).astype(np.float32)

# The inner choice is between tensors of two and of three axes.
NESTED = """<ir_version: 8, opset_import: ["": 17]>
net (float[1,6,4] x, bool c) => (y) {
  zero = Constant <value = int64 {0}> () one = Constant <value = int64[1] {1}> ()
  all = Constant <value = int64[1] {-1}> () first = Constant <value = int64[1] {0}> ()
  y = If (c) <
    then_branch = t () => (float[4,6] a) {
      s = Shape (x) n = Gather (s, zero) i = Unsqueeze (n, first) is_one = Equal (i, one)
      q = If (is_one) <
        then_branch = t2 () => (float[6,4] d) { d = Squeeze (x, first) },
        else_branch = e2 () => (float[1,6,4] e) { e = Identity (x) }>
      six = Shape <start = 1, end = 2> (x) shape = Concat <axis = 0> (all, six)
      r = Reshape (q, shape) a = Tanh (r)
    },
    else_branch = e () => (float[4,6] b) { m = Squeeze (x, first) b = Transpose (m) }>
}"""


def _model() -> onnx.ModelProto:
    model = onnx.parser.parse_model(NESTED)
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{number}"
    return onnx.shape_inference.infer_shapes(model)


def test_shapes_in_branches_are_folded_and_decide() -> None:
    model = _model()
    before = model.SerializeToString()
    (choice,) = (node for node in fold_shapes(model).graph.node if node.op_type == "If")
    assert model.SerializeToString() == before
    kinds = {node.op_type for attribute in choice.attribute for node in attribute.g.node}
    assert not kinds & {"Shape", "Gather", "Equal", "Concat", "If"}
    assert kinds >= {"Squeeze", "Reshape", "Tanh"}


def test_branches_with_shape_arithmetic_are_as_in_onnx_runtime() -> None:
    model = _model()
    run = build(model)
    for condition in (True, False):
        feeds = {"x": X, "c": np.array(condition)}
        (got,), (want,) = run(feeds), onnx_runtime(model, feeds)
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_branches_that_are_taken_may_call_their_values_alike() -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
    net (float[1,6,4] x) => (float[1,6,4] y) <bool yes = {1}, bool no = {0}> {
      p = If (yes) < then_branch = t () => (a) { t = Tanh (x) a = Neg (t) },
                     else_branch = e () => (b) { b = Identity (x) } >
      y = If (no) < then_branch = u () => (a) { a = Identity (x) },
                    else_branch = f () => (b) <float w = {2.0}> { t = Mul (p, w) s = Exp (p)
                      b = Add (t, s) } >
    }""")
    folded = fold_shapes(model)
    assert {node.op_type for node in folded.graph.node} == {
        "Tanh",
        "Neg",
        "Mul",
        "Exp",
        "Add",
        "Identity",
    }
    names = [name for node in folded.graph.node for name in node.output]
    assert len(set(names)) == len(names)
    (want,) = onnx_runtime(model, {"x": X})
    for found in (evaluate(model, {"x": X}), onnx_runtime(folded, {"x": X})):
        np.testing.assert_allclose(found[0], want, rtol=1e-5, atol=1e-6)


def test_a_function_that_onnx_runtime_writes_out_beside_a_choice() -> None:
    """ONNX Runtime writes group normalisation out with its shape arithmetic, and leaves that there."""
    feeds = {"x": X, "c": np.array(False), "scale": np.float32([1, 2]), "bias": np.float32([0, 1])}
    branches = [
        onnx.helper.make_graph(
            [onnx.helper.make_node(op, ["n"], [name])],
            name,
            [],
            [onnx.helper.make_empty_tensor_value_info(name)],
        )
        for op, name in (("Exp", "a"), ("Neg", "b"))
    ]
    nodes = [
        onnx.helper.make_node("GroupNormalization", ["x", "scale", "bias"], ["n"], "norm", num_groups=2),
        onnx.helper.make_node(
            "If", ["c"], ["y"], "choice", then_branch=branches[0], else_branch=branches[1]
        ),
    ]
    model = make_model(nodes, feeds, ["y"], opset=18)
    (got,), (want,) = build(model)(feeds), onnx_runtime(model, feeds)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_a_model_whose_types_onnx_cannot_infer_stays_as_it_is() -> None:
    unknown = onnx.helper.make_node("Op", ["x"], ["u"], "unknown", domain="com.example")
    shape = onnx.helper.make_node("Shape", ["u"], ["y"], "shape")
    model = make_model([unknown, shape], {"x": X}, ["y"])
    assert [node.op_type for node in fold_shapes(model).graph.node] == ["Op", "Shape"]
