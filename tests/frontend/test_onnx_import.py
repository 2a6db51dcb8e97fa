"""The ONNX importer: domains count, errors name the node, and what TVM got wrong is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import pytest

from tests.frontend.evaluate import evaluate, make_model, onnx_runtime
from tvm_sphinx.errors import ModelError
from tvm_sphinx.frontend.load import load_model

X = np.array([[-2, -1, -0.5, 0], [0.5, 1, 2, 3], [1, 5, -5, 2]], np.float32)


def _node(op: str, inputs: list[str], outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
    names = [f"y{number}" for number in range(outputs)]
    return onnx.helper.make_node(op, inputs, names, name="node", domain=domain, **attributes)


def test_an_operator_of_another_domain_is_refused_by_name() -> None:
    model = make_model([_node("Relu", ["x"], domain="com.example")], {"x": X}, ["y0"])
    with pytest.raises(ModelError, match=r"operators that are not known: com\.example\.Relu"):
        load_model(model)


def test_a_suffix_in_capitals_tells_the_form_of_a_file(tmp_path: Path) -> None:
    header = '<ir_version: 8, opset_import: ["": 15]>'
    text = f"{header} g (float[2] x) => (float[2] y) {{ y = Relu (x) }}"
    onnx.save(onnx.parser.parse_model(text), tmp_path / "NET.ONNX")
    assert len(load_model(tmp_path / "NET.ONNX")["main"].params) == 1


def test_an_error_is_one_sentence_that_names_the_node(capsys: pytest.CaptureFixture[str]) -> None:
    model = make_model([_node("ReduceL2", ["x"])], {"x": X.astype(np.int32)}, ["y0"])
    with pytest.raises(ModelError, match=r"ReduceL2 \(node 'node'\): expected floats; got int32\.$"):
        load_model(model)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("op", "inputs", "weights", "attributes", "outputs"),
    [
        ("Elu", ["x"], {}, {"alpha": 0.5}, 1),
        ("Selu", ["x"], {}, {"alpha": 0.5, "gamma": 2.0}, 1),
        ("Celu", ["x"], {}, {"alpha": 0.5}, 1),
        ("ThresholdedRelu", ["x"], {}, {"alpha": 0.6}, 1),
        ("Hardmax", ["x"], {}, {"axis": 0}, 1),
        ("Flatten", ["x"], {}, {"axis": -1}, 1),
        ("Split", ["x", "w"], {"w": np.array([3, 0, 1])}, {"axis": -1}, 3),
        ("Compress", ["x", "w"], {"w": np.array([True, False, True])}, {"axis": 0}, 1),
        ("Compress", ["x", "w"], {"w": np.array([True, False, True])}, {}, 1),
        ("Slice", ["x", "b", "e"], {"b": np.array([2, 1]), "e": np.array([1, 9])}, {}, 1),
        (
            "Slice",
            ["x", "b", "e", "a", "s"],
            {"b": np.array([-1]), "e": np.array([-9]), "a": np.array([-1]), "s": np.array([-2])},
            {},
            1,
        ),
    ],
)
def test_operator(
    op: str, inputs: list[str], weights: dict[str, Any], attributes: dict[str, Any], outputs: int
) -> None:
    names = [f"y{number}" for number in range(outputs)]
    model = make_model([_node(op, inputs, outputs, **attributes)], {"x": X}, names, weights)
    for got, want in zip(evaluate(model, {"x": X}), onnx_runtime(model, {"x": X}), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)
        assert got.shape == want.shape


@pytest.mark.parametrize(
    "op", ["L1", "L2", "LogSum", "LogSumExp", "SumSquare", "Sum", "Mean", "Prod", "Max"]
)
def test_reductions_over_no_axes(op: str) -> None:
    x = np.abs(X) + np.float32(0.5) if "Log" in op else X
    model = make_model([_node(f"Reduce{op}", ["x"], noop_with_empty_axes=1)], {"x": x}, ["y0"], opset=18)
    np.testing.assert_allclose(evaluate(model, {"x": x})[0], onnx_runtime(model, {"x": x})[0], rtol=1e-6)


@pytest.mark.parametrize(("negative", "positive"), [(1, 0), (0, 1), (0, 0), (1, 1)])
def test_infinities_of_one_sign(negative: int, positive: int) -> None:
    x = np.array([np.inf, -np.inf, np.nan, 1], np.float32)
    node = _node("IsInf", ["x"], detect_negative=negative, detect_positive=positive)
    model = make_model([node], {"x": x}, ["y0"])
    np.testing.assert_array_equal(evaluate(model, {"x": x})[0], onnx_runtime(model, {"x": x})[0])


@pytest.mark.parametrize("kind", ["half_pixel", "output_half_pixel"])
def test_regions_move_by_half_a_pixel_of_the_data(kind: str) -> None:
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(0, 14, (3, 2, 2)), 1).reshape(3, 4).astype(np.float32)
    feeds = {"x": rng.normal(size=(1, 2, 8, 8)).astype(np.float32), "r": corners}
    node = _node(
        "RoiAlign",
        ["x", "r", "b"],
        coordinate_transformation_mode=kind,
        spatial_scale=0.5,
        sampling_ratio=2,
        output_height=2,
        output_width=3,
    )
    model = make_model([node], feeds, ["y0"], {"b": np.zeros(3, np.int64)})
    np.testing.assert_allclose(
        evaluate(model, feeds)[0], onnx_runtime(model, feeds)[0], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_floats(dtype: str) -> None:
    x = X.astype(dtype)
    model = make_model([_node("Elu", ["x"])], {"x": x}, ["y0"])
    (got,) = evaluate(model, {"x": x})
    assert got.dtype == x.dtype
    np.testing.assert_allclose(got, np.where(x > 0, x, np.expm1(x)), rtol=2e-3)


@pytest.mark.parametrize("op", ["AveragePool", "MaxPool"])
@pytest.mark.parametrize(("kernel", "stride", "pads"), [(1, 2, [0, 0]), (2, 3, [1, 1]), (2, 3, [0, 1])])
@pytest.mark.parametrize("extent", [4, 6, 7])
def test_pools_that_round_up(op: str, extent: int, kernel: int, stride: int, pads: list[int]) -> None:
    """ONNX's own inference counts windows that begin behind the data, and so does TVM's importer."""
    x = np.arange(2 * extent, dtype=np.float32).reshape(1, 2, extent)
    node = _node(op, ["x"], ceil_mode=1, kernel_shape=[kernel], strides=[stride], pads=pads)
    model = make_model([node], {"x": x}, ["y0"])
    (got,), (want,) = evaluate(model, {"x": x}), onnx_runtime(model, {"x": x})
    np.testing.assert_allclose(got, want)


def test_rows_above_a_diagonal_of_whole_numbers() -> None:
    """Indices of two widths meet in a vector: the kernel has to be built before it is counted on."""
    x = np.arange(12, dtype=np.int64).reshape(4, 3)
    model = make_model([_node("Trilu", ["x", "k"], upper=0)], {"x": x}, ["y0"], {"k": np.array(1)})
    np.testing.assert_array_equal(evaluate(model, {"x": x})[0], np.tril(x, 1))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("FLOAT", "FLOAT8E4M3FN"),
        ("FLOAT8E5M2", "FLOAT"),
        ("FLOAT8E4M3FNUZ", "FLOAT16"),
        ("FLOAT4E2M1", "FLOAT"),
        ("UINT4", "FLOAT"),
        ("INT4", "INT8"),
        ("UINT2", "FLOAT"),
    ],
)
def test_types_that_tvm_gets_wrong_are_refused(before: str, after: str) -> None:
    """Its code makes 2^-7 of a zero of 8 bits, and reads two whole numbers of 4 bits from each byte."""
    kinds = [getattr(onnx.TensorProto, name) for name in (before, after)]
    ends = [onnx.helper.make_tensor_value_info(*pair, [4]) for pair in zip("xy", kinds, strict=True)]
    node = onnx.helper.make_node("Cast", ["x"], ["y"], to=kinds[1])
    graph = onnx.helper.make_graph([node], "narrow", ends[:1], ends[1:])
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 25)], ir_version=11
    )
    with pytest.raises(ModelError, match=r"reads or makes .*floats of 16 to 64"):
        evaluate(model, {})


def test_weights_of_narrow_types_are_folded() -> None:
    weights = np.array([0, 0.5, -448, np.nan], dtype=ml_dtypes.float8_e4m3fn)
    tensor = onnx.helper.make_tensor(
        "w", onnx.TensorProto.FLOAT8E4M3FN, [4], weights.tobytes(), raw=True
    )
    model = onnx.parser.parse_model(
        '<ir_version: 11, opset_import: ["": 21]> net (float[4] x) => (float[4] y) '
        "{ v = Cast<to = 1>(w) y = Add(x, v) }"
    )
    model.graph.initializer.append(tensor)
    (found,) = evaluate(model, {"x": np.ones(4, "f")})
    np.testing.assert_array_equal(found, [1, 1.5, -447, np.nan])
