"""Views within a kernel are seen through: what is read is what they view."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tvm import te, topi

from tests.kernels.reference import compare, run
from tvm_sphinx.kernels.plain_views import without_views


def _shuffle(image: Any, groups: int) -> Any:
    batch, channels, height, width = (int(extent) for extent in image.shape)
    parts = topi.reshape(image, (batch, groups, channels // groups, height, width))
    return topi.reshape(topi.transpose(parts, [0, 2, 1, 3, 4]), (batch, channels, height, width))


@pytest.mark.parametrize("batch", [1, 2])
def test_a_channel_shuffle_reads_another_channel_of_the_same_pixel(batch: int) -> None:
    image = te.placeholder((batch, 12, 5, 7), name="image")
    made = without_views(te.create_prim_func([image, _shuffle(image, 3)], index_dtype_override="int64"))
    x = np.random.default_rng(0).standard_normal((batch, 12, 5, 7)).astype(np.float32)
    (found,) = run(made.with_attr("global_symbol", "main"), [x])
    expected = x.reshape(batch, 3, 4, 5, 7).transpose(0, 2, 1, 3, 4).reshape(x.shape)
    np.testing.assert_array_equal(found, expected)
    assert not list(made.body.block.alloc_buffers)


def test_what_is_computed_in_between_stays() -> None:
    image = te.placeholder((1, 12, 5, 7), name="image")
    function = te.create_prim_func(
        [image, topi.nn.relu(_shuffle(topi.exp(image), 3))], index_dtype_override="int64"
    )
    made = without_views(function)
    assert [len(buffer.shape) for buffer in made.body.block.alloc_buffers] == [4, 4]
    x = np.random.default_rng(0).standard_normal((1, 12, 5, 7)).astype(np.float32)
    compare(
        *run(made.with_attr("global_symbol", "main"), [x]),
        *run(function.with_attr("global_symbol", "main"), [x]),
    )


def _computed() -> Any:
    """Return a function that computes in five axes."""
    image = te.placeholder((1, 12, 5, 7), name="image")
    parts = topi.exp(topi.reshape(image, (1, 3, 4, 5, 7)))
    return te.create_prim_func([image, topi.reshape(parts, (1, 12, 5, 7))])


def _summed() -> Any:
    """Return a function that sums a view."""
    image = te.placeholder((1, 12, 5, 7), name="image")
    return te.create_prim_func([image, topi.sum(topi.reshape(image, (1, 3, 4, 5, 7)), axis=1)])


@pytest.mark.parametrize("make", [_computed, _summed])
def test_sums_and_what_is_computed_in_other_shapes_stay(make: Any) -> None:
    function = make()
    if make is _summed:
        assert without_views(function) is function
    else:
        assert [len(buffer.shape) for buffer in without_views(function).body.block.alloc_buffers] == [5]
