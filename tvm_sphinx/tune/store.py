"""Tuning records on disk: MetaSchedule's `JSONDatabase` files, safe against kills and full disks. [TVM]

One folder for each device class and TVM version holds ``database_workload.json`` and
``database_tuning_record.json``, one JSON value a line, which
``tvm.s_tir.meta_schedule.database.JSONDatabase(work_dir=folder)`` opens. That class itself replays
every trace when it opens, refuses a file with a torn line, and does not notice a full disk; so the lines
are read and written here.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tvm.s_tir.meta_schedule.database import TuningRecord, Workload

from .._tvm import tvm, tvm_ffi
from ..cost.records.json_lines import append_line
from ..errors import SphinxError
from ..notice import warn
from ..platform.device import CostClass
from .repair import repair_files

_WORKLOADS = "database_workload.json"
_RECORDS = "database_tuning_record.json"
#: What MetaSchedule writes as the time, in s, of a candidate that could not be built or run.
FAILED_S = 1e10


def class_folder(root: str | Path, cost_class: CostClass) -> Path:
    """Return the folder of a class of devices below a root.

    Its name says processor and cores, and ends in a digest of the class and the version of TVM, whose
    traces other versions may not know.
    """
    version = str(tvm.__version__)
    digest = hashlib.sha256(f"{cost_class} {version}".encode()).hexdigest()[:8]
    config = json.loads(cost_class.target)
    place = cost_class.place.replace(" ", "")
    words = f"{config.get('mcpu') or config['kind']}-{place}-{version}-{digest}"
    return Path(root) / re.sub(r"[^\w.-]+", "_", words)


class TuningStore:
    """The records of one device class.

    Opening repairs what a kill has torn (see `tvm_sphinx.tune.repair`). Several processes may write at
    once. With ``folder=None`` the records live in memory alone.

    Raises
    ------
    SphinxError
        If the folder or its files cannot be read or created.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._workloads: list[list[str]] = []  # as on disk: structural hash, module
        self._workload_bytes = 0
        self._records: dict[int, list[Any]] = {}
        self._parsed: dict[int, Any] = {}
        self._asked: list[tuple[Any, int]] = []  # modules looked up before, and their numbers
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with self._locked():
                for name in (_WORKLOADS, _RECORDS):
                    (folder / name).touch(exist_ok=True)
                repair_files(folder / _WORKLOADS, folder / _RECORDS, _placeholder)
                self._read_workloads()
                for line in (folder / _RECORDS).read_bytes().splitlines():
                    index, record = json.loads(line)
                    self._records.setdefault(index, []).append(record)
        except OSError as error:
            raise SphinxError(f"Cannot use tuning records {str(folder)!r}: {error.strerror}.") from error

    def __len__(self) -> int:
        """Number of records, failed candidates included."""
        return sum(map(len, self._records.values()))

    def count(self, module: Any) -> int:
        """Return how many records a workload has, failed candidates included."""
        index = self._find(module)
        return 0 if index is None else len(self._records.get(index, ()))

    def times_s(self, module: Any) -> dict[str, float]:
        """Return the median time of each candidate of a workload by its trace, failed ones included."""
        index = self._find(module)
        entries = () if index is None else self._records.get(index, ())
        return {trace_key(entry[0]): median_s(entry) for entry in entries}

    def best(self, module: Any, limit: int) -> list[Any]:
        """Return the fastest records of a workload as ``TuningRecord``, at most ``limit``, best first.

        Failed candidates are left out, and so, with a warning, are records that TVM cannot replay.
        """
        index = self._find(module)
        if index is None:
            return []
        entries = [entry for entry in self._records.get(index, ()) if median_s(entry) < FAILED_S]
        found: list[Any] = []
        for entry in sorted(entries, key=median_s):
            if len(found) == limit:
                break
            try:
                found.append(TuningRecord.from_json(entry, self._workload(index)))
            except Exception as error:  # TVM raises many types: the trace does not fit the module
                reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
                warn(f"A tuning record cannot be replayed: {reason[0]}")
        return found

    def add(self, module: Any, record: Any) -> None:
        """Keep a ``TuningRecord`` of a workload, and append it durably.

        A full disk costs the line, with a warning, and not the run: the record stays in memory.
        """
        entry = record.as_json()
        try:
            with self._locked():
                index = self._find_or_append(module)
                self._append(_RECORDS, json.dumps([index, entry], separators=(",", ":")))
        except OSError as error:
            warn(f"Cannot append to {self.folder}: {error.strerror}.")
            known = self._find(module)
            index = self._remember(module) if known is None else known
        self._records.setdefault(index, []).append(entry)

    def _remember(self, module: Any) -> int:
        """Keep a workload that could not be written under a number that no file uses."""
        index = -1 - len(self._parsed)
        self._parsed[index] = Workload(module)
        return index

    def _find(self, module: Any) -> int | None:
        """Return the number of a workload; hashes find candidates, structural equality decides."""
        for known_module, number in self._asked:
            if known_module.same_as(module):
                return number
        number_found = self._look_up(module)
        if number_found is not None:
            self._asked.append((module, number_found))
        return number_found

    def _look_up(self, module: Any) -> int | None:
        digest = Workload(module).as_json()[0]
        for index, (known, _) in enumerate(self._workloads):
            if known == digest and _equal(self._workload(index).mod, module):
                return index
        for index, workload in self._parsed.items():
            if index < 0 and _equal(workload.mod, module):
                return index
        return None

    def _find_or_append(self, module: Any) -> int:
        """Return the number of a workload on disk, where it is appended if it is new; needs the lock."""
        self._read_workloads()
        index = self._find(module)
        if index is not None and index >= 0:
            return index
        self._asked = [(known, number) for known, number in self._asked if number >= 0]
        content = Workload(module).as_json()
        self._append(_WORKLOADS, json.dumps(content, separators=(",", ":")))
        self._workloads.append(content)
        return len(self._workloads) - 1

    def _workload(self, index: int) -> Any:
        if index not in self._parsed:
            self._parsed[index] = Workload.from_json(self._workloads[index])
        return self._parsed[index]

    def _read_workloads(self) -> None:
        """Read the workloads, also those that another process has added since."""
        if self.folder is None:
            return
        path = self.folder / _WORKLOADS
        if path.stat().st_size != self._workload_bytes:
            content = path.read_bytes()
            self._workload_bytes = len(content)
            complete = content[: content.rfind(b"\n") + 1]
            self._workloads = [json.loads(line) for line in complete.splitlines()]

    def _append(self, name: str, line: str) -> None:
        """Append a line; what a killed writer left without its end is cut off first. Needs the lock."""
        if self.folder is None:
            return
        path = self.folder / name
        content_end = _end_of_last_line(path)
        if content_end != path.stat().st_size:
            with open(path, "r+b") as file:
                file.truncate(content_end)
        append_line(path, line + "\n")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep every other process from writing."""
        if self.folder is None:
            yield
            return
        with open(self.folder / "lock", "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def trace_key(trace: Any) -> str:
    """Return what tells candidates of a workload apart: a digest of the trace in its JSON form."""
    return hashlib.sha256(json.dumps(trace).encode()).hexdigest()


def median_s(entry: Any) -> float:
    """Return the median time of a record in its JSON form, in s."""
    return float(statistics.median(map(float, entry[1]))) if entry[1] else FAILED_S


def _equal(left: Any, right: Any) -> bool:
    return bool(tvm_ffi.structural_equal(left, right))


def _end_of_last_line(path: Path) -> int:
    """Return the length of a file without what stands behind its last newline."""
    with open(path, "rb") as file:
        end = position = file.seek(0, 2)
        while position:
            start = max(0, position - 65536)
            file.seek(start)
            newline = file.read(position - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            position = start
    return 0 if end else end


def _placeholder(number: int) -> list[Any]:
    """Return a workload that no kernel is equal to, to stand for one that was lost."""
    empty = tvm.IRModule({}).with_attr("sphinx.lost_workload", number)
    return list(Workload(empty).as_json())
