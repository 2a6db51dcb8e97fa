"""Loops of torch programs: ``map`` and ``scan`` are as in torch, ``while_loop`` is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch._higher_order_ops.map import map as torch_map  # noqa: E402 - torch may be missing
from torch._higher_order_ops.scan import scan  # noqa: E402 - as above
from torch._higher_order_ops.while_loop import while_loop  # noqa: E402 - as above

from tvm_sphinx.errors import ModelError  # noqa: E402 - as above
from tvm_sphinx.frontend.load import load_model  # noqa: E402 - as above

from .run_module import evaluate  # noqa: E402 - as above

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning"
)


class Module(torch.nn.Module):
    """Calls a function with a layer of its own."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)
        self.function = function

    def forward(self, x: Any, h: Any) -> Any:
        return self.function(self.layer, x, h)


def _mapped(_layer: Any, x: Any, h: Any) -> Any:
    return torch_map(lambda row, k: (row.softmax(0) + k, row.sum()), x, h)


def _scanned(layer: Any, x: Any, h: Any) -> Any:
    def step(state: Any, row: Any) -> Any:
        new = torch.tanh(layer(state) + row)
        return new, torch.cond(new.sum() > 0, lambda s: s * 2, lambda s: s.exp(), (new,))

    return scan(step, h, x, dim=0, reverse=True)


def _while(_layer: Any, x: Any, h: Any) -> Any:
    return while_loop(lambda x, h: x.sum() < 9, lambda x, h: (x + 1, h * 2), (x, h))


X, H = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), torch.linspace(-1, 1, 4)


@pytest.mark.parametrize("function", [_mapped, _scanned])
def test_loops_along_a_tensor_are_as_in_torch(function: Callable[..., Any]) -> None:
    module = Module(function).eval()
    program = torch.export.export(module, (X, H))
    with torch.no_grad():
        expected = torch.utils._pytree.tree_leaves(module(X, H))
    for got, want in zip(evaluate(load_model(program), [X, H]), expected, strict=True):
        np.testing.assert_allclose(got, want.numpy(), rtol=1e-5, atol=1e-6)


def test_a_loop_that_a_tensor_ends_is_refused_by_its_line() -> None:
    program = torch.export.export(Module(_while).eval(), (X, H))
    with pytest.raises(ModelError, match=r"while_loop \(test_torch_loops\.py:\d+: .*\): how long"):
        load_model(program)


def test_a_loop_of_many_iterations_is_refused() -> None:
    program = torch.export.export(Module(_mapped).eval(), (torch.zeros(5000, 4), H))
    with pytest.raises(ModelError, match=r"map_impl .* in 5000 iterations"):
        load_model(program)
