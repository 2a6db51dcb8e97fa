"""What docs/numbers.md says of NaN and of half floats, beside torch and ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")
F = torch.nn.functional

from tests.frontend.evaluate import evaluate, make_model, onnx_runtime  # noqa: E402 - torch may be missing

_NAN, _INF = float("nan"), float("inf")
# Rows without NaN, with some, of nothing else; in the first, the last and other places.
X = torch.tensor(
    [
        [1.0, 3.0, -2.0, 0.5],
        [1.0, _NAN, 3.0, -2.0],
        [_NAN, -1.0, 0.0, 5.0],
        [-_INF, 2.0, _NAN, _INF],
        [2.0, 1.0, 0.0, _NAN],
        [_NAN] * 4,
    ]
)
Y = X.flip(0)
_HAS_NAN = X.isnan().any(1).numpy()

Function = Callable[[Any, Any], Any]

CARRIED: dict[str, Function] = {
    "add": lambda x, y: x + y,
    "divide": lambda x, y: x / y,
    "exp": lambda x, y: x.exp(),
    "tanh": lambda x, y: x.tanh(),
    "sigmoid": lambda x, y: x.sigmoid(),
    "erf": lambda x, y: x.erf(),
    "sqrt": lambda x, y: x.sqrt(),
    "sum": lambda x, y: x.sum(1),
    "mean": lambda x, y: x.mean(1),
    "softmax": lambda x, y: x.softmax(1),
    "logsumexp": lambda x, y: x.logsumexp(1),
    "matmul": lambda x, y: x @ y.T,
    "greater": lambda x, y: x > y,
    "not equal": lambda x, y: x != y,
    "unlike itself": lambda x, y: x != x,
    "like itself": lambda x, y: x == x,
    "not greater": lambda x, y: ~(x > y),
    "not equal, alike": lambda x, y: x.exp() != x.exp(),
    "not like itself": lambda x, y: ~(x == x),
    "without NaN": lambda x, y: torch.where(x != x, y, x),
    "where": lambda x, y: torch.where(x > 0, x, y),
    "leaky_relu": lambda x, y: F.leaky_relu(x),
    "hardswish": lambda x, y: F.hardswish(x),
    "isnan": lambda x, y: x.isnan(),
}
# Each with the bounds that may stand for a NaN.
CHOSEN: dict[str, tuple[Function, Sequence[float]]] = {
    "relu": (lambda x, y: x.relu(), (0,)),
    "relu6": (lambda x, y: F.relu6(x), (0, 6)),
    "clamp": (lambda x, y: x.clamp(-1, 1), (-1, 1)),
    "clamp min": (lambda x, y: x.clamp(min=0.5), (0.5, _INF)),
    "hardtanh": (lambda x, y: F.hardtanh(x), (-1, 1)),
    "hardsigmoid": (lambda x, y: F.hardsigmoid(x), (0, 1)),
    "elu": (lambda x, y: F.elu(x), (0,)),
    "maximum": (torch.maximum, ()),
    "minimum": (torch.minimum, ()),
}
REDUCED: dict[str, Function] = {
    "amax": lambda x, y: x.amax(1),
    "amin": lambda x, y: x.amin(1),
    "max": lambda x, y: x.max(1).values,
    "median": lambda x, y: x.median(1).values,
    "argmax": lambda x, y: x.gather(1, x.argmax(1, keepdim=True))[:, 0],
    "argmin": lambda x, y: x.gather(1, x.argmin(1, keepdim=True))[:, 0],
}
ORDERED: dict[str, Function] = {
    "sort": lambda x, y: x.sort(1).values,
    "sort down": lambda x, y: x.sort(1, descending=True).values,
    "argsort": lambda x, y: x.gather(1, x.argsort(1)),
    "topk": lambda x, y: x.topk(4, 1).values,
}


class Several(torch.nn.Module):
    def __init__(self, functions: Sequence[Function]) -> None:
        super().__init__()
        self.functions = functions

    def forward(self, x: Any, y: Any) -> list[Any]:
        return [function(x, y) for function in self.functions]


@pytest.fixture(scope="module")
def found() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What we compute, and what torch computes, by name."""
    named = {**CARRIED, **{name: f for name, (f, _) in CHOSEN.items()}, **REDUCED, **ORDERED}
    module = Several(list(named.values()))
    ours = evaluate(torch.export.export(module, (X, Y)), {"x": X.numpy(), "y": Y.numpy()})
    right = [value.numpy() for value in module(X, Y)]
    return dict(zip(named, zip(ours, right, strict=True), strict=True))


@pytest.mark.parametrize("name", CARRIED)
def test_nan_is_carried_on(name: str, found: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    ours, right = found[name]
    np.testing.assert_allclose(ours, right, rtol=1e-5, equal_nan=True)


@pytest.mark.parametrize("name", CHOSEN)
def test_of_two_numbers_either_is_taken(
    name: str, found: dict[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    """Where torch gives NaN, the result is NaN, the other operand, or a bound."""
    ours, right = found[name]
    _, bounds = CHOSEN[name]
    is_number = ~np.isnan(right)
    np.testing.assert_allclose(ours[is_number], right[is_number], rtol=1e-5)
    choices = np.stack([np.full_like(ours, bound) for bound in bounds] or [X.numpy(), Y.numpy()])
    assert (np.isnan(ours) | (ours == choices).any(0))[~is_number].all()


@pytest.mark.parametrize("name", REDUCED)
def test_of_many_numbers_one_is_taken(
    name: str, found: dict[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    ours, right = found[name]
    np.testing.assert_array_equal(ours[~_HAS_NAN], right[~_HAS_NAN])
    assert (np.isnan(ours) | (ours[:, None] == X.numpy()).any(1)).all()


@pytest.mark.parametrize("name", ORDERED)
def test_nothing_is_lost_in_an_order_with_nan(
    name: str, found: dict[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    ours, right = found[name]
    np.testing.assert_array_equal(ours[~_HAS_NAN], right[~_HAS_NAN])
    np.testing.assert_array_equal(np.sort(ours, 1), np.sort(X.numpy(), 1))


def test_the_same_holds_beside_onnx_runtime() -> None:
    make = onnx.helper.make_node
    nodes = [
        make("Relu", ["x"], ["relu"]),
        make("Max", ["x", "y"], ["max"]),
        make("ReduceMax", ["x"], ["reduced"], axes=[1], keepdims=0),
        make("Softmax", ["x"], ["softmax"]),
    ]
    feeds = {"x": X.numpy(), "y": Y.numpy()}
    model = make_model(nodes, feeds, ["relu", "max", "reduced", "softmax"])
    ours, right = evaluate(model, feeds), onnx_runtime(model, feeds)
    for mine, theirs in zip(ours[:2], right[:2], strict=True):
        is_number = ~np.isnan(theirs)
        np.testing.assert_array_equal(mine[is_number], theirs[is_number])
    np.testing.assert_array_equal(ours[2][~_HAS_NAN], right[2][~_HAS_NAN])
    np.testing.assert_allclose(ours[3], right[3], rtol=1e-5, equal_nan=True)


def test_bfloat16_is_rounded_once_for_a_kernel() -> None:
    """torch rounds after each operator; what is fused here is nearer to the exact result."""
    rng = torch.Generator().manual_seed(0)
    x, y = (torch.randn(64, 8, generator=rng).bfloat16().float() for _ in range(2))

    class Net(torch.nn.Module):
        def forward(self, x: Any, y: Any) -> Any:
            a, b = x.bfloat16(), y.bfloat16()
            return ((a * b + a) * b - a).float()

    exact = ((x * y + x) * y - x).double().numpy()
    ours = evaluate(torch.export.export(Net(), (x, y)), {"x": x.numpy(), "y": y.numpy()})[0]
    theirs = Net()(x, y).double().numpy()
    assert np.abs(ours - exact).sum() <= np.abs(theirs - exact).sum()
    # Half of the last of eight bits, of the result and of what is taken from it.
    np.testing.assert_allclose(ours, exact, rtol=2**-8, atol=2**-8 * np.abs(exact).max())
