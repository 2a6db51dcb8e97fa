"""Constant folding with NumPy gives the values of TVM's own pass, and leaves it the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax, tirx

from tvm_sphinx.frontend import fold_constants as constants
from tvm_sphinx.frontend.fold_constants import fold_constants

op = relax.op


def const(*shape: int, dtype: str = "float32") -> Any:
    rng = np.random.default_rng(sum(shape))
    if dtype == "bool":
        return relax.const(rng.integers(0, 2, shape).astype(bool), dtype)
    low = 0.5 if dtype.startswith("float") else 1
    return relax.const(rng.uniform(low, 7, shape).astype(dtype), dtype)


EXPRESSIONS: dict[str, Callable[[], Any]] = {
    "add": lambda: op.add(const(4, 3), const(3)),
    "add a number": lambda: op.add(const(4, 3), tirx.FloatImm("float32", 0.001)),
    "subtract": lambda: op.subtract(const(4, 1), const(1, 5)),
    "multiply": lambda: op.multiply(const(7, dtype="int64"), const(7, dtype="int64")),
    "divide": lambda: op.divide(const(6, 2), const(2)),
    "power": lambda: op.power(const(6), relax.const(1.5)),
    "maximum": lambda: op.maximum(const(3, 5), const(5)),
    "float16": lambda: op.multiply(const(9, dtype="float16"), const(9, dtype="float16")),
    "less": lambda: op.less(const(3, 5), const(5)),
    "logical_not": lambda: op.logical_not(const(3, 5, dtype="bool")),
    "negative": lambda: op.negative(const(3, 1)),
    "sqrt": lambda: op.sqrt(const(3, 1)),
    "rsqrt": lambda: op.rsqrt(const(3, 1)),
    "exp": lambda: op.exp(const(5)),
    "reshape": lambda: op.reshape(const(4, 3), (2, 6)),
    "broadcast_to": lambda: op.broadcast_to(const(4, 1), (2, 4, 3)),
    "permute_dims": lambda: op.permute_dims(const(4, 3, 2), [2, 0, 1]),
    "transpose": lambda: op.permute_dims(const(4, 3)),
    "expand_dims": lambda: op.expand_dims(const(4, 3), [0, -1]),
    "squeeze": lambda: op.squeeze(const(4, 1, 1), [1]),
    "squeeze all": lambda: op.squeeze(const(1, 4, 1)),
    "squeeze axes of which one is longer": lambda: op.squeeze(const(1, 4), [0, 1]),
    "concat": lambda: op.concat([const(4, 3), const(2, 3)], 0),
    "slice": lambda: op.strided_slice(const(9, 8), [0, 1], [1, -3], [20, 8], [2, 1]),
    "take": lambda: op.take(const(5, 3), relax.const(np.array([[4, 0]])), axis=0),
    "astype": lambda: op.astype(const(4, 3), "int32"),
    "where": lambda: op.where(const(4, 3, dtype="bool"), const(4, 3), const(3)),
    "mod": lambda: op.mod(relax.const(np.array([-7, 7, 5])), relax.const(np.array([3, -3, 5]))),
    "bitwise_and": lambda: op.bitwise_and(const(5, dtype="bool"), const(5, dtype="bool")),
    "gather_elements": lambda: op.gather_elements(
        const(3, 2), relax.const(np.array([[2, 0], [1, 1]])), axis=0
    ),
    "slice_scatter": lambda: op.slice_scatter(const(6, 4), const(6, 2), 1, 4, 2, axis=1),
    "full_like": lambda: op.full_like(const(3, 4), relax.const(1.5)),
    "abs": lambda: op.abs(op.negative(const(3))),
    "matmul": lambda: op.matmul(const(2, 5), const(5, 3)),
    "full": lambda: op.full((2, 3), relax.const(2.5)),
    "zeros": lambda: op.zeros((4,), "float32"),
    "ones": lambda: op.ones((4,), "int64"),
}


def module(expression: Any) -> tvm.IRModule:
    """Return a function of x that gives x and the expression."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((2,), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            value = builder.emit(expression)
            if isinstance(value.ty, relax.TupleType):
                value = builder.emit(relax.TupleGetItem(value, 1))
            out = builder.emit_output(relax.Tuple([x, value]))
        builder.emit_func_output(out)
    return builder.get()


def folded_value(mod: tvm.IRModule) -> np.ndarray:
    (block,) = mod["main"].body.blocks
    value = block.bindings[-1].value.fields[1]
    assert isinstance(value, tvm.ir.GenericConst), f"not folded:\n{mod}"
    return value.value.numpy()


@pytest.fixture
def without_tvm_folding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise AssertionError("left to TVM")

    monkeypatch.setattr(constants.relax.transform, "FoldConstant", fail)


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_values_are_those_of_tvm(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mod = module(EXPRESSIONS[name]())
    before = mod.script(show_meta=True)
    expected = folded_value(relax.transform.FoldConstant()(mod))
    monkeypatch.setattr(constants.relax.transform, "FoldConstant", None)  # NumPy has to know it all
    got = folded_value(fold_constants(mod))
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    tolerance = {"float32": 1e-6, "float16": 1e-3}.get(str(got.dtype), 0.0)
    np.testing.assert_allclose(got, expected, rtol=tolerance)
    assert mod.script(show_meta=True) == before, "the input changed"


@pytest.mark.usefixtures("without_tvm_folding")
def test_parts_of_a_split_and_chains_are_folded() -> None:
    split = module(op.split(const(2, 6), [1, 4], axis=1))
    np.testing.assert_array_equal(folded_value(fold_constants(split)), const(2, 6).value.numpy()[:, 1:4])
    scale = op.multiply(op.reshape(const(4), (4, 1)), op.rsqrt(op.add(const(4, 1), relax.const(1e-3))))
    bindings = fold_constants(module(scale))["main"].body.blocks[0].bindings
    assert len(bindings) == 1, "what the constants were made of is still there"


@pytest.mark.usefixtures("without_tvm_folding")
def test_a_range_is_folded_which_tvm_s_pass_leaves() -> None:
    value = folded_value(fold_constants(module(op.arange(1, 9, 3, "int64"))))
    np.testing.assert_array_equal(value, np.array([1, 4, 7]))


@pytest.mark.usefixtures("without_tvm_folding")
def test_known_shapes_are_folded_where_tensors_are_not() -> None:
    builder = relax.BlockBuilder()
    x, y = (relax.Var(name, relax.TensorType(shape)) for name, shape in (("x", (2, 6)), ("y", (3, 4))))
    with builder.function("main", [x, y]):
        with builder.dataflow():
            shape = builder.emit(op.shape_of(y))
            extents = builder.emit(op.shape_to_tensor(shape))
            doubled = builder.emit(op.multiply(extents, relax.const(np.array([2, 2]), "int64")))
            viewed = builder.emit(op.reshape(x, shape))
            output = builder.emit_output(relax.Tuple([viewed, doubled]))
        builder.emit_func_output(output)
    folded = fold_constants(builder.get())
    np.testing.assert_array_equal(folded_value(folded), [6, 8])
    assert "shape_of" not in folded.script()


@pytest.mark.usefixtures("without_tvm_folding")
def test_large_created_tensors_stay_operators() -> None:
    mod = module(op.zeros((64, 64), "float32"))
    assert "R.zeros" in fold_constants(mod).script()


def test_what_numpy_does_not_know_is_left_to_tvm() -> None:
    value = folded_value(fold_constants(module(op.erf(op.add(const(3), const(3))))))
    assert value.shape == (3,)


@pytest.mark.usefixtures("without_tvm_folding")
def test_an_operator_on_an_input_stays() -> None:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((3,), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            out = builder.emit_output(op.add(x, builder.emit(op.sqrt(const(3)))))
        builder.emit_func_output(out)
    (block,) = fold_constants(builder.get())["main"].body.blocks
    (binding,) = block.bindings
    assert isinstance(binding.value.args[1], tvm.ir.GenericConst)
