"""Records on disk: nothing measured is lost by a torn line, a kill, another writer, or a full disk."""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import random
import time
import warnings
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.scale import SCALE
from tvm_sphinx.cost.records.store import (
    METHOD,
    DeviceClass,
    Record,
    RecordStore,
    median_and_spread,
    parse_line,
    read_records,
)
from tvm_sphinx.errors import SphinxError

WHERE = DeviceClass('{"kind": "llvm"}', "2 cores", 2, "some machine")
RECORD = Record("kernel", WHERE, "0.27", (5.0, 3.0, 4.0), 0.5, 1.0, shapes=("float32[1, 3]",))


def test_records_survive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "records.jsonl"
    RecordStore(path).add(RECORD)
    store = RecordStore(path)
    assert store.get("kernel", str(WHERE), "0.27") == RECORD
    assert store.get("kernel", str(WHERE), "0.28") is None
    assert store.get("kernel", str(replace(WHERE, device="1 cores")), "0.27") is None


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_the_record_of_the_latest_time_counts_wherever_it_stands(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    path = tmp_path / "records.jsonl"
    # Two of the same, latest time: the one that stands further on counts.
    records = [replace(RECORD, samples_ns=(10.0 + i,), time=min(i, 2)) for i in range(4)]
    records = [records[i] for i in order]
    path.write_text("".join(record.to_line() for record in records))
    last = [record for record in records if record.time == 2][-1]
    store = RecordStore(path)
    assert store.get("kernel", str(WHERE), "0.27") == last
    added = RecordStore(None)
    for record in records:
        added.add(record)
    assert added.get("kernel", str(WHERE), "0.27") == last


def test_a_line_says_all_that_a_record_has_to() -> None:
    content = json.loads(RECORD.to_line())
    keys = "schema kind kernel shapes target device cores machine tvm method samples_ns host_load time"
    assert set(content) == set(keys.split())
    assert parse_line(RECORD.to_line()) == RECORD


@pytest.mark.parametrize("cut", range(2, 90, 7))
def test_a_torn_last_line_costs_only_itself(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "records.jsonl"
    store = RecordStore(path)
    store.add(RECORD)
    whole = path.read_bytes()
    store.add(replace(RECORD, kernel="second"))
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.warns(UserWarning, match="1 torn or malformed"):
        store = RecordStore(path)
    assert len(store) == 1
    store.add(replace(RECORD, kernel="third"))
    assert path.read_bytes().startswith(whole)
    with pytest.warns(UserWarning, match="1 torn or malformed"):
        assert len(RecordStore(path)) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"samples_ns": [float("nan")]},
        {"samples_ns": [-1.0]},
        {"samples_ns": ["fast"]},
        {"samples_ns": [True]},
        {"samples_ns": 5},
        {"kernel": None},
        {"kind": "guess"},
        {"shapes": [3]},
        {"cores": "two"},
        {"machine": 7},
        {"host_load": "high"},
        {"time": None},
        {"time": float("inf")},
        {"schema": "2"},
        {"schema": True},
    ],
)
def test_malformed_lines_are_not_used(change: dict[str, object]) -> None:
    line = json.dumps({**json.loads(RECORD.to_line()), **change})
    assert parse_line(line) == "torn or malformed"


@pytest.mark.parametrize(
    "line", ["[]", "null", "\x00", "[" * 100_000, '{"schema": ' + "9" * 5000 + "}", b"\xff\xfe{}"]
)
def test_lines_that_are_no_objects_are_not_used(line: str | bytes) -> None:
    assert parse_line(line) == "torn or malformed"


def test_lines_of_other_schemas_are_counted_apart(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    lines = [{"schema": 1, "kernel": "k"}, {"schema": 3}, json.loads(RECORD.to_line())]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.warns(UserWarning, match=r"1 of schema 1 \(this version reads 2\), 1 of schema 3"):
        assert len(RecordStore(path)) == 1


@given(st.data())
def test_fuzzed_files_give_only_sound_records(data: st.DataObject) -> None:
    """Whatever happens to the bytes of a line, it reads as no record or as one of sound times."""
    line = bytearray(RECORD.to_line().encode())
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(line) - 1))
        if data.draw(st.booleans()):
            line[position] = data.draw(st.integers(0, 255))
        else:
            del line[position:]
            line += b" "
    for part in bytes(line).split(b"\n"):
        record = parse_line(part)
        if isinstance(record, Record):
            assert all(0 <= sample < 1e15 for sample in record.samples_ns)
            assert parse_line(record.to_line()) == record


def test_a_file_cut_at_any_byte_keeps_every_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    records = [replace(RECORD, kernel=name) for name in ("first", "second", "third")]
    content = "".join(record.to_line() for record in records).encode()
    late = replace(RECORD, kernel="late")
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        # A last line that lacks nothing but its line break is whole.
        whole = [record for record in records if record.to_line().strip() in content[:length].decode()]
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            store = RecordStore(path)
        assert [store.get(r.kernel, str(WHERE), "0.27") for r in records] == [
            record if record in whole else None for record in records
        ]
        # What is torn is told.
        assert len(told) == len(content[:length].splitlines()) - len(whole)
        store.add(late)
        assert read_quietly(path) == [*whole, late]


@pytest.mark.parametrize("num_torn", [1, 2])
def test_files_cut_at_any_byte_and_concatenated_lose_only_what_is_torn(
    tmp_path: Path, num_torn: int
) -> None:
    path = tmp_path / "records.jsonl"
    cut, *others = (replace(RECORD, kernel=name) for name in ("cut", "first", "second"))
    content = cut.to_line().encode()
    for length in range(1, len(content)):
        path.write_bytes(content[:length] * num_torn + b"".join(r.to_line().encode() for r in others))
        is_whole = length == len(content) - 1
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            read = list(read_records(path))
        assert read == [*([cut] * num_torn if is_whole else []), *others]
        pieces = num_torn if length >= len('{"schema":') else 1  # less cannot be told apart
        wanted = [] if is_whole else [f"{path}: lines that are not used: {pieces} torn or malformed."]
        assert [str(warning.message) for warning in told] == wanted


def test_an_object_within_a_line_of_another_schema_is_no_line(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text('{"schema":3,"parts":[' + RECORD.to_line().strip() + "]}\n")
    with pytest.warns(UserWarning, match="1 of schema 3"):
        assert list(read_records(path)) == []


@given(st.data())
def test_a_fuzzed_file_keeps_what_was_not_touched(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    names = [f"kernel{number}" for number in range(4)]
    lines = [replace(RECORD, kernel=name).to_line().encode() for name in names]
    hit = data.draw(st.integers(0, 3))
    noise = data.draw(st.binary(max_size=80))
    start = data.draw(st.integers(0, len(lines[hit]) - 1))
    end = data.draw(st.integers(start, len(lines[hit]) - 1))
    lines[hit] = lines[hit][:start] + noise + lines[hit][end:]
    path = tmp_path_factory.mktemp("fuzzed") / "records.jsonl"
    path.write_bytes(b"".join(lines))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store = RecordStore(path)
    for number, name in enumerate(names):
        found = store.get(name, str(WHERE), "0.27")
        assert number == hit or found == replace(RECORD, kernel=name)
    assert all(0 <= sample < 1e15 for record in read_quietly(path) for sample in record.samples_ns)


def read_quietly(path: Path) -> list[Record]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(read_records(path))


def test_a_time_that_is_none_is_refused_before_it_is_written() -> None:
    for sample in (float("nan"), float("inf"), -1.0):
        with pytest.raises(SphinxError, match="Expected samples of 'kernel'"):
            replace(RECORD, samples_ns=(1.0, sample))


def test_foreign_records_are_told_apart_from_missing_ones() -> None:
    store = RecordStore(None)
    store.add(replace(RECORD, kernel="a", where=replace(WHERE, machine="other")))
    store.add(replace(RECORD, kernel="b", tvm="0.26"))
    store.add(replace(RECORD, kernel="c", where=replace(WHERE, target="cuda")))
    store.add(replace(RECORD, kernel="e", method=1))
    reasons = store.foreign(["a", "b", "c", "d", "e"], WHERE, "0.27")
    assert reasons == {
        "on another machine (other)": 1,
        "by TVM 0.26": 1,
        f"in another way (method 1, now {METHOD})": 1,
    }


def test_times_of_another_method_are_kept_and_not_used(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    store = RecordStore(path)
    old = replace(RECORD, method=METHOD - 1, time=RECORD.time + 1)
    store.add(old)
    assert store.get(RECORD.kernel, RECORD.device_class, RECORD.tvm) is None
    store.add(RECORD)
    again = RecordStore(path)
    assert again.get(RECORD.kernel, RECORD.device_class, RECORD.tvm) == RECORD
    assert list(read_records(path)) == [old, RECORD]
    without = json.loads(RECORD.to_line())
    del without["method"]
    assert parse_line(json.dumps(without)) == replace(RECORD, method=1)
    assert parse_line(json.dumps({**without, "method": "2"})) == "torn or malformed"


def _write(path: Path, writer: int) -> None:
    store = RecordStore(path)
    for number in range(50):
        store.add(replace(RECORD, kernel=f"{writer}-{number}"))


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(path, writer)) for writer in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(RecordStore(path)) == 100


def _write_until_killed(path: Path, first: int, told: Connection) -> None:
    """Write records as fast as it goes, and tell which of them are on disk."""
    warnings.simplefilter("ignore")
    store = RecordStore(path)
    for number in itertools.count(first):
        store.add(replace(RECORD, kernel=str(number), shapes=("x" * 5000,)))  # more than a page
        told.send(number)


NUM_KILLS = 20 * SCALE


def test_a_killed_writer_loses_nothing_that_it_reported(tmp_path: Path) -> None:
    """Killed at any moment, again and again on one file: what was on record stays on record."""
    path, rng, promised = tmp_path / "records.jsonl", random.Random(0), set()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    for kill in range(NUM_KILLS):
        told, telling = context.Pipe(duplex=False)
        writer = context.Process(target=_write_until_killed, args=(path, kill * 10**6, telling))
        writer.start()
        telling.close()
        promised.add(told.recv())
        time.sleep(rng.uniform(0.0, 0.02))
        writer.kill()
        with contextlib.suppress(EOFError):
            while True:
                promised.add(told.recv())
        writer.join()
        told.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torn lines are counted; there may be one for each kill
        kept = {int(record.kernel) for record in read_records(path)}
    assert promised <= kept
    assert len(kept) <= len(promised) + NUM_KILLS


def test_a_full_disk_keeps_the_record_in_memory() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.fail("this test needs /dev/full, which Linux has")
    store = RecordStore(None)
    store.path = full
    with pytest.warns(UserWarning, match="Cannot append"):
        store.add(RECORD)
    assert store.get("kernel", str(WHERE), "0.27") == RECORD


def test_median_and_spread() -> None:
    assert median_and_spread([7.0]) == (7, 0)
    assert median_and_spread([1.0, 2.0, 3.0, 4.0, 100.0]) == (3, 1)
