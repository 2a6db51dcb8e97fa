"""Kernels on file: read back equal, safe against torn lines, and training data for later."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

from tvm_sphinx._tvm import tvm_ffi
from tvm_sphinx.cost.records.kernel_archive import KernelArchive, read_function
from tvm_sphinx.cost.records.kernel_lines import archive_path
from tvm_sphinx.cost.records.store import RecordStore
from tvm_sphinx.frontend.extract import Kernel
from tvm_sphinx.kernels.compute import matmul
from tvm_sphinx.kernels.implement import implement_kernel
from tvm_sphinx.platform import unlike_cpus
from tvm_sphinx.platform.targets import device_target


def _function() -> object:
    target = device_target(unlike_cpus().devices[0])
    return implement_kernel(matmul((8,), 16, 32, "float32", "float32"), target)


def _kernel(reuse_bytes: int = 0) -> Kernel:
    return Kernel("group", None, (), None, (1,), reuse_bytes)


def test_a_kernel_is_read_back_as_it_was_scheduled(tmp_path: Path) -> None:
    function = _function()
    KernelArchive(tmp_path / "k.jsonl").add("id", function, _kernel(1 << 20))
    (kept,) = KernelArchive(tmp_path / "k.jsonl")
    assert tvm_ffi.structural_equal(read_function(kept), function.without_attr("target"))
    assert (kept.kernel, kept.group, kept.weights, kept.reuse_bytes) == (
        "id",
        "group",
        (1,),
        1 << 20,
    )


def test_a_kernel_is_kept_once(tmp_path: Path) -> None:
    archive = KernelArchive(tmp_path / "k.jsonl")
    for _ in range(2):
        archive.add("id", _function(), _kernel())
    assert len((tmp_path / "k.jsonl").read_text().splitlines()) == 1
    archive.add("nothing", None, _kernel())
    assert len(archive) == 1


@pytest.mark.parametrize("cut", [1, 40, 700])
def test_a_torn_line_costs_only_itself(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "k.jsonl"
    archive = KernelArchive(path)
    archive.add("first", _function(), _kernel())
    archive.add("second", _function(), _kernel())
    path.write_bytes(path.read_bytes()[: -cut - 1])
    with pytest.warns(UserWarning, match="1 lines are torn"):
        read = KernelArchive(path)
    assert [kept.kernel for kept in read] == ["first"]


def test_a_file_cut_at_any_byte_keeps_every_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "k.jsonl"
    KernelArchive(path).add("first", _function(), _kernel())
    first = path.read_bytes()
    content = first + first.replace(b"first", b"second")
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        whole = (length >= len(first) - 1) + (length >= len(content) - 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert len(KernelArchive(path)) == whole


def test_files_cut_at_any_byte_and_concatenated_lose_only_what_is_torn(tmp_path: Path) -> None:
    path = tmp_path / "k.jsonl"
    KernelArchive(path).add("first", _function(), _kernel())
    first = path.read_bytes()
    for length in range(1, len(first) - 1, 7):
        path.write_bytes(first[:length] + first.replace(b"first", b"second"))
        with pytest.warns(UserWarning, match="1 lines are torn"):
            assert [kept.kernel for kept in KernelArchive(path)] == ["second"]


@pytest.mark.parametrize(
    "change",
    [
        {"reuse_bytes": float("inf")},
        {"reuse_bytes": -1},
        {"reuse_bytes": 10**400},
        {"weights": [10**400]},
        {"weights": [float("nan")]},
        {"weights": [-1]},
        {"weights": "01"},
        {"packed": 3},
    ],
)
def test_malformed_lines_are_not_used(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "k.jsonl"
    KernelArchive(path).add("first", _function(), _kernel())
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}) + "\n" + "[" * 100_000 + "\n")
    with pytest.warns(UserWarning, match="2 lines"):
        assert len(KernelArchive(path)) == 0


def test_lines_of_another_schema_are_not_used(tmp_path: Path) -> None:
    path = tmp_path / "k.jsonl"
    archive = KernelArchive(path)
    archive.add("first", _function(), _kernel())
    good = path.read_text()
    path.write_text(good.replace('"schema":1', '"schema":2') + "[]\n" + '{"schema":1}\n' + good)
    with pytest.warns(UserWarning, match="3 lines"):
        assert len(KernelArchive(path)) == 1


def test_a_store_has_one_set_of_kernels(tmp_path: Path) -> None:
    store = RecordStore(tmp_path / "records.jsonl")
    assert KernelArchive.beside(store) is KernelArchive.beside(store)
    assert KernelArchive.beside(store).path == tmp_path / "records.kernels.jsonl"
    assert archive_path(tmp_path / "records.jsonl").name == "records.kernels.jsonl"
    assert KernelArchive.beside(RecordStore(None)).path is None
