"""Maps that interleave groups of channels get an axis for the group, and keep their values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tvm import te

from tests.kernels.reference import TARGET, run
from tvm_sphinx.kernels.implement import implement_kernel
from tvm_sphinx.kernels.interleave import INTERLEAVES, interleaved
from tvm_sphinx.kernels.maps import Views, read_map, root_nests, write_maps


def _function(channels: int, groups: int) -> Any:
    """Return a shuffle of channels that stand last, with what stood there added."""
    image = te.placeholder((1, 5, 4, channels), name="image")
    extent = channels // groups
    made = te.compute(
        image.shape,
        lambda n, y, x, c: image[n, y, x, c % groups * extent + c // groups] + image[n, y, x, c],
    )
    return te.create_prim_func([image, made], index_dtype_override="int64")


@pytest.mark.parametrize(("channels", "groups"), [(12, 3), (48, 8)])
def test_groups_become_an_axis_and_values_stay(channels: int, groups: int) -> None:
    function = _function(channels, groups)
    whole = read_map(root_nests(function)[0])
    assert whole is not None
    made = interleaved(whole)
    assert made.extents == (1, 5, 4, channels // groups, groups)
    written = write_maps(function, [[made]], Views(function.params))
    x = np.random.default_rng(0).standard_normal((1, 5, 4, channels)).astype(np.float32)
    want = x.reshape(1, 5, 4, groups, -1).swapaxes(-1, -2).reshape(x.shape) + x
    scheduled = implement_kernel(written.with_attr("global_symbol", "main"), TARGET)
    assert INTERLEAVES in str(scheduled)
    assert "vectorized" not in str(scheduled)
    np.testing.assert_array_equal(run(scheduled, [x])[0], want)


@pytest.mark.parametrize(("channels", "groups"), [(12, 2), (36, 9), (6, 1)])
def test_two_groups_many_and_none_stay(channels: int, groups: int) -> None:
    whole = read_map(root_nests(_function(channels, groups))[0])
    assert whole is not None
    assert interleaved(whole) is whole
