"""What a caller may give to a compiled model: arrays and tensors of every kind of the right type."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx.parser
import pytest

import tvm_sphinx
from tvm_sphinx.program.compiled import CompiledModel
from tvm_sphinx.runtime.tensors import to_tensor

X = np.arange(12, dtype="f").reshape(3, 4) - 5


def _compiled(dtype: str) -> CompiledModel:
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 21]> net ({dtype}[3, 4] x) => ({dtype}[3, 4] y) '
        "{ y = Add(x, x) }"
    )
    platform = "unlike-cpus"
    return tvm_sphinx.compile(
        model, platform, records=None, measure_budget_s=0.0, with_reference=False, verify=False
    )


@pytest.fixture(scope="module")
def of_halves() -> CompiledModel:
    """Return a model that doubles bfloat16."""
    return _compiled("bfloat16")


@pytest.fixture(scope="module")
def of_floats() -> CompiledModel:
    """Return a model that doubles float32."""
    return _compiled("float")


def _check(model: CompiledModel, given: Any) -> None:
    (found,) = model.run([given])
    np.testing.assert_array_equal(found.astype("f"), 2 * X)


def test_bfloat16_of_ml_dtypes(of_halves: CompiledModel) -> None:
    array = X.astype(ml_dtypes.bfloat16)
    _check(of_halves, array)
    _check(of_halves, np.asfortranarray(array))
    frozen = array.copy()
    frozen.flags.writeable = False
    _check(of_halves, frozen)
    _check(of_halves, to_tensor(array))


def test_bfloat16_of_torch(of_halves: CompiledModel) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.tensor(X, dtype=torch.bfloat16)
    _check(of_halves, tensor)
    _check(of_halves, tensor.t().contiguous().t())
    _check(of_halves, torch.nn.Parameter(tensor))


def test_tensors_of_torch_that_know_their_gradient(of_floats: CompiledModel) -> None:
    torch = pytest.importorskip("torch")
    _check(of_floats, torch.nn.Parameter(torch.tensor(X)))
    with torch.inference_mode():
        _check(of_floats, torch.tensor(X).t().contiguous().t())
