"""Reductions over no element: what they start from, never what the memory held."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import helper
from tvm import te

from tests.frontend.evaluate import evaluate, onnx_runtime
from tvm_sphinx.frontend.empty_reductions import start_reductions

torch = pytest.importorskip("torch")

OPERATORS = ("ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceSumSquare")
EMPTY = [((0,), [0]), ((3, 0), [1]), ((0, 3), [0]), ((2, 0, 3), [1]), ((2, 0), [0, 1]), ((0, 3), [1])]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64"])
def test_known_extents_are_as_in_onnx_runtime(dtype: str) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    inputs = [helper.make_tensor_value_info(f"x{i}", kind, shape) for i, (shape, _) in enumerate(EMPTY)]
    nodes = [
        helper.make_node(operator, [f"x{i}"], [f"{operator}{i}"], axes=axes, keepdims=i % 2)
        for operator in OPERATORS
        for i, (_, axes) in enumerate(EMPTY)
    ]
    outputs = [helper.make_empty_tensor_value_info(node.output[0]) for node in nodes]
    graph = helper.make_graph(nodes, "net", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    feeds = {f"x{i}": np.zeros(shape, dtype) for i, (shape, _) in enumerate(EMPTY)}
    found, wanted = evaluate(model, feeds), onnx_runtime(model, feeds)
    for node, mine, right in zip(nodes, found, wanted, strict=True):
        np.testing.assert_array_equal(mine, right, str(node.output))


class _Of(torch.nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x[x > 0].sum(),
        lambda x: x[x > 0].prod() + x[x[:, 0] > 0].sum(0),
        lambda x: (x[x > 0] > 1).any(),
        lambda x: (x[x > 0] > 1).all(),
        lambda x: x[x > 0].mean(),
    ],
    ids=["sum", "product", "any", "all", "mean"],
)
def test_extents_that_are_computed_are_as_in_torch(
    function: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    drawn = torch.rand(4, 3) - 0.5
    program = torch.export.export(_Of(function), (drawn,))
    for given in (drawn, -drawn.abs()):
        (mine,) = evaluate(program, {"x": given.numpy()}, falls_back=True)
        np.testing.assert_allclose(mine, function(given).numpy(), rtol=1e-5)


@pytest.mark.parametrize("shape", [(3, 0), (0, 3)])
def test_none_of_no_element_is_true_and_all_are(shape: tuple[int, int]) -> None:
    given = torch.zeros(shape)
    program = torch.export.export(_Of(lambda x: (x.any(0), x.any(1), x.all(0), x.all(1))), (given,))
    results = evaluate(program, {"x": given.numpy()})
    for mine, right in zip(results, program.module()(given), strict=True):
        np.testing.assert_array_equal(mine, right.numpy())


def test_what_has_elements_stays_as_it_is() -> None:
    data = te.placeholder((3, 4), "float32")
    axis = te.reduce_axis((0, 4))
    rows = te.compute((3,), lambda row: te.sum(data[row, axis], axis=axis))
    function = te.create_prim_func([data, rows])
    assert start_reductions(function).same_as(function)
