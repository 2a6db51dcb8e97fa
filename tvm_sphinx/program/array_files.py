"""A model's inputs and outputs as .npz files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ModelError, SphinxError


def read_inputs(path: str | Path) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a file by name; nothing in it is executed.

    Raises
    ------
    ModelError
        If it cannot be read, or is no such file.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"Cannot read inputs {str(path)!r} as .npz: {error}") from error


def write_outputs(path: str | Path, outputs: Sequence[npt.NDArray[Any]]) -> None:
    """Write the outputs of a model, in order, as ``output_0``, ``output_1``, ...

    Raises
    ------
    SphinxError
        If the file cannot be written.
    """
    try:
        with open(path, "wb") as file:
            np.savez(file, **{f"output_{number}": output for number, output in enumerate(outputs)})  # type: ignore[arg-type]  # numpy's stub takes them for its own options
    except OSError as error:
        raise SphinxError(f"Cannot write {str(path)!r}: {error.strerror}.") from error
