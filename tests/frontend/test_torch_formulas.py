"""The formulas of torch's special functions have its digits, special values included."""

import pytest

torch = pytest.importorskip("torch")

from tvm_sphinx.errors import ModelError  # noqa: E402 - torch may be missing
from tvm_sphinx.frontend.torch_formulas import FORMULAS  # noqa: E402 - as above

_aten, _special = torch.ops.aten, torch.special
_ENDS = torch.tensor(
    [0.0, -0.0, 1.0, 2.0, -1.0, -2.0, -3.5, torch.inf, -torch.inf, torch.nan, 1e-30, -1e-30, 1e30, -1e30]
)
_WHOLE = torch.cat([_ENDS, torch.linspace(-20, 40, 3001), torch.logspace(-8, 8, 500)])
_INSIDE = torch.cat([_ENDS, torch.linspace(-1, 1, 4001), 1 - torch.logspace(-7, -1, 200)])
# Of itself, or of a thousandth, which is what is left beside a zero of the function.
_ROUNDING = {torch.float32: 4e-6, torch.float64: 1e-10}
_FUNCTIONS = {
    "lgamma": (_aten.lgamma.default, torch.lgamma, _WHOLE),
    "digamma": (_aten.digamma.default, torch.digamma, _WHOLE),
    "erfinv": (_aten.erfinv.default, torch.erfinv, _INSIDE),
    "erfcx": (_aten.special_erfcx.default, _special.erfcx, _WHOLE),
    "i0": (_aten.i0.default, torch.i0, _WHOLE),
    "i0e": (_aten.special_i0e.default, _special.i0e, _WHOLE),
    "i1": (_aten.special_i1.default, _special.i1, _WHOLE),
    "i1e": (_aten.special_i1e.default, _special.i1e, _WHOLE),
    "j0 of a sphere": (
        _aten.special_spherical_bessel_j0.default, _special.spherical_bessel_j0, _WHOLE,
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", _ROUNDING)
@pytest.mark.parametrize("name", _FUNCTIONS)
def test_formulas_have_the_digits_of_torch(name, dtype):
    overload, function, points = _FUNCTIONS[name]
    points = points.to(dtype)
    if name == "erfcx" and dtype == torch.float64:
        with pytest.raises(ModelError, match="erfcx in float64"):
            FORMULAS[overload](points)
        return
    if name == "digamma" and dtype == torch.float32:
        # Beside its zero torch's own has an error of 2e-4 there, from sums in single precision.
        want = torch.digamma(points.double()).float()
    else:
        want = function(points)
    got = FORMULAS[overload](points)
    assert got.dtype == dtype
    is_same = (got == want) | (got.isnan() & want.isnan())
    gap = (got.double() - want.double()).abs() / want.double().abs().clamp(min=1e-3)
    wrong = ~is_same & ~(gap < _ROUNDING[dtype])
    assert not wrong.any(), (points[wrong][:5], got[wrong][:5], want[wrong][:5])


def test_trigamma_away_from_its_poles():
    points = torch.cat([torch.linspace(-3.9, -0.1, 97), torch.linspace(0.1, 60, 600)]).double()
    got = FORMULAS[_aten.polygamma.default](1, points)
    torch.testing.assert_close(got, torch.polygamma(1, points), rtol=1e-9, atol=0)


@pytest.mark.parametrize("most", [True, False])
def test_scans_agree_on_ties_and_nan(most):
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(-2, 3, (7, 50), generator=generator).float()
    values[values == -2] = torch.nan
    name = "cummax" if most else "cummin"
    got = FORMULAS[getattr(_aten, name).default](values, 1)
    want = getattr(torch, name)(values, 1)
    assert torch.equal(got[0].isnan(), want.values.isnan())
    assert torch.equal(got[0].nan_to_num(9), want.values.nan_to_num(9))
    assert torch.equal(got[1], want.indices)
