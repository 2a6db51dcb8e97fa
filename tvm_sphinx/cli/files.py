"""Files of a command: outputs are checked before the work, and what fails is reported in one line."""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ModelError, SphinxError, cause_of


def check_writable(output: str | None, *, besides: str | None = None) -> None:
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
        raise SphinxError(f"Expected a file name for the output; {output!r} is a folder.")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise SphinxError(f"Expected an existing folder for the output; {str(path.parent)!r} is none.")
    if path.exists():
        if besides is not None and Path(besides).exists() and path.samefile(besides):
            raise SphinxError(f"Expected another file for the output than {output!r}, which is read.")
        if not os.access(path, os.W_OK):
            raise SphinxError(f"Cannot write {output!r}: Permission denied.")
    elif not os.access(folder, os.W_OK):
        raise SphinxError(f"Cannot write into folder {str(path.parent)!r}: Permission denied.")


def write_text(output: str, text: str) -> None:
    """Write a text file, whole or not at all.

    Raises
    ------
    SphinxError
        If it cannot be written.
    """
    write_bytes(output, text.encode())


def write_bytes(output: str, content: bytes) -> None:
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
        raise SphinxError(f"Cannot write {output!r}: {error.strerror}.") from error
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)


def read_npz(path: str) -> dict[str, Any]:
    """Return the arrays of an ``.npz`` file by name.

    Raises
    ------
    ModelError
        If it is missing, damaged, or no ``.npz`` file.
    """
    import numpy as np

    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise ModelError(
                f"Expected inputs by name as .npz; {path!r} holds one array without a name."
            )
        with loaded as archive:
            return {name: archive[name] for name in archive.files}
    except ModelError:
        raise
    except OSError as error:
        reason = error.strerror or cause_of(error)
        raise ModelError(f"Cannot read inputs {path!r} as .npz: {reason}.") from error
    except ValueError as error:
        # NumPy takes whatever is no archive and no array for a pickle.
        reason = "it is no .npz file" if "pickle" in str(error) else cause_of(error)
        raise ModelError(f"Cannot read inputs {path!r} as .npz: {reason}.") from error
    except Exception as error:  # damaged archives make zipfile, zlib and NumPy raise errors of all kinds
        raise ModelError(f"Cannot read inputs {path!r} as .npz: {cause_of(error)}") from error


def write_npz(path: str, arrays: Mapping[str, Any]) -> None:
    """Write arrays by name, whatever their names are, as ``numpy.load`` reads them.

    Raises
    ------
    SphinxError
        If the file cannot be written.
    """
    import numpy as np

    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
    write_bytes(path, content.getvalue())
