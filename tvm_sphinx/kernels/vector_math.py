"""Elementary functions as arithmetic that LLVM vectorizes, in place of calls into the C library.

`exp`, `log`, `erf`, `tanh`, `sigmoid` and constant powers of float32 would be one scalar library call
per element. Here the first five are polynomials: Chebyshev interpolants of degree 6 (exp on half an
octave) and 14 (erf(x) / x in the square of x on [0, 3.85]), and a least squares fit of degree 7 to
what the first two terms of log(1 + x) leave, all fitted for this file in float64; they stay within
3e-7 of the true value, relative. Powers by a multiple of a quarter are products of square roots,
within 5e-7. Infinities and NaN come out as from the library; results of `exp` and of negative powers
come out as zero below the smallest normal number.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import tvm_ffi
from tvm import ir, tirx

_EXP = (
    1.0,
    1.0,
    0.5,
    0.16666415333747864,
    0.04166635125875473,
    0.00837512593716383,
    0.0013941108481958508,
)
_ERF = (
    0.3672848045825958,
    -0.18330197036266327,
    0.13621263206005096,
    -0.11036769300699234,
    0.09079785645008087,
    -0.07337629050016403,
    0.056555043905973434,
    -0.040173184126615524,
    0.027843452990055084,
    -0.02062208205461502,
    0.011876053176820278,
    -0.0030365916900336742,
    0.0020003875251859426,
    -0.003441605716943741,
    0.001489443820901215,
)
_ERF_LIMIT = 3.85  # erf is one within half a unit in the last place beyond it
# log(1 + x) is x - x**2 / 2 + x**3 times this polynomial, for 1 + x from sqrt(1/2) to sqrt(2).
_LOG = (
    0.3333333134651184,
    -0.25000622868537903,
    0.2000085562467575,
    -0.1662905514240265,
    0.14214874804019928,
    -0.13124430179595947,
    0.1265423595905304,
    -0.07583916187286377,
)
_SMALLEST_NORMAL = 2.0**-126
_SQRT_HALF_BITS = 0x3F3504F3
_MOST_POWER = 8.0
_EXP_LOW, _EXP_HIGH = -87.33654, 88.72283  # below: not a normal number; above: infinity
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4  # ln 2 in two parts, the first of few bits


def _c(value: float) -> Any:
    return tirx.const(value, "float32")


def _horner(coefficients: tuple[float, ...], x: Any) -> Any:
    value = _c(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + _c(coefficient)
    return value


def _int(value: int) -> Any:
    return tirx.const(value, "int32")


def _let(value: Any, body: Callable[[Any], Any], dtype: str = "float32") -> Any:
    """Name a value, so that an expression that uses it often stays small."""
    var = tirx.Var("value", dtype)
    return tirx.Let(var, value, body(var))


def exp(x: Any) -> Any:
    """Return e to the x of a float32 expression."""

    def reduced(x: Any, n: Any) -> Any:
        r = x - n * _c(_LN2_HIGH) - n * _c(_LN2_LOW)
        # The power of two is applied as 2 * 2**(n - 1), so that n = 128 stays in range.
        bits = (n.astype("int32") + tirx.const(126, "int32")) << tirx.const(23, "int32")
        scale = tirx.reinterpret("float32", bits)
        return _let(r, lambda r: (_horner(_EXP, r) * _c(2.0)) * scale)

    def clamped(x: Any) -> Any:
        low = tirx.max(tirx.min(x, _c(_EXP_HIGH)), _c(_EXP_LOW))
        n = tirx.floor(low * _c(1.4426950408889634) + _c(0.5))
        value = _let(low, lambda low: _let(n, lambda n: reduced(low, n)))
        return tirx.Select(x <= _c(_EXP_HIGH), value, x * _c(3.0e38))

    return _let(x, clamped)


def erf(x: Any) -> Any:
    """Return the error function of a float32 expression."""

    def inner(x: Any) -> Any:
        near = tirx.max(tirx.min(x, _c(_ERF_LIMIT)), _c(-_ERF_LIMIT))
        scale = _c(2.0 / _ERF_LIMIT**2)
        value = _let(near, lambda t: t * _let(t * t * scale - _c(1.0), lambda u: _horner(_ERF, u)))
        # For NaN both comparisons fail, and min returns its second argument.
        return tirx.Select(x <= _c(_ERF_LIMIT), value, tirx.min(_c(1.0), x))

    return _let(x, inner)


def log(x: Any) -> Any:
    """Return the natural logarithm of a float32 expression."""

    def inner(x: Any) -> Any:
        # A subnormal number is made a normal one first. What is no positive number is put right last.
        is_small = x < _c(_SMALLEST_NORMAL)
        normal = tirx.Select(is_small, x * _c(2.0**23), x)
        lost = tirx.Select(is_small, _c(23.0), _c(0.0))
        value = _let(tirx.reinterpret("int32", normal), lambda bits: parts(bits, lost), "int32")
        value = tirx.Select(x < _c(float("inf")), value, x)
        return tirx.Select(
            x > _c(0.0), value, tirx.Select(x == _c(0.0), _c(-float("inf")), _c(float("nan")))
        )

    def parts(bits: Any, lost: Any) -> Any:
        # Split into 2**n and a factor from sqrt(1/2) to sqrt(2).
        n = (bits - _int(_SQRT_HALF_BITS)) >> _int(23)
        return _let(n, lambda n: summed(bits, n, lost), "int32")

    def summed(bits: Any, n: Any, lost: Any) -> Any:
        factor = tirx.reinterpret("float32", bits - (n << _int(23)))
        octaves = n.astype("float32") - lost
        return _let(factor - _c(1.0), lambda t: _let(octaves, lambda n: polynomial(t, n)))

    def polynomial(t: Any, n: Any) -> Any:
        rest = t * t * (t * _horner(_LOG, t) - _c(0.5))
        return n * _c(_LN2_HIGH) + (t + (rest + n * _c(_LN2_LOW)))

    return _let(x, inner)


def power(x: Any, exponent: float) -> Any | None:
    """Return a constant power of a float32 expression, None where it is no product of square roots.

    Exponents are multiples of a quarter of at most `_MOST_POWER`, but 0.
    """
    quarters = abs(exponent) * 4
    if not 0 < abs(exponent) <= _MOST_POWER or quarters != int(quarters):
        return None
    whole, rest = divmod(int(quarters), 4)

    def inner(x: Any) -> Any:
        if not rest:
            return _whole_power(x, whole)
        # As the library: the root of -0 is 0, a power of -infinity is infinity.
        finite = tirx.Select(x == _c(0.0), _c(0.0), x)
        positive = tirx.Select(x == _c(-float("inf")), _c(float("inf")), finite)
        return _let(positive, lambda x: _let(tirx.sqrt(x), lambda root: rooted(x, root)))

    def rooted(x: Any, root: Any) -> Any:
        factors = [_whole_power(x, whole)] if whole else []
        factors += [root] if rest & 2 else []
        factors += [tirx.sqrt(root)] if rest & 1 else []
        return functools.reduce(operator.mul, factors)

    raised = _let(x, inner)
    return raised if exponent > 0 else _c(1.0) / raised


def _whole_power(x: Any, exponent: int) -> Any:
    """Return a power of a variable by squaring; the exponent is above 0."""
    if exponent == 1:
        return x
    half = _let(_whole_power(x, exponent // 2), lambda root: root * root)
    return half * x if exponent % 2 else half


def tanh(x: Any) -> Any:
    """Return the hyperbolic tangent of a float32 expression."""
    return _c(1.0) - _c(2.0) / (exp(x * _c(2.0)) + _c(1.0))


def _tanh_of_double(x: Any) -> Any:
    one, two = (tirx.const(value, "float64") for value in (1.0, 2.0))
    return one - two / (tirx.exp(x * two) + one)


def sigmoid(x: Any) -> Any:
    """Return the logistic function of a float32 expression."""
    return _c(1.0) / (exp(_c(0.0) - x) + _c(1.0))


_REPLACED: dict[str, Callable[[Any], Any]] = {
    "tirx.exp": exp,
    "tirx.log": log,
    "tirx.erf": erf,
    "tirx.tanh": tanh,
    "tirx.sigmoid": sigmoid,
}


def expand_functions(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return a PrimFunc with its float32 elementary functions written out as arithmetic.

    Of float64 `tanh` is: TVM copies its operand five times, which is minutes within LLVM for a chain.
    """

    def expand(call: ir.Call) -> Any:
        name = getattr(call.op, "name", "")
        if name == "tirx.pow" and str(call.ty) == "float32":
            base, exponent = call.args
            is_constant = isinstance(exponent, tirx.FloatImm)
            raised = power(base, float(exponent.value)) if is_constant else None
            return call if raised is None else raised
        if name in _REPLACED and str(call.ty) == "float32":
            return _REPLACED[name](call.args[0])
        if name == "tirx.tanh" and str(call.ty) == "float64":
            return _tanh_of_double(call.args[0])
        return call

    body = tvm_ffi.structural_map(func.body, (ir.Call, expand))
    return func if body.same_as(func.body) else func.with_body(body)
