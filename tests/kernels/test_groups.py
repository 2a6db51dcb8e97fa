"""Groups of a convolution whose channels fill no vector write their own channels and no others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tvm
from numpy.lib.stride_tricks import sliding_window_view
from tvm import relax

import tvm_sphinx
from tvm_sphinx.platform import Platform, detect_platform


def _convolved(x: Any, weight: Any, groups: int, stride: int) -> Any:
    """Return a convolution [1, O, H, W] of an image that is padded by half a kernel, by NumPy."""
    size = weight.shape[-1]
    padded = np.pad(x, [(0, 0), (0, 0), (size // 2,) * 2, (size // 2,) * 2])
    windows = sliding_window_view(padded, (size, size), axis=(2, 3))[:, :, ::stride, ::stride]
    parts = np.split(windows[0], groups), np.split(weight, groups)
    found = [np.einsum("chwyx,ocyx->ohw", part, own) for part, own in zip(*parts, strict=True)]
    return np.concatenate(found)[None]


@pytest.mark.parametrize("is_flat", [False, True])
@pytest.mark.parametrize(
    ("groups", "into", "out", "size", "stride", "extent"),
    [
        (192, 1, 2, 7, 2, 4),
        (192, 1, 3, 7, 2, 9),
        (96, 2, 6, 7, 1, 6),
        (64, 4, 4, 3, 1, 14),
        (16, 4, 20, 5, 1, 8),
    ],
)
def test_groups_stay_apart_on_several_cores(
    groups: int, into: int, out: int, size: int, stride: int, extent: int, is_flat: bool
) -> None:
    """Two cores at once: a group that overwrote the next one's channels came out wrong."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, groups * into, extent, extent)).astype("float32")
    weight = rng.standard_normal((groups * out, into, size, size)).astype("float32")
    builder = relax.BlockBuilder()
    image = relax.Var("x", relax.TensorType(x.shape, "float32"))
    with builder.function("main", [image]):
        with builder.dataflow():
            padding = (size // 2, size // 2)
            made = builder.emit(
                relax.op.nn.conv2d(image, relax.const(weight), stride, padding, groups=groups)
            )
            made = builder.emit(relax.op.nn.relu(made))
            if is_flat:
                made = builder.emit(relax.op.reshape(made, [1, -1]))
            result = builder.emit_output(made)
        builder.emit_func_output(result)
    module: tvm.IRModule = builder.get()
    team = detect_platform().devices[-1]
    compiled = tvm_sphinx.compile(
        module, Platform((team,)), records=None, measure_budget_s=0, verify=False, with_reference=False
    )
    want = np.maximum(_convolved(x, weight, groups, stride), 0)
    for _ in range(3):
        (got,) = compiled.run([x])
        np.testing.assert_allclose(got, want.reshape(got.shape), rtol=1e-4, atol=1e-4)
