"""Files that are written for a user: checked before the work, and one sentence if they fail."""

from __future__ import annotations

from pathlib import Path

from ..errors import SphinxError


def check_writable(output: str | Path | None) -> None:
    """Check, before any work, that an output can be written; None is no output.

    Raises
    ------
    SphinxError
        If its folder is missing or it is a folder itself.
    """
    if output is None:
        return
    path = Path(output)
    if path.is_dir():
        raise SphinxError(f"Expected a file name for the output; {str(output)!r} is a folder.")
    if not path.absolute().parent.is_dir():
        raise SphinxError(f"Expected an existing folder for the output; {str(path.parent)!r} is none.")


def write_text(output: str | Path, text: str) -> None:
    """Write a text file.

    Raises
    ------
    SphinxError
        If it cannot be written.
    """
    try:
        Path(output).write_text(text, encoding="utf-8")
    except OSError as error:
        raise SphinxError(f"Cannot write {str(output)!r}: {error.strerror}.") from error
