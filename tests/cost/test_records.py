"""Records on disk: nothing measured is lost by a torn line, another writer, or a full disk."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from tvm_sphinx.cost.records import Record, RecordStore, median_and_spread, parse_record

RECORD = Record("kernel", "class", "0.27", (5.0, 3.0, 4.0), 0.5, 1.0)


def test_records_survive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "records.jsonl"
    RecordStore(path).add(RECORD)
    store = RecordStore(path)
    assert store.get("kernel", "class", "0.27") == RECORD
    assert store.get("kernel", "class", "0.28") is None
    assert store.get("kernel", "other class", "0.27") is None


@pytest.mark.parametrize("cut", range(2, 90, 7))
def test_a_torn_last_line_costs_only_itself(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "records.jsonl"
    store = RecordStore(path)
    store.add(RECORD)
    whole = path.read_bytes()
    store.add(Record("second", "class", "0.27", (1.0,)))
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.warns(UserWarning, match="1 lines are torn"):
        store = RecordStore(path)
    assert len(store) == 1
    store.add(Record("third", "class", "0.27", (2.0,)))
    assert path.read_bytes().startswith(whole)
    with pytest.warns(UserWarning, match="1 lines are torn"):
        assert len(RecordStore(path)) == 2


def test_foreign_lines_are_not_used(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    good = {"schema": 1, "kernel": "k", "device_class": "c", "tvm": "t", "samples_ns": [1.0]}
    lines = [
        json.dumps(good),
        json.dumps({**good, "schema": 2}),
        json.dumps({**good, "samples_ns": [float("nan")]}),
        json.dumps({**good, "samples_ns": ["fast"]}),
        json.dumps({**good, "kernel": None}),
        "[]",
        "\x00\xff",
    ]
    path.write_text("\n".join(lines) + "\n")
    with pytest.warns(UserWarning, match="6 lines"):
        assert len(RecordStore(path)) == 1
    assert parse_record(lines[0]) is not None


def _write(path: Path, writer: int) -> None:
    store = RecordStore(path)
    for number in range(50):
        store.add(Record(f"{writer}-{number}", "class", "0.27", (1.0,) * 20))


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(path, writer)) for writer in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(RecordStore(path)) == 100


def test_a_full_disk_keeps_the_record_in_memory() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.fail("this test needs /dev/full, which Linux has")
    store = RecordStore(None)
    store.path = full
    with pytest.warns(UserWarning, match="Cannot append"):
        store.add(RECORD)
    assert store.get("kernel", "class", "0.27") == RECORD


def test_median_and_spread() -> None:
    assert median_and_spread([7.0]) == (7, 0)
    assert median_and_spread([1.0, 2.0, 3.0, 4.0, 100.0]) == (3, 1)
