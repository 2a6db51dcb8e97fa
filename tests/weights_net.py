"""A small branching network of all forms of weights that kernels take packed, as ONNX defines it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from tests.onnx_nets import example_of, with_weights
from tvm_sphinx.frontend.load import load_model

SHAPE = (1, 6, 8, 8)
_TEXT = """<ir_version: 8, opset_import: ["": 17]> net (float[1,6,8,8] x) => (float[3,1,7] y) {
    s = Conv <pads = [1,1,1,1]> (x, stem) r = Relu (s)
    a = Conv (r, point)
    d = Conv <pads = [1,1,1,1], group = 20> (r, depth) e = Relu (d)
    b = Conv <pads = [2,2,2,2], strides = [1,1]> (e, wide)
    f = Conv <pads = [1,1,1,1]> (a, shared) g = Conv <pads = [1,1,1,1]> (b, shared)
    c = Concat <axis = 1> (f, g) p = GlobalAveragePool (c)
    q = Conv (p, gate) h = Sigmoid (q) v = Flatten (h)
    m = MatMul (v, dense) n = Add (m, bias) t = Reshape (n, shape)
    y = MatMul (t, batched) }"""
#: Weights by name; those of ``shared`` are read by two tasks.
EXTENTS = {
    "stem": (20, 6, 3, 3),
    "point": (12, 20, 1, 1),
    "depth": (20, 1, 3, 3),
    "wide": (12, 20, 5, 5),
    "shared": (12, 12, 3, 3),
    "gate": (10, 24, 1, 1),
    "dense": (10, 18),
    "bias": (18,),
    "batched": (3, 6, 7),
}
#: Bytes of those that are packed, in panels of 16 columns or output channels.
PACKED_BYTES = {
    "stem": 4 * 32 * 6 * 9,
    "point": 4 * 16 * 20,
    "depth": 4 * 32 * 9,
    "wide": 4 * 16 * 20 * 25,
    "shared": 4 * 16 * 12 * 9,
    "gate": 4 * 16 * 24,
    "dense": 4 * 32 * 10,
    "batched": 4 * 16 * 3 * 6,
}


def model() -> onnx.ModelProto:
    """Return the model; its weights are seeded."""
    return with_weights(_TEXT, EXTENTS, {"shape": (3, 1, 6)})


def relax_module() -> Any:
    """Return the model as a Relax module."""
    return load_model(model())


def example() -> tuple[np.ndarray, np.ndarray]:
    """Return an input, and the output by onnx's reference evaluator."""
    return example_of(model(), SHAPE)
