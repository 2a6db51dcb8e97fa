"""Group and instance normalisation that keep their digits where the mean is large. [TVM]

TVM's kernels subtract the square of the mean from the mean of the squares: a percent is lost where
the mean is 100 standard deviations, and with 1,000 the result is NaN. Instances have their mean
subtracted first here, as in TVM's layer normalisation. Groups, whose kernel of one pass is the faster
one, have their first element subtracted, which changes nothing else (shifted data; Chan, Golub, LeVeque
1983).
"""

from __future__ import annotations

import functools
import operator
from typing import Any

from tvm import te, topi

from .._tvm import tirx
from .half_functions import HALVES

_ZERO = tirx.const(0, "int64")


def group_norm(builder: Any, call: Any) -> Any:
    """Legalise ``relax.nn.group_norm``."""
    attrs = call.attrs
    groups, channel = int(attrs.num_groups), int(attrs.channel_axis)
    axes = [int(axis) for axis in attrs.axes]

    def compute(data: Any, gamma: Any, beta: Any) -> Any:
        rank = len(data.shape)
        members = tirx.floordiv(data.shape[channel % rank], groups)
        summed = {axis % rank for axis in axes} - {channel % rank}

        def shifted(*index: Any) -> Any:
            first = [_ZERO if axis in summed else each for axis, each in enumerate(index)]
            first[channel] = tirx.floordiv(index[channel], members) * members
            return data[index] - data[tuple(first)]

        less = te.compute(data.shape, shifted, name="shifted", tag="elemwise")
        return topi.nn.group_norm(less, gamma, beta, groups, channel, axes, attrs.epsilon)

    return builder.call_te(compute, *call.args, primfunc_name_hint="group_norm")


def instance_norm(builder: Any, call: Any) -> Any:
    """Legalise ``relax.nn.instance_norm``; half floats are summed in float32."""
    attrs = call.attrs
    axes, channel = [int(axis) for axis in attrs.axes], int(attrs.channel_axis)

    def compute(data: Any, gamma: Any, beta: Any) -> Any:
        rank, given = len(data.shape), str(data.dtype)
        dtype = "float32" if given in HALVES else given
        summed = sorted(axis % rank for axis in axes)
        kept = [axis for axis in range(rank) if axis not in summed]
        extents = [data.shape[axis] for axis in summed]
        count = functools.reduce(operator.mul, extents).astype(dtype)

        def value(index: Any) -> Any:
            return data[tuple(index)].astype(dtype)

        def row(index: Any) -> tuple[Any, ...]:
            return tuple(index[axis] for axis in kept)

        def total(name: str, term: Any) -> Any:
            over = [
                te.reduce_axis((0, extent), name=f"k{place}") for place, extent in enumerate(extents)
            ]

            def body(*outer: Any) -> Any:
                index = list(outer)
                for axis, each in zip(summed, over, strict=True):
                    index.insert(axis, each.var)
                return te.sum(term(index), axis=over)

            return te.compute([data.shape[axis] for axis in kept], body, name=name)

        sums = total("norm_sum", value)
        mean = te.compute(sums.shape, lambda *i: sums[i] / count, name="norm_mean")

        def squared(index: Any) -> Any:
            distance = value(index) - mean[row(index)]
            return distance * distance

        squares = total("norm_squares", squared)

        def normalised(*index: Any) -> Any:
            where = row(index)
            scale = tirx.rsqrt(squares[where] / count + tirx.const(attrs.epsilon, dtype))
            factor, shift = (each[index[channel]].astype(dtype) for each in (gamma, beta))
            return ((value(index) - mean[where]) * scale * factor + shift).astype(given)

        return te.compute(data.shape, normalised, name="T_instance_norm", tag="injective")

    return builder.call_te(compute, *call.args, primfunc_name_hint="instance_norm")


LEGALISED = {"relax.nn.group_norm": group_norm, "relax.nn.instance_norm": instance_norm}
