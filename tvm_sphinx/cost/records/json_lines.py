"""Files of JSON lines that grow by whole lines: they survive a kill at any byte, and concatenation."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ...errors import SphinxError

# Every line begins with its schema. Within a string, JSON puts a backslash before the quotes.
_START = b'{"schema":'
_LONGEST_TORN = 1 << 20


def to_line(schema: int, content: dict[str, Any]) -> str:
    """Return the line of an object of a schema, with its line break."""
    return json.dumps({"schema": schema, **content}, separators=(",", ":"), allow_nan=False) + "\n"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to read and append, and hold the lock of its writers.

    A writer that waited while another one replaced the file opens the new one.
    """
    while True:
        with open(path, "ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                is_current = os.path.samestat(os.fstat(file.fileno()), os.stat(path))
            except FileNotFoundError:
                is_current = False
            if is_current:
                yield file
                return


def append_line(path: Path, line: str) -> None:
    """Append one line durably; if a killed writer left a torn line, start on a new one.

    Raises
    ------
    OSError
        If the line could not be written; the file is then as it was.
    """
    with locked(path) as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            if file.read(1) != b"\n":
                line = "\n" + line
        try:
            if os.write(file.fileno(), line.encode()) < len(line.encode()):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(end)
            raise


def check_is_ours(path: Path) -> None:
    """Check that a file holds lines of ours, or nothing: what is appended to another one damages it.

    Raises
    ------
    SphinxError
        If it holds something else, or is no file, such as a device that never ends.
    """
    if not path.exists() or str(path) == os.devnull:
        return
    if not path.is_file():
        raise SphinxError(f"Expected a file of measured records; {str(path)!r} is no plain file.")
    with open(path, "rb") as file:
        # A line is torn at any byte, and there may be more than one of them; none is this long.
        begin = file.read(_LONGEST_TORN).lstrip()
    if begin and _START not in begin and not _START.startswith(begin[: len(_START)]):
        raise SphinxError(
            f"Expected a file of measured records; {str(path)!r} holds something else, and stays as "
            f"it is."
        )


def split_lines(content: bytes) -> list[bytes]:
    """Return the lines of a file that are not blank.

    Where files were concatenated, an object may follow on one line what a killed writer left of another
    one. Each is then a line of its own: only what is torn is lost.
    """
    lines: list[bytes] = []
    for line in content.split(b"\n"):
        is_glued = line.find(_START, 1) > 0 and parse_object(line) is None
        lines += line.replace(_START, b"\n" + _START).split(b"\n") if is_glued else [line]
    return [line for line in lines if line.strip()]


def parse_object(line: str | bytes) -> dict[str, Any] | None:
    """Return the JSON object of a line, None if it is none."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):  # not JSON, not UTF-8, a number of too many digits, too deep
        return None
    return content if isinstance(content, dict) else None
