"""Special functions of torch as formulas in its own elementary ones, which TVM's importer knows.

They are computed in float64 and rounded once where that is the shorter way to all digits of float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..errors import ModelError

Tensor = Any

_aten, _prims = torch.ops.aten, torch.ops.prims
_HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)
# B(2k) / (2k (2k - 1)), Abramowitz and Stegun 6.1.41, and B(2k) / 2k, 6.3.18.
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)
_DIGAMMA = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12)
_SHIFT = 8
# M. Giles, Approximating the erfinv function (2010), single precision: near the middle, in the tails.
_MIDDLE = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503,
    -0.00417768164, 0.246640727, 1.50140941,
)  # fmt: skip
_TAILS = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613,
    0.00943887047, 1.00167406, 2.83297682,
)  # fmt: skip
# Numerical Recipes, 6.2: log(erfc(x) exp(x^2) / t) as a polynomial of t = 2 / (2 + x), to 1.2e-7.
_ERFC = (
    0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807, -0.18628806, 0.09678418, 0.37409196,
    1.00002368, -1.26551223,
)  # fmt: skip
# Where the power series of modified Bessel functions ends and the expansion at infinity begins.
_FAR = 18.0
_SERIES, _EXPANSION = 48, 30


def _polynomial(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """Return a polynomial by Horner's scheme, the highest power first."""
    total = torch.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * x + coefficient
    return total


def _in_double(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Compute in float64; whole numbers give the default type, as torch has it."""

    def convert(x: Tensor) -> Tensor:
        dtype = x.dtype if x.dtype.is_floating_point else torch.get_default_dtype()
        return function(x.to(torch.float64)).to(dtype)

    return convert


def _sine_of_pi(x: Tensor) -> Tensor:
    """Return |sin(pi x)|, exact at whole numbers."""
    return torch.sin(math.pi * (x - torch.round(x)).abs())


def lgamma(x: Tensor) -> Tensor:
    """Return log(|gamma(x)|): reflected to the right, moved up by eight, Stirling's series."""
    right = torch.where(x < 0.5, 1 - x, x)
    z = right + _SHIFT
    product = right
    for step in range(1, _SHIFT):
        product = product * (right + step)
    # Of larger numbers the product is no double, and nothing beside Stirling's first terms.
    is_small = right < 1e30
    inverse = 1 / z
    series = inverse * _polynomial(inverse * inverse, _STIRLING[::-1])
    moved = (z - 0.5) * torch.log(z) - z + _HALF_LOG_TAU + series
    moved = moved - torch.log(torch.where(is_small, product, torch.ones_like(product)))
    moved = torch.where(is_small, moved, right * (torch.log(right) - 1))
    moved = torch.where(torch.isinf(right), torch.full_like(right, math.inf), moved)
    reflected = math.log(math.pi) - torch.log(_sine_of_pi(x)) - moved
    found = torch.where(x < 0.5, reflected, moved)
    return torch.where((x == torch.floor(x)) & (x <= 0), torch.full_like(x, math.inf), found)


def digamma(x: Tensor) -> Tensor:
    """Return the derivative of log(gamma(x)): reflected, moved up, and its series at infinity."""
    is_left = x < 0
    right = torch.where(is_left, 1 - x, x)
    z = right + _SHIFT
    inverse = 1 / z
    square = inverse * inverse
    found = torch.log(z) - 0.5 * inverse - square * _polynomial(square, _DIGAMMA[::-1])
    for step in range(_SHIFT):
        found = found - 1 / (right + step)
    near = x - torch.round(x)
    reflected = found - math.pi * torch.cos(math.pi * near) / torch.sin(math.pi * near)
    found = torch.where(is_left, reflected, found)
    is_pole = is_left & (x == torch.floor(x))
    return torch.where(is_pole, torch.full_like(x, math.nan), torch.where(x == 0, -1 / x, found))


def erf_inv(x: Tensor) -> Tensor:
    """Return the inverse of the error function, after Giles; in float64 two steps of Newton follow."""
    dtype = x.dtype if x.dtype.is_floating_point else torch.get_default_dtype()
    x = x.to(torch.float64)
    w = -torch.log((1 - x) * (1 + x))
    middle = _polynomial(w - 2.5, _MIDDLE)
    tails = _polynomial(torch.sqrt(torch.where(w < 5, torch.full_like(w, 5.0), w)) - 3, _TAILS)
    found = torch.where(w < 5, middle, tails) * x
    if dtype == torch.float64:
        for _ in range(2):
            slope = 2 / math.sqrt(math.pi) * torch.exp(-found * found)
            found = found - (torch.erf(found) - x) / slope
    ends = torch.where(x > 0, torch.full_like(x, math.inf), torch.full_like(x, -math.inf))
    return torch.where(x.abs() == 1, ends, found).to(dtype)


def erfcx(x: Tensor) -> Tensor:
    """Return erfc(x) * exp(x^2), to 1.2e-7 of itself."""
    if x.dtype == torch.float64:
        raise ModelError("special.erfcx in float64 has no counterpart in TVM; use float32.")
    return _in_double(_erfcx)(x)


def _erfcx(x: Tensor) -> Tensor:
    size = x.abs()
    t = 1 / (1 + 0.5 * size)
    found = t * torch.exp(_polynomial(t, _ERFC))
    return torch.where(x < 0, 2 * torch.exp(x * x) - found, found)


def _bessel(order: int, *, scaled: bool) -> Callable[[Tensor], Tensor]:
    """Return the modified Bessel function of order 0 or 1, by its series and its expansion at infinity.

    Abramowitz and Stegun 9.6.10 and 9.7.1; ``scaled`` is times exp(-|x|).
    """
    series = [1 / (math.factorial(k) * math.factorial(k + order)) for k in range(_SERIES - 1, -1, -1)]
    terms = [1.0]
    for k in range(1, _EXPANSION):
        terms.append(-terms[-1] * (4 * order**2 - (2 * k - 1) ** 2) / (8 * k))

    def compute(x: Tensor) -> Tensor:
        size = x.abs()
        near = torch.minimum(size, torch.full_like(size, _FAR))
        small = _polynomial(near * near / 4, series) * (near / 2 if order else 1)
        far = torch.maximum(size, torch.full_like(size, _FAR))
        large = _polynomial(1 / far, terms[::-1]) / torch.sqrt(2 * math.pi * far)
        if scaled:
            small = small * torch.exp(-near)
        else:
            large = large * torch.exp(far)
        found = torch.where(torch.isnan(x), x, torch.where(size <= _FAR, small, large))
        return torch.where(x < 0, -found, found) if order else found

    return _in_double(compute)


_BESSEL = {
    name: _bessel(order, scaled=name.endswith("e"))
    for name, order in (("i0", 0), ("i0e", 0), ("i1", 1), ("i1e", 1))
}


def _spherical_bessel_j0(x: Tensor) -> Tensor:
    found = torch.where(x == 0, torch.ones_like(x), torch.sin(x) / x)
    return torch.where(torch.isinf(x), torch.zeros_like(x), found)


def _trigamma(x: Tensor) -> Tensor:
    """Return the derivative of digamma, by its series (Abramowitz and Stegun 6.4.12) and reflection."""
    is_left = x < 0.5
    right = torch.where(is_left, 1 - x, x)
    z = right + _SHIFT
    inverse = 1 / z
    square = inverse * inverse
    bernoulli = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6)
    found = inverse + 0.5 * square + inverse * square * _polynomial(square, bernoulli[::-1])
    for step in range(_SHIFT):
        found = found + 1 / ((right + step) * (right + step))
    sine = _sine_of_pi(x)
    return torch.where(is_left, (math.pi / sine) * (math.pi / sine) - found, found)


def _polygamma(order: int, x: Tensor) -> Tensor:
    if order == 0:
        return torch.digamma(x)
    if order == 1:
        return _in_double(_trigamma)(x)
    raise ModelError(f"polygamma of order {order} has no counterpart in TVM; orders 0 and 1 have.")


#: By overload, those of torch's primitives among them.
FORMULAS: dict[Any, Callable[..., Any]] = {
    _aten.lgamma.default: _in_double(lgamma),
    _prims.lgamma.default: _in_double(lgamma),
    _aten.digamma.default: _in_double(digamma),
    _prims.digamma.default: _in_double(digamma),
    _aten.polygamma.default: _polygamma,
    _aten.erfinv.default: erf_inv,
    _prims.erf_inv.default: erf_inv,
    _aten.special_erfcx.default: erfcx,
    _prims.erfcx.default: erfcx,
    _aten.i0.default: _BESSEL["i0"],
    _aten.special_i0e.default: _BESSEL["i0e"],
    _aten.special_i1.default: _BESSEL["i1"],
    _aten.special_i1e.default: _BESSEL["i1e"],
    _aten.special_modified_bessel_i0.default: _BESSEL["i0"],
    _aten.special_modified_bessel_i1.default: _BESSEL["i1"],
    _prims.bessel_i0.default: _BESSEL["i0"],
    _prims.bessel_i0e.default: _BESSEL["i0e"],
    _prims.bessel_i1.default: _BESSEL["i1"],
    _prims.bessel_i1e.default: _BESSEL["i1e"],
    _aten.special_spherical_bessel_j0.default: _in_double(_spherical_bessel_j0),
    _prims.spherical_bessel_j0.default: _in_double(_spherical_bessel_j0),
}
