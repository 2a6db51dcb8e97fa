"""Repair the two files of a tuning database, of which a kill may have torn the last line of either."""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..notice import warn

# TVM writes a string in base64 with its length before it.
_LENGTH_BYTES = 8


def repair_files(workloads: Path, records: Path, placeholder: Callable[[int], Any]) -> None:
    """Bring both files into a state that MetaSchedule opens; lines that are lost go to ``*.damaged``.

    A record refers to its workload by the number of its line. A record line that is torn, or whose
    workload is not there, is taken out. A workload line that is torn is cut off at the end, and replaced
    by a placeholder between others, which keep their numbers; its records are taken out first, so that a
    kill during the repair does no harm. One warning says how many lines were lost.

    Parameters
    ----------
    workloads, records
        The files, which exist; the caller keeps other writers out.
    placeholder
        Called with a line number; returns the JSON form of a workload that none is equal to.

    Raises
    ------
    OSError
        If a file cannot be read or written.
    """
    workload_lines = workloads.read_bytes().split(b"\n")
    record_lines = records.read_bytes().split(b"\n")
    good = [is_workload(line) for line in workload_lines[:-1]]
    lost_records = [line for line in record_lines[:-1] if not is_record(line, good)] + _torn(
        record_lines
    )
    lost_workloads = [
        line for line, fine in zip(workload_lines, good, strict=False) if not fine
    ] + _torn(workload_lines)
    if lost_records:
        keep = [line for line in record_lines[:-1] if is_record(line, good)]
        _set_aside(records, lost_records)
        _replace(records, keep)
    if lost_workloads:
        while good and not good[-1]:
            good.pop()
        keep = [
            line if fine else json.dumps(placeholder(number), separators=(",", ":")).encode()
            for number, (line, fine) in enumerate(zip(workload_lines, good, strict=False))
        ]
        _set_aside(workloads, lost_workloads)
        _replace(workloads, keep)
    if lost_records or lost_workloads:
        warn(
            f"{records.parent}: {len(lost_records)} tuning records and {len(lost_workloads)} workloads "
            f"were torn or without their counterpart; they are set aside in *.damaged."
        )


def is_workload(line: bytes) -> bool:
    """Return whether a line is a workload: its hash and its module, base64 of a length and JSON."""
    try:
        digest, module = json.loads(line)
        content = base64.b64decode(module, validate=True)
        length = int.from_bytes(content[:_LENGTH_BYTES], "little")
        json.loads(content[_LENGTH_BYTES:])
        return isinstance(digest, str) and length == len(content) - _LENGTH_BYTES
    except (ValueError, TypeError, binascii.Error):
        return False


def is_record(line: bytes, workloads: list[bool]) -> bool:
    """Return whether a line is a record of a workload that is there.

    It holds the workload's number and ``[trace, times in s, target, argument types]``.
    """
    try:
        number, (_, times, _, _) = json.loads(line)
        return (
            isinstance(number, int)
            and 0 <= number < len(workloads)
            and workloads[number]
            and (times is None or all(isinstance(value, (int, float)) for value in times))
        )
    except (ValueError, TypeError):
        return False


def _torn(lines: list[bytes]) -> list[bytes]:
    """Return what stands behind the last newline, if anything."""
    return [lines[-1]] if lines[-1] else []


def _set_aside(path: Path, lines: list[bytes]) -> None:
    with open(f"{path}.damaged", "ab") as file:
        file.write(b"".join(line + b"\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())


def _replace(path: Path, lines: list[bytes]) -> None:
    """Replace a file in one step: a kill leaves the old one or the new one."""
    temporary = path.with_name(f"{path.name}.new")
    with open(temporary, "wb") as file:
        file.write(b"".join(line + b"\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
