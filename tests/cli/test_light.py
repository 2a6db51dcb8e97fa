"""What only runs or shows a program, or checks a schedule, loads neither the compiler nor torch."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.modules import build, platforms, random_module
from tests.strategies import draw_problem
from tvm_sphinx.frontend.tensor_spec import TensorSpec
from tvm_sphinx.program.compiled import CompiledModel
from tvm_sphinx.program.kinds import LaneProgramFile
from tvm_sphinx.scheduling.problem_file import write_problem
from tvm_sphinx.search import search_schedule

_ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program for the lanes that is its own reference."""
    executable = build(random_module(3), platforms()["unlike"])
    views = [executable.image.program.tensors[tensor] for tensor in executable.image.program.outputs]
    made = LaneProgramFile(executable.image)
    path = tmp_path_factory.mktemp("program") / "out.sphinx"
    CompiledModel(
        inputs=tuple(TensorSpec(name, *form) for name, form in executable.inputs.items()),
        outputs=tuple(TensorSpec(f"y{i}", view.shape, view.dtype) for i, view in enumerate(views)),
        platform=executable.platform,
        program=made,
        reference=made,
        report=None,
    ).save(path)
    return path


def loaded_by(*words: object) -> list[str]:
    """Return what is slow to load of what a command loads: packages, and TVM's libraries."""
    code = (
        "import sys\nfrom tvm_sphinx.cli import main\n"
        f"assert main({list(map(str, words))!r}) == 0\n"
        "maps = open('/proc/self/maps').read()\n"
        "slow = ('tvm', 'torch', 'onnx', 'xgboost', 'ortools', 'scipy', 'matplotlib')\n"
        "found = [name for name in slow if name in sys.modules]\n"
        "print(found + [name for name in ('libtvm_compiler', 'libtvm_runtime.so') if name in maps])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=_ROOT)
    assert found.returncode == 0, found.stderr
    return ast.literal_eval(found.stdout.splitlines()[-1])


@pytest.mark.parametrize("words", [["run", "--print-time"], ["explain", "--run"]])
def test_a_program_is_run_and_explained_without_the_compiler(words: list[str], program: Path) -> None:
    assert loaded_by(words[0], program, *words[1:]) == ["libtvm_runtime.so"]


def test_schedules_are_checked_without_tvm(tmp_path: Path) -> None:
    problem, schedule = tmp_path / "problem.json", tmp_path / "schedule.json"
    drawn = draw_problem(1, 20, special=True)
    write_problem(drawn, problem)
    schedule.write_text(json.dumps(search_schedule(drawn, algorithm="heft").best.to_json()))
    assert loaded_by("check", problem, schedule) == []
