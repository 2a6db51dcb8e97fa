"""What the commands tell: one line, the whole, JSON, files; on a terminal and elsewhere."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tests.cli.conftest import Job
from tvm_sphinx.cli import COMMANDS, main, make_parser
from tvm_sphinx.cli.progress import ProgressLine
from tvm_sphinx.program.perf import time_in_turn, verdict

_ROOT = Path(__file__).parent.parent.parent


def as_json(capsys: pytest.CaptureFixture[str]) -> dict:
    return json.loads(capsys.readouterr().out)


def test_compile_says_it_in_a_line(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(job.compile("-q")) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    line = printed.out.splitlines()[0]
    num_tasks = job.compiled.graph.num_tasks if job.compiled.graph else 0
    assert line.startswith(f"{num_tasks} tasks: ")
    assert "predicted" in line
    assert "verified: largest difference" in line
    assert "certified gap" not in printed.out
    assert main(job.compile("-q", "-v")) == 0
    assert "certified gap" in capsys.readouterr().out


def test_every_report_has_json(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program, trace = str(job.program), tmp_path / "trace.json"
    assert main(["run", program, "--json", "--print-time", "--repeat", "2", "--trace", str(trace)]) == 0
    told = as_json(capsys)
    assert told["outputs"] == [{"name": "y", "dtype": "float32", "shape": [1, 10]}]
    assert len(told["seconds"]["program"]) == 2
    assert json.loads(trace.read_text())["traceEvents"]

    assert main(["explain", program, "--json"]) == 0
    told = as_json(capsys)
    assert told["decision"]["schedule"]["makespan_ns"] == told["report"]["makespan_ns"]
    assert {"all on native", "all on baseline", "heft", "cpga"} <= set(told["decision"]["weighed"])

    problem, schedule = tmp_path / "problem.json", tmp_path / "schedule.json"
    assert main(["explain", program, "--problem", str(problem)]) == 0
    capsys.readouterr()
    assert main(["search", str(problem), "--json", "-o", str(schedule)]) == 0
    found = as_json(capsys)
    assert main(["check", str(problem), str(schedule), "--json"]) == 0
    checked = as_json(capsys)
    assert checked["valid"] is True
    assert checked["makespan_ns"] == found["makespan_ns"]

    assert main(["versions", "--json"]) == 0
    told = as_json(capsys)
    assert told["onnxruntime"] == onnxruntime.__version__
    assert told["python"] == sys.version.split()[0]
    assert told["libraries"][0].startswith("cublaslt ")


def test_records_name_their_models_and_devices(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["records", "list", str(job.records), "--json"]) == 0
    records = as_json(capsys)["records"]
    kernels = [record for record in records if record["kind"] == "kernel"]
    assert kernels
    assert all(record["models"] == ["net.onnx"] for record in kernels)
    assert {name for record in kernels for name in record["devices"]} == {"native", "baseline"}
    assert main(["records", "list", str(job.records), "--model", "net", "--limit", "3"]) == 0
    assert "net.onnx" in capsys.readouterr().out
    assert main(["records", "list", str(job.records), "--model", "bert"]) == 4
    assert "Unknown model of these records 'bert'; known: net.onnx." in capsys.readouterr().err


def test_merged_records_keep_their_models(
    job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    merged = tmp_path / "all.jsonl"
    for _ in range(2):
        assert main(["records", "merge", str(job.records), "-o", str(merged)]) == 0
    capsys.readouterr()
    assert main(["records", "list", str(merged), "--model", "net.onnx", "--json"]) == 0
    assert as_json(capsys)["records"]
    noted = job.records.with_name("records.models.jsonl").read_text().splitlines()
    assert sorted((tmp_path / "all.models.jsonl").read_text().splitlines()) == sorted(set(noted))


def test_perf_times_every_build_in_turn(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["perf", str(job.program), "--model", str(job.model), "--repeat", "3", "--number", "2"]
    assert main([*words, "--threads", "1", "--json", "-q"]) == 0
    told = as_json(capsys)
    names = [row["name"] for row in told["contenders"]]
    assert names[:4] == ["tvm-sphinx", "on native", "on baseline", "stock VM"]
    assert names[4].startswith("ONNX Runtime")
    for row in told["contenders"]:
        assert row["runs"] == 6
        assert 0 < row["min_ms"] <= row["p50_ms"] <= row["p90_ms"] <= row["p95_ms"] <= row["p99_ms"]
        assert row["difference"] < 1e-5
    assert told["verdict"].startswith("tvm-sphinx takes ")
    assert told["missing"] == []
    assert main([*words[:2], "--repeat", "1", "-q"]) == 0
    printed = capsys.readouterr().out
    assert "not timed: ONNX Runtime" in printed
    assert "p99" in printed


def test_perf_of_a_model_compiles_it(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    given = job.compile("--repeat", "1", "-q", "--json")[1:]
    assert main(["perf", *given]) == 0
    names = [row["name"] for row in as_json(capsys)["contenders"]]
    assert {"tvm-sphinx", "on native", "on baseline"} < set(names)
    assert any(name.startswith("ONNX Runtime") for name in names)


def test_a_verdict_is_by_rounds_and_knows_noise() -> None:
    """A contender that always takes twice as long, and one that is as often behind as ahead."""
    slept = {"a": iter([0.002] * 99), "b": iter([0.005] * 99)}

    def runner(name: str):
        def run(_arrays: list) -> list:
            time.sleep(next(slept[name]))
            return [np.ones(3)]

        return run

    timings = time_in_turn({name: runner(name) for name in slept}, [], rounds=4, number=2)
    assert [timing.samples_s.shape for timing in timings] == [(4, 2), (4, 2)]
    ours, twice = timings
    twice = type(ours)("twice", 0.0, ours.samples_s * 2, 0.0)
    alike = type(ours)("alike", 0.0, ours.samples_s * np.array([[0.9], [1.1], [0.9], [1.1]]), 0.0)
    told = verdict([ours, twice, alike])
    assert "2.00x as fast as twice (2.00 to 2.00x)" in told
    assert "as fast as alike within the noise (0.90 to 1.10x)" in told


def test_each_turn_begins_with_a_run_that_is_not_counted_and_neighbours_change() -> None:
    ran: list[str] = []

    def runner(name: str):
        return lambda _arrays: [ran.append(name), np.ones(3)][1:]

    names = ["a", "b", "c"]
    time_in_turn({name: runner(name) for name in names}, [], rounds=8, number=2)
    in_turn = ran[-8 * 3 * 3 :]
    turns = [in_turn[at : at + 3] for at in range(0, len(in_turn), 3)]
    assert all(len(set(turn)) == 1 for turn in turns)
    order = [turn[0] for turn in turns]
    assert all(sorted(order[at : at + 3]) == names for at in range(0, len(order), 3))
    before_a = {order[at - 1] for at in range(1, len(order)) if order[at] == "a"}
    assert before_a >= {"b", "c"}


def test_why_names_the_price_elsewhere(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(job.program), "--why", "relu_left", "--json"]) == 0
    (task,) = as_json(capsys)["tasks"]
    assert any("relu_left" in origin for origin in task["origin"])
    assert {one["device"] for one in task["alternatives"]} == {"native", "baseline"}
    assert all(one["exec_ns"] > 0 and one["moved_ns"] > 0 for one in task["alternatives"])
    assert main(["explain", str(job.program), "--why", "0", "--why", "nothing*"]) == 4
    assert "No task is named 'nothing*'" in capsys.readouterr().err


def test_every_file_is_written(job: Job, tmp_path: Path) -> None:
    files = {
        "html": "a.html",
        "timeline": "b.svg",
        "trace": "c.json",
        "graph": "d.svg",
        "patterns": "e.dot",
        "schedule": "f.json",
        "problem": "g.json",
    }
    words = [word for option, name in files.items() for word in (f"--{option}", str(tmp_path / name))]
    assert main(["explain", str(job.program), *words]) == 0
    assert main(["explain", str(job.program), "--graph", str(tmp_path / "h.dot")]) == 0
    for name in ("b.svg", "d.svg"):
        ElementTree.parse(tmp_path / name)
    for name in ("c.json", "f.json", "g.json"):
        json.loads((tmp_path / name).read_text())
    assert (tmp_path / "h.dot").read_text().startswith("digraph")
    assert "net.sphinx" in (tmp_path / "a.html").read_text()
    assert main(["explain", str(job.program), "--graph", str(tmp_path / "x.png")]) == 4


# -- TVM's passes


def test_modules_code_and_offloads_are_dumped(
    job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "net.sphinx"
    words = ("--dump-ir", str(tmp_path / "ir"), "--dump-code", "relay,tir,ll,asm", "-q", "-o", str(out))
    passes = ("--pass-config", "tirx.disable_vectorize=true", "--print-pass-times", "--no-verify")
    assert main(job.compile(*words, *passes, "--dump-offloads", "-")) == 0
    printed = capsys.readouterr()
    assert "LegalizeOps" in printed.err
    assert printed.out.splitlines()[0].split() == ["device", "task", "kernel", "source"]
    begins = [line.split()[1] for line in printed.out.splitlines() if line.startswith("wrote ")]
    assert begins == [str(out), f"{tmp_path / 'ir'}/*.py", f"{tmp_path / 'net'}.*"]
    phases = sorted(path.name for path in (tmp_path / "ir").iterdir())
    assert phases == ["1-imported.py", "2-lowered.py", "3-placed.py"]
    assert "R.nn.conv2d" in (tmp_path / "ir" / phases[0]).read_text()
    assert "vdevice" in (tmp_path / "ir" / phases[2]).read_text()
    assert "define" in (tmp_path / "net.0.ll").read_text()
    assert (tmp_path / "net.0.asm").stat().st_size > 1000
    assert {path.name for path in tmp_path.glob("net.*")} >= {"net.relax.py", "net.0.tir.py"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pass-config", "tirx.disable_vectorise=1"], "Unknown entry of --pass-config"),
        (["--pass-config", "tirx.disable_vectorize=yes"], "as true or false"),
        (["--pass-config", "tirx.disable_vectorize"], "'name=value'"),
        (
            ["--disabled-pass", "FoldConstant,tirx.Simplify"],
            "Unknown pass of --disabled-pass 'tirx.Simplify'",
        ),
        (["--dump-code", "exe"], "known: relax, tir, ll, asm, source"),
        (["--target-cuda-arch", "sm_90"], "Expected --target cuda with --target-cuda-arch"),
        (["--config", "/no/such.json"], "Cannot read file of options"),
    ],
)
def test_a_wrong_option_is_one_sentence(
    job: Job, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(job.compile(*words, "-q")) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_options_from_a_file(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """tvmc's form, and ours; the command line counts more."""
    config = tmp_path / "options.json"
    content = {"platform": str(job.platform), "records": str(job.records), "verify": False, "seed": 3}
    config.write_text(json.dumps({**content, "pin": ["Conv*=baseline"], "quiet": True}))
    assert main(["compile", str(job.model), "--config", str(config), "--json", "--seed", "4"]) == 0
    told = as_json(capsys)
    assert told["report"]["seed"] == 4
    assert told["verification"] is None
    assert {t["device"] for t in told["report"]["tasks"] if "conv2d" in t["kernel"]} == {"baseline"}
    for wrong, message in (
        ({"speed": 3}, "Unknown option in"),
        ({"executor": {"kind": "graph"}}, "TVM has no 'executor' any more"),
        ([], "Expected one JSON object"),
    ):
        config.write_text(json.dumps(wrong))
        assert main(["compile", str(job.model), "--config", str(config)]) == 4
        assert message in capsys.readouterr().err


def test_targets_in_the_forms_of_tvmc(tmp_path: Path) -> None:
    from tvm_sphinx.cli.targets import given_targets

    def targets(*words: str) -> list[str]:
        return given_targets(make_parser("compile").parse_args(["compile", "net.onnx", *words]))

    assert targets("--target", "cuda -arch=sm_90, llvm -mcpu=znver4 -mattr=+avx2,+fma") == [
        "cuda -arch=sm_90",
        "llvm -mcpu=znver4 -mattr=+avx2,+fma",
    ]
    (one,) = targets("--target", "llvm", "--target-llvm-mcpu", "znver4", "--target-llvm-num-cores=2")
    assert json.loads(one) == {"kind": "llvm", "mcpu": "znver4", "num-cores": 2}
    path = tmp_path / "target.json"
    path.write_text('{"kind": "llvm", "mcpu": "x86-64"}')
    assert targets("--target", str(path)) == [path.read_text()]
    assert targets("--target", "host") == ["host"]


# -- help, terminals


def test_every_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    actions = [("records", name) for name in ("list", "merge", "prune", "export")]
    for words in [*((name,) for name in COMMANDS), ("bench", "kernels"), *actions]:
        with pytest.raises(SystemExit):
            main([*words, "--help"])
        assert f"examples:\n  tvm-sphinx {' '.join(words)}" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "TVM_SPHINX_HOME" in capsys.readouterr().out


def test_help_imports_next_to_nothing() -> None:
    """What makes it slow are NumPy and TVM; without them it takes what Python takes."""
    code = (
        "import sys, contextlib\nfrom tvm_sphinx.cli import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        "print([name for name in ('numpy', 'tvm', 'torch', 'onnx') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=_ROOT)
    assert found.stdout.splitlines()[-1] == "[]"


def test_records_lie_where_the_variable_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tvm_sphinx.cost.model.model_file import default_model_path
    from tvm_sphinx.cost.records.store import default_record_path

    monkeypatch.delenv("TVM_SPHINX_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_record_path() == tmp_path / "xdg" / "tvm-sphinx" / "records.jsonl"
    monkeypatch.setenv("TVM_SPHINX_HOME", str(tmp_path / "home"))
    assert default_record_path() == tmp_path / "home" / "records.jsonl"
    assert default_model_path().parent == tmp_path / "home"


def test_no_stage_is_told_twice_and_what_is_on_record_is_told(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(job.compile("--no-verify", "--no-reference")) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(set(lines)) == len(lines)
    assert any(line.startswith("measure on native, all on record: ") for line in lines)
    assert "measure copies, all on record: 2/2" in lines


def test_an_export_names_its_file(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "times.csv"
    assert main(["records", "export", str(job.records), "-o", str(out)]) == 0
    assert capsys.readouterr().out.split() == ["wrote", str(out)]


@pytest.mark.parametrize("no_colour", ["", "1"])
def test_a_bar_on_a_terminal_and_lines_elsewhere(
    no_colour: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NO_COLOR", no_colour)
    monkeypatch.setenv("TERM", "xterm")
    for stage in (1, 2):
        ProgressLine()("measure", stage, 2)
    assert capsys.readouterr().err == "measure: 2/2\n"
    parent, child = pty.openpty()
    with os.fdopen(child, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        ProgressLine()("measure", 2, 2)
        monkeypatch.undo()
    drawn = os.read(parent, 4096).decode()
    os.close(parent)
    assert "2/2 measure" in drawn
    assert "=" * 24 in drawn
    assert ("\033[32m" in drawn) == (not no_colour)
