"""A small network of grouped convolutions, a channel shuffle and a split of channels, as ONNX has it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from tests.onnx_nets import example_of, with_weights
from tvm_sphinx.frontend.load import load_model

SHAPE = (1, 6, 8, 8)
_TEXT = """<ir_version: 8, opset_import: ["": 17]> net (float[1,6,8,8] x) => (float[1,30] y) {
    s = Conv <pads = [1,1,1,1]> (x, stem) r = Relu (s)
    g = Conv <group = 3> (r, point)
    v = Reshape (g, apart) w = Transpose <perm = [0,2,1,3,4]> (v) h = Reshape (w, together)
    d = Conv <pads = [1,1,1,1], group = 24> (h, depth)
    a, b = Split <axis = 1> (d, parts)
    c = Conv <pads = [1,1,1,1], group = 2> (b, grouped) e = Relu (c)
    j = Concat <axis = 1> (a, e) p = GlobalAveragePool (j) y = Flatten (p) }"""
_EXTENTS = {
    "stem": (12, 6, 3, 3),
    "point": (24, 4, 1, 1),
    "depth": (24, 1, 3, 3),
    "grouped": (20, 7, 3, 3),
}
_SHAPES = {"apart": (1, 3, 8, 8, 8), "together": (1, 24, 8, 8), "parts": (10, 14)}


def model() -> onnx.ModelProto:
    """Return the model; its weights are seeded."""
    return with_weights(_TEXT, _EXTENTS, _SHAPES)


def relax_module() -> Any:
    """Return the model as a Relax module."""
    return load_model(model())


def example() -> tuple[np.ndarray, np.ndarray]:
    """Return an input, and the output by onnx's reference evaluator."""
    return example_of(model(), SHAPE)
