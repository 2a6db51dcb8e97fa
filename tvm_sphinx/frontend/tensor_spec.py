"""Inputs and outputs of a program, as its user knows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and dtype of a model input or output; an extent that the model leaves open is -1."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.name}: {show_type(self.shape, self.dtype)}"


def show_type(shape: Sequence[int | None] | None, dtype: str | None) -> str:
    """Return a type as messages write it; what is open is a question mark."""
    if shape is None:
        return f"{dtype or 'any type'}[...]"
    inner = ", ".join("?" if extent is None or extent < 0 else str(extent) for extent in shape)
    return f"{dtype or 'any type'}[{inner}]"
