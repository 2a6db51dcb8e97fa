"""``compile`` verifies by default, with given inputs or not at all; what is wrong is not written."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx.parser
import pytest

from tvm_sphinx import pipeline
from tvm_sphinx.cli import main
from tvm_sphinx.cli.inputs import parse_input_shapes
from tvm_sphinx.cost.measure.kernels import MeasureConfig
from tvm_sphinx.errors import ModelError, SphinxError
from tvm_sphinx.frontend.model_source import ModelSource
from tvm_sphinx.platform import Device, Platform
from tvm_sphinx.platform.targets import host_target
from tvm_sphinx.program.array_files import write_outputs
from tvm_sphinx.program.compiled import CompiledModel

QUICK = MeasureConfig(sample_ms=0.2, under_load=False)


def model(operator: str = "Tanh") -> onnx.ModelProto:
    return onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> net (float[2,3] x) => (float[2,3] y) '
        f"{{ y = {operator}(x) }}"
    )


def one_device() -> Platform:
    return Platform((Device("one", host_target(), "cpu:0", (0,)),))


def test_a_verified_program_says_so_also_when_it_is_loaded(tmp_path: Path) -> None:
    given = {"x": np.full((2, 3), 0.5, np.float32)}
    compiled = pipeline.compile(model(), one_device(), records=None, measure=QUICK, verify_inputs=given)
    found = compiled.verification
    assert found is not None
    assert found.is_verified
    assert found.inputs == "the given inputs"
    assert [check.name for check in found.outputs] == compiled.output_names == ["y"]
    assert "verify" in compiled.stages_s
    assert "task on one, predicted" in repr(compiled)
    compiled.save(tmp_path / "out.sphinx")
    loaded = CompiledModel.load(tmp_path / "out.sphinx")
    assert loaded.verification == found
    assert loaded.outputs == compiled.outputs
    assert "on the given inputs: largest difference" in loaded.describe()
    (output,) = loaded.run(given)
    np.testing.assert_allclose(output, np.tanh(0.5), rtol=1e-5)
    with pytest.raises(ModelError, match="Expected input 'x' of shape"):
        pipeline.compile(model(), one_device(), records=None, verify_inputs={"x": np.zeros(3)})


def test_a_wrong_program_is_refused_and_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out, platform = tmp_path / "m.onnx", tmp_path / "out.sphinx", tmp_path / "p.toml"
    onnx.save(model(), path)
    platform.write_text('[[device]]\nname = "one"\ntarget = "host"\ncores = [0]\n')
    read = pipeline.read_source

    def imported_wrongly(given: object) -> ModelSource:
        return dataclasses.replace(read(given), model=model("Sin"))

    arguments = ["compile", str(path), "--platform", str(platform), "-q"]
    arguments += ["--records", str(tmp_path / "r.jsonl")]
    inputs = tmp_path / "in.npz"
    write_outputs(str(inputs), {"x": np.ones((2, 3), np.float32)})
    load = pipeline.load_model
    monkeypatch.setattr(pipeline, "load_model", lambda s, **o: load(imported_wrongly(s), **o))
    assert main([*arguments, "-o", str(out), "--verify-inputs", str(inputs)]) == 4
    message = capsys.readouterr().err
    # sin(1) = 0.841, tanh(1) = 0.762: apart by 0.105 of the largest value.
    assert "Output 'y' of the program differs by 0.1 of its largest value" in message
    assert "The first operator that differs is Sin y" in message
    assert not out.exists()
    assert main([*arguments, "-o", str(out), "--no-verify"]) == 0
    assert CompiledModel.load(out).verification is None
    assert "model  " not in capsys.readouterr().out


def test_names_of_inputs_may_hold_colons() -> None:
    assert parse_input_shapes("serving.x:0:[1, 3], y:[2]") == {"serving.x:0": [1, 3], "y": [2]}
    with pytest.raises(SphinxError, match=r"'x:\[1,3\],y:\[1\]'"):
        parse_input_shapes("x:0")
