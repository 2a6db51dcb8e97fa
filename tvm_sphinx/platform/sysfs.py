"""Files of the kernel, read below a root folder."""

from __future__ import annotations

import re
from pathlib import Path

#: Folder that ``/sys`` and ``/proc`` lie in; a test sets that of a machine which it describes.
ROOT = Path("/")


def system_path(path: str) -> Path:
    """Return a file or folder of the kernel, such as ``"sys/devices/system/cpu"``."""
    return ROOT / path


def read_text(path: str | Path) -> str:
    """Return what a file says, without surrounding space; "" where it cannot be read."""
    try:
        return (ROOT / path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def read_int(path: str | Path) -> int | None:
    """Return the whole number that a file holds, None where it holds none."""
    text = read_text(path)
    return int(text) if re.fullmatch(r"-?\d+", text) else None


def read_list(path: str | Path) -> tuple[int, ...]:
    """Return the numbers of the kernel's list form, ``0-3,8``; none where the file is missing."""
    return parse_list(read_text(path))


def parse_list(text: str) -> tuple[int, ...]:
    """Return the numbers of a list such as ``0-3,8``; what has another form is left out."""
    members: list[int] = []
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", text):
        members.extend(range(int(first), int(last or first) + 1))
    return tuple(members)
