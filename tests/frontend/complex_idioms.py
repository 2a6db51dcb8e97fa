"""What people write with complex numbers inside, and real inputs and outputs; see `torch_idioms`."""

import torch
import torch.nn.functional as F
from torch import nn

_seeded = torch.Generator().manual_seed(1)
X = torch.randn(2, 4, 6, generator=_seeded)
WAVE = torch.randn(2, 96, generator=_seeded)


def c(x):
    return torch.complex(x, x.flip(-1) * 0.5 + 0.1)


def parts(z):
    return torch.view_as_real(z)


class Rotary(nn.Module):
    """Rotates pairs of features by their place, as Llama does; the angles are a complex buffer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        angle = torch.outer(torch.arange(4.0), 10000.0 ** -(torch.arange(0, 6, 2) / 6))
        self.register_buffer("turns", torch.polar(torch.ones_like(angle), angle))
        self.project = nn.Linear(6, 6)

    def forward(self, x):
        pairs = torch.view_as_complex(self.project(x).reshape(*x.shape[:-1], -1, 2))
        return parts(pairs * self.turns[None]).flatten(2)


class Spectral(nn.Module):
    """Weighs the low frequencies, as a Fourier neural operator does; the weights are complex."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(4, 5, 3, dtype=torch.cfloat) / 4)

    def forward(self, x):
        low = torch.fft.rfft(x)[..., :3]
        mixed = torch.einsum("bim,iom->bom", low, self.weight)
        return torch.fft.irfft(F.pad(mixed, (0, 1)), n=x.shape[-1])


def _filled(x):
    z = c(x).clone()
    z[:, 0] = torch.complex(torch.tensor(1.0), torch.tensor(2.0))
    return parts(z)


_MATRIX = torch.complex(torch.ones(3, 6), torch.full((3, 6), 0.5))
COMPLEX = {
    "complex times number": (lambda x: parts(c(x) * (1 - 2j) * 2.5), X),
    "complex beside real": (lambda x: parts(3 - c(x) + x + 1j), X),
    "complex times real": (lambda x: parts(x * c(x)), X),
    "complex quotient": (lambda x: parts(c(x) / (c(x).flip(0) + 3) + 1 / (c(x) + 4)), X),
    "complex by size": (lambda x: parts(c(x) / c(x).abs().clamp(min=1e-3)), X),
    "complex size and angle": (lambda x: (c(x).abs(), c(x).angle(), torch.sgn(c(x)).real), X),
    "complex functions": (lambda x: parts(torch.exp(c(x)) + torch.log(c(x)) + torch.sqrt(c(x))), X),
    "complex powers": (lambda x: parts(torch.square(c(x)) + c(x) ** 3), X),
    "complex conjugate": (lambda x: parts(c(x) * c(x).conj() + c(x).mH.mT), X),
    "complex parts": (lambda x: c(x).real.mean() + c(x).imag.std(), X),
    "complex polar": (lambda x: parts(torch.polar(x.abs(), x)), X),
    "complex matmul": (lambda x: parts(c(x) @ c(x).mT), X),
    "complex matmul real": (lambda x: parts(c(x) @ x.mT.to(torch.complex64)), X),
    "complex einsum": (lambda x: parts(torch.einsum("bij,bkj->bik", c(x), c(x))), X),
    "complex linear": (lambda x: parts(F.linear(c(x), _MATRIX, _MATRIX[:, 0])), X),
    "complex baddbmm": (lambda x: parts(torch.baddbmm(c(x) @ c(x).mT, c(x), c(x).mT, beta=0.5)), X),
    "complex dot": (lambda x: parts(torch.vdot(c(x)[0, 0], c(x)[0, 1])), X),
    "complex sums": (lambda x: parts(c(x).sum(-1) + c(x).mean(-1) + c(x).cumsum(-1)[..., 0]), X),
    "complex sum double": (lambda x: parts(c(x).sum(-1, dtype=torch.complex128)), X),
    "complex norm": (lambda x: torch.linalg.vector_norm(c(x), dim=-1), X),
    "complex joined": (lambda x: parts(torch.cat([c(x), x], 0)), X),
    "complex stacked": (lambda x: parts(torch.stack([c(x), c(x) * 2], 1)), X),
    "complex where": (lambda x: parts(torch.where(x > 0, c(x), torch.zeros_like(c(x)))), X),
    "complex places": (lambda x: parts(c(x)[:, torch.tensor([1, 0]), 1::2].roll(1, -1)), X),
    "complex chunk": (lambda x: parts(F.pad(c(x).chunk(2, -1)[1], (1, 2))), X),
    "complex gathered": (lambda x: parts(torch.gather(c(x), 1, torch.zeros(2, 1, 6).long())), X),
    "complex outer": (lambda x: parts(c(x).unsqueeze(1) * c(x).unsqueeze(2)), X),
    "complex filled": (_filled, X),
    "complex made": (lambda x: parts(torch.full((2, 2), 1 + 2j) * c(x)[0, :2, :2] + 0j), X),
    "complex like": (lambda x: torch.zeros_like(c(x), dtype=torch.float32) + x, X),
    "complex equal": (lambda x: (c(x) == c(x), c(x) != c(x.abs())), X),
    "complex to bool": (lambda x: (c(x) * (x > 0)).to(torch.bool), X),
    "complex isfinite": (lambda x: (torch.isfinite(c(x)), torch.isreal(x + 0j)), X),
    "complex there and back": (lambda x: x.to(torch.complex64).real * 2, X),
    "complex rotary": (Rotary(), X),
    "complex view": (lambda x: c(x).view(torch.float32), X),
    "complex sine": (lambda x: parts(torch.sin(c(x))), X),
}
FOURIER = {
    "fft": (lambda x: parts(torch.fft.fft(x)), X),
    "fft complex": (lambda x: parts(torch.fft.fft(c(x), dim=1, norm="ortho")), X),
    "fftn": (lambda x: parts(torch.fft.fftn(x)), X),
    "fftn real": (lambda x: torch.fft.fftn(x, dim=(1, 2)).real, X),
    "ifft2": (lambda x: parts(torch.fft.ifft2(c(x))), X),
    "ifft longer": (lambda x: torch.fft.ifft(x, n=9, dim=1).imag, X),
    "rfft shorter": (lambda x: parts(torch.fft.rfft(x, n=5)), X),
    "rfft2": (lambda x: parts(torch.fft.rfft2(x, norm="forward")), X),
    "rfftn": (lambda x: torch.fft.rfftn(x).abs(), X),
    "irfft": (lambda x: torch.fft.irfft(c(x)), X),
    "irfft odd": (lambda x: torch.fft.irfft(c(x), n=9), X),
    "irfftn": (lambda x: torch.fft.irfftn(c(x), s=(4, 7), dim=(1, 2)), X),
    "hfft": (lambda x: torch.fft.hfft(c(x)), X),
    "fft double": (lambda x: torch.fft.fft(x.double()).real, X),
    "fftshift": (lambda x: torch.fft.fftshift(torch.fft.fft2(x)).real, X),
    "fft convolution": (
        lambda x: torch.fft.irfft(torch.fft.rfft(x, n=16) * torch.fft.rfft(x.flip(0), n=16), n=16),
        X,
    ),
    "spectrogram": (
        lambda x: torch.stft(x, 16, 4, window=torch.hann_window(16), return_complex=True).abs().pow(2),
        WAVE,
    ),
    "stft": (
        lambda x: parts(
            torch.stft(
                x, 16, 4, center=False, normalized=True, onesided=False,
                window=torch.ones(16), return_complex=True,
            )
        ),
        WAVE,
    ),
    "stft and back": (
        lambda x: torch.istft(
            torch.stft(x, 32, 16, window=torch.hann_window(32), return_complex=True) * 2,
            32, 16, window=torch.hann_window(32),
        ),
        WAVE,
    ),
    "spectral": (Spectral(), X),
}  # fmt: skip
#: What has no counterpart in real numbers here.
REFUSED = {
    "complex view": r"aten\.view\.dtype \(view\) of complex numbers",
    "complex sine": r"aten\.sin\.default \(sin\) of complex numbers",
}
