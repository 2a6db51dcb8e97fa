"""Each operator of `onnx_operators` beside ONNX Runtime: right, or refused by name."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

from onnx import helper, numpy_helper  # noqa: E402 - onnx may be missing
from onnx.reference import ReferenceEvaluator  # noqa: E402 - as above

from tvm_sphinx.errors import ModelError  # noqa: E402 - as above
from tvm_sphinx.frontend.load import load_model  # noqa: E402 - as above

from .onnx_operators import CASES, REFUSED  # noqa: E402 - as above
from .run_module import evaluate  # noqa: E402 - as above

_OPSETS = sorted({opset for _, _, _, _, opset, _, _ in CASES})
_PARTS = 4  # modules of the most common opset, so that a failure is near its cause


def _names(prefix, feeds, consts):
    """Return the names of a node's inputs: constants by their position, and what is fed between."""
    fed = iter(f"{prefix}x{number}" for number in range(len(feeds)))
    total = max([len(feeds) + len(consts), *(place + 1 for place in consts)])
    return [f"{prefix}c{place}" if place in consts else next(fed, "") for place in range(total)]


def model_of(cases, opset):
    """Return one model that holds a node for each case, and what to feed it."""
    nodes, inputs, weights, outputs, feeds = [], [], [], [], {}
    for number, (_, operator, fed, consts, _, count, attributes) in enumerate(cases):
        prefix = f"n{number}_"
        results = [f"{prefix}y{place}" for place in range(count)]
        nodes.append(helper.make_node(operator, _names(prefix, fed, consts), results, **attributes))
        for place, array in enumerate(fed):
            feeds[f"{prefix}x{place}"] = array
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            inputs.append(helper.make_tensor_value_info(f"{prefix}x{place}", kind, array.shape))
        weights += [
            numpy_helper.from_array(array, f"{prefix}c{place}") for place, array in consts.items()
        ]
        outputs += [onnx.ValueInfoProto(name=name) for name in results]
    graph = helper.make_graph(nodes, "operators", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    return onnx.shape_inference.infer_shapes(model, data_prop=True), feeds


def expected(model, feeds):
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    providers = ["CPUExecutionProvider"]
    try:
        session = runtime.InferenceSession(model.SerializeToString(), options, providers=providers)
        return session.run(None, feeds)
    except Exception:  # ONNX Runtime lacks some types
        return ReferenceEvaluator(model).run(None, feeds)


def _batches():
    for opset in _OPSETS:
        cases = [each for each in CASES if each[4] == opset and each[0] not in REFUSED]
        parts = _PARTS if len(cases) > 50 else 1
        for part in range(parts):
            yield pytest.param(cases[part::parts], opset, id=f"opset {opset}, part {part}")


@pytest.mark.parametrize(("cases", "opset"), list(_batches()))
def test_operators_come_out_as_in_onnx_runtime(cases, opset):
    model, feeds = model_of(cases, opset)
    want = [array for each in cases for array in expected(*model_of([each], opset))]
    names = [each[0] for each in cases for _ in range(each[5])]
    got = evaluate(load_model(model), list(feeds.values()))
    for name, right, mine in zip(names, want, got, strict=True):
        assert (mine.dtype, mine.shape) == (right.dtype, right.shape), name
        close = 1e-2 if right.dtype == np.float16 else 3e-5
        np.testing.assert_allclose(mine, right, rtol=close, atol=close, equal_nan=True, err_msg=name)


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_counterpart_is_refused_by_name(name):
    (case,) = [each for each in CASES if each[0] == name]
    with pytest.raises(ModelError, match=case[1]) as caught:
        load_model(model_of([case], case[4])[0])
    assert "\n" not in str(caught.value)


def test_an_operator_of_another_domain_is_refused():
    node = helper.make_node("Relu", ["x"], ["y"], domain="com.example")
    value = helper.make_tensor_value_info
    graph = helper.make_graph([node], "g", [value("x", 1, [2])], [value("y", 1, [2])])
    sets = [helper.make_opsetid("", 18), helper.make_opsetid("com.example", 1)]
    with pytest.raises(ModelError, match=r"com\.example\.Relu"):
        load_model(helper.make_model(graph, opset_imports=sets, ir_version=9))
