"""Whole numbers from outside: taken as they are, or refused; never rounded, cut off or wrapped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import SphinxError

#: Times, bytes and their sums stay below this, so that two of them add up without overflow in int64.
MAX_TOTAL = 2**62

_INT64 = np.iinfo(np.int64)


def is_whole(value: object) -> bool:
    """Return whether a value is an integer; True and False are not."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def frozen_int64(
    name: str, value: object, shape: Sequence[int], error: type[SphinxError]
) -> npt.NDArray[np.int64]:
    """Return a contiguous, read-only int64 copy of ``value``; -1 in ``shape`` matches any extent.

    Raises
    ------
    SphinxError
        As the given class of it: if ``value`` has another shape, or holds anything but integers of
        int64. The message names the array and the value.
    """
    array = _rectangular(name, value, error)
    empty = [max(0, extent) for extent in shape]
    if array.shape == (0,) and math.prod(empty) == 0:
        array = np.zeros(empty, dtype=np.int64)
    same_rank = array.ndim == len(shape)
    if not same_rank or any(want not in (-1, got) for want, got in zip(shape, array.shape, strict=True)):
        wanted = "(" + ", ".join("any" if extent == -1 else str(extent) for extent in shape) + ")"
        raise error(f"Expected {name} of shape {wanted}; got {array.shape}.")
    if array.size and (array.dtype.kind not in "iu" or array.max() > _INT64.max):
        raise error(f"Expected integers in {name}, each in int64; got {_first_other(value)}.")
    frozen = np.array(array, dtype=np.int64, order="C", copy=True)
    frozen.flags.writeable = False
    return frozen


def _rectangular(name: str, value: object, error: type[SphinxError]) -> npt.NDArray[Any]:
    try:
        return np.asarray(value)
    except ValueError as ragged:
        raise error(f"Expected {name} as one array; got rows of unlike lengths.") from ragged


def _first_other(value: object) -> str:
    """Return the first element that is no integer of int64, as a message shows it."""
    for element in np.asarray(value, dtype=object).flat:
        if not is_whole(element) or not _INT64.min <= element <= _INT64.max:
            return f"{element!r:.40}"
    return f"dtype {np.asarray(value).dtype}"
