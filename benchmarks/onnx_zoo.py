"""The onnx package's light graphs with seeded random weights in place of their constant ones.

A light graph is a model of the ONNX zoo whose large weights were replaced by `ConstantOfShape`
nodes, so every weight of a tensor is the same number. That would hide a kernel that reads the wrong
element, so the nodes are replaced by initializers drawn from a seed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def light_path(onnx: Any, graph: str) -> Path:
    """Return the file of a light graph inside the installed onnx package.

    Raises
    ------
    FileNotFoundError
        If this version of onnx does not carry it.
    """
    path = Path(onnx.__file__).parent / "backend/test/data/light" / f"light_{graph}.onnx"
    if not path.is_file():
        raise FileNotFoundError(f"This version of onnx carries no light graph {graph!r}.")
    return path


def light_onnx(onnx: Any, path: Path, seed: int) -> tuple[bytes, tuple[str, tuple[int, ...]]]:
    """Return a light graph with random weights, and its image input's name and shape.

    Parameters
    ----------
    onnx
        The onnx package.
    path
        File of the light graph.
    seed
        Seed of the weights.
    """
    model = onnx.load(str(path))
    graph = model.graph
    shapes = {array.name: onnx.numpy_helper.to_array(array) for array in graph.initializer}
    roles = _roles(graph)
    rng = np.random.default_rng(seed)
    kept = []
    for node in graph.node:
        if node.op_type != "ConstantOfShape" or node.input[0] not in shapes:
            kept.append(node)
            continue
        shape = tuple(int(extent) for extent in shapes[node.input[0]])
        weight = _draw(rng, shape, roles.get(node.output[0], ""))
        graph.initializer.append(onnx.numpy_helper.from_array(weight, node.output[0]))
    del graph.node[:]
    graph.node.extend(kept)
    _drop_unused_initializers(graph)
    held = {array.name for array in graph.initializer}
    image = next(value for value in graph.input if value.name not in held)
    dims = tuple(dim.dim_value or 1 for dim in image.type.tensor_type.shape.dim)
    return model.SerializeToString(), (image.name, dims)


def _roles(graph: Any) -> dict[str, str]:
    """Map a weight's name to the role that decides its distribution."""
    roles = {}
    for node in graph.node:
        if node.op_type == "BatchNormalization":
            roles.update(zip(node.input[1:5], ("scale", "bias", "bias", "variance"), strict=True))
        elif node.op_type in ("Conv", "Gemm"):
            roles.update(dict.fromkeys(node.input[2:3], "bias"))
    return roles


def _draw(rng: np.random.Generator, shape: tuple[int, ...], role: str) -> np.ndarray:
    if role in ("scale", "variance"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    fan_in = max(1, int(np.prod(shape[1:])))
    spread = 0.1 if role == "bias" or len(shape) < 2 else float(np.sqrt(2.0 / fan_in))
    return (rng.standard_normal(shape) * spread).astype(np.float32)


def _drop_unused_initializers(graph: Any) -> None:
    used = {name for node in graph.node for name in node.input}
    kept = [array for array in graph.initializer if array.name in used]
    dropped = {array.name for array in graph.initializer} - {array.name for array in kept}
    del graph.initializer[:]
    graph.initializer.extend(kept)
    inputs = [value for value in graph.input if value.name not in dropped]
    del graph.input[:]
    graph.input.extend(inputs)
