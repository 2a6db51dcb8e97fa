"""Machine code of GPU kernels on disk, beside the records of times. Knows no TVM.

The same kernels are compiled to be timed, for each program that they are part of, and in each process
that compiles a model again; NVIDIA's compiler takes most of a second for one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

#: Environment variable with another folder for it; nothing is kept where it is empty.
CACHE_VARIABLE = "TVM_SPHINX_CUBINS"
# Files that were written first are removed once all take more than this.
_MOST_BYTES = 256 << 20


def cache_key(source: str, command: Sequence[str]) -> str:
    """Return what names the machine code of a source: with the command, and the compiler's file."""
    try:
        found = os.stat(command[0])
        compiler = [os.path.realpath(command[0]), str(found.st_size), str(found.st_mtime_ns)]
    except OSError:
        compiler = [command[0]]
    text = "\0".join([*compiler, *command[1:], source])
    return hashlib.sha256(text.encode()).hexdigest()


def read_cached(key: str) -> bytes | None:
    """Return the machine code of a key, None if it is not there."""
    folder = _folder()
    try:
        return (folder / key).read_bytes() or None if folder else None
    except OSError:
        return None


def write_cached(key: str, image: bytes) -> None:
    """Keep machine code; where that is not possible, it is compiled again the next time."""
    folder = _folder()
    if folder is None:
        return
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, path = tempfile.mkstemp(dir=folder, prefix=".")
        try:
            with open(descriptor, "wb") as file:
                file.write(image)
            os.replace(path, folder / key)  # readers see all of it or nothing
        except OSError:
            os.unlink(path)
            raise


def trim_cache(most_bytes: int = _MOST_BYTES) -> None:
    """Remove what was written first until the rest takes no more than ``most_bytes``."""
    folder = _folder()
    if folder is None:
        return
    with contextlib.suppress(OSError):
        files = [(entry.stat(), entry.path) for entry in os.scandir(folder)]
        total = sum(found.st_size for found, _ in files)
        for found, path in sorted(files, key=lambda file: file[0].st_mtime_ns):
            if total <= most_bytes:
                break
            os.unlink(path)
            total -= found.st_size


def _folder() -> Path | None:
    named = os.environ.get(CACHE_VARIABLE)
    if named is not None:
        return Path(named) if named else None
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "tvm-sphinx" / "cubins"
