"""Tuning records on disk: MetaSchedule opens them, and damage to a file costs only what it hit."""

from __future__ import annotations

import json
import multiprocessing
import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tvm
from tvm.s_tir import meta_schedule
from tvm.s_tir.meta_schedule.database import JSONDatabase, TuningRecord, Workload

from tests.tune.networks import extract, one_core, product_net
from tvm_sphinx.errors import SphinxError
from tvm_sphinx.platform.targets import device_target
from tvm_sphinx.tune.repair import is_record, is_workload
from tvm_sphinx.tune.space import workload_module
from tvm_sphinx.tune.store import FAILED_S, TuningStore, class_folder

RECORDS, WORKLOADS = "database_tuning_record.json", "database_workload.json"


def workload(rows: int = 24) -> Any:
    platform = one_core()
    (kernel,) = [
        kernel
        for kernel in extract(product_net(rows), platform).kernels.values()
        if workload_module(kernel) is not None and "float" in str(kernel.argument_types[0])
    ][:1]
    return workload_module(kernel)


def record(module: Any, seconds: float, factor: int = 2) -> TuningRecord:
    """A record whose trace splits the innermost loop, and so tells candidates apart by the factor."""
    schedule = tvm.s_tir.Schedule(module, seed=1)
    (block, *_) = schedule.get_child_blocks(schedule.get_sblock("root"))
    schedule.split(schedule.get_loops(block)[-1], [None, factor])
    target = device_target(one_core().devices[0])
    args = meta_schedule.arg_info.ArgInfo.from_prim_func(module["main"])
    return TuningRecord(schedule.trace, Workload(module), [seconds], target, args)


def filled(folder: Path, count: int = 3) -> TuningStore:
    store = TuningStore(folder)
    module = workload()
    for number in range(count):
        store.add(module, record(module, 1e-3 * (count - number), 2 + number))
    return store


def test_records_survive_a_restart_and_metaschedule_opens_them(tmp_path: Path) -> None:
    filled(tmp_path)
    store = TuningStore(tmp_path)
    module = workload()
    assert len(store) == store.count(module) == 3
    assert [float(best.run_secs[0]) for best in store.best(module, 2)] == [1e-3, 2e-3]
    database = JSONDatabase(work_dir=str(tmp_path))
    assert len(database) == 3
    assert float(database.query_tuning_record(module, None, "main").run_secs[0]) == 1e-3


def test_a_record_of_another_model_counts_where_the_kernel_is_equal(tmp_path: Path) -> None:
    filled(tmp_path)
    store = TuningStore(tmp_path)
    assert store.count(workload()) == 3
    assert store.count(workload(rows=25)) == 0


def test_failed_candidates_are_known_but_not_chosen(tmp_path: Path) -> None:
    store, module = TuningStore(tmp_path), workload()
    store.add(module, record(module, FAILED_S))
    assert store.best(module, 5) == []
    assert list(store.times_s(module).values()) == [FAILED_S]


@pytest.mark.parametrize("name", [RECORDS, WORKLOADS])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_torn_last_line_costs_only_itself(tmp_path: Path, name: str, share: float) -> None:
    store = filled(tmp_path, 2)
    whole = (tmp_path / name).read_bytes()
    other = workload(rows=25)
    store.add(other, record(other, 5e-3))
    torn = (tmp_path / name).read_bytes()
    cut = len(whole) + max(1, int(share * (len(torn) - len(whole))))
    (tmp_path / name).write_bytes(torn[: min(cut, len(torn) - 1)])
    with pytest.warns(UserWarning, match=r"set aside in \*\.damaged"):
        store = TuningStore(tmp_path)
    assert store.count(workload()) == 2
    assert (tmp_path / f"{name}.damaged").stat().st_size > 0
    store.add(other, record(other, 4e-3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert TuningStore(tmp_path).count(other) == 1
    assert len(JSONDatabase(work_dir=str(tmp_path))) == 3


def test_a_writer_cuts_off_what_another_left_torn(tmp_path: Path) -> None:
    store, module = filled(tmp_path, 1), workload()
    with open(tmp_path / RECORDS, "ab") as file:
        file.write(b"[0,[[[],[]],[0.0")
    store.add(module, record(module, 5e-3, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(TuningStore(tmp_path)) == 2


def test_files_out_of_step_lose_the_records_without_a_workload(tmp_path: Path) -> None:
    store, other = filled(tmp_path, 2), workload(rows=25)
    store.add(other, record(other, 5e-3))
    lines = (tmp_path / WORKLOADS).read_bytes().splitlines(keepends=True)
    (tmp_path / WORKLOADS).write_bytes(lines[0])
    with pytest.warns(UserWarning, match="1 tuning records and 0 workloads"):
        store = TuningStore(tmp_path)
    assert len(store) == 2
    assert len(JSONDatabase(work_dir=str(tmp_path))) == 2


def test_a_damaged_workload_between_others_keeps_their_numbers(tmp_path: Path) -> None:
    store, other = filled(tmp_path, 2), workload(rows=25)
    store.add(other, record(other, 5e-3))
    lines = (tmp_path / WORKLOADS).read_bytes().splitlines(keepends=True)
    (tmp_path / WORKLOADS).write_bytes(b"garbage\n" + lines[1])
    with pytest.warns(UserWarning, match="2 tuning records and 1 workloads"):
        store = TuningStore(tmp_path)
    assert store.count(other) == 1
    third = workload(rows=26)
    store.add(third, record(third, 6e-3))
    store.add(workload(), record(workload(), 7e-3))
    database = JSONDatabase(work_dir=str(tmp_path))
    assert float(database.query_tuning_record(other, None, "main").run_secs[0]) == 5e-3
    assert float(database.query_tuning_record(third, None, "main").run_secs[0]) == 6e-3


def test_malformed_lines_are_none() -> None:
    for line in (b"", b"[]", b'["1", "%%"]', b'[1, "e30="]', b"\xff", b"[" * 5):
        assert not is_workload(line)
    good = json.dumps([0, [[], [1.0], None, None]]).encode()
    assert is_record(good, [True])
    assert not is_record(good, [False])
    for line in (b"", b"[0]", b"[-1,[[],[1.0],null,null]]", b'[0,[[],["x"],null,null]]', good[:-1]):
        assert not is_record(line, [True])


def _write(folder: Path, rows: int) -> None:
    store, module = TuningStore(folder), workload(rows)
    for number in range(10):
        store.add(module, record(module, 1e-3 * (number + 1), 2 + number))


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(tmp_path, 24 + number)) for number in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    store = TuningStore(tmp_path)
    assert [store.count(workload(rows)) for rows in (24, 25)] == [10, 10]
    assert len(JSONDatabase(work_dir=str(tmp_path))) == 20


def test_a_full_disk_keeps_the_record_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, module = filled(tmp_path, 1), workload()
    other = workload(rows=25)

    def full(*_: Any) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr("tvm_sphinx.tune.store.append_line", full)
        for kernel in (module, other):
            with pytest.warns(UserWarning, match="No space left"):
                store.add(kernel, record(kernel, 5e-3, 4))
    assert (store.count(module), store.count(other)) == (2, 1)
    store.add(other, record(other, 4e-3))
    assert len(TuningStore(tmp_path)) == 2


def test_a_folder_that_cannot_be_made_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SphinxError, match="Cannot use tuning records"):
        TuningStore(tmp_path / "file" / "deep")


def test_each_device_class_has_its_folder(tmp_path: Path) -> None:
    one = one_core().devices[0].cost_class
    two = replace(one, place="2 cores", cores=2)
    assert class_folder(tmp_path, one) != class_folder(tmp_path, two)
    assert "1cores" in class_folder(tmp_path, one).name
