"""Tuning goes on where it was killed, isolates candidates, and compile takes what it found."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import te
from tvm.s_tir.meta_schedule.database import JSONDatabase

import tvm_sphinx
from tests.tune.networks import extract, one_core, product_net, write_model
from tvm_sphinx.cli import main
from tvm_sphinx.cost.choose.agreement import agree
from tvm_sphinx.cost.choose.candidates import Candidate
from tvm_sphinx.cost.choose.costing import cost_kernels
from tvm_sphinx.cost.choose.default_loops import default_loops, serial_sum_ns
from tvm_sphinx.cost.measure.kernel_timing import MeasureConfig, random_tensor
from tvm_sphinx.cost.measure.lane_timing import load_for_lanes
from tvm_sphinx.cost.records.store import RecordStore, record_path
from tvm_sphinx.errors import SphinxError
from tvm_sphinx.frontend.extract import Kernel
from tvm_sphinx.platform import Device
from tvm_sphinx.platform.targets import device_target
from tvm_sphinx.tune import tune_model
from tvm_sphinx.tune.apply import TunedKernels
from tvm_sphinx.tune.paths import tuning_root
from tvm_sphinx.tune.session import TuneConfig
from tvm_sphinx.tune.space import mark_scheduled
from tvm_sphinx.tune.worker import TimingJob, build
from tvm_sphinx.tune.workers import Workers

PLATFORM = """
[[device]]
name = "one"
target = "host"
cores = [{core}]
"""


def records_of(folder: Path) -> dict[Path, list[bytes]]:
    return {path: path.read_bytes().splitlines() for path in folder.glob("tuning/*/*_record.json")}


def tune(folder: Path, trials: int, **options: Any) -> Any:
    config = TuneConfig(trials=trials, sample_ms=0.5)
    return tune_model(product_net(), one_core(), config, records=folder, **options)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of records with 18 trials of a matrix product."""
    folder = tmp_path_factory.mktemp("tuned")
    result = tune(folder, 18, tasks=["matmul"])
    assert result.new_trials == 18
    assert result.stop_reason == "trials"
    return folder


def test_tuned_kernels_compute_the_same_numbers(tuned: Path) -> None:
    platform = one_core()
    device = platform.devices[0]
    source = TunedKernels(tuning_root(tuned / "records.jsonl"))
    found = 0
    for kernel in extract(product_net(), platform).kernels.values():
        for candidate in source(kernel, device):
            functions = {"tuned": candidate.function, "plain": mark_scheduled(kernel.function)}
            target = device_target(device)
            module = load_for_lanes({n: f.with_attr("target", target) for n, f in functions.items()})
            results = []
            for name in functions:
                operands = [random_tensor(ty, tvm.cpu()) for ty in kernel.argument_types]
                module.get_function(name)(*operands)
                results.append([operand.numpy() for operand in operands])
            assert agree(*results)
            found += 1
    assert found


def test_records_count_towards_the_trials(tuned: Path) -> None:
    before = records_of(tuned)
    assert tune(tuned, 18, tasks=["matmul"]).new_trials == 0
    assert records_of(tuned) == before


def test_compile_takes_a_tuned_kernel_where_it_is_faster(
    tuned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tvm_sphinx.cost.choose.kernel_costs.is_faster", lambda *_: True)
    monkeypatch.setattr(
        "tvm_sphinx.cost.choose.kernel_costs.may_win", lambda *_: True
    )  # whatever the clock says
    compiled = tvm_sphinx.compile(product_net(), one_core(), records=tuned, with_reference=False)
    assert compiled.report is not None
    assert compiled.report.implementations["tuned"] >= 1
    assert "1 tuned" in compiled.describe()
    reference = tvm_sphinx.compile(product_net(), one_core(), records=None, with_reference=False)
    inputs = compiled.random_inputs()
    ours, theirs = compiled.run(inputs), reference.run(inputs)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-4, atol=1e-5)
    assert reference.report is not None
    assert "tuned" not in reference.report.implementations
    assert sum(reference.report.implementations.values()) >= 1


class _Always:
    """A source of one candidate for every kernel."""

    def __init__(self, make: Any) -> None:
        self.make, self.asked = make, 0

    def __call__(self, kernel: Kernel, device: Device) -> Sequence[Candidate]:
        self.asked += 1
        return [Candidate("library", self.make(kernel))]


def slow_sum(extent: int = 512) -> Any:
    source = te.placeholder((extent, extent), name="source")
    k = te.reduce_axis((0, extent), name="k")
    total = te.compute((extent,), lambda i: te.sum(source[i, k], axis=k), name="total")
    return te.create_prim_func([source, total])


def test_a_wrong_candidate_is_dropped_and_not_tried_again() -> None:
    platform, records = one_core(), RecordStore(None)
    extraction = extract(product_net(), platform)

    def wrong(kernel: Kernel) -> Any:
        shapes = [[int(e) for e in ty.shape.values] for ty in kernel.argument_types]
        tensors = [te.placeholder(shape, name=f"t{i}") for i, shape in enumerate(shapes[:-1])]
        seven = te.compute(shapes[-1], lambda *_: tvm.tirx.const(7.0, "float32"), name="seven")
        return mark_scheduled(te.create_prim_func([*tensors, seven]))

    config = MeasureConfig(sample_ms=0.5)
    with pytest.warns(UserWarning, match="computes other numbers"):
        choices = cost_kernels(extraction, platform, records, [_Always(wrong)], config=config).choices
    known = len(records)
    origins = {choices.origin(kernel, platform.devices[0]) for kernel in extraction.kernels}
    assert origins <= {"rule", "default"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = cost_kernels(extraction, platform, records, [_Always(wrong)], config=config).choices
    assert len(records) == known
    assert {k: c.origin for k, c in again.chosen.items()} == {
        k: c.origin for k, c in choices.chosen.items()
    }


def test_a_source_can_add_a_faster_implementation(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a library call would be: another PrimFunc, with an origin of its own."""
    monkeypatch.setattr("tvm_sphinx.cost.choose.kernel_costs.is_faster", lambda *_: True)
    platform = one_core()
    extraction = extract(product_net(), platform)
    source = _Always(lambda kernel: mark_scheduled(kernel.function).with_attr("sphinx.test", 1))
    config = MeasureConfig(sample_ms=0.5)
    choices = cost_kernels(extraction, platform, RecordStore(None), [source], config=config).choices
    assert source.asked == len(extraction.kernels)
    assert "library" in {candidate.origin for candidate in choices.chosen.values()}
    for kernel in extraction.kernels.values():
        function = choices.function(kernel, platform.devices[0])
        assert function is not None
        assert str(function.attrs["target"]) == str(device_target(platform.devices[0]))


def test_default_loops_are_left_out_where_their_sums_are_too_slow() -> None:
    steps = 512 * 512
    function = slow_sum()
    assert 0.2 * steps < serial_sum_ns(function) < steps
    assert default_loops(function, rule_ns=int(serial_sum_ns(function))) is None
    assert default_loops(function, rule_ns=10 * steps) is not None


def test_agreement_is_relative_to_the_largest_value() -> None:
    base = np.linspace(0, 1000, 50, dtype="float32")
    assert agree([base + 0.05], [base])
    assert not agree([base + 0.5], [base])
    special = np.array([np.nan, np.inf, 1.0], dtype="float32")
    assert agree([special], [special])
    assert not agree([np.array([0.0, np.inf, 1.0], "float32")], [special])
    assert not agree([np.array([1, 2])], [np.array([1, 3])])


def job_of(function: Any, key: str = "job") -> TimingJob:
    device = one_core().devices[0]
    types = [
        tvm.relax.TensorType([int(e) for e in param.shape], str(param.dtype))
        for param in function.params
    ]
    return TimingJob(key, device, tuple(types), (), 0, build(on_device(function, device)), 0.5)


def on_device(function: Any, device: Device) -> Any:
    return mark_scheduled(function).with_attr("target", device_target(device))


def calling(symbol: str) -> Any:
    """A kernel that calls a function of the C library."""
    source = te.placeholder((64, 64), name="source")
    result = te.extern(
        (64,),
        [source],
        lambda ins, outs: tvm.tirx.Evaluate(tvm.tirx.call_extern("int32", symbol)),
        dtype="float32",
        name=symbol,
    )
    return te.create_prim_func([source, result])


def test_a_candidate_that_crashes_hangs_or_is_wrong_does_no_harm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    function = slow_sum(64)
    job = job_of(function)
    crash, hang = (build(on_device(calling(name), job.device)) for name in ("abort", "pause"))
    source = te.placeholder((64, 64), name="source")
    zero = te.compute((64,), lambda i: tvm.tirx.const(0.0, "float32"), name="zero")
    wrong = build(on_device(te.create_prim_func([source, zero]), job.device))
    with Workers(1) as workers:
        (failed,) = workers.build([function])  # it carries no target
        assert isinstance(failed, str)
        assert workers.measure(job, job.reference, 1e-6)[0]
        samples, why = workers.measure(job, wrong, 1e-6)
        assert samples == []
        assert "other numbers" in why
        assert workers.measure(job, crash, 1e-6) == ([], "it ends the process")
        assert workers.measure(job, job.reference, 1e-6)[0]
        monkeypatch.setattr("tvm_sphinx.tune.workers._LEAST_RUN_TIMEOUT_S", 1.0)
        assert workers.measure(job, hang, 1e-6) == ([], "it takes too long to run")


def test_a_kill_loses_nothing(tmp_path: Path) -> None:
    """SIGKILL a while after the first record; benchmarks/tune_kills.py does this many times."""
    platform = tmp_path / "platform.toml"
    platform.write_text(PLATFORM.format(core=one_core().devices[0].cores[0]))
    folder = tmp_path / "records"
    command = [sys.executable, "-m", "tvm_sphinx", "tune", str(write_model(tmp_path)), "--quiet"]
    command += ["--platform", str(platform), "--records", str(folder), "--trials", "100000"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not any(records_of(folder).values()) and time.monotonic() < deadline:
            assert child.poll() is None
            time.sleep(0.02)
        time.sleep(0.7)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    before = records_of(folder)
    assert any(before.values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a torn last line is told
        result = tune(folder, 1)
    assert result.new_trials == 0
    for path, lines in records_of(folder).items():
        assert lines == before[path][: len(lines)]
        assert len(lines) >= len(before[path]) - 1
        assert len(JSONDatabase(work_dir=str(path.parent))) == len(lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trials", "0"], "Expected trials >= 1; got 0"),
        (["--time-limit", "0"], "Expected a finite time limit > 0 s; got 0.0"),
        (
            ["--time-limit", "inf"],
            "Expected --time-limit as a duration such as '30s'",
        ),
        (["--seed", "-1"], "Expected seed >= 0; got -1"),
        (["--tasks", "0"], "Expected at least 1 task to tune; got 0"),
        (["--tasks", ","], "Expected --tasks as a number or names"),
        (["--tasks", "conv9d"], "Unknown kind of operator 'conv9d'; known: "),
        (["--platform", "nowhere.toml"], "Cannot read platform file"),
    ],
)
def test_bad_input_is_one_message(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["tune", str(write_model(tmp_path)), "--records", str(tmp_path / "records"), *arguments]
    assert main(command) == 4
    assert message in capsys.readouterr().err


def test_the_command_says_what_it_gained(tuned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tuned.parent
    platform = folder / "platform.toml"
    platform.write_text(PLATFORM.format(core=one_core().devices[0].cores[0]))
    command = ["tune", str(write_model(folder)), "--platform", str(platform), "--records", str(tuned)]
    assert main([*command, "--trials", "18", "--tasks", "1"]) == 0
    printed = capsys.readouterr()
    assert "kernel time" in printed.out
    assert "0 new; stopped by: trials" in printed.out


def test_where_records_are(tmp_path: Path) -> None:
    assert record_path(None) is None
    assert record_path(tmp_path) == tmp_path / "records.jsonl"
    assert record_path(tmp_path / "new") == tmp_path / "new" / "records.jsonl"
    assert record_path(tmp_path / "mine.jsonl") == tmp_path / "mine.jsonl"
    (tmp_path / "plain").write_text("")
    assert record_path(tmp_path / "plain") == tmp_path / "plain"
    default = record_path("default")
    assert default is not None
    assert tuning_root(default).parent == default.parent


def test_no_kernel_to_tune_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(SphinxError, match="Unknown kind of operator"):
        tune(tmp_path, 4, tasks=["softmax"])
