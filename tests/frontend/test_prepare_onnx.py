"""Preparation: shapes are fixed, shape arithmetic is folded, and what is missing is said in one line."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from tests.frontend.evaluate import evaluate, onnx_runtime
from tvm_sphinx.errors import ModelError
from tvm_sphinx.frontend.load import load_model
from tvm_sphinx.frontend.onnx_inference import fits_message, infer_graph
from tvm_sphinx.frontend.prepare_onnx import needs_folding, prepare_onnx

HEADER = '<ir_version: 8, opset_import: ["" : 17]>'
#: What exporters write to flatten all but the batch.
FLATTEN = """flatten ({kind}[N, 3, W] data, {kind}[N, 2] other) => ({kind}[N, K] y, {kind}[N, 2] z) {{
    s = Shape(data)
    zero = Constant<value = int64 {{0}}>()
    n = Gather(s, zero)
    axes = Constant<value = int64[1] {{0}}>()
    lead = Unsqueeze(n, axes)
    rest = Constant<value = int64[1] {{-1}}>()
    shape = Concat<axis = 0>(lead, rest)
    y = Reshape(data, shape)
    z = Identity(other)
}}"""


def _parsed(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f"{HEADER} {text}")


def _flatten(kind: str = "float") -> onnx.ModelProto:
    model = _parsed(FLATTEN.format(kind=kind))
    # Names that the text form does not take.
    model.graph.input[0].name = "in:0"
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = "in:0" if name == "data" else name
    return model


@pytest.mark.parametrize("kind", ["float", "float16"])
def test_shape_arithmetic_is_folded(kind: str) -> None:
    """Half floats stay what they are, where ONNX Runtime would compute in single precision."""
    prepared = prepare_onnx(_flatten(kind), {"in:0": [2, 3, 4]}, "the model")
    assert prepared.shapes == {"in:0": [2, 3, 4], "other": [2, 2]}
    assert not prepared.hint
    assert "Shape" not in [node.op_type for node in prepared.model.graph.node]
    assert "Cast" not in [node.op_type for node in prepared.model.graph.node]
    module = load_model(_flatten(kind), input_shapes={"in:0": [2, 3, 4]})
    assert [str(param.name) for param in module["main"].params] == ["in:0", "other"]


def test_constants_decide_branches() -> None:
    model = _parsed("""branches (float[2] x) => (float[2] y) {
        c = Constant<value = bool {1}>()
        y = If(c) <
            then_branch = yes () => (float[2] a) { a = Neg(x) },
            else_branch = no () => (float[2] b) { b = Abs(x) }
        >
    }""")
    x = np.array([1, -2], np.float32)
    np.testing.assert_array_equal(evaluate(model, {"x": x})[0], -x)


def test_functions_are_inlined() -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17, "mine" : 1]>
        calls (float[3] x) => (float[3] y) { y = mine.twice(x) }
        <opset_import: ["" : 17], domain: "mine"> twice (a) => (b) { b = Add(a, a) }""")
    x = np.arange(3, dtype=np.float32)
    np.testing.assert_array_equal(evaluate(model, {"x": x})[0], 2 * x)


def _product(rows: int) -> onnx.ModelProto:
    """A product with a weight, of a shape that is computed; the weight's shape is read, too."""
    model = _parsed("""product (float[N, 3, W] x) => (float[N, M] y) {
        s = Shape(x)
        zero = Constant<value = int64 {0}>()
        axes = Constant<value = int64[1] {0}>()
        n = Gather(s, zero)
        lead = Unsqueeze(n, axes)
        rest = Constant<value = int64[1] {-1}>()
        shape = Concat<axis = 0>(lead, rest)
        flat = Reshape(x, shape)
        y = MatMul(flat, w)
    }""")
    weight = np.random.default_rng(1).standard_normal((rows, 1024), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    return model


@pytest.mark.parametrize("rows", [6, 96])
def test_weights_of_products_stay_what_they_are(rows: int) -> None:
    """Large ones, which do not take part in folding, and small ones."""
    model = _product(rows)
    shapes = {"x": [2, 3, rows // 3]}
    prepared = prepare_onnx(model, shapes, "the model")
    assert not prepared.hint
    assert [node.op_type for node in prepared.model.graph.node] == ["Reshape", "MatMul"]
    assert [value.name for value in prepared.model.graph.input] == ["x"]
    held = {tensor.name: tensor for tensor in prepared.model.graph.initializer}
    np.testing.assert_array_equal(
        onnx.numpy_helper.to_array(held["w"]), onnx.numpy_helper.to_array(model.graph.initializer[0])
    )
    x = np.random.default_rng(2).standard_normal(shapes["x"], np.float32)
    np.testing.assert_allclose(
        evaluate(load_model(model, input_shapes=shapes), {"x": x})[0],
        onnx_runtime(model, {"x": x})[0],
        1e-4,
        1e-4,
    )


def test_types_are_inferred_without_the_weights() -> None:
    """What onnx infers with them, small ones that are shapes included; the model keeps its own."""
    model = _parsed("""types (float[2, 96] x) => (y) <int64[2] s = {-1, 4}> {
        p = MatMul(x, w)
        h = Shape(w)
        t = Concat<axis = 0>(h, h)
        y = Reshape(p, s)
    }""")
    weight = np.zeros((96, 1024), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    before = model.SerializeToString()
    graph = infer_graph(model)
    whole = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    assert graph.value_info == whole.value_info
    assert [dim.dim_value for dim in graph.output[0].type.tensor_type.shape.dim] == [512, 4]
    assert model.SerializeToString() == before
    assert not any(tensor.raw_data for tensor in graph.initializer if tensor.name == "w")


def test_a_model_that_no_message_holds_is_told_by_its_weights() -> None:
    model = _parsed("plain (float[2, 3] x) => (float[2, 3] y) { y = Neg(x) }")
    assert fits_message(model)
    model.graph.initializer.append(
        onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[1 << 15, 1 << 14])
    )
    assert not fits_message(model)  # 2 GiB, had it its elements


def test_a_model_of_known_shapes_is_left_as_it_is() -> None:
    model = _parsed("plain (float[2, 3] x) => (float[6] y) <int64[1] s = {6}> { y = Reshape(x, s) }")
    assert not needs_folding(model.graph)
    assert prepare_onnx(model, None, "the model").model == model


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"x": [1]}, r"Unknown input of the model 'x'; known: in:0, other"),
        (
            {"in:0": [2, 4, 4]},
            r"Expected input 'in:0' of the model of shape \[N, 3, W\]; got \[2, 4, 4\]",
        ),
        ({"in:0": [2, 3]}, r"Expected input 'in:0' of the model of shape \[N, 3, W\]; got \[2, 3\]"),
        (
            {"in:0": [2, 3, 4], "other": [5, 2]},
            r"Expected input 'other' of the model of shape \[2, 2\]; got \[5, 2\]",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes: dict[str, list[int]], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        prepare_onnx(_flatten(), shapes, "the model")


def test_open_extents_are_named() -> None:
    prepared = prepare_onnx(_flatten(), None, "the model")
    assert "Its input 'in:0' has open extents, [N,3,W]: --input-shapes settles them." in prepared.hint


@pytest.mark.parametrize(("kind", "package"), [("float", "onnxruntime"), ("float16", "onnxscript")])
def test_a_missing_package_is_named(monkeypatch: Any, kind: str, package: str) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else found(name)
    )
    prepared = prepare_onnx(_flatten(kind), {"in:0": [2, 3, 4]}, "the model")
    assert prepared.hint == (
        f"It computes shapes, which {package} would fold: pip install 'tvm-sphinx[onnx]'."
    )


def test_folded_model_computes_what_onnx_runtime_computes() -> None:
    model = _flatten()
    for value in model.graph.input:
        extents = (2, 3, 4) if value.name == "in:0" else (2, 2)
        for dim, extent in zip(value.type.tensor_type.shape.dim, extents, strict=True):
            dim.dim_value = extent
    feeds = {"in:0": np.random.rand(2, 3, 4).astype("f"), "other": np.ones((2, 2), np.float32)}
    for got, want in zip(evaluate(model, feeds), onnx_runtime(model, feeds), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("version", [3, 8])
def test_weights_that_are_listed_as_inputs_are_none(version: int) -> None:
    """As files of IR version 3 have to; equal ones are merged, and what they decide is folded."""
    model = _parsed("""fill (float[2] x) => (float[2] y)
        <int64[1] s = {2}, int64[1] t = {2}> {
            a = ConstantOfShape<value = float[1] {3}>(s)
            b = ConstantOfShape<value = float[1] {4}>(t)
            c = Mul(x, a)
            y = Add(c, b)
        }""")
    model.ir_version = version
    int64 = onnx.TensorProto.INT64
    model.graph.input.extend(onnx.helper.make_tensor_value_info(name, int64, [1]) for name in "st")
    assert [str(param.name) for param in load_model(model)["main"].params] == ["x"]
    x = np.array([1, -2], np.float32)
    np.testing.assert_array_equal(evaluate(model, {"x": x})[0], 3 * x + 4)


def test_what_is_written_out_is_named_after_its_operator() -> None:
    """Two operators side by side, with another one between others."""
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 24]> net (float[4] x) => (float[4] y, float[4] z)
        { a = Swish(x) b = Swish(a) c = Relu(b) y = Swish(c) z = Add(c, y) }"""
    )
    for number, node in enumerate(model.graph.node):
        node.name = f"node{number}"
    nodes = prepare_onnx(model, None, "the model").model.graph.node
    made = {name: node.name for node in nodes for name in node.output}
    places = {"a": "node0/", "b": "node1/", "c": "node2", "y": "node3/", "z": "node4"}
    assert all(made[output].startswith(name) for output, name in places.items())
    assert {node.name.partition("/")[0] for node in nodes} == {f"node{n}" for n in range(5)}
    assert len({node.name for node in nodes}) == len(nodes)


def test_what_is_defined_by_others_is_written_out_in_branches() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 24]> net (float[4] x, bool c) => (float[4] y) {
        y = If(c) <then_branch = one () => (float[4] a) { a = Swish(x) },
                   else_branch = other () => (float[4] b) { b = Swish<alpha = 2.0>(x) }> }"""
    )
    x = np.linspace(-2, 2, 4, dtype="f")
    for chosen, alpha in ((True, 1), (False, 2)):
        (found,) = evaluate(model, {"x": x, "c": np.array(chosen)})
        np.testing.assert_allclose(found, x / (1 + np.exp(-alpha * x)), rtol=1e-5)


def test_onnx_has_two_names_for_its_own_operators() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 24]> net (float[4] x) => (float[4] y) { y = Swish(x) }'
    )
    model.graph.node[0].domain = "ai.onnx"
    x = np.linspace(-2, 2, 4, dtype="f")
    np.testing.assert_allclose(evaluate(model, {"x": x})[0], x / (1 + np.exp(-x)), rtol=1e-5)


def test_an_operator_of_a_later_version_is_refused() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> net (float[4] x) => (float[4] y) { y = Swish(x) }'
    )
    with pytest.raises(ModelError, match="operators that are not known: Swish"):
        load_model(model)


def test_what_onnx_fails_at_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("Type unknown for x\nand more")

    monkeypatch.setattr(onnx.inliner, "inline_selected_functions", fail)
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 24]> net (float[4] x) => (float[4] y) { y = Swish(x) }'
    )
    with pytest.raises(ModelError, match="cannot write out Swish: Type unknown for x") as caught:
        load_model(model)
    assert "\n" not in str(caught.value)
