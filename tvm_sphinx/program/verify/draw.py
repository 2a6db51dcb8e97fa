"""Inputs that a source accepts, drawn by what their types and their readers allow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ...errors import cause_of
from ...frontend.tensor_spec import TensorSpec
from .source import NotVerifiedError, Range, RunnableSource
from .tolerance import TOLERANCES, Array

# Extents that are tried where a model leaves one open.
_EXTENTS = (4, 1, 8, 2, 16)
#: Ways to draw, the most telling first: floats of both signs; positive ones beside masks of ones, where
#: the first leave the domain of a logarithm or mask all; the same beside zeros, which are valid indices.
WAYS = ("normal", "positive", "zeros")
_TRUE_SHARE = 0.75
# Whole numbers of one byte are pixels and quantised values.
_BYTES = {"uint8": Range(0, 256, known=False), "int8": Range(-128, 128, known=False)}


class Example(NamedTuple):
    """Inputs, what the source makes of them, and what a report says of them."""

    inputs: list[Array]
    outputs: list[Array]
    told: str


def draw_example(source: RunnableSource, specs: Sequence[TensorSpec], seed: int) -> Example:
    """Return drawn inputs that the source accepts, if possible some whose outputs are finite.

    Raises
    ------
    NotVerifiedError
        If it accepts none.
    """
    accepted: Example | None = None
    refused = "it has inputs that are no numbers"
    for way, shapes in _attempts(source, specs):
        inputs = draw_inputs(specs, shapes, source.ranges(), way, seed)
        try:
            outputs = source.run(inputs)
        except NotVerifiedError:
            raise
        except Exception as error:  # each framework has errors of its own for inputs that do not suit
            refused = cause_of(error)
            continue
        example = Example(inputs, outputs, f"drawn inputs, seed {seed}")
        if all(np.isfinite(output).all() for output in outputs if _is_float(output)):
            return example
        accepted = accepted or example
    if accepted is None:
        raise NotVerifiedError(
            f"{source.runtime} accepts none of the inputs that were drawn ({refused}); give some of "
            f"your own to verify with"
        )
    return accepted


def _attempts(
    source: RunnableSource, specs: Sequence[TensorSpec]
) -> Iterator[tuple[str, list[tuple[int, ...]]]]:
    is_open = False
    for extent in _EXTENTS:
        shapes = []
        for position, spec in enumerate(specs):
            example = source.example_shape(position) if -1 in spec.shape else None
            is_open = is_open or (-1 in spec.shape and example is None)
            shapes.append(example or tuple(extent if e < 0 else e for e in spec.shape))
        for way in WAYS:
            yield way, shapes
        if not is_open:
            return


def draw_inputs(
    specs: Sequence[TensorSpec],
    shapes: Sequence[tuple[int, ...]],
    ranges: Sequence[Range],
    way: str,
    seed: int,
) -> list[Array]:
    """Return one array for each input, drawn in one of `WAYS`."""
    rng = np.random.default_rng(seed)
    arrays = []
    for spec, shape, suits in zip(specs, shapes, ranges, strict=True):
        if spec.dtype == "bool":
            array = rng.random(shape) < (_TRUE_SHARE if way == "normal" else 1.0)
        elif spec.dtype in TOLERANCES:
            drawn = rng.standard_normal(shape) if way == "normal" else rng.uniform(0.5, 1.5, shape)
            array = drawn.astype(spec.dtype)
        else:
            whole = suits if suits.known else _BYTES.get(spec.dtype, suits)
            low, high = whole.low, whole.high
            if not suits.known and way != "normal":
                low, high = (1, 2) if way == "positive" else (0, 1)
            array = rng.integers(low, high, shape).astype(spec.dtype)
        arrays.append(np.asarray(array))
    return arrays


def nudged(inputs: Sequence[Array], seed: int) -> list[Array]:
    """Return inputs whose floats are moved by about one rounding of their type."""
    rng = np.random.default_rng(seed)
    moved = []
    for array in inputs:
        if not _is_float(array):
            moved.append(array)
            continue
        step = max(1e-6, 2.0 ** -{"float16": 10, "bfloat16": 7}.get(str(array.dtype), 23))
        factor = 1.0 + step * rng.choice([-1.0, 1.0], array.shape)
        moved.append((array.astype(np.float64) * factor).astype(array.dtype))
    return moved


def _is_float(array: Array) -> bool:
    return str(array.dtype) in TOLERANCES
