"""Which inputs are indices, and of what; what is computed, or read in part, is none."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tvm_sphinx.errors import ModelError
from tvm_sphinx.frontend.load import load_model, read_source
from tvm_sphinx.frontend.signature import read_interface
from tvm_sphinx.frontend.tensor_spec import IndexRange, TensorSpec
from tvm_sphinx.program.compiled import check_inputs


def ranges(model: Any) -> list[tuple[int, int] | None]:
    """Return the range of each input."""
    source = read_source(model)
    interface = read_interface(source, load_model(source)["main"])
    return [spec.index and (spec.index.low, spec.index.high) for spec in interface.inputs]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(float[2,3,2] y) { y = Gather(seven, ids) }", (-7, 6)),
        ("(float[7,2,3] y) { y = Gather<axis=1>(seven, ids) }", (-2, 1)),
        ("(float[2,3,2] y) { a = Cast<to=6>(ids) b = Flatten(a) y = Gather(seven, b) }", (-7, 6)),
        ("(float[4,3,2] y) { a = Concat<axis=0>(ids, ids) y = Gather(seven, a) }", (-7, 6)),
        ("(float[2,3,2] y, float[2,3,2] z) { y = Gather(seven, ids) z = Gather(three, ids) }", (-3, 2)),
        ("(float[2,3,2] y) { a = Add(ids, ids) y = Gather(seven, a) }", None),
        ("(int64[2,3] y) { y = Neg(ids) }", None),
    ],
)
def test_onnx_inputs_that_are_read_with_have_a_range(
    text: str, expected: tuple[int, int] | None
) -> None:
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> net (int64[2,3] ids) => {text}'
    )
    for name, rows in (("seven", 7), ("three", 3)):
        model.graph.initializer.append(numpy_helper.from_array(np.zeros((rows, 2), np.float32), name))
    assert ranges(model) == [expected]


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_torch_inputs_that_are_read_with_have_a_range() -> None:
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(9, 4)

        def forward(
            self,
            ids: torch.Tensor,
            place: torch.Tensor,
            chosen: torch.Tensor,
            moved: torch.Tensor,
            classes: torch.Tensor,
        ) -> torch.Tensor:
            rows = self.table(ids.view(-1))
            late = self.table(moved.clamp(0, 8))
            late += torch.nn.functional.one_hot(classes, 4)
            return rows[chosen] + rows.gather(0, place) + late

    ids = torch.zeros(2, 3, dtype=torch.int64)
    place, few = torch.zeros(6, 4, dtype=torch.int64), torch.zeros(6, dtype=torch.int64)
    program = torch.export.export(Net().eval(), (ids, place, few, few.clone(), few.clone()))
    assert ranges(program) == [(0, 8), (0, 5), (-6, 5), None, (0, 3)]


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_a_place_that_is_selected_by_a_tensor() -> None:
    import torch

    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
            return x[:, step] * 2

    program = torch.export.export(Net(), (torch.zeros(4, 3), torch.tensor(1)))
    assert ranges(program) == [None, (-3, 2)]


def test_an_index_that_is_out_of_range_is_named_with_its_place() -> None:
    spec = TensorSpec("ids", (2, 2), "int64", IndexRange(0, 6, "Gather of 'table'"))
    check_inputs([spec], [np.array([[0, 6], [1, 2]])])
    for wrong in (7, -1):
        with pytest.raises(
            ModelError,
            match=rf"input 'ids' in 0\.\.6, for Gather of 'table'; got {wrong} at \[1, 0\]",
        ):
            check_inputs([spec], [np.array([[0, 6], [wrong, 2]])])
    empty = TensorSpec("ids", (0,), "int64", spec.index)
    check_inputs([empty], [np.zeros(0, np.int64)])
    assert TensorSpec.from_json(spec.to_json()) == spec
