"""Write a torch program with complex numbers inside in real ones: two tensors for each complex one.

TVM has no complex types. A rotary embedding that multiplies complex numbers, a Fourier transform or a
spectrogram has real inputs and outputs all the same. Such a program is run once on pairs of tensors, and
exported anew. Fourier transforms become products with the matrices of their waves.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Interpreter
from torch.utils._pytree import tree_leaves, tree_map

from ..errors import ModelError
from .torch_rerun import Rerun, exported_again
from .waves import waves

Tensor = Any

_REAL_OF = {
    torch.complex32: torch.float16,
    torch.complex64: torch.float32,
    torch.complex128: torch.float64,
}


@dataclass(frozen=True)
class Pair:
    """Real and imaginary parts, both of one shape and type."""

    real: Tensor
    imag: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> Pair:
        """Return what a function that is linear makes of both."""
        return Pair(function(self.real), function(self.imag))


def has_complex(program: Any) -> bool:
    """Return whether a tensor of an exported program is complex."""
    return any(
        isinstance(value, torch.Tensor) and value.is_complex()
        for node in program.graph.nodes
        for value in _values(node.meta.get("val"))
    )


def _values(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else [value]


def without_complex(program: Any) -> Any:
    """Return a program that computes the same in real numbers.

    Raises
    ------
    ModelError
        If an input or an output is complex, a shape is open, or an operator on complex numbers has no
        counterpart in real ones.
    """
    # What is known of complex numbers stays: torch's own formulas in its table may be of real ones.
    table = torch.export.default_decompositions()
    for op in [op for op in table if _base_name(op) in _ON_PARTS | _FORMULAS.keys()]:
        del table[op]
    program = program.run_decompositions(table)
    for spec in (*program.graph_signature.input_specs, *program.graph_signature.output_specs):
        node = next((n for n in program.graph.nodes if n.name == getattr(spec.arg, "name", None)), None)
        is_inside = spec.kind.name in ("PARAMETER", "BUFFER", "CONSTANT_TENSOR")
        if node is not None and not is_inside and node.meta["val"].is_complex():
            raise ModelError(
                f"{node.name!r} is complex: expected real inputs and outputs; give and return "
                f"torch.view_as_real of it."
            )
    if program.range_constraints:
        raise ModelError("Complex numbers in a program of open shapes: expected shapes that are given.")
    return exported_again(program, _InPairs(program))


class _InPairs(Rerun):
    """Runs a program on pairs in place of complex numbers."""

    def __init__(self, program: Any) -> None:
        super().__init__(program)
        self._parts: dict[str, tuple[str, str]] = {}
        graph: Any = self._inner.graph
        for node in graph.nodes:
            if node.op == "get_attr" and node.target not in self._parts:
                self._split(str(node.target))

    def _split(self, target: str) -> None:
        """Put the parts of a complex weight beside it, as buffers."""
        owner = self._inner
        *path, last = target.split(".")
        for name in path:
            owner = getattr(owner, name)
        value = getattr(owner, last)
        if isinstance(value, torch.Tensor) and value.is_complex():
            number = len(self._parts)
            self._parts[target] = names = f"real_{number}", f"imaginary_{number}"
            for name, part in zip(names, (value.detach().real, value.detach().imag), strict=True):
                self.register_buffer(name, part.contiguous().clone())
            delattr(owner, last)

    def interpreter(self) -> Any:
        """Return what runs the program on pairs."""
        parts = {
            target: Pair(*(getattr(self, name) for name in names))
            for target, names in self._parts.items()
        }
        return _PairRun(self._inner, parts)


class _PairRun(Interpreter):  # type: ignore[misc]
    def __init__(self, module: Any, parts: dict[str, Pair]) -> None:
        super().__init__(module)
        self._parts = parts

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Return a weight, of a complex one its parts."""
        return self._parts.get(target) or super().get_attr(target, args, kwargs)

    def run_node(self, n: Any) -> Any:
        """Compute a node on pairs where one of its operands or results is complex."""
        if n.op != "call_function":
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        dtype = getattr(n.meta.get("val"), "dtype", None)
        operands = tree_leaves((args, kwargs), is_leaf=_is_pair)
        name = _base_name(n.target)
        if dtype not in _REAL_OF and not any(map(_is_pair, operands)):
            # Of a conjugate the imaginary part is a view of its own kind.
            return torch.neg(args[0]) if name == "_neg_view" else super().run_node(n)
        with torch.fx.traceback.set_current_meta(n):
            if name in _ON_PARTS:
                found = _on_parts(n.target, args, kwargs)
            elif name in _FORMULAS:
                found = _FORMULAS[name](*args, **kwargs)
            else:
                raise _unknown(n)
        if not all(map(_fits, _values(found), _values(n.meta.get("val")))):
            raise _unknown(n)
        return found


def _fits(found: Any, wanted: Any) -> bool:
    """Return whether a result has the type and the shape that torch recorded."""
    if not isinstance(wanted, torch.Tensor):
        return not isinstance(found, Pair)
    if isinstance(found, Pair) != wanted.is_complex():
        return False
    dtype = _REAL_OF.get(wanted.dtype, wanted.dtype)
    parts = [found.real, found.imag] if isinstance(found, Pair) else [found]
    return all(part.dtype == dtype and part.shape == wanted.shape for part in parts)


def _unknown(node: Any) -> ModelError:
    return ModelError(f"{node.target} ({node.name}) of complex numbers has no counterpart in real ones.")


def _base_name(function: Any) -> str:
    """Return an operator's name without its overload."""
    return str(getattr(function, "__name__", function)).split(".")[0]


def _is_pair(value: Any) -> bool:
    return isinstance(value, Pair)


#: Operators that do to both parts what they do to a real tensor.
_ON_PARTS = frozenset(
    """view reshape _unsafe_view permute transpose t unsqueeze squeeze expand slice select index
    index_select flip roll cat stack clone contiguous alias detach narrow repeat gather sum mean cumsum
    unfold neg as_strided constant_pad_nd unbind split split_with_sizes chunk lift_fresh_copy
    getitem""".split()
)


def _on_parts(function: Any, args: Any, kwargs: Any) -> Any:
    """Return what an operator makes of the real parts and of the imaginary parts."""
    # Of tensors that are joined some may be real.
    is_joined = bool(args) and isinstance(args[0], (list, tuple)) and any(map(_is_pair, args[0]))

    def apply(name: str) -> Any:
        def part(value: Any) -> Any:
            is_complex = _is_pair(value) or (is_joined and isinstance(value, torch.Tensor))
            return getattr(_pair(value), name) if is_complex else value

        positional, named = tree_map(part, (list(args), dict(kwargs)), is_leaf=_is_pair)
        if "dtype" in named:
            named["dtype"] = _REAL_OF.get(named["dtype"], named["dtype"])
        return function(*positional, **named)

    real, imag = apply("real"), apply("imag")
    if isinstance(real, (list, tuple)):
        return [Pair(*both) for both in zip(real, imag, strict=True)]
    return Pair(real, imag)


# -- of single elements


def _pair(value: Any) -> Pair:
    """Return a pair, of a real tensor or a number too."""
    if isinstance(value, Pair):
        return value
    if isinstance(value, torch.Tensor):
        return Pair(value, torch.zeros_like(value))
    return Pair(complex(value).real, complex(value).imag)


def _is_real(value: Any) -> bool:
    return not isinstance(value, (Pair, complex))


def _part_by_part(combine: Callable[[Any, Any], Any]) -> Callable[..., Pair]:
    """Return a sum or a difference, of which a real operand may be of another shape."""

    def convert(left: Any, right: Any, *, alpha: Any = 1) -> Pair:
        a, b = _pair(left), _pair(_mul(right, alpha) if alpha != 1 else right)
        return Pair(*torch.broadcast_tensors(combine(a.real, b.real), combine(a.imag, b.imag)))

    return convert


_add = _part_by_part(operator.add)


def _mul(left: Any, right: Any) -> Any:
    if _is_real(right):
        return _pair(left).map(lambda part: part * right)
    if _is_real(left):
        return _pair(right).map(lambda part: left * part)
    a, b = _pair(left), _pair(right)
    return Pair(a.real * b.real - a.imag * b.imag, a.real * b.imag + a.imag * b.real)


def _div(left: Any, right: Any) -> Any:
    if _is_real(right):
        return _pair(left).map(lambda part: part / right)
    return _mul(left, _reciprocal(_pair(right)))


def _reciprocal(value: Pair) -> Pair:
    """Divide by the larger part first, so that squares do not overflow (Smith 1962)."""
    scale = torch.maximum(torch.as_tensor(value.real).abs(), torch.as_tensor(value.imag).abs())
    real, imag = value.real / scale, value.imag / scale
    size = (real * real + imag * imag) * scale
    return Pair(real / size, -imag / size)


def _pow(value: Pair, exponent: Any) -> Any:
    if exponent not in (1, 2, 3):
        raise ModelError(
            f"Expected complex numbers to the power of 1, 2 or 3, which is written out; got {exponent}."
        )
    found = value
    for _ in range(exponent - 1):
        found = _mul(found, value)
    return found


def _exp(value: Pair) -> Pair:
    return _polar(torch.exp(value.real), value.imag)


def _abs(value: Pair) -> Tensor:
    return torch.hypot(value.real, value.imag)


def _angle(value: Pair) -> Tensor:
    return torch.atan2(value.imag, value.real)


def _log(value: Pair) -> Pair:
    return Pair(torch.log(_abs(value)), _angle(value))


def _sqrt(value: Pair) -> Pair:
    """Return the root to the right of the imaginary axis."""
    return _polar(torch.sqrt(_abs(value)), _angle(value) / 2)


def _polar(size: Tensor, angle: Tensor) -> Pair:
    return Pair(size * torch.cos(angle), size * torch.sin(angle))


def _conjugate(value: Pair) -> Pair:
    return Pair(value.real, -value.imag)


def _equal(left: Any, right: Any) -> Tensor:
    a, b = _pair(left), _pair(right)
    return (a.real == b.real) & (a.imag == b.imag)


def _to_copy(value: Any, *, dtype: Any = None, **_: Any) -> Any:
    if dtype is None:
        return value
    if dtype in _REAL_OF:
        return _pair(value).map(lambda part: part.to(_REAL_OF[dtype]))
    if dtype == torch.bool:
        return (value.real != 0) | (value.imag != 0)
    return value.real.to(dtype)  # torch drops the imaginary part too


def _copy(old: Any, new: Any, _non_blocking: bool = False) -> Any:
    pair = _pair(new)
    if not isinstance(old, Pair):
        return pair.real.to(old.dtype).expand_as(old)
    return Pair(pair.real.expand_as(old.real), pair.imag.expand_as(old.imag))


def _where(condition: Tensor, left: Any, right: Any) -> Pair:
    a, b = _pair(left), _pair(right)
    return Pair(torch.where(condition, a.real, b.real), torch.where(condition, a.imag, b.imag))


def _filled(number: Any) -> Callable[..., Any]:
    """Return what makes tensors of one number, by a size or like another tensor."""

    def convert(like: Any, value: Any = number, *, dtype: Any = None, **_: Any) -> Any:
        shaped = like.real if isinstance(like, Pair) else like
        size = getattr(shaped, "shape", shaped)
        if dtype is not None and dtype not in _REAL_OF:
            return torch.full(size, value, dtype=dtype)
        real = getattr(shaped, "dtype", None) if dtype is None else _REAL_OF[dtype]
        parts = complex(value)
        return Pair(*(torch.full(size, part, dtype=real) for part in (parts.real, parts.imag)))

    return convert


# -- products


def _matmul(left: Any, right: Any) -> Any:
    """Multiply matrices: of two complex ones with four real products."""
    if _is_real(right):
        return left.map(lambda part: torch.matmul(part, right))
    if _is_real(left):
        return right.map(lambda part: torch.matmul(left, part))
    real = torch.matmul(left.real, right.real) - torch.matmul(left.imag, right.imag)
    return Pair(real, torch.matmul(left.real, right.imag) + torch.matmul(left.imag, right.real))


def _addmm(bias: Any, left: Any, right: Any, *, beta: Any = 1, alpha: Any = 1) -> Pair:
    return _add(_mul(bias, beta), _mul(_matmul(left, right), alpha))


# -- Fourier transforms


def _scale(length: int, norm: int) -> float:
    """Return what a transform over so many elements is multiplied by: torch's fft_norm_mode."""
    return (1.0, 1 / math.sqrt(length), 1 / length)[norm]


def _waves(rows: int, columns: int, length: int, like: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of the transform of ``length``, [rows, columns], times a scale."""
    cos, sin = (torch.from_numpy(scale * part).to(like.dtype) for part in waves(rows, columns, length))
    return cos, sin


def _along(dim: int, function: Callable[[Tensor], Tensor], value: Tensor) -> Tensor:
    return torch.movedim(function(torch.movedim(value, dim, -1)), -1, dim)


def _complex_along(value: Pair, dim: int, norm: int, forward: bool) -> Pair:
    length = value.real.shape[dim]
    cos, sin = _waves(length, length, length, value.real, _scale(length, norm))
    sin = -sin if forward else sin
    moved = value.map(lambda part: torch.movedim(part, dim, -1))
    found = Pair(moved.real @ cos - moved.imag @ sin, moved.real @ sin + moved.imag @ cos)
    return found.map(lambda part: torch.movedim(part, -1, dim))


def _fft_c2c(value: Any, dims: Sequence[int], norm: int, forward: bool) -> Pair:
    found = _pair(value)
    for dim in dims:
        found = _complex_along(found, dim, norm, forward)
    return found


def _fft_r2c(value: Tensor, dims: Sequence[int], norm: int, onesided: bool) -> Pair:
    *outer, last = dims
    length = value.shape[last]
    cos, sin = _waves(
        length, length // 2 + 1 if onesided else length, length, value, _scale(length, norm)
    )
    found = Pair(_along(last, lambda x: x @ cos, value), _along(last, lambda x: x @ -sin, value))
    return _fft_c2c(found, outer, norm, forward=True)


def _fft_c2r(value: Any, dims: Sequence[int], norm: int, last_dim_size: int) -> Tensor:
    *outer, last = dims
    found = _fft_c2c(value, outer, norm, forward=False)
    half = last_dim_size // 2 + 1
    cos, sin = _waves(half, last_dim_size, last_dim_size, found.real, _scale(last_dim_size, norm))
    # Each of those given stands for its mirror image too, but those that have none.
    twice = torch.tensor(
        [1.0 + (0 < n < last_dim_size - n) for n in range(half)], dtype=found.real.dtype
    )
    cos, sin = cos * twice[:, None], sin * twice[:, None]
    given = found.map(lambda part: torch.movedim(part, last, -1)[..., :half])
    return torch.movedim(given.real @ cos - given.imag @ sin, -1, last)


_FORMULAS: dict[str, Callable[..., Any]] = {
    "view_as_real": lambda value: torch.stack([value.real, value.imag], -1),
    "view_as_complex": lambda value: Pair(value[..., 0], value[..., 1]),
    "real": lambda value: value.real,
    "imag": lambda value: value.imag,
    "complex": Pair,
    "polar": _polar,
    **dict.fromkeys(("_conj", "_conj_physical", "conj_physical"), _conjugate),
    "resolve_conj": lambda value: value,
    "resolve_neg": lambda value: value,
    "_neg_view": lambda value: value.map(torch.neg),
    "add": _add,
    "sub": _part_by_part(operator.sub),
    "mul": _mul,
    "div": _div,
    "reciprocal": _reciprocal,
    "pow": _pow,
    "exp": _exp,
    "log": _log,
    "sqrt": _sqrt,
    "abs": _abs,
    "angle": _angle,
    "_assert_tensor_metadata": lambda *_, **__: None,
    "_to_copy": _to_copy,
    "where": _where,
    "copy": _copy,
    "full": _filled(0),
    "zeros": _filled(0),
    "ones": _filled(1),
    "zeros_like": _filled(0),
    "ones_like": _filled(1),
    "full_like": _filled(0),
    "eq": _equal,
    "ne": lambda left, right: ~_equal(left, right),
    "linalg_vector_norm": lambda value, *rest, **named: torch.linalg.vector_norm(
        _abs(value), *rest, **named
    ),
    "mm": _matmul,
    "bmm": _matmul,
    "matmul": _matmul,
    "mv": _matmul,
    "dot": _matmul,
    "addmm": _addmm,
    "_fft_c2c": _fft_c2c,
    "_fft_r2c": _fft_r2c,
    "_fft_c2r": _fft_c2r,
}
