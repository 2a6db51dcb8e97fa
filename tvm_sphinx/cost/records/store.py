"""Measured times on disk: append-only JSON lines that survive a kill at any byte.

A line, of schema 2, is an object with these keys:

``schema``
    2.
``kind``
    What was timed: ``"kernel"``, ``"copy"`` (a copy or a hand-over between two devices), or ``"load"``
    (a probe kernel on one device beside another that works).
``kernel``
    Hash of the scheduled function's structure; for the other kinds, what was moved or which probe ran.
``shapes``
    The operands, inputs before outputs, such as ``"float32[1, 64, 56, 56]"``.
``target``, ``device``, ``cores``, ``machine``
    Where: the TVM target, the kind of device (``"2 cores"``, ``"cuda:0"``), how many cores, and the
    machine. Times of another machine are not used, even where its target is the same.
``tvm``
    Version of apache-tvm that built the kernel.
``method``
    Version of how things are timed, `METHOD`; 1 where it is not given. Records of another are not used.
``samples_ns``
    Every sample in the order measured; empty if the kernel cannot be built for the device, or a
    neighbour ended too early to time it beside. A copy has at least one.
``host_load``, ``time``
    One-minute load average, and seconds since 1970, when it was measured. Of several records of one key
    the newest counts: that of the latest ``time``, wherever it stands in the file (see `keep_newest`).
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import SphinxError
from ...notice import warn
from ...platform.home import HOME_VARIABLE, data_home
from .json_lines import append_line, check_is_ours, parse_object, split_lines, to_line

#: Version of the line format. A line of another version is left alone and not used.
SCHEMA = 2

#: Version of how things are timed: to be raised with whatever changes what times come out, such as the
#: state of the caches or the code of the rules. Method 2 has operands without weights written anew
#: before each sample; since method 3 constant powers and logarithms are no library calls.
METHOD = 3

#: What a record can be of.
KINDS = ("kernel", "copy", "load")

#: What a measurement is looked up by: kernel, device class, version of TVM, kind, method.
RecordKey = tuple[str, str, str, str, int]

_STRINGS = ("kind", "kernel", "target", "device", "machine", "tvm")


@dataclass(frozen=True)
class DeviceClass:
    """Where something was measured: a cost class and its machine, or two (see `.classes`).

    ``str`` of it is what records are looked up by.
    """

    target: str
    device: str
    cores: int
    machine: str

    def __str__(self) -> str:
        return f"{self.target} on {self.device} of {self.machine}"


@dataclass(frozen=True)
class Record:
    """One measurement; the fields are those of a line, see the module.

    Raises
    ------
    SphinxError
        If a sample is not a time.
    """

    kernel: str
    where: DeviceClass
    tvm: str
    samples_ns: tuple[float, ...]
    host_load: float = 0.0
    time: float = field(default_factory=time.time)
    kind: str = "kernel"
    shapes: tuple[str, ...] = ()
    method: int = METHOD

    def __post_init__(self) -> None:
        for sample in self.samples_ns:
            if not _is_time(sample):
                raise SphinxError(f"Expected samples of {self.kernel!r} in [0, 1e15) ns; got {sample}.")

    @property
    def device_class(self) -> str:
        """Target, kind of device, and machine, as one string."""
        return str(self.where)

    @property
    def key(self) -> RecordKey:
        """What a measurement is looked up by."""
        return self.kernel, self.device_class, self.tvm, self.kind, self.method

    def to_line(self) -> str:
        """Return the line of a record file, with its line break."""
        content = {
            "kind": self.kind,
            "kernel": self.kernel,
            "shapes": list(self.shapes),
            **self.where.__dict__,
            "tvm": self.tvm,
            "method": self.method,
            "samples_ns": list(self.samples_ns),
            "host_load": self.host_load,
            "time": self.time,
        }
        return to_line(SCHEMA, content)


def keep_newest(newest: dict[RecordKey, Record], record: Record) -> None:
    """Keep a record by its key if none of a later time is kept; of equal times, the last given stays."""
    known = newest.get(record.key)
    if known is None or record.time >= known.time:
        newest[record.key] = record


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
        self._records: dict[RecordKey, Record] = {}
        self._by_kernel: dict[str, list[Record]] = {}
        #: How many records were added since the store was opened.
        self.num_added = 0
        if self.path is not None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                check_is_ours(self.path)
                self.path.touch(exist_ok=True)
                for record in read_records(self.path):
                    self._keep(record)
            except OSError as error:
                raise SphinxError(
                    f"Cannot use record file {str(path)!r}: {error.strerror}. Name another one with "
                    f"--records, or move all with {HOME_VARIABLE}."
                ) from error

    def __len__(self) -> int:
        return len(self._records)

    def _keep(self, record: Record) -> None:
        keep_newest(self._records, record)
        self._by_kernel.setdefault(record.kernel, []).append(record)

    def get(self, kernel: str, device_class: str, tvm: str, kind: str = "kernel") -> Record | None:
        """Return the newest record of a kernel on a kind of device, None if there is none."""
        return self._records.get((kernel, device_class, tvm, kind, METHOD))

    def foreign(self, kernels: Sequence[str], where: DeviceClass, tvm: str) -> Counter[str]:
        """Return how many of these kernels are on record for such a device, but not as asked, and why.

        The keys read "on another machine (NAME)", "by TVM VERSION" and "in another way (...)".
        """
        reasons: Counter[str] = Counter()
        for kernel in kernels:
            for record in self._by_kernel.get(kernel, ()):
                if (record.where.target, record.where.device) != (where.target, where.device):
                    continue
                if record.where.machine != where.machine:
                    reasons[f"on another machine ({record.where.machine})"] += 1
                    break
                if record.tvm != tvm:
                    reasons[f"by TVM {record.tvm}"] += 1
                    break
                if record.method != METHOD:
                    reasons[f"in another way (method {record.method}, now {METHOD})"] += 1
                    break
        return reasons

    def know(self, records: Iterable[Record]) -> None:
        """Use records that were made elsewhere where there is none here; they do not go to the file."""
        for record in records:
            if record.key not in self._records:
                self._keep(record)

    def add(self, record: Record) -> None:
        """Keep a record, and append it to the file in one write that other writers cannot split.

        A full disk costs the line, with a warning, and not the run: the record stays in memory.
        """
        self._keep(record)
        self.num_added += 1
        if self.path is None:
            return
        try:
            append_line(self.path, record.to_line())
        except OSError as error:
            warn(f"Cannot append to {self.path}: {error.strerror}.")


def read_records(path: Path) -> Iterator[Record]:
    """Yield the records of a file in its order; lines that are none are counted in one warning."""
    check_is_ours(path)
    refused: Counter[str] = Counter()
    for line in split_lines(path.read_bytes()):
        record = parse_line(line)
        if isinstance(record, str):
            refused[record] += 1
        else:
            yield record
    if refused:
        counts = ", ".join(f"{count} {reason}" for reason, count in sorted(refused.items()))
        warn(f"{path}: lines that are not used: {counts}.")


def parse_line(line: str | bytes) -> Record | str:
    """Return the record of a line, or why it is none: "torn or malformed", or "of schema N"."""
    malformed = "torn or malformed"
    content = parse_object(line)
    if content is None:
        return malformed
    schema = content.get("schema")
    if schema != SCHEMA or isinstance(schema, bool):
        return f"of schema {schema} (this version reads {SCHEMA})" if type(schema) is int else malformed
    if any(not isinstance(content.get(name), str) for name in _STRINGS) or content["kind"] not in KINDS:
        return malformed
    shapes, samples, cores = (content.get(name) for name in ("shapes", "samples_ns", "cores"))
    if not isinstance(shapes, list) or not all(isinstance(shape, str) for shape in shapes):
        return malformed
    if not isinstance(samples, list) or not all(map(_is_time, samples)) or type(cores) is not int:
        return malformed
    if content["kind"] == "copy" and not samples:
        return malformed
    load, when = content.get("host_load"), content.get("time")
    if load is None or when is None or not _is_time(load) or not _is_time(when):
        return malformed
    method = content.get("method", 1)
    if type(method) is not int:
        return malformed
    where = DeviceClass(content["target"], content["device"], cores, content["machine"])
    kernel, tvm, kind = (content[name] for name in ("kernel", "tvm", "kind"))
    times = tuple(samples), float(load), float(when)
    return Record(kernel, where, tvm, *times, kind, tuple(shapes), method)


def _is_time(value: Any) -> bool:
    """Return whether a value is a number in [0, 1e15), which NaN is not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e15


def record_path(records: str | Path | None) -> Path | None:
    """Return the file of measured times that an option ``--records`` means.

    ``"default"`` is `default_record_path`, None is none. A path that is a folder, or has no suffix and
    is no file, is the folder of ``records.jsonl``; any other is the file itself.
    """
    if records is None:
        return None
    if records == "default":
        return default_record_path()
    path = Path(records)
    is_folder = path.is_dir() or (not path.suffix and not path.exists())
    return path / "records.jsonl" if is_folder else path


def default_record_path() -> Path:
    """Return where records are kept by default: ``records.jsonl`` in `data_home`."""
    return data_home() / "records.jsonl"


def median_and_spread(samples_ns: Sequence[float]) -> tuple[int, int]:
    """Return the median and half the interquartile range of samples, in whole ns."""
    ordered = sorted(samples_ns)
    middle = _quantile(ordered, 0.5)
    return round(middle), round((_quantile(ordered, 0.75) - _quantile(ordered, 0.25)) / 2)


def _quantile(ordered: Sequence[float], share: float) -> float:
    position = share * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])
