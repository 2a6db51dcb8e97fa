"""Measured times on disk: append-only JSON lines that survive a kill at any byte."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import SphinxError

#: Version of the line format. A line of another version is left alone and not used.
SCHEMA = 1

_FIELDS = {"schema": int, "kernel": str, "device_class": str, "tvm": str, "samples_ns": list}


@dataclass(frozen=True)
class Record:
    """One measurement of one kernel on one kind of device.

    Parameters
    ----------
    kernel
        Structural hash of the scheduled function that was measured.
    device_class
        Target and number of cores, see `tvm_sphinx.platform.Device.cost_class`.
    tvm
        Version of apache-tvm that built it.
    samples_ns
        Every sample, in the order measured; empty if the kernel cannot be built for the device.
    host_load
        One-minute load average when it was measured.
    time
        Seconds since 1970.
    """

    kernel: str
    device_class: str
    tvm: str
    samples_ns: tuple[float, ...]
    host_load: float = 0.0
    time: float = field(default_factory=time.time)

    @property
    def key(self) -> tuple[str, str, str]:
        """What a measurement is looked up by."""
        return self.kernel, self.device_class, self.tvm


class RecordStore:
    """The records of a file, and new ones appended to it as they come.

    With ``path=None`` the records live in memory alone.

    Raises
    ------
    SphinxError
        If the file cannot be read or created.
    """

    def __init__(self, path: str | Path | None) -> None:
        self.path = None if path is None else Path(path)
        self._records: dict[tuple[str, str, str], Record] = {}
        if self.path is not None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.touch(exist_ok=True)
                for record in read_records(self.path):
                    self._records[record.key] = record
            except OSError as error:
                raise SphinxError(f"Cannot use record file {str(path)!r}: {error.strerror}.") from error

    def __len__(self) -> int:
        return len(self._records)

    def get(self, kernel: str, device_class: str, tvm: str) -> Record | None:
        """Return the newest record of a kernel on a kind of device, None if there is none."""
        return self._records.get((kernel, device_class, tvm))

    def add(self, record: Record) -> None:
        """Keep a record, and append it to the file in one write that other writers cannot split.

        A full disk costs the line, with a warning, and not the run: the record stays in memory.
        """
        self._records[record.key] = record
        if self.path is None:
            return
        line = json.dumps({"schema": SCHEMA, **record.__dict__}, separators=(",", ":")) + "\n"
        try:
            append_line(self.path, line)
        except OSError as error:
            warnings.warn(f"Cannot append to {self.path}: {error.strerror}.", stacklevel=2)


def append_line(path: Path, line: str) -> None:
    """Append one line durably; if a killed writer left a torn line, start on a new one.

    Raises
    ------
    OSError
        If the line could not be written; the file is then as it was.
    """
    with open(path, "ab+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            if file.read(1) != b"\n":
                line = "\n" + line
        try:
            if os.write(file.fileno(), line.encode()) < len(line.encode()):
                raise OSError(errno.ENOSPC, "the line was written in part")
            os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(end)
            raise


def read_records(path: Path) -> Iterator[Record]:
    """Yield the records of a file, oldest first; lines that are none are counted in one warning."""
    bad = 0
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            if not line.strip():
                continue
            record = parse_record(line)
            if record is None:
                bad += 1
            else:
                yield record
    if bad:
        warnings.warn(
            f"{path}: {bad} lines are torn, or of another schema, and are not used.", stacklevel=2
        )


def parse_record(line: str) -> Record | None:
    """Return the record of a line, None if it is torn, malformed, or of another schema."""
    try:
        content: Any = json.loads(line)
    except json.JSONDecodeError:
        return None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        return None
    if any(not isinstance(content.get(name), kind) for name, kind in _FIELDS.items()):
        return None
    samples = content["samples_ns"]
    if not all(isinstance(sample, (int, float)) and 0 <= sample < 1e15 for sample in samples):
        return None
    return Record(
        content["kernel"],
        content["device_class"],
        content["tvm"],
        tuple(samples),
        float(content.get("host_load", 0.0)),
        float(content.get("time", 0.0)),
    )


def default_record_path() -> Path:
    """Return where records are kept by default: ``$XDG_CACHE_HOME/tvm-sphinx/records.jsonl``."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "tvm-sphinx" / "records.jsonl"


def median_and_spread(samples_ns: Sequence[float]) -> tuple[int, int]:
    """Return the median and half the interquartile range of samples, in whole ns."""
    ordered = sorted(samples_ns)
    middle = _quantile(ordered, 0.5)
    return round(middle), round((_quantile(ordered, 0.75) - _quantile(ordered, 0.25)) / 2)


def _quantile(ordered: Sequence[float], share: float) -> float:
    position = share * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])
