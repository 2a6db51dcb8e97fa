"""The waves of a discrete Fourier transform, as matrices to multiply by. Knows no TVM."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..errors import ModelError

#: Numbers in one matrix, 128 MiB of float32 with their like of the other part: some 4,096 elements.
MOST_WAVES = 1 << 24


def waves(
    rows: int, columns: int, length: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return cosines and sines of 2 pi n k / length for n < rows and k < columns, both (rows, columns).

    Raises
    ------
    ModelError
        If they are more than `MOST_WAVES`.
    """
    if rows * columns > MOST_WAVES:
        raise ModelError(
            f"Expected a Fourier transform with at most {MOST_WAVES} products of what goes in and what "
            f"comes out, since it is written as a matrix; got {rows} x {columns}."
        )
    # Whole numbers of turns are taken off first: a product of two large ones is no exact angle.
    turns = np.outer(np.arange(rows), np.arange(columns)) % length
    angle = 2 * np.pi * turns / length
    return np.cos(angle), np.sin(angle)
