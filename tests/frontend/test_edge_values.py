"""Comparisons of bools, tensors without elements, and values that are much alike."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.frontend.evaluate import evaluate, make_model, onnx_runtime
from tvm_sphinx.frontend.load import load_model

torch = pytest.importorskip("torch", reason="no PyTorch: pip install 'tvm-sphinx[torch]'")


@pytest.mark.parametrize("name", ["eq", "ne", "lt", "le", "gt", "ge"])
def test_bools_are_compared_as_numbers(name: str) -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
            compare = getattr(torch, name)
            return [compare(x, y), compare(x, True), compare(x, y[:1])]

    operands = torch.tensor([False, False, True, True]), torch.tensor([False, True, False, True])
    module = load_model(torch.export.export(Model(), operands))
    names = [str(param.name) for param in module["main"].params]
    feeds = dict(zip(names, (operand.numpy() for operand in operands), strict=True))
    for got, want in zip(evaluate(module, feeds), Model()(*operands), strict=True):
        np.testing.assert_array_equal(got, want.numpy())


def test_nothing_is_written_into_data_without_elements() -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor, k: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
            return x.scatter(0, k, s)

    operands = (
        torch.zeros(4, 2, 4, 0),
        torch.zeros(1, 1, 3, 0, dtype=torch.int64),
        torch.ones(1, 1, 3, 0),
    )
    module = load_model(torch.export.export(Model(), operands))
    names = [str(param.name) for param in module["main"].params]
    (got,) = evaluate(module, dict(zip(names, (each.numpy() for each in operands), strict=True)))
    assert got.shape == (4, 2, 4, 0)


@pytest.mark.parametrize(("shape", "axis"), [((0,), 1), ((3, 0, 2), 1), ((3, 2, 0), 2), ((0, 4), 0)])
def test_flattened_tensors_without_elements_keep_their_extents(shape: list[int], axis: int) -> None:
    data = np.zeros(shape, np.float32)
    nodes = [
        onnx.helper.make_node("Flatten", ["x"], ["f"], axis=axis),
        onnx.helper.make_node("Neg", ["f"], ["y"]),
    ]
    model = make_model(nodes, {"x": data}, ["y"])
    (want,) = onnx_runtime(model, {"x": data})
    assert evaluate(model, {"x": data}, falls_back=True)[0].shape == want.shape


def test_values_that_are_much_alike_are_normalised_to_all_digits() -> None:
    data = (2 + np.random.default_rng(1).normal(size=(2, 3, 4, 5)) * 1e-3).astype(np.float32)
    node = onnx.helper.make_node("MeanVarianceNormalization", ["x"], ["y"], axes=[2, 3])
    wide = data.astype(np.float64)
    centred = wide - wide.mean((2, 3), keepdims=True)
    want = centred / centred.std((2, 3), keepdims=True)
    (got,) = evaluate(make_model([node], {"x": data}, ["y"]), {"x": data})
    np.testing.assert_allclose(got, want, atol=2e-3)
