"""Functions return tensors: shapes and numbers become tensors, and None is left out."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm.script import ir as I
from tvm.script import relax as R

from tests.frontend.evaluate import evaluate
from tvm_sphinx.errors import ModelError
from tvm_sphinx.frontend.load import load_model
from tvm_sphinx.frontend.tensor_outputs import with_tensor_outputs


@I.ir_module
class Mixed:
    @R.function
    def main(x: R.Tensor((3, 4), "float32")):
        with R.dataflow():
            twice = R.add(x, x)
            none = R.null_value()
            shape = R.shape([3, 4])
            R.output(twice, none, shape)
        return (twice, (none, shape, twice), R.prim_value(7))


@I.ir_module
class Nothing:
    @R.function
    def main(x: R.Tensor((3, 4), "float32")):
        with R.dataflow():
            none = R.null_value()
            R.output(none)
        return none


@I.ir_module
class Private:
    @R.function(private=True)
    def shape_of(x: R.Tensor((3, 4), "float32")):
        with R.dataflow():
            shape = R.shape_of(x)
            R.output(shape)
        return shape

    @R.function
    def main(x: R.Tensor((3, 4), "float32")):
        with R.dataflow():
            twice = R.add(x, x)
            R.output(twice)
        return twice


def test_shapes_and_numbers_are_tensors_and_none_is_left_out() -> None:
    x = np.ones((3, 4), np.float32)
    outputs = evaluate(Mixed, {"x": x})
    for got, want in zip(outputs, [x + x, np.array([3, 4]), x + x, np.array(7)], strict=True):
        np.testing.assert_array_equal(got, want)
        assert got.dtype == want.dtype


def test_a_function_that_returns_nothing_is_refused() -> None:
    with pytest.raises(ModelError, match="Expected function 'main' to return a tensor; it returns none"):
        load_model(Nothing)


def test_private_functions_and_tensors_stay() -> None:
    assert with_tensor_outputs(Private).same_as(Private)
    module = tvm.IRModule({"main": Private["main"]})
    assert with_tensor_outputs(module).same_as(module)
