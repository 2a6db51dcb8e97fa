"""Loops of torch programs are as in torch, as TVM runs them and as one task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch._higher_order_ops.map import map as torch_map  # noqa: E402 - torch may be missing
from torch._higher_order_ops.scan import scan  # noqa: E402 - as above
from torch._higher_order_ops.while_loop import while_loop  # noqa: E402 - as above

import tvm_sphinx  # noqa: E402 - as above
from tests.relax_modules import cpu_platform  # noqa: E402 - as above
from tvm_sphinx.errors import ModelError  # noqa: E402 - as above
from tvm_sphinx.frontend.load import load_model  # noqa: E402 - as above

from .evaluate import build  # noqa: E402 - as above
from .run_module import TARGET, run_default  # noqa: E402 - as above

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


def _while(layer: Any, x: Any, h: Any) -> Any:
    """Goes on four times, with a layer and a choice in it, around which others lie."""

    def step(count: Any, x: Any, h: Any) -> Any:
        halved = torch.cond(h.sum() > 0, lambda v: v * 0.5, lambda v: v - 0.1, (h,))
        return count + 1, torch.tanh(layer(x)) + h, halved

    count, x, h = while_loop(lambda n, x, h: n < 4, step, (torch.tensor(0), torch.exp(x), h))
    return count, x.softmax(-1), h


def _swapped(_layer: Any, x: Any, h: Any) -> Any:
    """Hands its values on in another order: none may be written before it is read."""
    state = (x.sum(0).abs(), h.abs(), h + 3)
    return while_loop(lambda a, b, c: a.sum() < 40, lambda a, b, c: (b + c, a.clone(), b.clone()), state)


def _nested(layer: Any, x: Any, h: Any) -> Any:
    def step(x: Any, h: Any) -> Any:
        (h,) = while_loop(lambda h: h.abs().max() > 0.5, lambda h: (h * 0.7,), (h + 2,))
        return x + layer(h).abs() + 0.5, h

    return while_loop(lambda x, h: x.sum() < 30, step, (x, h))


def _never(_layer: Any, x: Any, h: Any) -> Any:
    return while_loop(lambda x, h: x.sum() > 1e9, lambda x, h: (x + 1, h * 2), (x, h))


X, H = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), torch.linspace(-1, 1, 4)


@pytest.mark.parametrize("function", [_mapped, _scanned, _while, _swapped, _nested, _never])
def test_loops_are_as_in_torch_by_the_pipeline_of_tvm_and_on_lanes(function: Callable[..., Any]) -> None:
    module = Module(function).eval()
    program = torch.export.export(module, (X, H))
    with torch.no_grad():
        expected = torch.utils._pytree.tree_leaves(module(X, H))
    loaded = load_model(program)
    on_lanes = build(loaded, num_devices=2)({"x": X.numpy(), "h": H.numpy()})
    for found in (run_default(loaded, TARGET)([X.numpy(), H.numpy()]), on_lanes):
        for got, want in zip(found, expected, strict=True):
            assert str(got.dtype) == str(want.dtype).removeprefix("torch.")
            np.testing.assert_allclose(np.asarray(got), want.numpy(), rtol=1e-5, atol=1e-6)


def test_a_loop_is_one_task_that_is_measured_and_what_is_around_it_are_others() -> None:
    program = torch.export.export(Module(_while).eval(), (X, H))
    compiled = tvm_sphinx.compile(program, cpu_platform(1), records=None)
    assert compiled.graph is not None
    (loop,) = (task for task in compiled.graph.tasks if task.op_kinds == ("loop",))
    assert "while_loop (test_torch_loops.py:" in loop.origin[0]
    assert compiled.graph.num_tasks >= 3
    assert compiled.report.measured_share == 1.0
    for x in (X, X - 1):
        with torch.no_grad():
            expected = torch.utils._pytree.tree_leaves(Module(_while).eval()(x, H))
        assert int(compiled.run([x.numpy(), H.numpy()])[0]) == int(expected[0]) == 4


def test_a_loop_that_hands_on_a_number_is_refused_by_its_line() -> None:
    def counted(_layer: Any, x: Any, h: Any) -> Any:
        return while_loop(lambda n, x: n < 4, lambda n, x: (n + 1, x * 2), (0, x))

    program = torch.export.export(Module(counted).eval(), (X, H))
    with pytest.raises(
        ModelError, match=r"while_loop \(test_torch_loops\.py:\d+: .*\): expected tensors"
    ):
        load_model(program)


def test_a_loop_of_many_iterations_is_refused() -> None:
    program = torch.export.export(Module(_mapped).eval(), (torch.zeros(5000, 4), H))
    with pytest.raises(ModelError, match=r"map_impl .* in 5000 iterations"):
        load_model(program)
