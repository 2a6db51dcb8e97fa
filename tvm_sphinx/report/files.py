"""Files that are written for a user: checked before the work, whole or not at all, and one sentence."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ..errors import SphinxError


def check_writable(output: str | Path | None, *, besides: str | Path | None = None) -> None:
    """Check, before any work, that an output can be written; None is no output.

    Parameters
    ----------
    besides
        A file that is read and that the output must not replace.

    Raises
    ------
    SphinxError
        If its folder is missing or closed to us, if it is a folder itself or may not be written, or if
        it is the file that is read.
    """
    if output is None:
        return
    path = Path(output)
    if path.is_dir():
        raise SphinxError(f"Expected a file name for the output; {str(output)!r} is a folder.")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise SphinxError(f"Expected an existing folder for the output; {str(path.parent)!r} is none.")
    if path.exists():
        if besides is not None and Path(besides).exists() and path.samefile(besides):
            raise SphinxError(
                f"Expected another file for the output than {str(output)!r}, which is read."
            )
        if not os.access(path, os.W_OK):
            raise SphinxError(f"Cannot write {str(output)!r}: Permission denied.")
    elif not os.access(folder, os.W_OK):
        raise SphinxError(f"Cannot write into folder {str(path.parent)!r}: Permission denied.")


def write_text(output: str | Path, text: str) -> None:
    """Write a text file, whole or not at all.

    Raises
    ------
    SphinxError
        If it cannot be written.
    """
    write_bytes(output, text.encode())


def write_bytes(output: str | Path, content: bytes) -> None:
    """Write a file, whole or not at all; what is no plain file, such as a pipe, is written to.

    Raises
    ------
    SphinxError
        If it cannot be written.
    """
    path = Path(output)
    temporary = ""
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
            return
        target = path.resolve()
        with tempfile.NamedTemporaryFile(
            dir=target.parent, prefix=f".{target.name}.", delete=False
        ) as file:
            temporary = file.name
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
        temporary = ""
    except OSError as error:
        raise SphinxError(f"Cannot write {str(output)!r}: {error.strerror}.") from error
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
