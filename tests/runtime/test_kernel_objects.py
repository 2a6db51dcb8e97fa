"""The code of a kernel is made once on a machine, and what is kept of it is never trusted blindly."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import te

from tvm_sphinx.kernels.code_cache import (
    CACHE_VARIABLE,
    cache_key,
    code_folder,
    read_cached,
    trim_cache,
    write_cached,
)
from tvm_sphinx.platform import Device
from tvm_sphinx.platform.targets import device_target, host_target
from tvm_sphinx.runtime import kernels
from tvm_sphinx.runtime.kernels import compile_kernels
from tvm_sphinx.runtime.loading import load_kernels

TARGET = device_target(Device("one", host_target(), "cpu:0", (0,)))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "code"))
    return tmp_path / "code"


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list of the symbols that TVM generates code of from here on."""
    symbols: list[str] = []
    generate = kernels.generate_code

    def noting(functions: dict[str, Any], target: Any) -> Any:
        symbols.extend(functions)
        return generate(functions, target)

    monkeypatch.setattr(kernels, "generate_code", noting)
    return symbols


def adding(number: int) -> Any:
    source = te.placeholder((8,), "float32", name="source")
    result = te.compute((8,), lambda i: source[i] + float(number), name="result")
    return te.create_prim_func([source, result]).with_attr("target", TARGET)


def results(functions: dict[str, Any]) -> dict[str, float]:
    """Return what each function makes of zeros, by its name."""
    module = load_kernels(compile_kernels(functions, lambda module: module))
    found = {}
    for name in functions:
        operands = [tvm.runtime.tensor(np.zeros(8, np.float32)) for _ in range(2)]
        module.get_function(name)(*operands)
        (found[name],) = set(operands[1].numpy().tolist())
    return found


def test_each_kernel_is_compiled_once(generated: list[str]) -> None:
    assert results({"first": adding(1), "second": adding(2)}) == {"first": 1, "second": 2}
    assert len(generated) == 2
    assert results({"a": adding(2), "b": adding(3), "c": adding(2)}) == {"a": 2, "b": 3, "c": 2}
    assert len(generated) == 3


def test_another_target_is_other_code(generated: list[str]) -> None:
    results({"first": adding(1)})
    results({"first": adding(1).with_attr("target", tvm.target.Target("llvm"))})
    assert len(generated) == 2


@pytest.mark.parametrize(
    "changed",
    [
        {"config": {"tirx.disable_vectorize": True}},
        {"disabled_pass": ["tirx.UnrollLoop"]},
        {"opt_level": 0},
    ],
)
def test_other_options_of_the_passes_are_other_code(
    changed: dict[str, Any], generated: list[str]
) -> None:
    results({"first": adding(1)})
    with tvm.transform.PassContext(**changed):
        for _ in range(2):
            results({"first": adding(1)})
    assert len(generated) == 2
    results({"first": adding(1)})
    assert len(generated) == 2


def test_damaged_code_is_made_again(generated: list[str], folder: Path) -> None:
    results({"first": adding(1)})
    (path,) = folder.iterdir()
    content = path.read_bytes()
    altered = content[:-100] + bytes([content[-100] ^ 1]) + content[-99:]
    for damaged in (altered, content[:-1], content[:40], b"", b"x" * len(content)):
        path.write_bytes(damaged)
        assert results({"first": adding(1)}) == {"first": 1}
        assert path.read_bytes() == content
    assert len(generated) == 6


@pytest.mark.parametrize("place", ["", "/dev/null/code", "/proc/code"])
def test_without_a_folder_it_is_compiled_each_time(
    place: str, generated: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, place)
    for count in (1, 2):
        assert results({"first": adding(1)}) == {"first": 1}
        assert len(generated) == count


def test_code_lies_beside_the_records(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("TVM_SPHINX_HOME", str(tmp_path / "home"))
    assert code_folder() == tmp_path / "home" / "code"


def test_what_was_not_asked_for_longest_makes_room() -> None:
    keys = [cache_key("kernel", str(number)) for number in range(3)]
    assert len({*keys, cache_key("kernel1", "")}) == 4
    folder = code_folder()
    assert folder is not None
    for age, key in enumerate(reversed(keys)):
        write_cached(key, bytes(10))
        os.utime(folder / key, (1000 - age, 1000 - age))
    assert read_cached(keys[0]) == bytes(10)  # the oldest, until now
    assert trim_cache(most_bytes=100) == 2 * (10 + 32)
    assert [read_cached(key) for key in keys] == [bytes(10), None, bytes(10)]


def _write(folder: str) -> None:
    os.environ[CACHE_VARIABLE] = folder
    for number in range(30):
        write_cached(cache_key(str(number % 5)), bytes([number % 5]) * 10_000)


def test_two_writers_and_a_reader_see_whole_code(folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(str(folder),)) for _ in range(2)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        for number in range(5):
            code = read_cached(cache_key(str(number)))
            assert code in (None, bytes([number]) * 10_000)
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert sorted(path.name for path in folder.iterdir()) == sorted(cache_key(str(n)) for n in range(5))
