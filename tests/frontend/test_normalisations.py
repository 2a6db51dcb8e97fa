"""Normalisation of numbers far from zero: a variance that is a difference of squares would be lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from tests.frontend.evaluate import evaluate

X = np.random.default_rng(3).normal(1000, 1, size=(2, 6, 5, 4))
SCALE = np.linspace(0.5, 2, 6)
SHIFT = np.linspace(-1, 1, 6)


def _expected(groups: int) -> np.ndarray:
    grouped = X.astype(np.float32).astype(np.float64).reshape(2, groups, -1)
    centred = grouped - grouped.mean(-1, keepdims=True)
    unit = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return unit.reshape(X.shape) * SCALE[:, None, None] + SHIFT[:, None, None]


def _check(got: Any, want: np.ndarray) -> None:
    # Near 1,000 a float32 is known to 3e-5.
    np.testing.assert_allclose(got, want, atol=3e-4)


@pytest.mark.parametrize("groups", [1, 3, 6])
def test_torch_norms_keep_their_digits(groups: int) -> None:
    torch = pytest.importorskip("torch")
    layer = torch.nn.InstanceNorm2d(6, affine=True) if groups == 6 else torch.nn.GroupNorm(groups, 6)
    layer.weight.data, layer.bias.data = (torch.tensor(v, dtype=torch.float32) for v in (SCALE, SHIFT))
    x = torch.tensor(X, dtype=torch.float32)
    exported = torch.export.export(layer.eval(), (x,))
    _check(evaluate(exported, {"input": x.numpy()})[0], _expected(groups))


@pytest.mark.parametrize("groups", [1, 3, 6])
def test_onnx_norms_keep_their_digits(groups: int) -> None:
    node = (
        "InstanceNormalization(x, s, b)"
        if groups == 6
        else f"GroupNormalization<num_groups = {groups}>(x, s, b)"
    )
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 21]> norm (float[2, 6, 5, 4] x, float[6] s, float[6] b)'
        f" => (float[2, 6, 5, 4] y) {{ y = {node} }}"
    )
    feeds = {"x": X.astype("f"), "s": SCALE.astype("f"), "b": SHIFT.astype("f")}
    _check(evaluate(model, feeds)[0], _expected(groups))
