"""What a user may rely on: the public names, a light import, one-way layers, the pipeline's hook."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import tvm_sphinx
from tests.public_api import describe_api, documented_names
from tvm_sphinx._tvm_runtime import check_versions
from tvm_sphinx.errors import EnvironmentMismatchError

_ROOT = Path(__file__).parent.parent


def _python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=_ROOT
    ).stdout.strip()


def test_public_names_are_frozen() -> None:
    assert tvm_sphinx.__all__ == [
        "CompiledModel",
        "Device",
        "Link",
        "Platform",
        "Schedule",
        "SchedulingProblem",
        "SphinxError",
        "TaskGraph",
        "compile",
        "load",
        "search_schedule",
    ]
    for name in tvm_sphinx.__all__:
        assert callable(getattr(tvm_sphinx, name))


def test_the_documented_interface_is_frozen() -> None:
    """A change that is meant: python -m tests.public_api > tests/data/public_api.txt."""
    assert describe_api() == (_ROOT / "tests" / "data" / "public_api.txt").read_text("utf-8")


def test_all_public_names_are_documented() -> None:
    documented = {name.rpartition(".")[2] for name in documented_names()}
    errors = {"SphinxError"}  # of which the page has the whole module
    assert set(tvm_sphinx.__all__) - errors <= documented


def test_import_is_light() -> None:
    loaded = _python(
        "import sys, tvm_sphinx, tvm_sphinx.cli; tvm_sphinx.cli.make_parser(); "
        "print([m for m in ('tvm', 'tvm_ffi', 'xgboost', 'onnx', 'torch') if m in sys.modules])"
    )
    assert loaded == "[]"


def test_version_is_that_of_the_package() -> None:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    assert tvm_sphinx.__version__ == project["version"]
    assert f"\nversion: {project['version']}\n" in (_ROOT / "CITATION.cff").read_text()
    assert f"\n## {project['version']}\n" in (_ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize(
    ("installed", "names"),
    [
        ({"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.15"}, "apache-tvm-ffi 0.1.15"),
        ({"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.15.post2"}, "0.1.15.post2"),
        ({"apache-tvm": "0.26.0", "apache-tvm-ffi": "0.1.14.post1"}, "apache-tvm 0.26.0"),
        ({"apache-tvm": "0.28.1", "apache-tvm-ffi": "0.1.14.post1"}, "apache-tvm 0.28.1"),
        ({"apache-tvm-ffi": "0.1.14.post1"}, "apache-tvm is not installed"),
    ],
)
def test_a_pair_of_packages_that_would_crash_is_refused(installed: dict, names: str) -> None:
    with pytest.raises(EnvironmentMismatchError, match="pip install") as caught:
        check_versions(installed)
    assert names in str(caught.value)


def test_the_installed_pair_is_accepted() -> None:
    check_versions()
    check_versions({"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.14.post0"})


def test_layers_import_one_way() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint], capture_output=True, text=True, cwd=_ROOT, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


def test_tvm_knows_the_pipeline_without_an_import_of_ours() -> None:
    """The entry point registers it; the installed metadata says so in any process."""
    code = """
import numpy as np, tvm
from tvm import relax
builder = relax.BlockBuilder()
x = relax.Var("x", relax.TensorType([8, 8], "float32"))
with builder.function("main", [x]):
    with builder.dataflow():
        y = builder.emit_output(builder.emit(relax.op.nn.relu(relax.op.add(x, x))))
    builder.emit_func_output(y)
executable = tvm.compile(builder.finalize(), tvm.target.Target("llvm"), relax_pipeline="sphinx")
machine = relax.VirtualMachine(executable, tvm.cpu())
value = -np.ones((8, 8), "float32"); value[0] = 3
print(machine["main"](tvm.runtime.tensor(value)).numpy().sum())
"""
    assert _python(code).splitlines()[-1] == "48.0"
