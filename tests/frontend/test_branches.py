"""An ``if`` is one task with both of its branches, right beside ONNX Runtime, torch and NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

import tvm_sphinx
from tests.frontend.evaluate import build, onnx_runtime, parse_model
from tests.relax_modules import cpu_platform
from tvm_sphinx.cost.measure.kernels import MeasureConfig
from tvm_sphinx.errors import ModelError, UnsupportedError
from tvm_sphinx.frontend.extract import Extraction, extract_task_graph
from tvm_sphinx.frontend.load import load_model
from tvm_sphinx.frontend.lower import lower_to_kernels
from tvm_sphinx.platform.platform_file import load_platform
from tvm_sphinx.platform.targets import device_target

RNG = np.random.default_rng(3)
X = RNG.normal(size=(4, 8)).astype(np.float32)
WEIGHT = RNG.normal(size=(8, 8)).astype(np.float32)
# Above the sum that decides, below it, and below it with a largest element above 1.
FEEDS = [np.abs(X), -np.abs(X), X * 9 - 9]
HEAD = "net (float[4,8] x) => (y, z) <float[8,8] w> { zero = Constant <value = float {0}> ()"
CHOICE = "s = ReduceSum <keepdims=0> (x) c = Greater (s, zero)"


def _model(body: str, head: str = HEAD) -> onnx.ModelProto:
    return parse_model(f"{head} {body} }}", WEIGHT, node_name="/{op}_{number}")


def _if(then: str, otherwise: str, condition: str = "c", outputs: str = "y, z") -> str:
    branches = f"then_branch = t () => {then}, else_branch = e () => {otherwise}"
    return f"{outputs} = If ({condition}) <{branches}>"


BODIES = {
    "what both read, reshapes, and an outer tensor as it is": f"{CHOICE} u = Tanh (x)"
    + _if(
        "(float[4,8] a, float[4,8] b) { p = MatMul (u, w) n = Constant <value_ints = [16, 2]> ()"
        " r = Reshape (p, n) q = Relu (r) m = Constant <value_ints = [4, 8]> () a = Reshape (q, m)"
        " b = Identity (x) }",
        "(float[4,8] f, float[4,8] g) { f = Add (x, u) g = Softmax <axis = -1> (f) }",
    ),
    "one in another, whose condition is computed there": CHOICE
    + _if(
        "(float[4,8] a, float[4,8] b) { a = Exp (x) b = Neg (a) }",
        "(float[4,8] f, float[4,8] g) { one = Constant <value = float {1}> ()"
        " most = ReduceMax <keepdims = 1> (x) d = Greater (most, one)"
        + _if(
            "(float[4,8] h) { h = Mul (x, x) }",
            "(float[4,8] i) { i = MatMul (x, w) }",
            "d",
            "f",
        )
        + " k = Constant <value_ints = [8]> () g, at = TopK <axis = -1> (f, k) }",
    ),
    "constants, and one value twice": CHOICE
    + _if(
        "(float[2] a, float[2] b) { a = Constant <value_floats = [1.0, 2.0]> () b = Neg (a) }",
        "(float[2] f, float[2] g) { k = Constant <value_floats = [3.0, 0.0]> () f = Add (k, s)"
        " g = Identity (f) }",
    ),
    "two in a row by one condition of one element": f"{CHOICE} one = Constant <value_ints = [1]> ()"
    + "d = Reshape (c, one)"
    + _if("(float[4,8] a) { a = Abs (x) }", "(float[4,8] b) { b = Sin (x) }", "d", "y")
    + _if("(float[4,8] f) { f = MatMul (y, w) }", "(float[4,8] g) { g = Cos (y) }", "d", "z"),
}


def _extraction(model: Any) -> Extraction:
    target = device_target(cpu_platform(1).devices[0])
    return extract_task_graph(lower_to_kernels(load_model(model), target, targets=[target]))


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_both_ways_are_as_in_onnx_runtime_on_two_devices(body: str) -> None:
    model = _model(body)
    run = build(model, num_devices=2)
    for x in FEEDS + FEEDS[:1]:
        for got, want in zip(run({"x": x}), onnx_runtime(model, {"x": x}), strict=True):
            assert got.shape == want.shape
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_what_is_in_a_branch_is_one_task_named_as_its_node() -> None:
    graph = _extraction(_model(BODIES["one in another, whose condition is computed there"])).graph
    (task,) = (task for task in graph.tasks if task.op_kinds == ("if",))
    assert (task.name, task.origin) == ("/If_3", ("If /If_3",))
    assert {kind for task in graph.tasks for kind in task.op_kinds} == {"x_red", "greater", "if"}


def test_a_constant_condition_leaves_its_branch_alone() -> None:
    choice = _if("(float[4,8] a) { a = Exp (x) }", "(float[4,8] b) { b = Neg (x) }", "c", "y")
    model = _model(f"c = Constant <value = bool {{1}}> () {choice} z = MatMul (y, w)")
    module = load_model(model)
    assert "if" not in {kind for task in _extraction(module).graph.tasks for kind in task.op_kinds}


@I.ir_module
class UnlikeShapes:
    @R.function
    def main(c: R.Tensor((), "bool"), x: R.Tensor((4, 8), "float32")):
        if c:
            y = R.reshape(x, (32,))
        else:
            y = R.reshape(x, (8, 4))
        return y


@I.ir_module
class SharedBranch:
    """Both branches of both conditions call functions, which are called more than once."""

    @R.function
    def double(x: R.Tensor((4, 8), "float32")) -> R.Tensor((4, 8), "float32"):
        return R.add(x, x)

    @R.function
    def main(
        c: R.Tensor((), "bool"), d: R.Tensor((), "bool"), x: R.Tensor((4, 8), "float32")
    ) -> R.Tensor((4, 8), "float32"):
        cls = SharedBranch
        if c:
            a = cls.double(x)
            y = cls.double(a)
        else:
            if d:
                y = cls.double(x)
            else:
                y = x
        return y


def test_conditions_that_are_inputs_and_branches_that_are_functions() -> None:
    run = build(SharedBranch)
    for c, d, factor in ((1, 0, 4), (1, 1, 4), (0, 1, 2), (0, 0, 1)):
        (found,) = run({"c": np.array(c, bool), "d": np.array(d, bool), "x": X})
        np.testing.assert_array_equal(found, factor * X)


def test_branches_of_unlike_shapes_are_no_task_and_the_reason_is_said() -> None:
    with pytest.raises(UnsupportedError, match=r"the branches of if 'y' to give tensors of equal and"):
        _extraction(UnlikeShapes)
    compiled = tvm_sphinx.compile(UnlikeShapes, cpu_platform(1), records=None)
    assert "the branches of if 'y'" in compiled.note
    for condition, shape in ((True, (32,)), (False, (8, 4))):
        assert compiled.run([np.array(condition), X])[0].shape == shape


def test_a_condition_of_several_elements_is_refused_by_name() -> None:
    body = "c = Greater (x, zero)" + _if(
        "(float[4,8] a) { a = Exp (x) }", "(float[4,8] b) { b = Neg (x) }", "c", "y"
    )
    with pytest.raises(ModelError, match=r"If \(node '/If_2'\): expected a condition of one element"):
        load_model(_model(body + "z = Abs (y)"))


def test_a_compiled_model_takes_both_ways_beside_tasks_on_another_device(tmp_path: Any) -> None:
    side = "u = MatMul (x, w) v = Tanh (u)"
    choice = _if(
        "(float[4,8] a) { p = MatMul (x, w) q = Exp (p) a = MatMul (q, w) }",
        "(float[4,8] b) { b = Neg (x) }",
        "c",
        "z",
    )
    model = _model(f"{CHOICE} {side} {choice} y = Add (v, z)")
    first, second = load_platform("unlike-cpus").devices[:2]
    compiled = tvm_sphinx.compile(
        model,
        "unlike-cpus",
        records=None,
        pins=[f"if={first.name}", f"matmul={second.name}"],
        measure=MeasureConfig(sample_ms=0.1, under_load=False),
    )
    assert compiled.report is not None
    assert {row.device for row in compiled.report.tasks} == {first.name, second.name}
    assert compiled.report.measured_share == 1.0
    compiled.save(tmp_path / "model.tvms")
    for program in (compiled, tvm_sphinx.load(tmp_path / "model.tvms")):
        for x in FEEDS:
            for got, want in zip(program.run([x]), onnx_runtime(model, {"x": x}), strict=True):
                np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


torch = pytest.importorskip("torch")


class Chooses(torch.nn.Module):
    """A choice within a choice, by what the network computes; weights in the branches."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)

    def forward(self, x: Any) -> Any:
        def small(x: Any) -> Any:
            return torch.cond(
                x.max() > 1,
                lambda x: (x * 2, x.sum(0)),
                lambda x: (self.second(x).reshape(8, 4).softmax(0).reshape(4, 8), x.mean(0)),
                (x,),
            )

        left, right = torch.cond(
            x.sum() > 0, lambda x: (self.first(x).relu(), torch.prod(x, 0)), small, (x,)
        )
        return left + self.first(x), right


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_torch_conditions_are_as_in_torch_and_lead_back_to_their_line() -> None:
    module = Chooses().eval()
    program = torch.export.export(module, (torch.tensor(X),))
    run = build(program)
    for x in FEEDS:
        with torch.no_grad():
            expected = module(torch.tensor(x))
        for got, want in zip(run({"x": x}), expected, strict=True):
            np.testing.assert_allclose(got, want.numpy(), rtol=1e-4, atol=1e-5)
    tasks = _extraction(program).graph.tasks
    (task,) = (task for task in tasks if task.op_kinds == ("if",))
    assert task.name == "cond"
    assert "test_branches.py" in task.origin[0]
    assert all(task.origin for task in tasks)


def test_a_condition_that_is_a_number_is_no_task() -> None:
    builder = relax.BlockBuilder()
    c = relax.Var("c", relax.TensorType([], "int32"))
    with builder.function("main", [c]):
        chosen = builder.emit(relax.If(c, relax.SeqExpr([], c), relax.SeqExpr([], c)), "y")
        builder.emit_func_output(chosen)
    with pytest.raises(UnsupportedError, match=r"the condition of if 'y' to be one bool; it is"):
        _extraction(builder.get())
