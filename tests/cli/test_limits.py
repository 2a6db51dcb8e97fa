"""Pins and limits of the command: every search obeys, and what is wrong is one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Job
from tvm_sphinx.cli import main
from tvm_sphinx.program.compiled import CompiledModel


def compile_report(job: Job, capsys: pytest.CaptureFixture[str], *more: str) -> dict:
    assert main(job.compile("--no-verify", "-q", "--json", *more)) == 0
    return json.loads(capsys.readouterr().out)["report"]


def devices_of(report: dict, kind: str) -> set[str]:
    return {task["device"] for task in report["tasks"] if kind in task["kernel"]}


@pytest.mark.parametrize("algorithm", ["cpga", "heft", "exact"])
def test_a_pin_is_obeyed(job: Job, algorithm: str, capsys: pytest.CaptureFixture[str]) -> None:
    pins = ("--pin", "*conv2d*=baseline", "--pin", "right=native", "--algorithm", algorithm)
    report = compile_report(job, capsys, *pins, "--time-limit", "2")
    # The first pin is of an operator: a transpose of the same node may run anywhere.
    left, right = (
        [task for task in report["tasks"] if f"Conv {name}" in task["origin"]]
        for name in ("left", "right")
    )
    assert {task["device"] for task in left if "conv2d" in task["kernel"]} == {"baseline"}
    assert {task["device"] for task in right} == {"native"}


def test_what_a_pin_costs_is_said(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pins, out = tmp_path / "pins", tmp_path / "pinned.sphinx"
    pins.write_text("# slow on purpose\nConv*=baseline  # both\n\n*matmul*=baseline\n")
    assert main(job.compile("--pin-file", str(pins), "-q", "-o", str(out))) == 0
    printed = capsys.readouterr().out
    assert "With the pins the schedule is predicted at" in printed
    assert "times as long" in printed
    pinned = CompiledModel.load(out)
    assert pinned.decision is not None
    assert pinned.report is not None
    assert pinned.decision.free_ns is not None
    assert pinned.decision.free_ns <= pinned.report.best_single_device_ns
    assert main(["explain", str(out), "--why", "left"]) == 0
    assert "a pin keeps it off native (Conv*=baseline" in capsys.readouterr().out


def test_a_device_left_out_runs_nothing(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    report = compile_report(job, capsys, "--exclude-device", "native")
    assert [row["name"] for row in report["devices"]] == ["baseline"]
    assert report["best_single_device"] == "baseline"


def test_a_schedule_is_played_again(
    job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also one that no search would give: everything in turn on the slower device."""
    given, again, out = tmp_path / "given.json", tmp_path / "again.json", tmp_path / "out.sphinx"
    assert main(["explain", str(job.program), "--schedule", str(given)]) == 0
    content = json.loads(given.read_text())
    content["device"] = [1] * len(content["device"])
    given.write_text(json.dumps(content))
    assert main(job.compile("--fix-schedule", str(given), "-q", "-o", str(out))) == 0
    assert "With the fixed schedule" in capsys.readouterr().out
    compiled = CompiledModel.load(out)
    assert compiled.decision is not None
    assert compiled.decision.algorithm == "fixed"
    assert set(compiled.decision.schedule.device.tolist()) == {1}
    assert main(["explain", str(out), "--schedule", str(again)]) == 0
    problem = tmp_path / "problem.json"
    assert main(["explain", str(out), "--problem", str(problem)]) == 0
    assert main(["check", str(problem), str(again)]) == 0
    assert "valid" in capsys.readouterr().out


def test_memory_is_a_limit(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    """The convolutions' weights and results do not fit the fast device: something runs on the other."""
    report = compile_report(job, capsys, "--memory", "native=12KiB")
    assert devices_of(report, "") == {"native", "baseline"} or devices_of(report, "") == {"baseline"}
    # What it would take on a device that has no room for it is nothing to compare with.
    assert report["best_single_device"] == "baseline"
    assert main(job.compile("--memory", "native=0KiB", "--memory", "baseline=0B", "-q")) == 4
    assert "fits the memory" in capsys.readouterr().err


def test_what_memory_costs_is_said_where_it_binds(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(job.compile("--no-verify", "-q", "--memory", "native=0B")) == 0
    first, price = capsys.readouterr().out.splitlines()
    assert "all on baseline, the best single device; predicted" in first  # of those that have room
    assert price.startswith("With the limits of memory the schedule is predicted at ")
    assert main(job.compile("--no-verify", "-q", "--memory", "native=2GiB")) == 0
    assert "limits of memory" not in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--pin=conv2d=gpu", "--pin=lstm=native", "--fix-schedule={given}"])
def test_a_wrong_limit_is_told_before_anything_is_measured(
    option: str, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = tmp_path / "given.json"
    given.write_text('{"device": [0], "start_ns": [0], "finish_ns": [1], "makespan_ns": 1}')

    def measure(*_: Any, **__: Any) -> None:
        raise AssertionError("kernels are measured")

    monkeypatch.setattr("tvm_sphinx.pipeline.cost_kernels", measure)
    assert main(job.compile("-q", option.format(given=given))) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pin", "conv2d"], "form 'conv*=core0'"),
        (["--pin", "conv2d=gpu"], "known: native, baseline"),
        (["--pin", "lstm=native"], "No task is named 'lstm'; operators: "),
        (["--pin-file", "/no/such"], "Cannot read pin file"),
        (["--exclude-device", "gpu"], "Unknown device 'gpu'; known: native, baseline"),
        (["--exclude-device", "native", "--exclude-device", "baseline"], "keep a CPU device"),
        (["--memory", "native=2 gigs"], "'gpu0=2GiB'"),
        (["--memory", "gpu=2GiB"], "Unknown device 'gpu'"),
        (["--fix-schedule", "/no/such.json"], "Cannot read schedule file"),
    ],
)
def test_a_wrong_limit_is_one_sentence(
    job: Job, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(job.compile(*words, "-q")) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
