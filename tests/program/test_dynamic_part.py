"""A model with shapes that are known only at run time: the rest is scheduled, and the whole is right."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import tvm_sphinx
from tvm_sphinx.cost.measure.kernel_timing import MeasureConfig
from tvm_sphinx.errors import ArtifactError, ModelError, UnsupportedError
from tvm_sphinx.frontend.wire import STATIC
from tvm_sphinx.platform import Device, Platform
from tvm_sphinx.platform.targets import host_target
from tvm_sphinx.program.compiled import CompiledModel
from tvm_sphinx.program.kinds import LaneProgramFile, SplitProgram, restore_program

from .open_shapes import MODELS, counting, onnx_model

needs_runtime = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None, reason="onnxruntime is not installed"
)
_ROOT = Path(__file__).parents[2]
_CORES = Platform((Device("core0", host_target(), "cpu:0", (0,)),))
_QUICK = MeasureConfig(sample_ms=0.1)


def compiled_model(model: Any, **options: Any) -> CompiledModel:
    return tvm_sphinx.compile(model, _CORES, records=None, measure=_QUICK, **options)


def by_onnx_runtime(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))


def inputs_of(seed: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).normal(size=(1, 3, 8, 8)).astype(np.float32)}


def assert_equal(ours: list[np.ndarray], theirs: list[np.ndarray]) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine.shape, mine.dtype) == (other.shape, other.dtype)
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5)


@needs_runtime
@pytest.mark.parametrize("name", list(MODELS))
def test_what_has_known_shapes_runs_on_the_lanes_and_the_whole_is_right(name: str) -> None:
    make, operators = MODELS[name]
    model = make()
    compiled = compiled_model(model)
    assert isinstance(compiled.program, SplitProgram)
    assert isinstance(compiled.program.static, LaneProgramFile)
    assert compiled.report is not None
    assert compiled.report.dynamic is not None
    assert compiled.report.dynamic.operators == operators
    found = {origin for task in compiled.report.tasks for origin in task.origin}
    assert "Conv conv" in found
    assert not found & set(operators[1:])  # of the first, what can be computed is
    assert compiled.verification is not None
    assert compiled.verification.is_verified
    for seed in (1, 2):
        inputs = inputs_of(seed)
        assert_equal(compiled.run(inputs), by_onnx_runtime(model, inputs))


def test_rows_that_turn_out_not_to_fit_are_told_in_one_line() -> None:
    model = counting(
        "float[N] v",
        """[low] b = Greater (f, less)  [most] p = Compress (f, b)  [few] q = Compress (f, m)
        [add] v = Add (p, q)""",
        less=np.float32(0.25),
    )
    compiled = compiled_model(model, verify=False)
    (found,) = compiled.run({"x": np.zeros((1, 3, 8, 8), np.float32)})
    assert found.shape == (0,)
    with pytest.raises(ModelError, match="lead to tensors whose shapes do not fit each other") as caught:
        compiled.run(inputs_of(0))
    assert "\n" not in str(caught.value)


@needs_runtime
def test_the_file_runs_where_there_is_no_compiler(tmp_path: Path) -> None:
    """What TVM has in Python, it has in the package of its compiler, which a run does not load."""
    model, inputs = MODELS["NonZero"][0](), inputs_of(3)
    path, taken, made = (str(tmp_path / name) for name in ("m.sphinx", "in.npz", "out.npz"))
    compiled_model(model).save(path)
    np.savez(taken, **inputs)
    command = [sys.executable, "-m", "tvm_sphinx", "run", path, "-i", taken, "-o", made, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=_ROOT, check=True)
    told = json.loads(done.stdout)
    with np.load(made) as outputs:
        assert_equal([outputs[one["name"]] for one in told["outputs"]], by_onnx_runtime(model, inputs))


def test_times_count_what_runs_after_the_schedule() -> None:
    compiled = compiled_model(MODELS["NonZero"][0]())
    report = compiled.report
    assert report is not None
    assert report.dynamic is not None
    took = report.dynamic.median_ns
    assert took
    assert report.whole_ns == report.makespan_ns + took
    assert report.whole_single_device_ns == report.best_single_device_ns + took
    assert report.whole_lower_bound_ns <= report.whole_ns
    assert "then 2 operators of open shapes" in compiled.summary()
    told = "2 operators run after the schedule as one part (NonZero nz, Cast cast), on 'core0' by TVM's"
    assert told in compiled.describe()
    assert told in compiled.note
    assert "NonZero nz has a result whose shape is known only at run time" in compiled.describe()


def test_a_file_holds_both_parts(tmp_path: Path) -> None:
    compiled = compiled_model(MODELS["Unique"][0](), variants=True)
    path = tmp_path / "m.sphinx"
    compiled.save(path)
    again = CompiledModel.load(path)
    assert isinstance(again.program, SplitProgram)
    assert again.program.manifest() == compiled.program.manifest()
    assert again.program.members() == compiled.program.members()
    assert again.report == compiled.report
    assert again.reference is again.program
    inputs = inputs_of(4)
    for program in (again.program, *again.variants.values()):
        assert isinstance(program, SplitProgram)
        outputs = tvm_sphinx.program.kinds.flatten_outputs(program.open()(list(inputs.values())))
        assert_equal(outputs, compiled.run(inputs))
    assert set(again.variants) == {"on core0", "stock VM"}


def test_a_damaged_wiring_is_refused() -> None:
    program = compiled_model(MODELS["NonZero"][0]()).program
    manifest = {**program.manifest(), "outputs": [[STATIC, 99]]}
    with pytest.raises(ArtifactError, match="artifact 'x' holds no program in two parts"):
        restore_program(manifest, program.members(), "artifact 'x'")


def test_a_trace_is_of_the_lanes() -> None:
    compiled, inputs = compiled_model(MODELS["NonZero"][0]()), inputs_of(5)
    outputs, trace = compiled.run_traced(inputs)
    assert_equal(outputs, compiled.run(inputs))
    assert compiled.report is not None
    assert [step.name for step in trace.steps] == [task.name for task in compiled.report.tasks]


def test_what_has_no_static_part_stays_on_one_device() -> None:
    only = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 18]>
        net (float[8, 8] x) => (int64[2, N] n) { y = Relu (x)  n = NonZero (y) }""")
    compiled = compiled_model(only)
    assert compiled.report is None
    assert "The whole model runs on 'core0'" in compiled.note
    x = np.array([[-1.0, 0, 2, 3]] * 16, np.float32).reshape(8, 8)
    np.testing.assert_array_equal(compiled.run([x])[0], np.stack(np.nonzero(np.maximum(x, 0))))
    with pytest.raises(UnsupportedError, match="Only the concurrent runtime traces"):
        compiled.run_traced([x])


def test_outputs_of_both_parts_keep_their_order() -> None:
    model = onnx_model(
        "int64[4, N] n, float[1, 4, 8, 8] r, int64[4, N] n2, float[1, 4, 8, 8] a",
        "[nz] n = NonZero (r)  [twice] n2 = Add (n, n)",
    )
    compiled, inputs = compiled_model(model), inputs_of(6)
    n, r, twice, a = compiled.run(inputs)
    assert compiled.output_names == ["n", "r", "n2", "a"]
    np.testing.assert_array_equal(r, np.maximum(a, 0))
    np.testing.assert_array_equal(n, np.stack(np.nonzero(r)))
    np.testing.assert_array_equal(twice, 2 * n)
