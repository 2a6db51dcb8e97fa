"""Inputs that have a value at compile time: constants of the model, fed to the source alone."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from tvm.script import ir as I
from tvm.script import relax as R

import tvm_sphinx
from tests.frontend.evaluate import evaluate, onnx_runtime
from tvm_sphinx.cli import main
from tvm_sphinx.cost.measure.kernels import MeasureConfig
from tvm_sphinx.errors import ModelError, SphinxError
from tvm_sphinx.frontend.load import load_model, read_source
from tvm_sphinx.frontend.signature import read_interface
from tvm_sphinx.platform import Device, Platform
from tvm_sphinx.platform.targets import host_target
from tvm_sphinx.program.compiled import CompiledModel
from tvm_sphinx.program.verify.open_source import open_source

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed"
)
X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
TABLE = "float[5,2] table = {0,1,2,3,4,5,6,7,8,9}"
#: The branch that is not taken gives another rank, and a shape is an input.
RATES = f"""(float[N,4] x, int64 rate, int64[2] size, int64[M] ids) => (float[K,L] y, float[M,2] rows)
    <int64 high = {{16000}}, {TABLE}> {{
    is_high = Equal(rate, high)
    z = If (is_high) <
        then_branch = a () => (float[N,4] t) {{ t = Neg(x) }},
        else_branch = b () => (float[O] e) {{ minus = Constant<value = int64[1] {{-1}}>()
                                            e = Reshape(x, minus) }}
    >
    y = Reshape(z, size)
    rows = Gather(table, ids)
}}"""
GOOD = {"rate": 16000, "size": [3, 8], "ids": [0, -1]}


def model(text: str = RATES) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> net {text}')


def test_shapes_and_branches_are_worked_out_with_the_values() -> None:
    source = read_source(model(), GOOD)
    module = load_model(source, input_shapes={"x": [6, 4]})
    interface = read_interface(source, module["main"], {"x": [6, 4]})
    assert [str(spec) for spec in interface.inputs] == ["x: float32[6, 4]"]
    assert [spec.shape for spec in interface.outputs] == [(3, 8), (2, 2)]
    feeds = {name: np.asarray(value) for name, value in GOOD.items()}
    theirs = onnx_runtime(model(), {"x": X, **feeds})
    closed = model()
    closed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 6
    for ours, right in zip(evaluate(read_source(closed, GOOD), {"x": X}), theirs, strict=True):
        np.testing.assert_array_equal(ours, right)
    # What a program is verified against is the file itself, which is fed with the values.
    np.testing.assert_array_equal(open_source(source).run([X])[1], theirs[1])
    assert len(open_source(source).ranges()) == 1


def test_a_value_settles_extents_that_other_inputs_share() -> None:
    text = "(float[N,2] x, float[N,1] scale) => (float[N,2] y) { y = Mul(x, scale) }"
    source = read_source(model(text), {"scale": np.full((3, 1), 2, np.float32)})
    module = load_model(source)
    assert [spec.shape for spec in read_interface(source, module["main"]).inputs] == [(3, 2)]
    with pytest.raises(
        ModelError, match=r"'scale' .* of shape \[4, 1\]; its value is of shape \[3, 1\]"
    ):
        load_model(source, input_shapes={"scale": [4, 1]})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"speed": 1}, r"Unknown input of the given ONNX model 'speed'; known: x, rate, size, ids\."),
        ({"rate": 0.5}, r"'rate' .* at a value of type int64\[\]; got 0\.5, float64\[\]"),
        ({"rate": np.int32(1)}, r"type int64\[\]; got .*1.*, int32\[\]"),
        ({"rate": [1, 2]}, r"type int64\[\]; got int64\[2\]"),
        ({"rate": True}, r"type int64\[\]; got True, bool\[\]"),
        ({"rate": 2**70}, r"numbers of up to 64 bits; got 1180591620717411303424"),
        ({"rate": "high"}, r"type int64\[\]; got 'high', <U4\[\]"),
        ({"size": [[3], [8, 1]]}, r"'size' fixed at numbers; got \[\[3\], \[8, 1\]\]"),
        ({"size": 3}, r"type int64\[2\]; got 3, int64\[\]"),
        ({"ids": [0, 5]}, r"'ids' in -5\.\.4, for Gather of 'table'; got 5 at \[1\]"),
        ({**GOOD, "x": X}, "an input of the given ONNX model that is not fixed; all are: x, rate"),
        ([("rate", 1)], r"as a mapping by name; got \[\('rate', 1\)\]"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(values: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        read_source(model(), values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("dtype", "value", "held"),
    [("float", 3, 3.0), ("float", [0.5], 0.5), ("bool", True, True), ("uint8", 255, 255),
     ("float16", 0.1, np.float16(0.1)), ("bfloat16", 2, 2.0)],
)  # fmt: skip
def test_a_number_takes_the_declared_type(dtype: str, value: Any, held: Any) -> None:
    text = f"(float[2] x, {dtype}[1] k) => (float[2] y) {{ f = Cast<to = 1>(k) y = Mul(x, f) }}"
    (fixed,) = read_source(model(text), {"k": value}).fixed.values()
    assert fixed.shape == (1,)
    assert fixed[0] == held


@pytest.mark.parametrize(("dtype", "value"), [("uint8", 256), ("float16", 1e6), ("bool", 1)])
def test_a_number_that_the_type_does_not_hold_is_refused(dtype: str, value: Any) -> None:
    text = f"(float[2] x, {dtype}[1] k) => (float[2] y) {{ f = Cast<to = 1>(k) y = Mul(x, f) }}"
    with pytest.raises(ModelError, match=rf"of type {dtype}\[1\]; got"):
        read_source(model(text), {"k": value})


@needs_torch
def test_of_a_torch_program() -> None:
    import torch

    class Model(torch.nn.Module):
        def forward(
            self, x: torch.Tensor, places: torch.Tensor, k: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor]:
            rows = torch.nn.functional.embedding(places, x)
            return torch.cond(k > 2, lambda r: r * 2, lambda r: r - 1, (rows,)), x * k

    operands = (torch.from_numpy(X), torch.tensor([1, 0]), torch.tensor(3))
    program = torch.export.export(Model(), operands)
    source = read_source(program, {"places": [2, 5], "k": torch.tensor(1)})
    interface = read_interface(source, load_model(source)["main"])
    assert [spec.name for spec in interface.inputs] == ["x"]
    theirs = [each.numpy() for each in Model()(operands[0], torch.tensor([2, 5]), torch.tensor(1))]
    for ours in (evaluate(source, {"x": X}), open_source(source).run([X])):
        for mine, right in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(mine, right, rtol=1e-6)
    with pytest.raises(ModelError, match=r"'places' in 0\.\.5, for embedding of 'x'; got 6 at \[0\]"):
        read_source(program, {"places": [6, 0]})


def test_of_a_function_of_a_relax_module() -> None:
    @I.ir_module(s_tir=True)
    class Module:
        @R.function
        def twice(x: R.Tensor((2, "n"), "float32"), k: R.Tensor((1, "n"), "float32")):
            return R.multiply(x, k)

    source = read_source(Module, {"k": [[2.0, 3.0]]})
    module = load_model(source)
    assert [spec.shape for spec in read_interface(source, module["twice"]).inputs] == [(2, 2)]
    (found,) = evaluate(source, {"x": X[:2, :2]})
    np.testing.assert_array_equal(found, X[:2, :2] * np.array([[2, 3]], np.float32))
    with pytest.raises(ModelError, match="Unknown input of the given IRModule 'z'; known: x, k"):
        read_source(Module, {"z": 1})


def test_the_program_its_report_and_its_file_say_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "ids.npy", np.array([4, 1]))
    onnx.save(model(), tmp_path / "rates.onnx")
    command = ["compile", str(tmp_path / "rates.onnx"), "--platform", "unlike-cpus"]
    command += ["--input-shapes", "x:[6,4]", "--fix-input", "rate=16000", "--fix-input", "size=[3,8]"]
    command += ["--fix-input", f"ids={tmp_path / 'ids.npy'}", "--records", str(tmp_path / "r.jsonl")]
    command += ["--measure-budget", "0", "-q", "-o", str(tmp_path / "rates.sphinx")]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "fixed input          rate = 16000 (int64[])\n" in told
    assert "fixed input          size = int64[2]\n" in told
    assert "verified: largest difference" in told
    compiled = CompiledModel.load(tmp_path / "rates.sphinx")
    assert [spec.name for spec in compiled.inputs] == ["x"]
    assert "rate = 16000" in compiled.describe()
    fixed = compiled.fixed_inputs
    assert {name: value.tolist() for name, value in fixed.items()} == {
        "rate": 16000,
        "size": [3, 8],
        "ids": [4, 1],
    }
    right = onnx_runtime(model(), {"x": X, **fixed})
    for ours, theirs in zip(compiled.run({"x": X}), right, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ModelError, match=r"'rate' was fixed .*: 16000 \(int64\[\]\); expected inputs"):
        compiled.run({"x": X, "rate": 8000})
    # ONNX Runtime is fed with them beside it.
    command = ["perf", str(tmp_path / "rates.sphinx"), "--model", str(tmp_path / "rates.onnx"), "-q"]
    assert main([*command, "--repeat", "1"]) == 0
    assert "ONNX Runtime" in capsys.readouterr().out
    assert main(["explain", str(tmp_path / "rates.sphinx"), "--fix-input", "rate=1"]) != 0
    assert "Expected a model with --fix-input" in capsys.readouterr().err


def test_nothing_is_done_for_a_value_that_does_not_fit(tmp_path: Path) -> None:
    here = Platform((Device("one", host_target(), "cpu:0", (0,)),))
    quick = MeasureConfig(sample_ms=0.1)
    for values, message in (({"pace": 1}, "Unknown input"), ("rate=1", "Expected fixed_inputs as")):
        with pytest.raises(SphinxError, match=message):
            tvm_sphinx.compile(
                model(), here, fixed_inputs=values, records=tmp_path / "r.jsonl", measure=quick
            )
    assert not (tmp_path / "r.jsonl").read_bytes()


def test_shapes_of_inputs_are_for_onnx_models_alone() -> None:
    from tvm import relax

    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((2, 3), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(relax.op.nn.relu(x))
        builder.emit_func_output(result)
    with pytest.raises(ModelError, match="Expected input shapes for an ONNX model alone"):
        load_model(builder.get(), input_shapes={"x": [4, 3]})
