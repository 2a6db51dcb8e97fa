"""Elementwise operators move ahead of reshapes of matrix products, and no number changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tvm import relax
from tvm_ffi import structural_equal

from tests.kernels.test_layouts import build, const, run
from tvm_sphinx.kernels import sink_reshapes

op = relax.op
Emit = Callable[[Any], Any]


def linear(x: Any, emit: Emit, columns: int) -> Any:
    """A linear layer over the last axis, as torch's importer writes it."""
    *lead, inner = (int(extent) for extent in x.ty.shape.values)
    flat = emit(op.reshape(x, (-1, inner)))
    product = emit(op.matmul(flat, const(inner, columns)))
    return emit(op.reshape(emit(op.add(const(columns), product)), (*lead, columns)))


def feed_forward(x: Any, emit: Emit) -> Any:
    hidden = emit(op.nn.gelu(linear(x, emit, 12)))
    return emit(op.add(x, linear(hidden, emit, 7)))


def transposed_units(x: Any, emit: Emit) -> Any:
    rows = emit(op.reshape(x, (54, 1, 7)))
    y = emit(op.permute_dims(linear(rows, emit, 7), [1, 0, 2]))
    return emit(op.add(y, emit(op.permute_dims(rows, [1, 0, 2]))))


def other_operands(x: Any, emit: Emit) -> Any:
    y = emit(op.multiply(linear(x, emit, 5), relax.const(0.5)))
    y = emit(op.add(y, const(1, 6, 9, 5)))  # a constant of every element
    y = emit(op.add(const(5), y))  # one of the last axis
    y = emit(op.add(y, const(6, 1, 1)))  # one that only fits the outer shape
    return emit(op.maximum(y, emit(op.squeeze(emit(op.expand_dims(y, 0)), [0]))))


def used_twice(x: Any, emit: Emit) -> Any:
    y = linear(x, emit, 4)
    row = emit(op.nn.softmax(y))
    return emit(op.subtract(emit(op.exp(y)), row))


def other_rank(x: Any, emit: Emit) -> Any:
    tokens = emit(op.reshape(x, (54, 7)))
    product = emit(op.matmul(tokens, const(7, 4)))
    split = emit(op.reshape(product, (1, 54, 2, 2)))
    shifted = emit(op.add(split, const(2)))  # its last axis is not the product's
    return emit(op.negative(shifted))


GRAPHS = [feed_forward, transposed_units, other_operands, used_twice, other_rank]


@pytest.mark.parametrize("body", GRAPHS, ids=lambda body: body.__name__)
def test_numbers_stay_the_same(body: Callable[..., Any]) -> None:
    mod = build(body)
    before = mod.script(show_meta=True)
    sunk = sink_reshapes(mod)
    relax.analysis.well_formed(sunk)
    assert structural_equal(sunk, sink_reshapes(mod))
    assert mod.script(show_meta=True) == before, "the input changed"
    np.testing.assert_allclose(run(sunk, scheduled=False), run(mod, scheduled=False), rtol=1e-6)


def operators(mod: Any) -> list[str]:
    bindings = mod["main"].body.blocks[0].bindings
    calls = [binding.value for binding in bindings if isinstance(binding.value, relax.Call)]
    return [str(call.op.name).removeprefix("relax.") for call in calls]


def test_an_activation_and_a_residual_follow_their_product() -> None:
    names = operators(sink_reshapes(build(feed_forward)))
    first, second = (position for position, name in enumerate(names) if name == "matmul")
    assert names[first + 1 : second] == ["add", "nn.gelu"]
    assert [name for name in names[second + 1 :] if name != "reshape"] == ["add", "add"]


def test_a_permutation_of_unit_axes_is_a_reshape() -> None:
    assert "permute_dims" not in operators(sink_reshapes(build(transposed_units)))


def test_what_only_fits_the_outer_shape_stays_behind_the_reshape() -> None:
    names = operators(sink_reshapes(build(other_rank)))
    assert names == ["reshape", "matmul", "reshape", "add", "negative"]
