"""What networks in ONNX's text share: seeded weights, and what onnx's evaluator makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx.parser
from onnx.reference import ReferenceEvaluator


def with_weights(
    text: str, extents: Mapping[str, Sequence[int]], numbers: Mapping[str, Sequence[int]]
) -> onnx.ModelProto:
    """Return a model with weights drawn in the order of ``extents``, and whole numbers as they are."""
    made = onnx.parser.parse_model(text)
    rng = np.random.default_rng(2)
    known = {name: (rng.standard_normal(shape) * 0.2).astype("f") for name, shape in extents.items()}
    for name, array in {**known, **{n: np.array(v, np.int64) for n, v in numbers.items()}}.items():
        made.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return made


def example_of(model: onnx.ModelProto, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return an input, and the output by onnx's reference evaluator."""
    x = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    (y,) = ReferenceEvaluator(model).run(None, {"x": x})
    return x, y
