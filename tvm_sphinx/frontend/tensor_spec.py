"""Inputs and outputs of a program, as its user knows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class IndexRange:
    """The values of indices, ``low`` to ``high``, both included, and what reads with them."""

    low: int
    high: int
    reader: str


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a model.

    Parameters
    ----------
    name, dtype
    shape
        An extent that the model leaves open is -1.
    index
        What an input may hold if it is read with as it is, such as token ids; None of all others.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    index: IndexRange | None = None

    def __str__(self) -> str:
        within = "" if self.index is None else f" in {self.index.low}..{self.index.high}"
        return f"{self.name}: {show_type(self.shape, self.dtype)}{within}"

    def to_json(self) -> list[Any]:
        """Return name, shape and dtype, and behind them the range of indices, if there is one."""
        index = [] if self.index is None else [[self.index.low, self.index.high, self.index.reader]]
        return [self.name, list(self.shape), self.dtype, *index]

    @classmethod
    def from_json(cls, content: Sequence[Any]) -> TensorSpec:
        """Rebuild a spec from `to_json`."""
        name, shape, dtype, *index = content
        return cls(name, tuple(shape), dtype, IndexRange(*index[0]) if index else None)


def outside_range(spec: TensorSpec, array: npt.NDArray[Any]) -> str:
    """Return what is wrong with the indices that an input holds; empty where they are in range."""
    if spec.index is None or not array.size:
        return ""
    low, high = spec.index.low, spec.index.high
    if low <= array.min() and array.max() <= high:
        return ""
    place = tuple(map(int, np.argwhere((array < low) | (array > high))[0]))
    return (
        f"Expected input {spec.name!r} in {low}..{high}, for {spec.index.reader}; got {array[place]} at "
        f"{list(place)}."
    )


def show_type(shape: Sequence[int | None] | None, dtype: str | None) -> str:
    """Return a type as messages write it; what is open is a question mark."""
    if shape is None:
        return f"{dtype or 'any type'}[...]"
    inner = ", ".join("?" if extent is None or extent < 0 else str(extent) for extent in shape)
    return f"{dtype or 'any type'}[{inner}]"
