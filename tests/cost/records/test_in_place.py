"""What loops came to, on record: what is written is read again, and what is damaged is not used."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tvm_sphinx.cost.records import in_place
from tvm_sphinx.cost.records.beside import merge_notes, prune_notes
from tvm_sphinx.cost.records.files import Selection
from tvm_sphinx.cost.records.in_place import LoopLine, Seen, Subject, find_loops, note_loop, parse_loop
from tvm_sphinx.cost.records.predictions import (
    KeptPredictions,
    PredictedLine,
    predictions_path,
)

SUBJECT = Subject("graph", "kernels", ("llvm on 1 core of here", "llvm on 2 cores of here"), "0.27")
SEEN = Seen(
    np.array([0, 1, 0]),
    np.array([10.0, 20.5, 30.0]),
    np.array([[np.nan, 3.0], [np.nan, np.nan]]),
    False,
)
LINE = LoopLine(SUBJECT, (SEEN, SEEN), "programs", (0, 1, 0), (1, 0, 2), False, "note", 100.0)


def lines(records: Path) -> list[dict[str, object]]:
    path = in_place.in_place_path(records)
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_is_noted_is_found_again_the_newest_last(tmp_path: Path) -> None:
    records = tmp_path / "records.jsonl"
    note_loop(records, replace(LINE, note="later", time=200.0))
    note_loop(records, LINE)
    note_loop(records, replace(LINE, subject=replace(SUBJECT, kernels="others")))
    first, last = find_loops(records, SUBJECT)
    assert (first.note, last.note) == ("note", "later")
    assert (first.device, first.order, first.programs, first.is_single) == (
        (0, 1, 0),
        (1, 0, 2),
        "programs",
        False,
    )
    (one, _) = first.seen
    np.testing.assert_array_equal(one.device, SEEN.device)
    np.testing.assert_array_equal(one.took_ns, SEEN.took_ns)
    np.testing.assert_array_equal(one.handover_ns, SEEN.handover_ns)
    assert not one.alone


def test_nothing_is_kept_without_a_file() -> None:
    note_loop(None, LINE)
    assert find_loops(None, SUBJECT) == []


def test_a_full_disk_costs_the_line_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(in_place, "append_line", full)
    with pytest.warns(UserWarning, match="Cannot append to .*No space left"):
        note_loop(tmp_path / "records.jsonl", LINE)


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": 2},
        {"method": -1},
        {"device": [0, 1]},
        {"device": [0, 1, 2]},
        {"order": [0, 0, 2]},
        {"order": None},
        {"seen": []},
        {"seen": [{"device": [0]}]},
        {"time": "yesterday"},
        {"classes": ["one"]},
    ],
)
def test_what_does_not_fit_together_is_not_used(tmp_path: Path, changes: dict[str, object]) -> None:
    records = tmp_path / "records.jsonl"
    note_loop(records, LINE)
    (content,) = lines(records)
    assert parse_loop(json.dumps(content).encode()) is not None
    assert parse_loop(json.dumps({**content, **changes}).encode()) is None


def predicted(device_class: str) -> PredictedLine:
    return PredictedLine(device_class, "0.27", "model", "a model", {"kernel": (5, 1)})


def test_merging_takes_predictions_and_loops_along_once(tmp_path: Path) -> None:
    one, other = tmp_path / "one.jsonl", tmp_path / "other.jsonl"
    note_loop(one, LINE)
    KeptPredictions(one).add(predicted("a class"))
    for _ in range(2):
        merge_notes([one], other)
    assert lines(other) == lines(one)
    assert predictions_path(other).read_bytes() == predictions_path(one).read_bytes()


@pytest.mark.parametrize(
    ("selection", "loops", "predictions"),
    [
        (Selection(tvm="0.27"), 0, 0),
        (Selection(not_tvm="0.27"), 1, 2),
        (Selection(device_class="on 2 cores"), 0, 1),
        (Selection(not_machine="here"), 1, 1),
        (Selection(not_machine="there"), 0, 1),
        (Selection(older_than_s=3600.0), 0, 2),  # the loop is of 1970
        (Selection(kind="kernel", tvm="0.27"), 1, 2),
        (Selection(kernel="k"), 1, 2),
        (Selection(), 1, 2),
    ],
)
def test_pruning_drops_what_meets_all_conditions(
    tmp_path: Path, selection: Selection, loops: int, predictions: int
) -> None:
    records = tmp_path / "records.jsonl"
    note_loop(records, LINE)
    kept = KeptPredictions(records)
    kept.add(predicted("llvm on 2 cores of here"))
    kept.add(predicted("llvm on 1 core of there"))
    gone = 3 - loops - predictions
    assert prune_notes(records, selection, dry_run=True) == gone
    assert prune_notes(records, selection) == gone
    assert len(lines(records)) == loops
    assert len(predictions_path(records).read_text().splitlines()) == predictions
    assert in_place.in_place_path(records).with_suffix(".jsonl.bak").exists() == (not loops)


def test_of_two_loops_of_the_same_programs_the_later_one_stays(tmp_path: Path) -> None:
    records = tmp_path / "records.jsonl"
    for time_s, programs in [(1.0, "programs"), (2.0, "programs"), (3.0, "others")]:
        note_loop(records, replace(LINE, time=time_s, programs=programs))
    in_place.in_place_path(records).open("a").write("torn")
    assert prune_notes(records, Selection(), superseded=True) == 1
    assert prune_notes(records, Selection(), unreadable=True) == 1
    assert [line["time"] for line in lines(records)] == [2.0, 3.0]
