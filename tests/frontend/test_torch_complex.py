"""Programs with complex numbers inside keep their inputs and outputs; those outside are refused.

That they compute what torch does is asked in test_torch_idioms.py.
"""

import pytest

torch = pytest.importorskip("torch")

from tvm_sphinx.errors import ModelError  # noqa: E402 - torch may be missing
from tvm_sphinx.frontend.load import load_model  # noqa: E402 - as above

from .run_module import evaluate  # noqa: E402 - as above


class Filter(torch.nn.Module):
    def forward(self, signal, *, scale):
        spectrum = torch.fft.rfft(signal) * scale
        return {"filtered": torch.fft.irfft(spectrum), "size": spectrum.abs()}


class Spectrum(torch.nn.Module):
    def forward(self, signal):
        return torch.fft.fft(signal)


def test_inputs_and_outputs_stay_as_they_are():
    signal, scale = torch.randn(2, 8), torch.rand(5)
    program = torch.export.export(Filter(), (signal,), {"scale": scale})
    module = load_model(program)
    assert [str(param.name) for param in module["main"].params] == ["signal", "scale"]
    want = Filter()(signal, scale=scale)
    got = evaluate(module, [signal, scale])
    for mine, right in zip(got, want.values(), strict=True):
        torch.testing.assert_close(torch.from_numpy(mine), right, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(
    ("module", "example"),
    [(Spectrum(), torch.randn(4)), (torch.nn.Flatten(), torch.randn(2, 3, dtype=torch.complex64))],
)
def test_what_is_complex_outside_is_refused_by_name(module, example):
    program = torch.export.export(module, (example,))
    with pytest.raises(ModelError, match=r"is complex: expected real inputs and outputs.*view_as_real"):
        load_model(program)


def test_a_transform_too_long_for_a_matrix_is_refused():
    class Long(torch.nn.Module):
        def forward(self, signal):
            return torch.fft.fft(signal).abs()

    with pytest.raises(ModelError, match=r"Expected a Fourier transform .* got 5000 x 5000"):
        load_model(torch.export.export(Long(), (torch.randn(5000),)))


def test_open_shapes_are_refused():
    rows = {"signal": {0: torch.export.Dim("rows", min=2, max=9)}}

    class Size(torch.nn.Module):
        def forward(self, signal):
            return torch.fft.rfft(signal).abs()

    program = torch.export.export(Size(), (torch.randn(3, 8),), dynamic_shapes=rows)
    with pytest.raises(ModelError, match="Complex numbers in a program of open shapes"):
        load_model(program)
