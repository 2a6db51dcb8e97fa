"""What onnx infers of a model's values: their types and shapes, without a look at its weights."""

from __future__ import annotations

import math
from typing import Any

import onnx

from .onnx_values import MOST_ELEMENTS

# Where a tensor holds its elements.
_CONTENTS = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data")
# A message of protocol buffers ends at 2 GiB; so much of it is left for the graph.
_MOST_WEIGHTS = (2 << 30) - (64 << 20)


def infer_graph(model: Any) -> Any:
    """Return the graph of a model with the types that onnx infers; large weights have no values in it.

    onnx takes the model through a string and back, which it does to no purpose with the weights: only
    small tensors of one dimension decide on a shape. So a model of any size can be given.

    Parameters
    ----------
    model
        ``onnx.ModelProto``, which is not changed.

    Raises
    ------
    Exception
        Whatever onnx raises, whose errors share no base class.
    """
    light = onnx.ModelProto()
    light.CopyFrom(model)
    for tensor in light.graph.initializer:
        if len(tensor.dims) > 1 and math.prod(tensor.dims) > MOST_ELEMENTS:
            for field in _CONTENTS:
                tensor.ClearField(field)
    return onnx.shape_inference.infer_shapes(light, data_prop=True).graph


def typed_graph(model: Any) -> Any:
    """Return the graph of a model with the types of its values, as far as onnx can infer them."""
    try:
        return infer_graph(model)
    except Exception:  # onnx's errors share no base class; what needs to be known will say so
        return model.graph


def fits_message(model: Any) -> bool:
    """Return whether a model can be made a string: it is of less than 2 GiB, by its weights."""
    width = onnx.helper.tensor_dtype_to_np_dtype
    total = sum(math.prod(t.dims) * width(t.data_type).itemsize for t in model.graph.initializer)
    return bool(total < _MOST_WEIGHTS)
