"""The command: the main job, and one message for each kind of bad input, with nothing half-written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx.parser
import pytest
import tvm
from tvm import relax

from tests.cli.conftest import PLATFORM
from tests.networks import recurrent_net
from tvm_sphinx.cli import main


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.json"
    path.write_text(tvm.ir.save_json(recurrent_net(steps=3)))
    return path


@pytest.fixture
def platform(tmp_path: Path) -> Path:
    path = tmp_path / "platform.toml"
    path.write_text(PLATFORM)
    return path


def test_compile_run_explain(
    model: Path, platform: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, records = tmp_path / "out.sphinx", tmp_path / "records.jsonl"
    args = ["compile", str(model), "--platform", str(platform), "--records", str(records)]
    assert main([*args, "-o", str(out), "--verbose"]) == 0
    printed = capsys.readouterr()
    for words in ("predicted makespan", "best single device", "lower bound", "certified gap", "stages"):
        assert words in printed.out
    assert "measure on native: " in printed.err
    assert "matmul" in printed.out
    assert records.read_text().count("\n") > 5

    outputs = tmp_path / "outputs.npz"
    assert main(["run", str(out), "-o", str(outputs), "--print-time", "--repeat", "2"]) == 0
    printed = capsys.readouterr()
    assert "largest difference" in printed.out
    assert "speed-up" in printed.out
    with np.load(outputs) as archive:
        assert archive["output_0"].shape == (3, 10)
        np.testing.assert_allclose(archive["output_0"].sum(axis=1), 1, rtol=1e-5)

    drawing = tmp_path / "patterns.svg"
    assert main(["explain", str(out), "--patterns", str(drawing)]) == 0
    explained = capsys.readouterr().out
    assert "native" in explained
    assert "placements of" in explained
    # Where the measured times leave the baseline behind in all tasks, the best device is optimal.
    assert re.search("each searched once|a heuristic is optimal", explained)
    assert "P0 x" in explained
    assert drawing.read_text().startswith("<svg ")


def test_explain_shows_what_recurs_in_a_model_that_is_not_compiled(
    model: Path, platform: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawing = tmp_path / "patterns.html"
    args = ["explain", str(model), "--platform", str(platform), "--patterns", str(drawing)]
    assert main(args) == 0
    printed = capsys.readouterr().out
    assert "P0 x" in printed
    assert "P0 x" in drawing.read_text()
    assert drawing.read_text().count('class="occurrence"') >= 2


def test_given_inputs_are_used(model: Path, platform: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.sphinx"
    records = str(tmp_path / "records.jsonl")
    args = ["compile", str(model), "--platform", str(platform), "--records", records, "--no-prune"]
    assert main([*args, "-o", str(out)]) == 0
    given = tmp_path / "given.npz"
    np.savez(given, x=np.zeros((3, 16), "float32"))
    first, second = tmp_path / "a.npz", tmp_path / "b.npz"
    assert main(["run", str(out), "-i", str(given), "-o", str(first)]) == 0
    assert main(["run", str(out), "--fill-mode", "zeros", "-o", str(second)]) == 0
    with np.load(first) as a, np.load(second) as b:
        np.testing.assert_array_equal(a["output_0"], b["output_0"])
    np.savez(given, wrong=np.zeros((3, 16), "float32"))
    assert main(["run", str(out), "-i", str(given)]) == 4


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["compile", "{tmp}/none.onnx"], "No such model file"),
        (["compile", "{tmp}/corrupt.onnx"], "Not an ONNX model"),
        (["compile", "{tmp}/corrupt.json"], "Not a Relax IRModule"),
        (["compile", "{tmp}/model.txt"], ".onnx (ONNX)"),
        (["compile", "resnet"], "inception-v1"),
        (["compile", "{model}", "--platform", "{tmp}/none.toml"], "Cannot read platform file"),
        (["compile", "{model}", "--platform", "{tmp}/typo.toml"], "'cors'; known: name"),
        (["compile", "{model}", "--platform", "{tmp}/far.toml"], "claims core 9999"),
        (["compile", "{model}", "--target", "lvm"], "Unknown kind 'lvm'"),
        (["compile", "{model}", "--entry", "body"], "known: main"),
        (["compile", "{model}", "--algorithm", "luck"], "cpga"),
        (["compile", "{model}", "--input-shapes", "x=[1]"], "'x:[1,3],y:[1]'"),
        (["compile", "{model}", "-o", "{tmp}/no/such/out"], "existing folder"),
        (["run", "{tmp}/none.sphinx"], "Cannot read artifact"),
        (["run", "{tmp}/corrupt.json"], "Truncated or altered artifact"),
        (["run", "{model}", "--repeat", "0"], "--repeat >= 1"),
        (["explain", "{tmp}/none.sphinx"], "Cannot read artifact"),
        (["explain", "{tmp}/none.onnx"], "No such model file"),
        (["explain", "{model}", "--run"], "Expected a program that 'tvm-sphinx compile' wrote"),
        (["explain", "{model}", "--patterns", "{tmp}/a.png"], ".svg, .html, .dot"),
    ],
)  # fmt: skip
def test_bad_input_is_one_message(
    args: list[str], message: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "corrupt.onnx").write_bytes(b"\x00not protobuf\xff")
    (tmp_path / "corrupt.json").write_text("{")
    (tmp_path / "typo.toml").write_text(PLATFORM.replace("cores", "cors", 1))
    (tmp_path / "far.toml").write_text(PLATFORM.replace("[0]", "[9999]"))
    before = sorted(path.name for path in tmp_path.iterdir())
    filled = [arg.format(tmp=tmp_path, model=model) for arg in args]
    if filled[0] == "compile":
        filled += ["--records", str(tmp_path / "records.jsonl")]
    assert main(filled) == 4
    printed = capsys.readouterr()
    assert printed.err.splitlines()[-1].startswith("error: ")
    assert message in printed.err
    assert "Traceback" not in printed.err
    after = {path.name for path in tmp_path.iterdir()} - {"records.jsonl"}
    assert sorted(after) == before


def test_an_operator_that_no_device_supports_is_named(
    tmp_path: Path, platform: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType([4], "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            call = relax.call_dps_packed("no.such.function", (x,), relax.TensorType([4], "float32"))
            out = builder.emit_output(builder.emit(call, "mystery"))
        builder.emit_func_output(out)
    path = tmp_path / "extern.json"
    path.write_text(tvm.ir.save_json(builder.finalize()))
    out_path = tmp_path / "out.sphinx"
    code = main(["compile", str(path), "--platform", str(platform), "-o", str(out_path),
                 "--records", str(tmp_path / "r.jsonl")])  # fmt: skip
    assert code == 4
    error = capsys.readouterr().err
    assert "no.such.function" in error
    assert "native, baseline" in error
    assert not out_path.exists()


def test_dynamic_shapes_compile_for_one_device_and_say_so(
    tmp_path: Path, platform: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tvm.tirx.Var("n", "int64")
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType([rows, 4], "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit_output(builder.emit(relax.op.nn.relu(x)))
        builder.emit_func_output(y)
    path, out = tmp_path / "dynamic.json", tmp_path / "out.sphinx"
    path.write_text(tvm.ir.save_json(builder.finalize()))
    assert main(["compile", str(path), "--platform", str(platform), "-o", str(out)]) == 0
    assert "Dynamic shapes" in capsys.readouterr().out
    given = tmp_path / "given.npz"
    np.savez(given, x=np.array([[-1, 2, -3, 4]] * 5, "float32"))
    outputs = tmp_path / "outputs.npz"
    assert main(["run", str(out), "-i", str(given), "-o", str(outputs)]) == 0
    assert "fastest single device" in capsys.readouterr().out
    with np.load(outputs) as archive:
        np.testing.assert_array_equal(archive["output_0"], [[0, 2, 0, 4]] * 5)


def test_what_a_file_leaves_open_can_be_settled(
    tmp_path: Path, platform: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }'
    path = tmp_path / "open.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    assert main(["compile", str(path), "--platform", str(platform)]) == 0
    assert "--input-shapes settles" in capsys.readouterr().out
    options = ["--platform", str(platform), "--input-shapes", "x:[3,4]"]
    assert main(["compile", str(path), *options]) == 0
    assert "--input-shapes" not in capsys.readouterr().out


def test_no_command_prints_help_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 1
    assert "compile" in capsys.readouterr().out


def test_altered_artifact_is_refused(model: Path, platform: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.sphinx"
    records = str(tmp_path / "r.jsonl")
    assert (
        main(["compile", str(model), "--platform", str(platform), "--records", records, "-o", str(out)])
        == 0
    )
    content = bytearray(out.read_bytes())
    for position in (len(content) // 3, len(content) - 100):
        altered = tmp_path / "altered.sphinx"
        content[position] ^= 1
        altered.write_bytes(content)
        content[position] ^= 1
        assert main(["run", str(altered)]) == 4
    (tmp_path / "short.sphinx").write_bytes(content[:-1000])
    assert main(["run", str(tmp_path / "short.sphinx")]) == 4
    assert json.loads(model.read_text())
