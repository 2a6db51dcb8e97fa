"""Torch programs with sizes that are known only at run time: the rest is scheduled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tvm_sphinx
from tvm_sphinx.cost.measure.kernel_timing import MeasureConfig
from tvm_sphinx.errors import ModelError
from tvm_sphinx.platform import Device, Platform
from tvm_sphinx.platform.targets import host_target
from tvm_sphinx.program.kinds import SplitProgram

torch = pytest.importorskip("torch")

_HERE = Platform((Device("core0", host_target(), "cpu:0", (0,)),))


def _program(tail: Callable[[Any], Any], x: Any) -> tuple[Any, Any]:
    """Return a convolution with a function behind it, as a module and as a program."""

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x: Any) -> Any:
            return tail(self.conv(x))

    net = Net().eval()
    return net, torch.export.export(net, (x,))


def _boxes(y: Any) -> Any:
    rows = y.flatten(2)[0].T
    kept = rows[rows[:, 0] > 0.1]
    corners = torch.cat([kept[:, :2] - kept[:, 2:] / 2, kept[:, :2] + kept[:, 2:] / 2], 1)
    return corners, kept.sum(1), torch.softmax(kept, 1) @ torch.ones(4, 3)


def _looked_up(y: Any) -> Any:
    n = torch.nonzero(y > 0.3)
    return torch.sigmoid(y[n[:, 0], n[:, 1], n[:, 2], n[:, 3]])


_TAILS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "nonzero": (torch.nonzero, "nonzero"),
    "nonzero, a tensor for each axis": (lambda y: torch.nonzero(y > 0.3, as_tuple=True)[2], "nonzero"),
    "where": (lambda y: torch.where(y > 0.3)[3], "nonzero"),
    "what a mask holds of": (lambda y: y[y > 0.3], "index.Tensor"),
    "rows": (lambda y: (y, y[0, :, 0][y[0, :, 0].sum(1) > 0]), "index.Tensor"),
    "masks of an inner axis": (lambda y: y[:, :, y[0, 0, 0] > 0], "index.Tensor"),
    "masked_select": (lambda y: torch.masked_select(y, y[0, 0] > 0.3) * 2, "masked_select"),
    "boxes": (_boxes, "index.Tensor"),
    "indices of what was found": (_looked_up, "nonzero"),
    "unique": (lambda y: torch.unique(torch.round(y)), "_unique2"),
    "unique, with places and counts": (
        lambda y: torch.unique(torch.round(y), return_inverse=True, return_counts=True),
        "_unique2",
    ),
}


@pytest.mark.parametrize("name", list(_TAILS))
def test_equals_torch(name: str) -> None:
    tail, first = _TAILS[name]
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    net, program = _program(tail, x)
    compiled = tvm_sphinx.compile(program, _HERE, records=None, measure=MeasureConfig(sample_ms=0.1))
    assert isinstance(compiled.program, SplitProgram)
    assert compiled.report is not None
    assert compiled.report.dynamic is not None
    assert compiled.report.dynamic.operators[0].startswith(f"{first} (test_dynamic_torch.py:")
    for seed in (1, 2):
        x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            wanted = net(x)
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        for mine, other in zip(compiled.run([x.numpy()]), wanted, strict=True):
            assert mine.shape == tuple(other.shape)
            assert str(mine.dtype) == str(other.dtype).removeprefix("torch.")
            np.testing.assert_allclose(mine, other.numpy(), rtol=1e-4, atol=1e-5)


def test_a_program_that_asserts_something_of_what_it_finds_is_refused() -> None:
    """No kernel ends a program over the values that it meets."""

    def tail(y: Any) -> Any:
        found = torch.nonzero(y > 0.3)
        torch._check(found.shape[0] <= 10)
        return found

    x = torch.zeros(1, 3, 8, 8)
    _, program = _program(tail, x)
    with pytest.raises(
        ModelError, match=r"asserts something of a number .*u0 <= 10.*Take the assertion out"
    ):
        tvm_sphinx.compile(program, _HERE, records=None, measure=MeasureConfig(sample_ms=0.1))


def test_indexing_by_a_mask_beside_other_indices_is_refused() -> None:
    x = torch.zeros(1, 3, 8, 8)
    rows = torch.zeros(1, dtype=torch.int64)
    _, program = _program(lambda y: y[0, 0][y[0, 0, :, 0] > 0.3, rows], x)
    with pytest.raises(ModelError, match="a mask beside other indices has no counterpart"):
        tvm_sphinx.compile(program, _HERE, records=None, measure=MeasureConfig(sample_ms=0.1))
