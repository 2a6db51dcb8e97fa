"""What users get wrong: each is answered in one line that says what to do, and told in the documents."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx.parser
import pytest

from tests.cli.conftest import Job
from tests.strategies import draw_problem
from tvm_sphinx.cli import main
from tvm_sphinx.runtime.artifact import read_artifact, write_artifact
from tvm_sphinx.scheduling.problem_file import write_problem

_DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "troubleshooting.md"
_OPEN = '<ir_version: 8, opset_import: ["": 17]> net (float[N,3] x) => (float[N,3] y) { y = Tanh(x) }'
_PLATFORM = '[[device]]\nname = "one"\ntarget = "{target}"\ncores = [{core}]\n'


class Mistake(NamedTuple):
    """A line of the table: what is done, and what of the answer has to be there."""

    name: str
    words: Callable[[Job, Path], list[str]]
    answer: str
    code: int = 4


def _write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def _inputs(path: Path, **arrays: np.ndarray) -> str:
    np.savez(path, **arrays)
    return str(path)


def _saved(model: onnx.ModelProto, path: Path) -> str:
    onnx.save(model, path)
    return str(path)


def _open_model(job: Job, folder: Path) -> str:
    return _saved(onnx.parser.parse_model(_OPEN), folder / "open.onnx")


def _without_weights(folder: Path) -> str:
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) { y = Add(x, w) }'
    model = onnx.parser.parse_model(text)
    weight = onnx.numpy_helper.from_array(np.ones(2, np.float32), "w")
    onnx.external_data_helper.set_external_data(weight, "apart.bin")
    weight.ClearField("raw_data")
    model.graph.initializer.append(weight)
    return _saved(model, folder / "apart.onnx")


def _without_outputs(folder: Path) -> str:
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => () { y = Neg(x) }'
    return _saved(onnx.parser.parse_model(text), folder / "silent.onnx")


def _platform(folder: Path, target: str = "host", core: int = 0) -> str:
    return _write(folder / "platform.toml", _PLATFORM.format(target=target, core=core))


def _of_another_machine(job: Job, folder: Path) -> str:
    """Return the program, as it would be if it had been compiled where processors have more."""
    path = folder / "foreign.sphinx"
    manifest, members = read_artifact(job.program)
    processors = r'"name": "[^"]+", ("architecture": "[^"]+", "instructions": \[)'
    another = r'"name": "diamondrapids", \1"amx-complex", '
    text, count = re.subn(processors, another, json.dumps(manifest))
    assert count
    write_artifact(path, json.loads(text), members)
    return str(path)


MISTAKES = [
    Mistake(
        "a model that is not there", lambda j, f: ["compile", str(f / "no.onnx")], "No such model file"
    ),
    Mistake(
        "a model of another framework",
        lambda j, f: ["compile", _write(f / "model.h5", "x")],
        "to end in one of: .onnx",
    ),
    Mistake(
        "a file that is no ONNX",
        lambda j, f: ["compile", _write(f / "model.onnx", b"not a model")],
        "Not an ONNX model",
    ),
    Mistake(
        "a model whose weights are not there",
        lambda j, f: ["compile", _without_weights(f)],
        "ONNX cannot use model file",
    ),
    Mistake(
        "a model without outputs",
        lambda j, f: ["compile", _without_outputs(f)],
        "to return a tensor; it returns none",
    ),
    Mistake(
        "a shape that the file leaves open, named wrongly",
        lambda j, f: ["compile", _open_model(j, f), "--input-shapes", "X:[1,3]"],
        "known: x",
    ),
    Mistake(
        "a shape in a form of one's own",
        lambda j, f: ["compile", _open_model(j, f), "--input-shapes", "x=1x3"],
        "in the form 'x:[1,3],y:[1]'",
    ),
    Mistake(
        "an output into a folder that is not there",
        lambda j, f: ["compile", str(j.model), "-o", str(f / "no" / "out.sphinx")],
        "Expected an existing folder",
    ),
    Mistake(
        "an unknown platform",
        lambda j, f: ["compile", str(j.model), "--platform", "gpu-box"],
        "Give a TOML file or one of: detect, unlike-cpus",
    ),
    Mistake(
        "a target that TVM does not know",
        lambda j, f: ["compile", str(j.model), "--platform", _platform(f, target="avx512")],
        "avx512",
    ),
    Mistake(
        "a core that the machine lacks",
        lambda j, f: ["compile", str(j.model), "--platform", _platform(f, core=4096)],
        "4096",
    ),
    Mistake(
        "an unknown device in a pin",
        lambda j, f: j.compile("--pin", "conv*=gpu0"),
        "known: native, baseline",
    ),
    Mistake(
        "a pin for tasks that are not there",
        lambda j, f: j.compile("--pin", "lstm*=native"),
        "No task is named 'lstm*'",
    ),
    Mistake(
        "a budget without a cost model",
        lambda j, f: j.compile("--measure-budget", "30s", "--cost-model", str(f / "none.json")),
        "tvm-sphinx train",
    ),
    Mistake(
        "a time without a unit",
        lambda j, f: j.compile("--measure-budget", "soon"),
        "--measure-budget",
    ),
    Mistake(
        "an unknown algorithm",
        lambda j, f: j.compile("--algorithm", "luck"),
        "Unknown algorithm 'luck'; known: annealing",
    ),
    Mistake(
        "an RPC tracker that is not running",
        lambda j, f: j.compile("--rpc-tracker", "127.0.0.1:9", "--rpc-key", "board"),
        "127.0.0.1:9",
    ),
    Mistake(
        "a model where a program is meant",
        lambda j, f: ["run", str(j.model)],
        "no program that 'tvm-sphinx compile -o' wrote",
    ),
    Mistake(
        "a program cut short by a copy",
        lambda j, f: ["run", _write(f / "cut.sphinx", j.program.read_bytes()[:-100])],
        "Truncated",
    ),
    Mistake(
        "a program of a machine with other instructions",
        lambda j, f: ["run", _of_another_machine(j, f)],
        "is built for diamondrapids, which has amx-complex",
    ),
    Mistake(
        "an input of the wrong type",
        lambda j, f: ["run", str(j.program), "-i", _inputs(f / "i.npz", x=np.zeros((1, 8, 12, 12)))],
        "Expected input 'x' of dtype float32; got float64",
    ),
    Mistake(
        "an input of the wrong shape",
        lambda j, f: [
            "run",
            str(j.program),
            "-i",
            _inputs(f / "i.npz", x=np.zeros((1, 12, 12, 8), "float32")),
        ],
        "of shape (1, 8, 12, 12); got (1, 12, 12, 8)",
    ),
    Mistake(
        "an input by another name",
        lambda j, f: [
            "run",
            str(j.program),
            "-i",
            _inputs(f / "i.npz", image=np.zeros((1, 8, 12, 12), "float32")),
        ],
        "x",
    ),
    Mistake(
        "a report of a model that was not compiled",
        lambda j, f: ["explain", str(j.model), "--html", str(f / "a.html")],
        "Expected a program that 'tvm-sphinx compile' wrote",
    ),
    Mistake(
        "a task that is not there",
        lambda j, f: ["explain", str(j.program), "--why", "attention"],
        "No task is named 'attention'",
    ),
    Mistake(
        "a picture of an unknown form",
        lambda j, f: ["explain", str(j.program), "--timeline", str(f / "a.bmp")],
        ".html, .svg",
    ),
    Mistake(
        "records in a file of something else",
        lambda j, f: ["compile", str(j.model), "--records", str(j.model)],
        "holds something else, and stays as it is",
    ),
    Mistake(
        "a problem with a missing field",
        lambda j, f: ["search", _write(f / "p.json", '{"devices": ["a"]}')],
        "exec_ns",
    ),
    Mistake(
        "a folder in place of a model",
        lambda j, f: ["compile", "."],
        "to end in one of: .onnx",
    ),
    Mistake(
        "a pin for a program that is compiled already",
        lambda j, f: ["perf", str(j.program), "--pin", "conv2d=native"],
        "compile the model with --pin -o OUT, and give OUT",
    ),
    Mistake(
        "a platform for a program that is compiled already",
        lambda j, f: ["explain", str(j.program), "--platform", "unlike-cpus"],
        "compile the model with --platform -o OUT, and give OUT",
    ),
    Mistake(
        "a model for ONNX Runtime that is not there",
        lambda j, f: ["perf", str(j.program), "--model", str(f / "no.onnx")],
        "No such model file",
    ),
    Mistake(
        "a report in another form",
        lambda j, f: ["explain", str(j.program), "--html", str(f / "a.pdf")],
        "to end in one of: .html, .htm; got",
    ),
    Mistake(
        "the number of a task that is not there",
        lambda j, f: ["explain", str(j.program), "--why", "99"],
        "Expected a task's number in 0..",
    ),
    Mistake(
        "a merge of something else",
        lambda j, f: ["records", "merge", str(j.model), "-o", str(f / "all.jsonl")],
        "holds something else",
    ),
    Mistake(
        "a list of no records",
        lambda j, f: ["records", "list", str(j.records), "--limit", "0"],
        "Expected --limit >= 1; got 0",
    ),
    Mistake(
        "a time in another unit",
        lambda j, f: ["search", str(f / "p.json"), "--time-limit", "2 days"],
        "Expected --time-limit as a duration such as '30s'",
    ),
    Mistake(
        "memory in words",
        lambda j, f: j.compile("--memory", "native=2 gigs"),
        "'gpu0=2GiB'",
    ),
    Mistake(
        "a library that is not known",
        lambda j, f: j.compile("--libraries", "cublaslt, mkl"),
        "Unknown library 'mkl'; known: cublaslt, cublaslt-tf32.",
    ),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_mistake_is_answered_in_one_line(
    mistake: Mistake, job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = mistake.words(job, tmp_path)
    quiet = ["-q"] if words[0] == "compile" else []
    assert main([*words, *quiet]) == mistake.code
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    print(f"ANSWER {mistake.name} :: {line}")
    assert line.startswith("error: ")
    assert mistake.answer in line
    assert printed.out == ""


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["compil", "net.onnx"], "tvm-sphinx: argument COMMAND: invalid choice: 'compil'"),
        (["compil", "net.onnx"], "Did you mean 'compile'? See 'tvm-sphinx --help'."),
        (["compile", "--platfrom", "detect"], "Did you mean '--platform'?"),
        (["compile", "--seed", "x"], "tvm-sphinx compile: argument --seed: invalid int value: 'x'."),
        (
            ["compile", "--platform", "a.toml", "--target", "llvm"],
            "not allowed with argument --platform",
        ),
        (["records", "lst"], "Did you mean 'list'? See 'tvm-sphinx records --help'."),
        (
            ["records", "list", "--limt=3"],
            "Did you mean '--limit'? See 'tvm-sphinx records list --help'.",
        ),
        (["run"], "tvm-sphinx run: the following arguments are required: FILE."),
        (["run", "a.sphinx", "--fill-mode", "one"], "Did you mean 'ones'?"),
        (["versions", "x"], "tvm-sphinx versions: unrecognized arguments: x. See"),
    ],
)
def test_wrong_usage_is_answered_in_one_line(
    words: list[str], answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith("error: tvm-sphinx")
    assert answer in line
    assert printed.out == ""


def test_the_documents_tell_of_each() -> None:
    rows = re.findall(r"^\| (.+?) \|", _DOCUMENT.read_text("utf-8"), re.M)
    missing = [mistake.name for mistake in MISTAKES if mistake.name not in rows]
    assert missing == []
    assert len(MISTAKES) >= 20


@pytest.mark.parametrize(
    ("package", "words", "answer"),
    [
        ("torch", ["compile", "{folder}/model.pt2"], "torch"),
        ("onnx", ["compile", "{model}"], "tvm-sphinx[onnx]"),
        ("ortools", ["search", "{folder}/problem.json", "--algorithm", "exact"], "tvm-sphinx[exact]"),
        ("matplotlib", ["explain", "{program}", "--plot", "{folder}/a.png"], "tvm-sphinx[plot]"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    package: str, words: list[str], answer: str, job: Job, tmp_path: Path
) -> None:
    (tmp_path / "model.pt2").write_bytes(b"PK")
    write_problem(draw_problem(1, 40, special=True), tmp_path / "problem.json")
    places = {"folder": tmp_path, "model": job.model, "program": job.program}
    given = [word.format(**places) for word in words]
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        f"from tvm_sphinx.cli import main\nsys.exit(main({given!r}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    (line,) = found.stderr.splitlines()
    assert found.returncode == 5, line
    assert answer in line
    assert "pip install" in line


def test_a_damaged_torch_program_is_one_line_whatever_torch_logs(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "bad.pt2").write_bytes(b"no archive")
    found = subprocess.run(
        [sys.executable, "-m", "tvm_sphinx", "compile", str(tmp_path / "bad.pt2")],
        capture_output=True,
        text=True,
        check=False,
    )
    (line,) = found.stderr.splitlines()
    assert found.returncode == 4, line
    assert "Not a torch.export program" in line
