"""Layer and group norms of float64, of which TVM has no kernels, as formulas. [TVM]"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._tvm import relax
from .bounded_indices import Emit

_op = relax.op


def layer_norm(emit: Emit, call: Any) -> Any:
    """Rewrite ``nn.layer_norm`` of float64."""
    data, gamma, beta = call.args
    if str(data.ty.dtype) != "float64":
        return None
    attrs = call.attrs
    found = _normalised(emit, data, [int(axis) for axis in attrs.axes], float(attrs.epsilon))
    if attrs.scale:
        found = emit(_op.multiply(found, gamma))
    return _op.add(found, beta) if attrs.center else found


def group_norm(emit: Emit, call: Any) -> Any:
    """Rewrite ``nn.group_norm`` of float64 whose channels are its second axis."""
    data, gamma, beta = call.args
    attrs, rank = call.attrs, int(data.ty.ndim)
    if str(data.ty.dtype) != "float64" or int(attrs.channel_axis) % rank != 1:
        return None
    extents = list(data.ty.shape.values)
    groups = emit(_op.reshape(data, [extents[0], int(attrs.num_groups), -1]))
    normalised = _normalised(emit, groups, [2], float(attrs.epsilon))
    found = emit(_op.reshape(normalised, extents))
    by_channel = [1, extents[1], *[1] * (rank - 2)]
    if attrs.scale:
        found = emit(_op.multiply(found, emit(_op.reshape(gamma, by_channel))))
    return _op.add(found, emit(_op.reshape(beta, by_channel))) if attrs.center else found


def _normalised(emit: Emit, data: Any, axes: Sequence[int], epsilon: float) -> Any:
    """Return data less its mean along axes, over its standard deviation."""
    less = emit(_op.subtract(data, emit(_op.mean(data, axes, keepdims=True))))
    variance = emit(_op.mean(emit(_op.multiply(less, less)), axes, keepdims=True))
    deviation = emit(_op.sqrt(emit(_op.add(variance, relax.const(epsilon, "float64")))))
    return emit(_op.divide(less, deviation))
