"""A cost table within a budget: predicted at first, measured first where it matters most."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tvm import relax, te, tirx

from tests.networks import recurrent_net
from tvm_sphinx.cost.choose import budget, costing, measuring
from tvm_sphinx.cost.choose.candidates import Candidate, CandidateSource
from tvm_sphinx.cost.choose.costing import Costing, cost_kernels, measure_rules
from tvm_sphinx.cost.choose.criticality import criticality, slack_ns
from tvm_sphinx.cost.choose.kernel_costs import Implementation, KernelChoices
from tvm_sphinx.cost.measure import kernels as measure
from tvm_sphinx.cost.measure.hosts import LocalHost
from tvm_sphinx.cost.measure.kernels import MeasureConfig
from tvm_sphinx.cost.measure.sampling import Samples
from tvm_sphinx.cost.model.model_file import CostModel, load_cost_model, save_cost_model
from tvm_sphinx.cost.model.predictor import KernelPredictor
from tvm_sphinx.cost.model.profile import PROBE, probes
from tvm_sphinx.cost.model.training import train_model
from tvm_sphinx.cost.records.store import RecordStore, read_records
from tvm_sphinx.cost.table import build_problem
from tvm_sphinx.errors import ArtifactError, SphinxError
from tvm_sphinx.frontend.extract import Extraction, Kernel, extract_task_graph
from tvm_sphinx.frontend.lower import lower_to_kernels
from tvm_sphinx.pipeline import compile
from tvm_sphinx.platform import Device, Link, Platform, unlike_cpus
from tvm_sphinx.platform.targets import device_target
from tvm_sphinx.report.describe import format_report
from tvm_sphinx.report.placement import CostSummary, PlacementReport, placement_report
from tvm_sphinx.scheduling.problem import SchedulingProblem
from tvm_sphinx.scheduling.schedule import Schedule, validate
from tvm_sphinx.search import search_schedule

# Links are given, and neighbours left out: what is measured here is kernels.
ENDS = (("native", "baseline"), ("baseline", "native"))
PLATFORM = replace(unlike_cpus(), links=tuple(Link(*ends, 1000, 1e10) for ends in ENDS))
QUICK = MeasureConfig(sample_ms=0.02, under_load=False)


@pytest.fixture(scope="module")
def extraction() -> Extraction:
    targets = [device_target(device) for device in PLATFORM.devices]
    return extract_task_graph(lower_to_kernels(recurrent_net(steps=2), targets[0], targets=targets))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[CostModel, Path]:
    """Return a model of few kernels, and the records that it was made from."""
    path = tmp_path_factory.mktemp("trained") / "records.jsonl"
    return train_model(PLATFORM.devices, RecordStore(path), samples=12, config=QUICK), path


def probed_store(trained: tuple[CostModel, Path]) -> RecordStore:
    """Return a store in memory that knows what a predictor asks of a device, and no kernel."""
    store = RecordStore(None)
    for record in read_records(trained[1]):
        if record.kernel.startswith(PROBE):
            store.add(record)
    return store


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let time stand still for budgets, so that any is enough on a machine however busy."""
    for module in (budget, measure):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: 0.0))


def within(
    seconds: float,
    extraction: Extraction,
    store: RecordStore,
    model: CostModel,
    sources: Sequence[CandidateSource] = (),
    platform: Platform = PLATFORM,
) -> Costing:
    """Return the costs within a budget, with what a model predicts."""
    predictor = KernelPredictor(model, store, QUICK)
    return cost_kernels(
        extraction, platform, store, sources, budget_s=seconds, predictor=predictor, config=QUICK
    )


def test_training_again_on_the_same_records_gives_the_same_model(
    trained: tuple[CostModel, Path],
) -> None:
    model, path = trained
    lines = path.read_text().count("\n")
    again = train_model(PLATFORM.devices, RecordStore(path), samples=12, config=QUICK)
    assert again.training_fingerprint == model.training_fingerprint
    assert again.booster.save_raw("json") == model.booster.save_raw("json")
    assert path.read_text().count("\n") == lines  # nothing was measured again
    without = train_model(PLATFORM.devices, RecordStore(path), samples=0, config=QUICK)
    assert without.training_fingerprint == model.training_fingerprint


def test_a_budget_of_nothing_ends_training_without_a_kernel(tmp_path: Path) -> None:
    with pytest.raises(SphinxError, match="none is on record"):
        train_model(PLATFORM.devices[:1], RecordStore(None), samples=50, budget_s=0.0, config=QUICK)


@pytest.mark.parametrize("argument", [{"samples": -1}, {"budget_s": -1.0}, {"seed": -1}])
def test_training_refuses_what_is_out_of_range(argument: dict[str, float]) -> None:
    with pytest.raises(SphinxError, match="got"):
        train_model(PLATFORM.devices, RecordStore(None), **argument)  # type: ignore[arg-type]


def test_without_a_budget_everything_is_predicted(
    extraction: Extraction, trained: tuple[CostModel, Path]
) -> None:
    model, path = trained
    store = RecordStore(path)
    known = _kernels_on_record(path)
    costs = within(0.0, extraction, store, model).table
    assert not costs.measured.any()
    assert (costs.exec_ns > 0).all()
    assert (costs.spread_ns >= 0).all()
    assert _kernels_on_record(path) == known
    again = within(0.0, extraction, store, model).table
    assert np.array_equal(again.exec_ns, costs.exec_ns)


def test_within_no_time_nothing_is_probed_or_recorded(
    extraction: Extraction, trained: tuple[CostModel, Path]
) -> None:
    store = RecordStore(None)
    predictor = KernelPredictor(trained[0], store, QUICK, probe_s=0.0)
    costs = cost_kernels(
        extraction, PLATFORM, store, budget_s=0.0, predictor=predictor, config=QUICK
    ).table
    assert (costs.exec_ns > 0).all()
    assert store.num_added == 0


def test_a_sort_is_measured_first_but_not_without_time(trained: tuple[CostModel, Path]) -> None:
    """No model describes what it does inside TVM's runtime."""
    targets = [device_target(device) for device in PLATFORM.devices]
    x = relax.Var("x", relax.TensorType([4, 1000], "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(builder.emit(relax.op.sort(x)))
        builder.emit_func_output(result)
    extraction = extract_task_graph(lower_to_kernels(builder.get(), targets[0], targets=targets))
    store = probed_store(trained)
    known = store.num_added
    costs = within(0.0, extraction, store, trained[0]).table
    assert store.num_added == known
    assert not costs.measured.any()
    # 32,000 bytes, at no more than what moves the 64 MB of a probe.
    far = probes(1)["far"].id
    times_ns = [ns for r in read_records(trained[1]) if r.kernel.startswith(far) for ns in r.samples_ns]
    assert (costs.exec_ns > min(times_ns) * 32_000 / (64 << 20)).all()
    assert within(600.0, extraction, store, trained[0]).table.measured.all()


def _kernels_on_record(path: Path) -> int:
    return sum(record.kind == "kernel" for record in read_records(path))


def test_what_is_on_record_is_not_predicted(
    extraction: Extraction, trained: tuple[CostModel, Path]
) -> None:
    store = probed_store(trained)
    measured = cost_kernels(extraction, PLATFORM, store, config=QUICK).table
    costs = within(0.0, extraction, store, trained[0]).table
    assert costs.measured.all()
    assert np.array_equal(costs.exec_ns, measured.exec_ns)


def test_a_budget_measures_the_most_urgent_kernels_first(
    extraction: Extraction, trained: tuple[CostModel, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock stands still while eight kernels are measured, and then the budget is spent."""
    measured: list[tuple[str, str]] = []
    kernels = budget.measure_kernels

    def watch(chosen: list, device: object, *rest: object, **more: object) -> list:
        found = kernels(chosen, device, *rest, **{**more, "end_s": math.inf})  # type: ignore[arg-type]
        measured.extend((kernel.id, device.name) for kernel in chosen)  # type: ignore[attr-defined]
        return found

    def now_s() -> float:
        return 1e9 if len(measured) >= 7 else 0.0

    monkeypatch.setattr(budget, "measure_kernels", watch)
    monkeypatch.setattr(budget, "time", SimpleNamespace(monotonic=now_s))
    store = RecordStore(trained[1])
    store.path = None  # keep what this test measures from the others
    asked: list[Implementation] = []
    measure_within = costing.measure_within

    def note(seconds: float, order: list, *rest: object) -> None:
        asked.extend(order)
        measure_within(seconds, order, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(costing, "measure_within", note)
    costs = within(600.0, extraction, store, trained[0]).table
    order = [(one.kernel.id, one.device.name) for one in asked]
    assert 7 <= len(measured) < len(order)
    assert measured[0] == order[0]
    names = [device.name for device in PLATFORM.devices]
    for task, entry in enumerate(extraction.graph.tasks):
        for column, name in enumerate(names):
            assert not costs.measured[task, column] or (entry.kernel, name) in measured


def test_the_choice_is_that_of_a_compilation_which_measures_all(
    extraction: Extraction, trained: tuple[CostModel, Path]
) -> None:
    """Rules' kernels, default loops and a candidate that is found elsewhere, all on record."""
    store = probed_store(trained)
    measured = cost_kernels(extraction, PLATFORM, store, [_Named()], config=QUICK)
    found = within(0.0, extraction, store, trained[0], [_Named()])
    assert _origins(found.choices) == _origins(measured.choices)
    assert np.array_equal(found.table.exec_ns, measured.table.exec_ns)
    assert found.table.measured.all()


class _Named:
    """A source of one candidate for every kernel: its default loops under another name."""

    def __init__(self, found_ns: int = 0) -> None:
        self.found_ns = found_ns

    def __call__(self, kernel: Kernel, _: Device) -> Sequence[Candidate]:
        marked = kernel.function.with_attrs({"tirx.is_scheduled": True, "sphinx.test": 1})
        return [Candidate("named", marked, self.found_ns)]


def _origins(choices: KernelChoices) -> dict[tuple[str, str], str]:
    return {key: candidate.origin for key, candidate in choices.chosen.items()}


def test_a_tuned_kernel_is_chosen_by_the_time_at_which_it_was_found(
    extraction: Extraction, trained: tuple[CostModel, Path]
) -> None:
    store = probed_store(trained)
    kernels = extraction.kernels.values()
    ruled = measure_rules(kernels, PLATFORM.devices, store, config=QUICK)
    found = within(0.0, extraction, store, trained[0], [_Named(1)])
    assert set(_origins(found.choices).values()) == {"named"}
    assert (found.table.exec_ns == 1).all()
    assert not found.table.measured.any()
    for kernel in kernels:
        assert found.choices.function(kernel, PLATFORM.devices[0]).attrs["sphinx.test"] == 1
    slower = max(cost.rule.time_ns for cost in ruled.values()) + 1
    found = within(0.0, extraction, store, trained[0], [_Named(slower)])
    assert "named" not in _origins(found.choices).values()
    for task, entry in enumerate(extraction.graph.tasks):
        for column, device in enumerate(PLATFORM.devices):
            rule = ruled[entry.kernel, device.cost_class].rule
            assert found.table.exec_ns[task, column] == rule.time_ns


@pytest.mark.usefixtures("endless")
def test_what_never_ran_is_chosen_only_once_it_was_measured(
    extraction: Extraction, trained: tuple[CostModel, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last candidate that may be chosen is chosen, whatever the clock says of it."""
    monkeypatch.setattr("tvm_sphinx.cost.choose.kernel_costs.is_faster", lambda *_: True)
    monkeypatch.setattr("tvm_sphinx.cost.choose.candidates.default_loops", lambda *_: None)
    store = probed_store(trained)
    found = within(0.0, extraction, store, trained[0], [_Named()])
    assert set(_origins(found.choices).values()) <= {"rule", "default"}
    found = within(600.0, extraction, store, trained[0], [_Named()])
    assert set(_origins(found.choices).values()) == {"named"}
    assert found.table.measured.all()


@pytest.mark.usefixtures("endless")
def test_a_wrong_candidate_is_dropped_within_a_budget_too(
    extraction: Extraction, trained: tuple[CostModel, Path]
) -> None:
    def wrong(kernel: Kernel, _: Device) -> Sequence[Candidate]:
        *shapes, last = [[int(e) for e in ty.shape.values] for ty in kernel.argument_types]
        kinds = [str(ty.dtype) for ty in kernel.argument_types]
        read = [
            te.placeholder(*of, name=f"t{i}") for i, of in enumerate(zip(shapes, kinds, strict=False))
        ]
        seven = te.compute(last, lambda *_: tirx.const(7, kinds[-1]), name="seven")
        function = te.create_prim_func([*read, seven])
        return [Candidate("wrong", function.with_attr("tirx.is_scheduled", True), 1)]

    store = probed_store(trained)
    with pytest.warns(UserWarning, match="wrong candidate .* computes other numbers"):
        found = within(600.0, extraction, store, trained[0], [wrong])
    assert "wrong" not in _origins(found.choices).values()
    assert (found.table.exec_ns > 1).all()


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_a_budget_that_is_none_is_refused(
    extraction: Extraction, trained: tuple[CostModel, Path], seconds: float
) -> None:
    with pytest.raises(SphinxError, match="measuring budget"):
        within(seconds, extraction, RecordStore(None), trained[0])


def test_a_budget_without_a_model_is_refused_before_anything_is_measured(
    extraction: Extraction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "measure_kernels", lambda *_, **__: pytest.fail("measured"))
    with pytest.raises(SphinxError, match=r"predicts what a measuring budget of 5 s .*; got none\."):
        cost_kernels(extraction, PLATFORM, RecordStore(None), budget_s=5.0, config=QUICK)


def test_a_model_is_scheduled_with_predicted_costs_alone(
    trained: tuple[CostModel, Path], tmp_path: Path
) -> None:
    model, records = trained
    path = tmp_path / "model.json"
    save_cost_model(model, path)
    compiled = compile(
        recurrent_net(steps=2),
        PLATFORM,
        records=records,
        measure=QUICK,
        measure_budget_s=0.0,
        cost_model=path,
        with_reference=False,
    )
    assert "0% measured" in compiled.describe()
    (output,) = compiled.run(compiled.random_inputs())
    np.testing.assert_allclose(np.asarray(output).sum(axis=-1), 1, rtol=1e-5)


class GpuBench:
    """Times each kernel of a GPU at 1,000 ns; nothing is built."""

    host = LocalHost()

    def __init__(self) -> None:
        self.timed: list[str] = []

    def build(self, functions: dict[str, object]) -> object:
        return self

    def time(self, _module: object, _symbol: str, kernel: Kernel, _goal: object) -> Samples:
        self.timed.append(kernel.id)
        return Samples((1000,) * 10, 0.0, 0.0)

    def turn(self, *_: object) -> None:
        return


@pytest.mark.usefixtures("endless")
@pytest.mark.parametrize("seconds", [0.0, 600.0])
def test_kernels_of_a_device_without_a_model_are_measured_whatever_the_budget(
    seconds: float, trained: tuple[CostModel, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = PLATFORM.devices[0]
    gpu = Device("gpu", '{"kind": "cuda", "arch": "sm_90"}', "cuda:0")
    ends = ((cpu.name, "gpu"), ("gpu", cpu.name))
    platform = Platform((cpu, gpu), links=tuple(Link(*pair, 9000, 1e10) for pair in ends))
    targets = [device_target(device) for device in platform.devices]
    extraction = extract_task_graph(
        lower_to_kernels(recurrent_net(steps=2), targets[0], targets=targets)
    )
    bench, open_bench = GpuBench(), measure._open_bench
    monkeypatch.setattr(
        measure, "_open_bench", lambda d, *rest: open_bench(d, *rest) if d.is_cpu else bench
    )
    store = RecordStore(trained[1])
    store.path = None  # keep what this test measures from the others
    found = within(seconds, extraction, store, trained[0], (), platform)
    costs = found.table
    assert costs.measured[:, 1].all()
    assert set(costs.exec_ns[:, 1].tolist()) <= {1000, -1}
    assert (costs.exec_ns[:, 1] == 1000).any()
    assert costs.measured[:, 0].all() == (seconds > 0)
    assert found.always_measured == ("gpu",)
    timed = len(bench.timed)
    within(seconds, extraction, store, trained[0], (), platform)
    assert len(bench.timed) == timed


def test_the_report_names_the_devices_that_no_model_predicts(
    extraction: Extraction, trained: tuple[CostModel, Path]
) -> None:
    costs = within(0.0, extraction, RecordStore(trained[1]), trained[0]).table
    found = search_schedule(build_problem(extraction.graph, PLATFORM, costs), algorithm="heft")
    told = CostSummary(0.5, always_measured=("gpu",))
    report = placement_report(extraction.graph, PLATFORM, found, found.best, told)
    assert "50% measured; all of gpu, which no model predicts" in format_report(report)
    assert PlacementReport.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_a_missing_model_is_told_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="tvm-sphinx train"):
        compile("no such model", PLATFORM, measure_budget_s=0.0, cost_model=tmp_path / "none.json")


def _problem() -> tuple[SchedulingProblem, Schedule]:
    """Return three tasks on two devices: a long and a short branch into the last one."""
    problem = SchedulingProblem(
        name="branches",
        devices=("a", "b"),
        device_cores=((0,), (1,)),
        exec_ns=np.array([[100, 100], [30, 30], [10, 10]]),
        edges=np.array([[0, 2], [1, 2]]),
        copy_class=np.array([0, 0]),
        copy_ns=np.array([[[0, 5], [5, 0]]]),
    )
    schedule = Schedule([0, 1, 0], [0, 0, 100], [100, 30, 110], 110, 0, problem.fingerprint)
    validate(problem, schedule)
    return problem, schedule


def test_slack_is_how_much_later_a_task_could_start() -> None:
    problem, schedule = _problem()
    assert slack_ns(problem, schedule).tolist() == [0, 65, 0]
    weight = criticality(problem, schedule)
    assert weight[0, 0] == weight[2, 0] == 1.0
    assert weight[1].max() < 1e-3  # slack of more than half of the makespan
    assert weight[0, 1] < weight[0, 0]


@pytest.mark.parametrize("algorithm", ["heft", "single"])
def test_slack_is_never_negative_and_some_task_has_none(
    extraction: Extraction, trained: tuple[CostModel, Path], algorithm: str
) -> None:
    costs = within(0.0, extraction, RecordStore(trained[1]), trained[0]).table
    problem = build_problem(extraction.graph, PLATFORM, costs)
    schedule = search_schedule(problem, algorithm=algorithm).best
    slack = slack_ns(problem, schedule)
    assert slack.min() == 0


_KILLED = """
import sys
from pathlib import Path
from tvm_sphinx.cost.measure.kernels import MeasureConfig
from tvm_sphinx.cost.model.training import train_model
from tvm_sphinx.cost.records.store import RecordStore
from tvm_sphinx.platform import unlike_cpus
def stop(stage, done, total):
    if done:
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
train_model(unlike_cpus().devices[:1], RecordStore(sys.argv[1]), samples=20,
            config=MeasureConfig(sample_ms=0.02), progress=stop)
"""


def test_a_killed_training_loses_nothing_that_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(path)], timeout=300, check=False)
    assert killed.returncode < 0
    kept = len(RecordStore(path))
    assert kept > 10
    device = PLATFORM.devices[:1]
    model = train_model(device, RecordStore(path), samples=0, config=QUICK)
    assert model.num_rows > 10
    assert len(RecordStore(path)) == kept
    save_cost_model(model, tmp_path / "model.json")
    assert load_cost_model(tmp_path / "model.json", model.tvm).num_rows == model.num_rows
