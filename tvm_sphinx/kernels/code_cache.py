"""Schedules and machine code of kernels on disk, beside the records of their times. Knows no TVM.

The same kernels are scheduled and compiled to be timed, for each program that they are part of, and in
each process that compiles a model again. A file holds one schedule, or the code of one kernel, after its
digest; it is named by all that it depends on, so that nothing in it grows old. So are the verdicts of
races between programs, which lie here, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

from ..platform.home import data_home

#: Environment variable with another folder for it; nothing is kept where it is empty.
CACHE_VARIABLE = "TVM_SPHINX_CODE"
# Files that were not asked for longest are removed once all take more than this.
_MOST_BYTES = 512 << 20
_DIGEST_BYTES = hashlib.sha256().digest_size


def cache_key(*parts: str) -> str:
    """Return the name of what is kept, from all that it depends on."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}:{part}".encode())
    return digest.hexdigest()


def read_cached(key: str) -> bytes | None:
    """Return what is kept by a name, None if it is not there or was damaged."""
    folder = code_folder()
    if folder is None:
        return None
    path = folder / key
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, code = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(code).digest() != digest:
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return code


def write_cached(key: str, code: bytes) -> None:
    """Keep something by its name; where that is not possible, it is made again the next time."""
    folder = code_folder()
    if folder is None:
        return
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, path = tempfile.mkstemp(dir=folder, prefix=".")
        try:
            with open(descriptor, "wb") as file:
                file.write(hashlib.sha256(code).digest() + code)
            os.replace(path, folder / key)  # readers see all of it or nothing
        except BaseException:
            os.unlink(path)
            raise


def trim_cache(most_bytes: int = _MOST_BYTES) -> int:
    """Remove what was not asked for longest until the rest takes no more than ``most_bytes``.

    Returns
    -------
    The number of bytes that the rest takes.
    """
    folder, total = code_folder(), 0
    if folder is None:
        return total
    with contextlib.suppress(OSError):
        files = [(entry.stat(), entry.path) for entry in os.scandir(folder)]
        total = sum(found.st_size for found, _ in files)
        for found, path in sorted(files, key=lambda file: file[0].st_mtime_ns):
            if total <= most_bytes:
                break
            os.unlink(path)
            total -= found.st_size
    return total


def code_folder() -> Path | None:
    """Return the folder of machine code: ``code`` beside the records; None where none is kept."""
    named = os.environ.get(CACHE_VARIABLE)
    if named is None:
        return data_home() / "code"
    return Path(named).expanduser() if named else None
