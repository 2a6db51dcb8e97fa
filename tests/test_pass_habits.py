"""The pass as users of TVM expect it: in a Sequential, under instruments, after other passes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx.parser
import pytest
import tvm
import tvm_ffi
from tvm import relax
from tvm.relax.dpl import is_op, wildcard
from tvm.relax.frontend import nn

import tvm_sphinx.plugin
from tests.relax_modules import cpu_platform, serial_schedule
from tvm_sphinx.cost.measure.kernels import MeasureConfig
from tvm_sphinx.errors import SphinxError
from tvm_sphinx.frontend.load import load_model
from tvm_sphinx.program.stock_vm import build_executable
from tvm_sphinx.relax_pass import HeterogeneousSchedule, is_scheduled
from tvm_sphinx.scheduling.graph import TaskGraph
from tvm_sphinx.scheduling.schedule import Schedule

X = np.random.default_rng(3).standard_normal((2, 8)).astype("float32")
WEIGHT = np.random.default_rng(4).standard_normal((6, 8)).astype("float32")


def expected() -> np.ndarray:
    """Return what NumPy makes of it: a dense layer, tanh, and the double of its ReLU added."""
    dense = np.tanh(X @ WEIGHT.T)
    return dense + 2 * np.maximum(dense, 0)


class Net(nn.Module):
    """The network as relax.frontend.nn writes it."""

    def __init__(self) -> None:
        self.dense = nn.Linear(8, 6, bias=False)

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        y = nn.op.tanh(self.dense(x))
        return y + nn.op.relu(y) * 2.0


def from_nn() -> tvm.IRModule:
    module, params = Net().export_tvm({"forward": {"x": nn.spec.Tensor((2, 8), "float32")}})
    bound = {name: tvm.runtime.tensor(WEIGHT) for name, _ in params}
    return relax.transform.BindParams("forward", bound)(module)


def from_onnx() -> tvm.IRModule:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> net (float[2,8] x) => (float[2,6] y) '
        "<float two = {2}> { d = Gemm<transB=1>(x, w) t = Tanh(d) "
        "r = Relu(t) m = Mul(r, two) y = Add(t, m) }"
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(WEIGHT, "w"))
    return load_model(model)


def from_torch() -> tvm.IRModule:
    torch = pytest.importorskip("torch")

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense = torch.nn.Linear(8, 6, bias=False)

        def forward(self, x):
            y = torch.tanh(self.dense(x))
            return y + 2 * torch.relu(y)

    module = Module()
    module.dense.weight.data = torch.from_numpy(WEIGHT)
    return load_model(torch.export.export(module, (torch.from_numpy(X),)))


SOURCES = {"nn": from_nn, "onnx": from_onnx, "torch": from_torch}
PLATFORM = cpu_platform(2)


def alternate(graph: TaskGraph) -> Schedule:
    """Place tasks on the devices in turn."""
    return serial_schedule(graph, [task % 2 for task in range(graph.num_tasks)])


def run(module: tvm.IRModule, function: str) -> np.ndarray:
    machine = relax.VirtualMachine(build_executable(module), [tvm.cpu(0), tvm.cpu(1)])
    result = machine[function](tvm.runtime.tensor(X))
    return (result if hasattr(result, "numpy") else result[0]).numpy()


@pytest.mark.parametrize("source", SOURCES)
def test_straight_from_an_importer_inside_a_sequential(source: str) -> None:
    """It lowers by itself, changes nothing that it was given, and computes what NumPy does."""
    module = SOURCES[source]()
    before = tvm.ir.save_json(module)
    schedule = HeterogeneousSchedule(alternate, PLATFORM)
    after = tvm.transform.Sequential([relax.transform.CanonicalizeBindings(), schedule])(module)
    assert tvm.ir.save_json(module) == before
    assert is_scheduled(after)
    relax.analysis.well_formed(after)
    function = "forward" if source == "nn" else "main"
    np.testing.assert_allclose(run(after, function), expected(), rtol=1e-5, atol=1e-6)


def test_instruments_see_it() -> None:
    seen: Counter[str] = Counter()

    @tvm.instrument.pass_instrument
    class Counting:
        def run_before_pass(self, _module: tvm.IRModule, info: tvm.transform.PassInfo) -> None:
            seen[str(info.name)] += 1

    schedule = HeterogeneousSchedule(alternate, PLATFORM)
    with tvm.transform.PassContext(instruments=[Counting()]):
        tvm.transform.Sequential([schedule])(from_onnx())
    assert seen["HeterogeneousSchedule"] == 1
    assert seen["LegalizeOps"] >= 1
    with tvm.transform.PassContext(disabled_pass=["HeterogeneousSchedule"]):
        assert not is_scheduled(tvm.transform.Sequential([schedule])(from_onnx()))


def test_after_a_users_own_pass_and_lowering() -> None:
    """A pass of one's own that replaces tanh by sigmoid is kept, before lowering and after it."""

    @relax.expr_functor.mutator
    class Swap(relax.PyExprMutator):
        def visit_call_(self, call: relax.Call) -> relax.Expr:
            call = self.visit_expr_post_order(call)
            return relax.op.sigmoid(*call.args) if call.op == tvm.ir.Op.get("relax.tanh") else call

    @tvm.transform.module_pass(opt_level=0, name="Swap")
    def swap(module: tvm.IRModule, _context: object) -> tvm.IRModule:
        mutator = Swap(module)
        for var, function in module.functions_items():
            if isinstance(function, relax.Function):
                mutator.builder_.update_func(var, mutator.visit_expr(function))
        return mutator.builder_.get()

    schedule = HeterogeneousSchedule(alternate, PLATFORM)
    dense = 1 / (1 + np.exp(-(X @ WEIGHT.T)))
    wanted = dense + 2 * np.maximum(dense, 0)
    lowering = [relax.transform.LegalizeOps(), relax.transform.AnnotateTIROpPattern()]
    for passes in (
        [swap, schedule],
        [swap, *lowering, relax.transform.FuseOps(), relax.transform.FuseTIR(), schedule],
    ):
        after = tvm.transform.Sequential(passes)(from_onnx())
        np.testing.assert_allclose(run(after, "main"), wanted, rtol=1e-5, atol=1e-6)


def test_after_byoc_partitioning() -> None:
    """What an external code generator took is one task of the host, beside kernels of ours."""
    calls: list[str] = []

    @tvm_ffi.register_global_func("relax.ext.sphinx_test", override=True)
    def generate(functions: list, _options: object, _names: object) -> list:
        calls.extend(str(function.attrs["global_symbol"]) for function in functions)
        return []

    pattern = is_op("relax.tanh")(wildcard())
    partition = [
        relax.transform.FuseOpsByPattern([("sphinx_test.tanh", pattern)], annotate_codegen=True),
    ]
    graphs: list[TaskGraph] = []

    def on_host(graph: TaskGraph) -> Schedule:
        graphs.append(graph)
        return serial_schedule(graph, [0] * graph.num_tasks)

    after = tvm.transform.Sequential([*partition, HeterogeneousSchedule(on_host, PLATFORM)])(from_onnx())
    assert is_scheduled(after)
    assert len(calls) == 1
    external = [task for task in graphs[0].tasks if calls[0] in task.op_kinds or calls[0] in task.name]
    assert len(external) == 1 or any(calls[0] in str(task) for task in graphs[0].tasks)
    assert calls[0] in after.script()


# -- the pipeline


def test_the_pipeline_takes_the_options_of_compile(tmp_path: Path) -> None:
    tvm_sphinx.plugin.register()
    quick = MeasureConfig(sample_ms=0.2, under_load=False)
    options = {"platform": PLATFORM, "records": tmp_path / "r.jsonl", "measure": quick, "seed": 3}
    pipeline = relax.get_pipeline(
        "sphinx", **options, pins=["*matmul*=d1"], algorithm="heft", dump_ir=tmp_path / "ir"
    )
    module = from_onnx()
    target = tvm.target.Target(PLATFORM.devices[0].target_config)
    executable = tvm.compile(module, target, relax_pipeline=pipeline)
    machine = relax.VirtualMachine(executable, tvm.cpu())
    result = machine["main"](tvm.runtime.tensor(X))
    np.testing.assert_allclose(result.numpy(), expected(), rtol=1e-5, atol=1e-6)
    placed = (tmp_path / "ir" / "3-placed.py").read_text()
    (line,) = [line for line in placed.splitlines() if "call_tir" in line and "matmul" in line]
    assert "llvm:1" in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speed": 3}, "Unknown option of the pipeline 'speed'; known: input_shapes"),
        ({"output": "a.sphinx"}, "writes no program: expected no output"),
        ({"exclude_devices": ["gpu"]}, "Unknown device 'gpu'; known: d0, d1"),
        ({"algorithm": "luck"}, "Unknown algorithm"),
    ],
)
def test_wrong_options_are_refused_before_the_work(options: dict, message: str) -> None:
    with pytest.raises(SphinxError, match=message):
        tvm_sphinx.plugin.sphinx_pipeline(PLATFORM, **options)
