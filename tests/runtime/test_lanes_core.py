"""Build and run the lanes' own tests in C, once under each sanitizer."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.scale import SCALE

_RUNTIME = Path(__file__).parents[2] / "tvm_sphinx" / "runtime"
_SOURCES = [_RUNTIME / f"lanes_{part}.c" for part in ("core", "teams", "signal")]
_TEST = Path(__file__).parent / "lanes_core_test.c"


def _compiler(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


@pytest.mark.parametrize("name", ["gcc", "clang"])
@pytest.mark.parametrize(
    ("sanitizer", "arguments"),
    [("thread", []), ("address,undefined", ["fork"])],
)
def test_core_under_sanitizer(sanitizer: str, arguments: list[str], name: str, tmp_path: Path) -> None:
    compiler = _compiler(name)
    binary = tmp_path / "lanes_core_test"
    flags = [
        "-std=c11",
        "-O1",
        "-g",
        "-Wall",
        "-Wextra",
        "-Werror",
        f"-fsanitize={sanitizer}",
        "-pthread",
    ]
    build = [compiler, *flags, f"-I{_RUNTIME}", str(_TEST), *map(str, _SOURCES), "-o", str(binary)]
    subprocess.run(build, check=True)
    done = subprocess.run(
        [str(binary), str(SCALE), *arguments], capture_output=True, text=True, timeout=120 * SCALE
    )
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


@pytest.mark.parametrize("name", ["gcc", "clang"])
def test_words_and_binding_compile_without_a_warning(name: str, tmp_path: Path) -> None:
    compiler = _compiler(name)
    for source in sorted(_RUNTIME.glob("*.c")):
        flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-fPIC"]
        command = [compiler, *flags, "-c", str(source), "-o", str(tmp_path / "object.o")]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
