"""Real networks, end to end: scheduled by measured costs, compiled, run, and equal to one device."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
import tvm
from tvm import relax

import tvm_sphinx
from tests.networks import branching_cnn, recurrent_net, residual_cnn, transformer
from tvm_sphinx import pipeline, vm_pipeline
from tvm_sphinx.cli import main
from tvm_sphinx.cost.choose.costing import Costing
from tvm_sphinx.cost.measure.kernels import MeasureConfig
from tvm_sphinx.platform import Device, Platform
from tvm_sphinx.platform.targets import baseline_target, host_target
from tvm_sphinx.program.compiled import CompiledModel, largest_difference
from tvm_sphinx.program.kinds import flatten_outputs
from tvm_sphinx.scheduling.problem import SchedulingProblem
from tvm_sphinx.scheduling.problem_file import write_problem
from tvm_sphinx.scheduling.schedule import Schedule
from tvm_sphinx.search import SearchResult, Stop, portfolio

QUICK = MeasureConfig(sample_ms=0.5)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a record file, so that links and what devices lose side by side are measured once."""
    return tmp_path_factory.mktemp("records") / "records.jsonl"


def unlike_devices_of_one_core() -> Platform:
    """Return two unlike CPU devices and a device of both their cores, on any machine."""
    from tvm_sphinx.platform.machine import usable_cores

    cores = usable_cores()
    first, last = cores[0], cores[min(1, len(cores) - 1)]
    return Platform(
        (
            Device("native", host_target(), "cpu:0", (first,)),
            Device("baseline", baseline_target(), "cpu:0", (last,)),
            Device("all", host_target(), "cpu:0", tuple(sorted({first, last}))),
        )
    )


def stock_outputs(module: tvm.IRModule, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Return what TVM's own pipeline computes, with none of our passes, layouts, rules or runtime.

    LLVM optimises nothing: what is looked at is the numbers.
    """
    target = tvm.target.Target({"kind": "llvm", "mcpu": "x86-64-v3", "num-cores": 1, "opt-level": 0})
    executable = tvm.compile(module, target, relax_pipeline=relax.get_default_pipeline(target))
    machine = relax.VirtualMachine(executable, tvm.cpu())
    return flatten_outputs(machine["main"](*map(tvm.runtime.tensor, inputs.values())))


@pytest.mark.parametrize("network", [branching_cnn, residual_cnn, transformer, recurrent_net])
def test_real_network(network: Callable[[], tvm.IRModule], tmp_path: Path, records: Path) -> None:
    module = network()
    compiled = tvm_sphinx.compile(module, unlike_devices_of_one_core(), records=records, measure=QUICK)
    assert "stock VM" not in compiled.note
    report = compiled.report
    assert report is not None
    assert report.lower_bound_ns <= report.makespan_ns <= report.best_single_device_ns
    assert report.measured_share == 1.0

    inputs = compiled.random_inputs(seed=11)
    outputs = compiled.run(inputs)
    assert largest_difference(outputs, compiled.run_reference(inputs))[1] < 1e-4
    assert largest_difference(outputs, stock_outputs(module, inputs))[1] < 1e-4

    compiled.save(tmp_path / "model.sphinx")
    loaded = CompiledModel.load(tmp_path / "model.sphinx")
    for again, output in zip(loaded.run(inputs), outputs, strict=True):
        np.testing.assert_array_equal(again, output)
    assert loaded.describe(verbose=True) == compiled.describe(verbose=True)


@pytest.mark.parametrize(
    ("graph", "returned"),
    [
        ("(float[2,3] x) => (float[2,3] y) { y = Identity(x) }", "x"),
        ("(float[2,3] x) => (float[2,3] x) { }", "x"),
        ("(float[2,3] x) => (float[3] y) <float[3] w = {1, 2, 3}> { y = Identity(w) }", "w"),
        ("() => (float[3] w) <float[3] w = {1, 2, 3}> { }", "w"),
    ],
)
def test_a_model_without_a_kernel_returns_what_it_holds(
    graph: str, returned: str, tmp_path: Path, records: Path
) -> None:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> net {graph}')
    compiled = tvm_sphinx.compile(model, unlike_devices_of_one_core(), records=records, measure=QUICK)
    assert compiled.pruning is not None
    assert (compiled.pruning.tasks, compiled.pruning.log10_after) == (0, 0.0)
    compiled.save(tmp_path / "model.sphinx")
    loaded = CompiledModel.load(tmp_path / "model.sphinx")
    inputs = loaded.random_inputs(seed=11)
    (output,) = loaded.run(inputs)
    np.testing.assert_array_equal(output, {"w": [1, 2, 3], **inputs}[returned])


def test_records_make_the_second_compile_measure_nothing(tmp_path: Path) -> None:
    records = tmp_path / "records.jsonl"
    # What devices lose side by side is measured again where others used the cores meanwhile.
    platform, alone = unlike_devices_of_one_core(), replace(QUICK, under_load=False)
    first = tvm_sphinx.compile(recurrent_net(), platform, records=records, measure=alone)
    lines = records.read_text()
    assert lines.count("\n") > 10
    second = tvm_sphinx.compile(recurrent_net(), platform, records=records, measure=alone)
    assert records.read_text() == lines
    assert first.decision is not None
    assert second.decision is not None
    # The costs of kernels are the same; only hand-overs are measured anew.
    np.testing.assert_array_equal(second.decision.exec_ns, first.decision.exec_ns)


def give_times(monkeypatch: pytest.MonkeyPatch, fill: Callable[[np.ndarray], None]) -> None:
    """Let `fill` write the times of kernels in ns, tasks by devices, whatever the machine did."""
    measured = pipeline.cost_kernels

    def given(*args: object, **more: object) -> Costing:
        found = measured(*args, **more)
        times = np.full_like(found.table.exec_ns, 3_000_000)
        fill(times)
        slowdown, latency = np.ones_like(found.table.slowdown), np.zeros_like(found.table.latency_ns)
        table = replace(found.table, exec_ns=times, slowdown=slowdown, latency_ns=latency)
        return replace(found, table=table)

    monkeypatch.setattr(pipeline, "cost_kernels", given)


def test_a_schedule_that_measures_slower_gives_way_to_the_single_device(
    monkeypatch: pytest.MonkeyPatch, records: Path
) -> None:
    platform = unlike_devices_of_one_core()

    def fast_in_turn(times: np.ndarray) -> None:
        times[::2, 0] = times[1::2, 1] = 1_000_000

    give_times(monkeypatch, fast_in_turn)
    arguments = {"records": records, "measure": replace(QUICK, under_load=False), "algorithm": "heft"}
    monkeypatch.setattr("tvm_sphinx.program.compare_builds.compare_programs", lambda *_: 0.5)
    slower = tvm_sphinx.compile(recurrent_net(), platform, **arguments)
    assert slower.report is not None
    assert slower.report.makespan_ns == slower.report.best_single_device_ns
    assert "measured 0.50x" in slower.note
    assert slower.program is slower.reference
    monkeypatch.setattr("tvm_sphinx.program.compare_builds.compare_programs", lambda *_: 1.0)
    kept = tvm_sphinx.compile(recurrent_net(), platform, **arguments)
    assert kept.note == ""
    assert kept.report is not None
    assert sum(row.tasks > 0 for row in kept.report.devices) > 1


def test_a_schedule_that_promises_next_to_nothing_is_not_tried(
    monkeypatch: pytest.MonkeyPatch, records: Path
) -> None:
    """The last kernel alone is faster elsewhere, by less than 2 % of all: costs are known no better."""

    def fast_once(times: np.ndarray) -> None:
        times[:, 0] = 1_000_000
        times[-1, 1] = 990_000

    give_times(monkeypatch, fast_once)
    found = tvm_sphinx.compile(
        recurrent_net(),
        unlike_devices_of_one_core(),
        records=records,
        measure=replace(QUICK, under_load=False),
        algorithm="heft",
    )
    assert found.report is not None
    assert found.report.makespan_ns == found.report.best_single_device_ns
    assert sum(row.tasks > 0 for row in found.report.devices) == 1
    assert "too little below the best single device" in found.note
    assert found.program is found.reference


def test_every_door_gives_the_schedule_of_the_one_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`compile` and the pipeline of the stock VM schedule as ``tvm-sphinx search`` does."""
    seen: list[tuple[SchedulingProblem, SearchResult]] = []
    search = portfolio._cpga

    def recorded(problem: SchedulingProblem, *args: object, **given: object) -> SearchResult:
        seen.append((problem, search(problem, *args, **given)))
        return seen[-1][1]

    monkeypatch.setattr(portfolio, "_cpga", recorded)
    alone = replace(QUICK, under_load=False)
    platform, records, net = unlike_devices_of_one_core(), str(tmp_path / "records"), recurrent_net(2)
    stop = Stop(max_evaluations=2_000)
    given = {"measure": alone, "seed": 7, "stop": stop, "with_reference": False}
    tvm_sphinx.compile(net, platform, records=records, **given)
    vm_pipeline.ScheduleForVM(platform, records=records, seed=7, measure=alone)(net)
    assert len(seen) == 2
    for (problem, found), budget in zip(list(seen), (["--max-evaluations", "2000"], []), strict=True):
        path, out = tmp_path / "problem.json", tmp_path / "schedule.json"
        write_problem(problem, path)
        assert main(["search", str(path), "--seed", "7", *budget, "-o", str(out)]) == 0
        written = Schedule.from_json(json.loads(out.read_text()))
        np.testing.assert_array_equal(written.device, found.best.device)
        np.testing.assert_array_equal(written.start_ns, found.best.start_ns)
