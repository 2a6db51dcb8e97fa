"""A random torch program in the making: every value is known, so that functions get what they allow."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from .drawing import Drawing
from .graph import RejectedError

FLOATS = (torch.float32, torch.float32, torch.float32, torch.float64, torch.float16)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
NUMBERS = (*FLOATS, torch.int64, torch.int32)
_EMPTY_SHARE = 0.06
# Beyond it a function amplifies what roundings there are, or leaves half floats.
_LARGEST = 1e4


class Program(Drawing):
    """Grows function by function; ``values`` holds what torch computes of each."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.has_empty = rng.random() < _EMPTY_SHARE
        self.values: list[torch.Tensor] = []
        self.inputs: list[int] = []
        self.constants: list[int] = []
        self.results: list[int] = []
        self.steps: list[tuple[str, Callable[..., Any], tuple[int, ...], int]] = []
        self.layers: list[torch.nn.Module] = []

    def array(
        self, dtype: torch.dtype, shape: Sequence[int], low: float = -4, high: float = 4
    ) -> torch.Tensor:
        if dtype == torch.bool:
            return torch.from_numpy(np.asarray(self.rng.random(shape) < 0.5))
        if dtype.is_floating_point:
            return torch.from_numpy(np.asarray(self.rng.uniform(low, high, shape))).to(dtype)
        least = max(int(np.ceil(low)), torch.iinfo(dtype).min)
        return torch.from_numpy(np.asarray(self.rng.integers(least, int(high) + 1, shape))).to(dtype)

    def axis(self, rank: int) -> int:
        """Return an axis, counted from either end."""
        return self.number(-rank, rank - 1) if rank else 0

    def axes(self, rank: int) -> list[int]:
        """Return one axis or more."""
        chosen = [axis for axis in range(rank) if self.chance(0.5)] or [self.number(0, rank - 1)]
        return [axis - rank if self.chance(0.3) else axis for axis in chosen]

    def broadcastable(self, shape: Sequence[int]) -> list[int]:
        """Return a shape that broadcasts with another."""
        kept = list(shape)[self.number(0, len(shape)) :] if self.chance(0.5) else list(shape)
        return [1 if self.chance(0.25) else extent for extent in kept]

    # What the program is made of.

    def input(self, value: torch.Tensor) -> int:
        self.values.append(value)
        self.inputs.append(len(self.values) - 1)
        return len(self.values) - 1

    def constant(self, value: torch.Tensor) -> int:
        self.values.append(value)
        self.constants.append(len(self.values) - 1)
        return len(self.values) - 1

    def either(self, value: torch.Tensor) -> int:
        """Return a tensor as an input or as a buffer."""
        return self.constant(value) if self.chance(0.3) else self.input(value)

    def fresh(
        self, dtypes: Sequence[torch.dtype] = FLOATS, least: int = 0, most: int = 5, **bounds: float
    ) -> int:
        """Return a new input, for what rounding would carry to another place."""
        return self.input(self.array(self.pick(dtypes), self.shape(least, most), **bounds))

    def tensor(
        self, dtypes: Sequence[torch.dtype] = FLOATS, least: int = 0, most: int = 5, **bounds: float
    ) -> int:
        """Return a result of a function, if there is one of the kind, or an input."""
        fitting = [
            number
            for number in self.results
            if self.of(number).dtype in dtypes and least <= self.of(number).ndim <= most
        ]
        if fitting and not bounds and self.chance(0.6):
            return int(self.pick(fitting))
        return self.fresh(dtypes, least, most, **bounds)

    def of(self, number: int) -> torch.Tensor:
        return self.values[number]

    def layer(self, layer: torch.nn.Module, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
        """Return a layer with drawn weights, which becomes a part of the program."""
        layer = layer.to(dtype).eval()
        with torch.no_grad():
            for weight in (*layer.parameters(), *layer.buffers()):
                if weight.is_floating_point():
                    weight.copy_(self.array(weight.dtype, weight.shape, 0.1, 0.9))
        self.layers.append(layer)
        return layer

    def add(self, name: str, function: Callable[..., Any], *reads: int) -> None:
        """Append a function of values.

        Raises
        ------
        RejectedError
            If torch refuses it, or it gives no tensors, or numbers that are not finite.
        """
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = function(*(self.values[number].clone() for number in reads))
        except Exception as error:  # torch raises many types
            raise RejectedError(f"{name}: {' '.join(str(error).split())[:200]}") from error
        made = list(found) if isinstance(found, (tuple, list)) else [found]
        for value in made:
            if not isinstance(value, torch.Tensor) or value.is_complex():
                raise RejectedError(f"{name}: gives {type(value).__name__}")
            if value.is_floating_point() and value.numel() and not value.abs().max() < _LARGEST:
                raise RejectedError(f"{name}: leaves the range")
        self.steps.append((name, function, reads, len(made)))
        self.results += range(len(self.values), len(self.values) + len(made))
        self.values += made

    # What comes out.

    def outputs(self) -> list[int]:
        """Return the results that no function reads."""
        read = {number for _, _, reads, _ in self.steps for number in reads}
        return [number for number in self.results if number not in read]

    def feeds(self) -> list[torch.Tensor]:
        return [self.values[number] for number in self.inputs]

    def expected(self) -> list[np.ndarray]:
        return [self.values[number].numpy() for number in self.outputs()]

    def export(self) -> torch.export.ExportedProgram:
        """Return the program as `torch.export` makes it.

        Raises
        ------
        RejectedError
            If it does not.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return torch.export.export(Drawn(self), tuple(self.feeds()))
        except Exception as error:  # as above
            raise RejectedError(f"torch.export: {' '.join(str(error).split())[:200]}") from error


class Drawn(torch.nn.Module):
    """Calls the functions of a program one after the other."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(program.layers)
        for number in program.constants:
            self.register_buffer(f"constant{number}", program.values[number])
        self.program = program

    def forward(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        program = self.program
        values = dict(zip(program.inputs, tensors, strict=True))
        values |= {number: getattr(self, f"constant{number}") for number in program.constants}
        places = iter(program.results)
        for _, function, reads, count in program.steps:
            found = function(*(values[number] for number in reads))
            made = list(found) if isinstance(found, (tuple, list)) else [found]
            assert len(made) == count
            values.update((next(places), value) for value in made)
        return [values[number] for number in program.outputs()]


#: Appends one function, with what it reads, to a program.
Draw = Callable[[Program], None]
