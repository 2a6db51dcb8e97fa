"""Whole record files: select, merge, prune, export. Nothing is lost by a kill or a second writer."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import SphinxError
from .json_lines import locked, split_lines
from .store import (
    Record,
    RecordKey,
    default_record_path,
    keep_newest,
    median_and_spread,
    parse_line,
)

#: Columns of an export, in order; ``samples_ns`` and ``shapes`` are JSON in a CSV file.
COLUMNS = (
    "kind kernel shapes target device cores machine tvm samples median_ns spread_ns host_load time "
    "samples_ns"
).split()


@dataclass(frozen=True)
class Selection:
    """Which records are meant: those that meet every condition that is given.

    Parameters
    ----------
    kernel, device_class
        A part of the id; a part of target, kind of device and machine.
    tvm, not_tvm
        Only this version of TVM; every version but this.
    not_machine, not_method
        Every machine, every method of timing but this.
    kind
        See `tvm_sphinx.cost.records.store.KINDS`.
    older_than_s
        Age in seconds.
    """

    kernel: str | None = None
    device_class: str | None = None
    tvm: str | None = None
    not_tvm: str | None = None
    not_machine: str | None = None
    not_method: int | None = None
    kind: str | None = None
    older_than_s: float | None = None

    @property
    def is_empty(self) -> bool:
        """Whether no condition is given."""
        return all(value is None for value in self.__dict__.values())

    def meets(self, record: Record, now: float) -> bool:
        """Return whether a record is meant; ``now`` in seconds since 1970."""
        return (
            (self.kernel is None or self.kernel in record.kernel)
            and (self.kind is None or record.kind == self.kind)
            and self.meets_origin(
                [record.device_class],
                record.tvm,
                record.method,
                now - record.time,
                is_here=record.where.machine == self.not_machine,
            )
        )

    def meets_origin(
        self, device_classes: Sequence[str], tvm: Any, method: Any, age_s: float, *, is_here: bool
    ) -> bool:
        """Return whether the conditions of where, by what and when something was made are met.

        ``is_here`` tells whether it is of the machine ``not_machine``.
        """
        return not (
            (self.device_class is not None and not any(self.device_class in c for c in device_classes))
            or (self.tvm is not None and tvm != self.tvm)
            or (self.not_tvm is not None and tvm == self.not_tvm)
            or (self.not_machine is not None and is_here)
            or (self.not_method is not None and method == self.not_method)
            or (self.older_than_s is not None and age_s <= self.older_than_s)
        )


def merge_files(sources: Sequence[Path], output: Path) -> Counter[str]:
    """Append to a file the records of others that it lacks; nothing in it changes.

    Parameters
    ----------
    sources
        Record files.
    output
        The file that takes them; it is made if it is not there.

    Returns
    -------
    counts : Counter
        Lines that were ``added``, were there ``already``, and that were left out, by reason.

    Raises
    ------
    SphinxError
        If a file cannot be read or written.
    """
    return merge_lines(sources, output, _record_entry)


#: What a line is the same as another by, and the line.
Entry = tuple[Hashable, str]


def _record_entry(line: str | bytes) -> Entry | str:
    """Return the entry of a line, or why it is none."""
    record = parse_line(line)
    if isinstance(record, str):
        return record
    whole = record.to_line()
    return whole, whole


def merge_lines(
    sources: Sequence[Path],
    output: Path,
    entry_of: Callable[[bytes], Entry | str],
) -> Counter[str]:
    """Append to a file the entries of others that it lacks, and return what came of each line.

    ``entry_of`` returns the entry of a line, or why it is none. Raised is what `merge_files` does.
    """
    counts: Counter[str] = Counter()
    added: dict[Hashable, str] = {}
    for source in sources:
        for line in _read_lines(source):
            entry = entry_of(line)
            if isinstance(entry, str):
                counts[entry] += 1
            elif entry[0] in added:
                counts["already"] += 1
            else:
                added[entry[0]] = entry[1]

    def append(lines: list[bytes]) -> list[bytes]:
        entries = map(entry_of, lines)
        present = {entry[0] for entry in entries if not isinstance(entry, str)}
        new = [line for key, line in added.items() if key not in present]
        counts["already"] += len(added) - len(new)
        counts["added"] = len(new)
        return lines + [line.rstrip("\n").encode() for line in new]

    rewrite(output, append)
    return counts


@dataclass(frozen=True)
class Pruned:
    """What pruning dropped: records by the condition, lines that could not be read, and what is left."""

    dropped: int
    unreadable: int
    superseded: int
    kept: int


def prune_file(
    path: Path,
    selection: Selection,
    *,
    unreadable: bool = False,
    superseded: bool = False,
    dry_run: bool = False,
) -> Pruned:
    """Drop from a file the records that a selection means; the file as it was stays as ``PATH.bak``.

    Parameters
    ----------
    unreadable
        Drop lines too that are torn, malformed, or of another schema.
    superseded
        Drop records too of which there is a newer one, see `keep_newest`.
    dry_run
        Only count.

    Raises
    ------
    SphinxError
        If the file cannot be read or written; it is then as it was.
    """
    result = Pruned(0, 0, 0, 0)

    def select(lines: list[bytes]) -> list[bytes]:
        nonlocal result
        now = time.time()
        parsed = [parse_line(line) for line in lines]
        newest: dict[RecordKey, Record] = {}
        for record in parsed:
            if isinstance(record, Record):
                keep_newest(newest, record)
        kept, counts = [], [0, 0, 0]
        for line, record in zip(lines, parsed, strict=True):
            if isinstance(record, str):
                drop = 1 if unreadable else None
            elif not selection.is_empty and selection.meets(record, now):
                drop = 0
            else:
                drop = 2 if superseded and newest[record.key] is not record else None
            if drop is None:
                kept.append(line)
            else:
                counts[drop] += 1
        result = Pruned(counts[0], counts[1], counts[2], len(kept))
        return kept

    if dry_run:
        select(_read_lines(path))
    else:
        _read_lines(path)  # a file that is not there is an error, and not an empty file
        rewrite(path, select, backup=True)
    return result


def rewrite(path: Path, change: Callable[[list[bytes]], list[bytes]], *, backup: bool = False) -> None:
    """Replace the lines of a file in one step: a kill leaves the old file or the new one, whole.

    Writers that append meanwhile wait, and append to the new one. With ``backup`` the old one stays as
    ``PATH.bak``.

    Raises
    ------
    SphinxError
        If it cannot be written; the file is then as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        with locked(path) as file:
            file.seek(0)
            lines = split_lines(file.read())
            try:
                changed = change(lines)
                if changed != lines:
                    _replace(path, changed, backup)
            except BaseException:
                if is_new and not path.stat().st_size:
                    path.unlink()
                raise
    except OSError as error:
        raise SphinxError(f"Cannot rewrite record file {str(path)!r}: {error.strerror}.") from error


def _replace(path: Path, lines: list[bytes], backup: bool) -> None:
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=path.name, suffix=".tmp", delete=False
    ) as new:
        try:
            new.write(b"".join(line + b"\n" for line in lines))
            new.flush()
            os.fsync(new.fileno())
            shutil.copymode(path, new.name)
            if backup:
                _keep_backup(path)
            os.replace(new.name, path)
        except BaseException:
            os.unlink(new.name)
            raise
    _sync_folder(path.parent)


def _keep_backup(path: Path) -> None:
    link = path.with_name(f"{path.name}.bak.tmp")
    link.unlink(missing_ok=True)
    os.link(path, link)
    os.replace(link, path.with_name(f"{path.name}.bak"))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_lines(path: Path) -> list[bytes]:
    try:
        return split_lines(path.read_bytes())
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> SphinxError:
    """Return the error of a record file that cannot be read."""
    if isinstance(error, FileNotFoundError) and path == default_record_path():
        return SphinxError(
            f"Nothing is on record yet: there is no {str(path)!r}; 'tvm-sphinx compile' measures, and "
            f"writes it."
        )
    return SphinxError(f"Cannot read record file {str(path)!r}: {error.strerror}.")


def export_records(records: Iterable[Record], form: str) -> str:
    """Return records as text: ``"csv"`` with a line of names, or ``"json"``, a list of objects."""
    rows = []
    for record in records:
        median, spread = median_and_spread(record.samples_ns) if record.samples_ns else (-1, 0)
        rows.append(
            {
                **record.__dict__,
                **record.where.__dict__,
                "samples": len(record.samples_ns),
                "median_ns": median,
                "spread_ns": spread,
            }
        )
    if form == "json":
        return json.dumps([{name: row[name] for name in COLUMNS} for row in rows], indent=1) + "\n"
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        lists = {name: json.dumps(row[name]) for name in ("shapes", "samples_ns")}
        writer.writerow([{**row, **lists}[name] for name in COLUMNS])
    return text.getvalue()
