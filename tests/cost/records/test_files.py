"""``tvm-sphinx records``: select, merge, prune, export; a file is replaced whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cost.records.test_store import RECORD, WHERE
from tvm_sphinx.cli import main
from tvm_sphinx.cost.records import files as record_files
from tvm_sphinx.cost.records.files import Selection, merge_files, prune_file
from tvm_sphinx.cost.records.json_lines import append_line
from tvm_sphinx.cost.records.kernel_lines import ArchivedKernel, archive_path, read_kernels
from tvm_sphinx.cost.records.store import Record, read_records
from tvm_sphinx.errors import SphinxError
from tvm_sphinx.platform.machine import machine_id

HERE = replace(WHERE, machine=machine_id())
KERNEL = ArchivedKernel("kernel", "group", "0.27", (1,), 64, "packed")
OLD_SCHEMA = {
    "schema": 1,
    "kernel": "old",
    "device_class": '{"kind": "llvm"} on 2 cores',
    "tvm": "0.27",
    "samples_ns": [1.0, 2.0],
    "host_load": 0.0,
    "time": 5.0,
}


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept by default, if anything is, is this test's."""
    monkeypatch.setenv("TVM_SPHINX_HOME", str(tmp_path / "home"))


def _file(path: Path, *records: Record) -> Path:
    path.write_text("".join(record.to_line() for record in records))
    return path


def _fail_to_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(record_files.os, "fsync", fail)


def _names(path: Path) -> list[str]:
    return [record.kernel for record in read_records(path)]


def test_merging_adds_what_is_missing_and_changes_nothing_else(tmp_path: Path) -> None:
    one = _file(tmp_path / "one", RECORD, replace(RECORD, kernel="b"))
    two = _file(tmp_path / "two", replace(RECORD, kernel="b"), replace(RECORD, kernel="c"), RECORD)
    two.write_text(two.read_text() + "torn")
    counts = merge_files([one, two], tmp_path / "all")
    assert counts == {"added": 3, "already": 2, "torn or malformed": 1}
    assert _names(tmp_path / "all") == ["kernel", "b", "c"]
    before = (tmp_path / "all").read_bytes()
    assert merge_files([one, two], tmp_path / "all")["added"] == 0
    assert (tmp_path / "all").read_bytes() == before


def test_a_file_with_a_record_behind_a_torn_one_is_merged_and_pruned(tmp_path: Path) -> None:
    torn, behind = RECORD.to_line()[:90], replace(RECORD, kernel="behind")
    source = tmp_path / "glued"
    source.write_text(torn + behind.to_line())
    assert merge_files([source], tmp_path / "all") == {"added": 1, "already": 0, "torn or malformed": 1}
    assert _names(tmp_path / "all") == ["behind"]
    assert prune_file(source, Selection(), unreadable=True).unreadable == 1
    assert source.read_text() == behind.to_line()


def test_merging_takes_the_kernels_beside_the_records_along(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = "one", "two", "bare"
    one, two, _ = (_file(tmp_path / f"{name}.jsonl", RECORD) for name in names)
    archive_path(one).write_text(KERNEL.to_line() + KERNEL.to_line()[:40])
    archive_path(two).write_text(replace(KERNEL, tvm="0.26").to_line() + KERNEL.to_line())
    command = ["records", "merge", *(str(tmp_path / f"{name}.jsonl") for name in names), "-o"]
    output = tmp_path / "all.jsonl"
    assert main([*command, str(output)]) == 0
    told = capsys.readouterr()
    assert f"added 2 kernels to {archive_path(output)}; 1 were there already" in told.out
    assert "left out 1 lines of kernels torn" in told.err
    assert list(read_kernels(archive_path(output))) == [KERNEL, replace(KERNEL, tvm="0.26")]
    before = archive_path(output).read_bytes()
    assert main([*command, str(output)]) == 0
    assert archive_path(output).read_bytes() == before


def test_a_failed_merge_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = _file(tmp_path / "one.jsonl", RECORD)
    _fail_to_sync(monkeypatch)
    for beside in ("", KERNEL.to_line()):
        if beside:
            archive_path(source).write_text(beside)
        before = sorted(tmp_path.iterdir())
        assert main(["records", "merge", str(source), "-o", str(tmp_path / "all.jsonl")]) == 4
        assert "No space left on device" in capsys.readouterr().err
        assert sorted(tmp_path.iterdir()) == before


def test_pruning_drops_what_meets_all_conditions_and_keeps_a_backup(tmp_path: Path) -> None:
    now = time.time()
    path = _file(
        tmp_path / "records",
        replace(RECORD, kernel="old", time=now - 1000),
        replace(RECORD, kernel="old foreign", time=now - 1000, tvm="0.26"),
        replace(RECORD, kernel="new foreign", time=now, tvm="0.26"),
    )
    before = path.read_bytes()
    selection = Selection(older_than_s=500, not_tvm="0.27")
    assert prune_file(path, selection, dry_run=True).dropped == 1
    assert path.read_bytes() == before
    assert prune_file(path, selection).dropped == 1
    assert _names(path) == ["old", "new foreign"]
    assert (tmp_path / "records.bak").read_bytes() == before


def test_pruning_can_drop_unreadable_lines_and_old_records_of_a_key(tmp_path: Path) -> None:
    path = _file(tmp_path / "records", RECORD, replace(RECORD, kernel="b"), replace(RECORD, time=2.0))
    path.write_text(path.read_text() + json.dumps(OLD_SCHEMA) + "\ntorn\n")
    result = prune_file(path, Selection(), unreadable=True, superseded=True)
    assert (result.dropped, result.unreadable, result.superseded, result.kept) == (0, 2, 1, 2)
    assert [(record.kernel, record.time) for record in read_records(path)] == [
        ("b", 1.0),
        ("kernel", 2.0),
    ]


def test_an_old_record_merged_later_supersedes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = replace(RECORD, samples_ns=(2e3,), time=time.time() - 7200)
    old = _file(tmp_path / "old", replace(RECORD, samples_ns=(9e3,)))
    path = _file(tmp_path / "records", fresh)
    assert main(["records", "merge", str(old), "-o", str(path)]) == 0
    capsys.readouterr()
    assert main(["records", "list", str(path)]) == 0
    row = capsys.readouterr().out.splitlines()[1].split()
    assert (row[3], row[5], row[9]) == ("2", "2.0", "2h")
    assert prune_file(path, Selection(), superseded=True).superseded == 1
    assert list(read_records(path)) == [fresh]


def test_a_failed_rewrite_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _file(tmp_path / "records", RECORD)
    before = path.read_bytes()

    _fail_to_sync(monkeypatch)
    with pytest.raises(SphinxError, match=r"Cannot rewrite record file .*No space"):
        prune_file(path, Selection(kernel="kernel"))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["records"]


def test_a_writer_that_waits_for_a_rewrite_writes_to_the_new_file(tmp_path: Path) -> None:
    path = _file(tmp_path / "records", RECORD)
    late = replace(RECORD, kernel="late")
    writer = threading.Thread(target=append_line, args=(path, late.to_line()))

    def change(lines: list[bytes]) -> list[bytes]:
        writer.start()
        time.sleep(0.05)  # it opens the old file meanwhile, and waits for its lock
        return [*lines, replace(RECORD, kernel="changed").to_line().encode().strip()]

    record_files.rewrite(path, change)
    writer.join()
    assert _names(path) == ["kernel", "changed", "late"]


def test_list_shows_the_newest_of_each_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newest = replace(RECORD, samples_ns=(2e3, 2e3), time=time.time() - 7200)
    cannot = replace(RECORD, kernel="other", samples_ns=(), time=3.0)
    path = _file(tmp_path / "records", RECORD, cannot, newest)
    assert main(["records", "list", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "cannot run" in lines[1]
    assert lines[2].split()[:6] == ["kernel", "kernel", "-", "2", "2", "2.0"]
    assert "2h" in lines[2]
    assert lines[2].endswith("llvm, 2 cores, some machine")
    assert lines[3] == "3 records of 2 kernels on 1 kinds of device"
    assert main(["records", "list", str(path), "--kernel", "oth", "--older-than", "1h"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.parametrize("form", ["csv", "json"])
def test_export_holds_every_sample(tmp_path: Path, form: str) -> None:
    path, output = _file(tmp_path / "records", RECORD), tmp_path / f"out.{form}"
    assert main(["records", "export", str(path), "-o", str(output)]) == 0
    text = output.read_text()
    (row,) = json.loads(text) if form == "json" else csv.DictReader(io.StringIO(text))
    samples = row["samples_ns"] if form == "json" else json.loads(row["samples_ns"])
    assert samples == [5.0, 3.0, 4.0]
    assert int(row["median_ns"]) == 4
    assert int(row["cores"]) == 2


def test_prune_and_merge_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _file(tmp_path / "records", RECORD, replace(RECORD, where=HERE))
    assert main(["records", "prune", str(path), "--other-machines", "--dry-run"]) == 0
    assert "would drop 1 records" in capsys.readouterr().out
    assert main(["records", "prune", str(path), "--other-machines"]) == 0
    assert [record.where for record in read_records(path)] == [HERE]
    assert main(["records", "merge", str(path) + ".bak", "-o", str(path)]) == 0
    assert "added 1 records" in capsys.readouterr().out
    assert len(_names(path)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prune"], "Expected a condition, such as --older-than 30d"),
        (["list", "--older-than", "soon"], "Expected --older-than as a number"),
        (["list", "--kind", "guess"], "known: kernel, copy, load"),
        (["merge", "no such file"], "Cannot read record file 'no such file'"),
        (["list"], "Nothing is on record yet"),
        (["export"], "'tvm-sphinx compile' measures, and writes it"),
        (["prune", "--superseded"], "Nothing is on record yet"),
        (["prune", "no such file", "--tvm", "1"], "Cannot read record file 'no such file'"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TVM_SPHINX_HOME", str(tmp_path / "fresh"))
    assert main(["records", *arguments]) == 4
    assert message in capsys.readouterr().err
