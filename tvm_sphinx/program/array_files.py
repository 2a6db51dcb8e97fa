"""A model's inputs and outputs as .npz files, under the names of its source."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ModelError, cause_of
from ..report.files import write_bytes


def read_inputs(path: str | Path) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a file by name; nothing in it is executed.

    Raises
    ------
    ModelError
        If it is missing, damaged, or no such file.
    """
    failure = f"Cannot read inputs {str(path)!r} as .npz"
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.ndarray):
            with loaded as archive:
                return {name: archive[name] for name in archive.files}
    except OSError as error:
        raise ModelError(f"{failure}: {error.strerror or cause_of(error)}.") from error
    except ValueError as error:
        # NumPy takes whatever is no archive and no array for a pickle.
        reason = "it is no .npz file" if "pickle" in str(error) else cause_of(error)
        raise ModelError(f"{failure}: {reason}.") from error
    except Exception as error:  # damaged archives make zipfile, zlib and NumPy raise errors of all kinds
        raise ModelError(f"{failure}: {cause_of(error)}") from error
    raise ModelError(f"{failure}: it holds one array without a name.")


def read_array(path: str | Path) -> npt.NDArray[Any]:
    """Return the array of a .npy file; nothing in it is executed.

    Raises
    ------
    ModelError
        If it is missing, damaged, or no such file.
    """
    failure = f"Cannot read {str(path)!r} as .npy"
    try:
        loaded = np.load(path, allow_pickle=False)
    except OSError as error:
        raise ModelError(f"{failure}: {error.strerror or cause_of(error)}.") from error
    except Exception as error:  # damaged files make NumPy raise errors of all kinds
        reason = "it is no .npy file" if "pickle" in str(error) else cause_of(error)
        raise ModelError(f"{failure}: {reason}.") from error
    if not isinstance(loaded, np.ndarray):
        loaded.close()
        raise ModelError(f"{failure}: it is an archive of arrays.")
    return loaded


def write_outputs(path: str | Path, outputs: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write arrays by name, whatever their names are, as ``numpy.load`` reads them.

    Raises
    ------
    SphinxError
        If the file cannot be written.
    """
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for name, array in outputs.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
    write_bytes(path, content.getvalue())
