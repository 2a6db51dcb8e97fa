"""What follows a product, where a library computes it by the same definition: bias, activation. [TVM]

What a kernel computes of each element is compared with what libraries do at many points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import tirx

from .library_matrices import Matrices, position_of, steps_of
from .library_product import LibraryProduct
from .maps import Map, read_map
from .products import extents_of, is_var

# Where functions of an element are compared, and how near they have to be. The two forms of GELU are up
# to 5e-4 apart; their constants come rounded to the precision of float32.
# The last one, where nothing is added, tells a scale.
_POINTS = np.concatenate(
    [np.linspace(-8, 8, 401), [-1e5, -300.0, -20.0, -1e-2, -1e-4, 1e-4, 1e-2, 20.0, 300.0, 1e5, 1.0]]
)
_NEAR = 2e-6

FloatArray = npt.NDArray[np.float64]
# A bias and a residual at the points: other numbers than the sum, and nothing at the last.
_POINTS_ADDED: dict[str, FloatArray] = {
    "bias": np.append(np.roll(_POINTS[:-1], 137), 0.0),
    "residual": np.append(np.roll(_POINTS[:-1], 251), 0.0),
}


def with_epilogue(func: Any, made: Matrices, others: Sequence[Any]) -> LibraryProduct | None:
    """Return a product with bias and activation, None where what follows is another thing."""
    maps = [read_map(nest) for nest in others]
    if not all(one is not None and _is_whole(one) for one in maps):
        return None
    chain = [one for one in maps if one is not None]
    result = func.params[-1]
    if not chain[-1].buffer.same_as(result) or str(result.dtype) != made.product.dtype:
        return None
    epilogue = _Epilogue(func, made, [one.buffer for one in chain])
    values: dict[Any, FloatArray] = {}
    try:
        for one in chain:
            values[one.buffer] = epilogue.value(one, values)
    except _UnknownError:
        return None
    found = _activation(values[chain[-1].buffer], epilogue.added())
    if found is None:
        return None
    last = replace(made.product.result, param=len(func.params) - 1)
    return replace(
        made.product,
        result=last,
        bias=epilogue.terms["bias"],
        residual=epilogue.terms["residual"],
        activation=found[0],
        scale=found[1],
    )


def _is_whole(one: Map) -> bool:
    """Return whether a map writes each element of its buffer, by its axes in order."""
    axes = [var for var, _ in one.axes]
    same = len(axes) == len(one.indices) and all(map(is_var, one.indices, axes))
    return same and one.extents == extents_of(one.buffer)


class _UnknownError(Exception):
    """Something that is computed otherwise than element by element, of sums and known functions."""


class _Epilogue:
    """What becomes of a sum x, with a bias b and a residual r, computed at many points (x, b, r)."""

    def __init__(self, func: Any, matrices: Matrices, made: Sequence[Any]) -> None:
        self.func, self.made, self.dtype = func, list(made), matrices.product.dtype
        self.steps = {"bias": matrices.bias_steps, "residual": matrices.result_steps}
        #: Parameters that are added, -1 for none.
        self.terms = dict.fromkeys(self.steps, -1)

    def added(self) -> FloatArray:
        """What is added to the sum at each point."""
        made = np.zeros_like(_POINTS)
        for name, param in self.terms.items():
            if param >= 0:
                made += _POINTS_ADDED[name]
        return made

    def value(self, one: Map, values: Mapping[Any, FloatArray]) -> FloatArray:
        """Return what a map stores, from what those before it have stored."""

        def read(load: Any) -> FloatArray:
            for buffer, known in values.items():
                if load.source.same_as(buffer):
                    return self._same_place(one, load, known)
            position = position_of(self.func, load.source)
            if position is not None:
                return self._term(one, load, position)
            if any(load.source.same_as(buffer) for buffer in self.made):
                raise _UnknownError
            return self._same_place(one, load, _POINTS)  # the product

        return _evaluate(one.value, read, self.dtype)

    def _term(self, one: Map, load: Any, position: int) -> FloatArray:
        """Return the values of a parameter that is the bias or the residual, one of each at most."""
        if str(load.source.dtype) != self.dtype:
            raise _UnknownError
        steps = steps_of(load.source, load.indices, list(one.axes))
        for name, wanted in self.steps.items():
            if steps is None or len(steps) != len(wanted) or self.terms[name] not in (-1, position):
                continue
            pairs = zip(steps, wanted, one.extents, strict=True)
            if all(found == want for found, want, extent in pairs if extent > 1):
                self.terms[name] = position
                return _POINTS_ADDED[name]
        raise _UnknownError

    def _same_place(self, one: Map, load: Any, values: FloatArray) -> FloatArray:
        """Return values of a buffer that is read where the map writes."""
        extents = extents_of(load.source)
        for index, extent, (var, whole) in zip(load.indices, extents, one.axes, strict=True):
            is_zero = isinstance(index, tirx.IntImm) and int(index) == 0
            if extent != whole or not (is_var(index, var) or (is_zero and extent == 1)):
                raise _UnknownError
        return values


def _activation(values: FloatArray, added: FloatArray) -> tuple[str, float] | None:
    """Return the activation, and the scale of the sum, whose values these are."""
    for name, function in ACTIVATIONS.items():
        for scale in (1.0, float(np.float32(values[-1]))):
            wanted = function(scale * _POINTS + added)
            if scale and np.all(np.abs(values - wanted) <= _NEAR * (1.0 + np.abs(wanted))):
                return name, scale
    return None


def _gelu_tanh(x: FloatArray) -> FloatArray:
    made: FloatArray = 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))
    return made


#: What libraries compute of each element. cuBLASLt's GELU is the approximation by tanh, which torch
#: documents its use of (pull request 104061), not the one by the error function.
ACTIVATIONS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0.0),
    "gelu_tanh": _gelu_tanh,
}


_BINARY: dict[type, Callable[[FloatArray, FloatArray], FloatArray]] = {
    tirx.Add: np.add,
    tirx.Sub: np.subtract,
    tirx.Mul: np.multiply,
    tirx.Div: np.divide,
    tirx.Max: np.maximum,
    tirx.Min: np.minimum,
}
_FUNCTIONS: dict[str, Callable[..., FloatArray]] = {
    "tanh": np.tanh,
    "exp": np.exp,
    "sqrt": np.sqrt,
    "pow": np.power,
    "erf": np.vectorize(math.erf),
    "sigmoid": lambda x: 1.0 / (1.0 + np.exp(-x)),
}


def _evaluate(value: Any, read: Callable[[Any], FloatArray], dtype: str) -> FloatArray:
    """Return an expression of floats at many points, where ``read`` gives what it loads.

    A library computes what follows a product of halves in float32, and rounds once: that it may be
    rounded in between too, or not, is no other function. One of float32 is rounded nowhere.

    Raises
    ------
    _UnknownError
        If there is anything in it but sums, products and known functions.
    """
    if isinstance(value, tvm.ir.expr.TensorLoad):
        return read(value)
    if isinstance(value, tirx.FloatImm):
        return np.full_like(_POINTS, float(value.value))
    if isinstance(value, tirx.Cast) and dtype == "float16" and str(value.ty).startswith("float"):
        return _evaluate(value.value, read, dtype)
    with np.errstate(all="ignore"):
        if type(value) in _BINARY:
            return _BINARY[type(value)](_evaluate(value.a, read, dtype), _evaluate(value.b, read, dtype))
        if isinstance(value, tvm.ir.Call):
            name = str(getattr(value.op, "name", "")).rpartition(".")[2]
            if name in _FUNCTIONS:
                return _FUNCTIONS[name](*(_evaluate(argument, read, dtype) for argument in value.args))
    raise _UnknownError
