"""Converters of ONNX operators that TVM gets wrong for some types, shapes or attributes. [TVM]"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from tvm.relax.frontend.onnx import onnx_frontend

from .._tvm import relax, tirx
from .bits import reinterpret, shift
from .deformable import deformable_convolution
from .half_functions import HALVES
from .largest import Windows, largest_of_windows
from .onnx_node import (
    STANDARD,
    Array,
    Converter,
    Node,
    cast,
    const,
    constant_value,
    dtype_of,
    extent_of,
    rank_of,
    shape_of,
)
from .onnx_open_shapes import compress

_op = relax.op


def _is_inf(node: Node) -> Any:
    data = node.required(0)
    found = [
        node.emit(_op.equal(data, const(value, dtype_of(data))))
        for value, attribute in ((np.inf, "detect_positive"), (-np.inf, "detect_negative"))
        if node.attributes.get(attribute, 1)
    ]
    if not found:
        return node.emit(_op.not_equal(node.emit(_op.isnan(data)), node.emit(_op.isnan(data))))
    return found[0] if len(found) == 1 else node.emit(_op.logical_or(*found))


def _exponential(node: Node, alpha: float, gamma: float = 1.0, *, inner: float = 1.0) -> Any:
    """Return gamma * x where x is positive, and gamma * alpha * (exp(x / inner) - 1) elsewhere."""
    data = node.required(0)
    dtype = dtype_of(data)
    zero = const(0, dtype)
    below = node.emit(_op.minimum(data, zero))
    if inner != 1.0:
        below = node.emit(_op.divide(below, const(inner, dtype)))
    bent = node.emit(_op.subtract(node.emit(_op.exp(below)), const(1, dtype)))
    bent = node.emit(_op.multiply(bent, const(alpha * gamma, dtype)))
    straight = data if gamma == 1.0 else node.emit(_op.multiply(data, const(gamma, dtype)))
    return node.emit(_op.where(node.emit(_op.greater(data, zero)), straight, bent))


def _elu(node: Node) -> Any:
    return _exponential(node, float(node.attributes.get("alpha", 1.0)))


def _selu(node: Node) -> Any:
    alpha = float(node.attributes.get("alpha", 1.67326319217681884765625))
    return _exponential(node, alpha, float(node.attributes.get("gamma", 1.05070102214813232421875)))


def _celu(node: Node) -> Any:
    alpha = float(node.attributes.get("alpha", 1.0))
    return _exponential(node, alpha, inner=alpha)


def _thresholded_relu(node: Node) -> Any:
    data = node.required(0)
    dtype = dtype_of(data)
    above = node.emit(_op.greater(data, const(float(node.attributes.get("alpha", 1.0)), dtype)))
    return node.emit(_op.where(above, data, const(0, dtype)))


def _split(node: Node) -> Any:
    """Split, with parts that may be empty or of unlike sizes."""
    data = node.required(0)
    axis = int(node.attributes.get("axis", 0)) % rank_of(data)
    extent = extent_of(node, data, axis, "data to split")
    given = node.attributes.get("split")
    if given is None and node.optional(1) is not None:
        given = node.constant(1)
        if given is None:
            raise node.error("expected known sizes of parts")
    if given is None:
        size = -(-extent // node.num_outputs)
        given = [max(0, min(size, extent - size * part)) for part in range(node.num_outputs)]
    sizes = [int(size) for size in given]
    if sum(sizes) != extent or len(sizes) != node.num_outputs:
        raise node.error(f"expected {node.num_outputs} parts of {extent} in all; got {sizes}")
    if len(sizes) == 1:
        return data
    cuts = np.cumsum(sizes)[:-1].tolist()
    if 0 not in sizes:
        parts = node.emit(_op.split(data, cuts, axis))
        return tuple(node.emit(relax.TupleGetItem(parts, part)) for part in range(len(sizes)))
    ends = zip([0, *cuts], [*cuts, extent], strict=True)
    return tuple(node.emit(_op.strided_slice(data, [axis], [begin], [end])) for begin, end in ends)


def _flatten(node: Node) -> Any:
    data = node.required(0)
    extents = getattr(data.ty.shape, "values", None)
    axis = int(node.attributes.get("axis", 1))
    if not -rank_of(data) <= axis <= rank_of(data):
        raise node.error(f"expected an axis within the rank {rank_of(data)}; got {axis}")
    axis += rank_of(data) if axis < 0 else 0
    if extents is None:
        raise node.error(f"expected data of known rank; got {data.ty}")
    extents = list(extents)
    rows, columns = math.prod(extents[:axis]), math.prod(extents[axis:])
    if any(isinstance(extent, tirx.IntImm) and int(extent) == 0 for extent in extents):
        # TVM takes an extent of 0 for "as it was".
        return node.emit(_op.zeros(relax.ShapeExpr([rows, columns]), dtype_of(data)))
    return node.emit(_op.reshape(data, [rows, columns]))


def _compress(node: Node) -> Any:
    data, condition = node.required(0), node.constant(1)
    if condition is None:
        return compress(node)
    chosen = np.flatnonzero(condition)
    axis = node.attributes.get("axis")
    if axis is None:
        data = node.emit(_op.reshape(data, [-1]))
        axis = 0
    return node.emit(_op.take(data, const(chosen, "int64"), int(axis)))


def _hardmax(node: Node) -> Any:
    """Hardmax: 1 at the first of the largest values, 0 elsewhere."""
    data = node.required(0)
    shape = shape_of(node, data, "data")
    axis = int(node.attributes.get("axis", -1 if node.opset >= 13 else 1))
    if node.opset < 13:
        axis += len(shape) if axis < 0 else 0
        rows = math.prod(shape[:axis])
        flat = node.emit(_op.reshape(data, [rows, math.prod(shape[axis:])]))
        return node.emit(_op.reshape(_first_largest(node, flat, 1), shape))
    return _first_largest(node, data, axis % len(shape))


def _first_largest(node: Node, data: Any, axis: int) -> Any:
    shape = shape_of(node, data, "data")
    largest = node.emit(_op.argmax(data, axis, keepdims=True))
    along: Array = np.arange(shape[axis]).reshape([-1 if at == axis else 1 for at in range(len(shape))])
    found = node.emit(_op.equal(largest, const(along, "int64")))
    return node.emit(_op.astype(found, dtype_of(data)))


def _roi_align(node: Node) -> Any:
    """RoiAlign; ``half_pixel`` moves regions by half a pixel of the data, whatever their own scale."""
    data, regions, batch = (node.required(number) for number in range(3))
    if node.text("mode", "avg") != "avg":
        raise node.error("expected mode 'avg'; runtimes do not agree on what 'max' means")
    scale = float(node.attributes.get("spatial_scale", 1.0))
    kind = node.text(
        "coordinate_transformation_mode", "half_pixel" if node.opset >= 16 else "output_half_pixel"
    )
    if kind not in ("half_pixel", "output_half_pixel"):
        raise node.error(f"expected half_pixel or output_half_pixel; got {kind!r}")
    dtype = dtype_of(regions)
    if kind == "half_pixel":
        regions = node.emit(_op.subtract(regions, const(0.5 / scale, dtype)))
    column = node.emit(_op.expand_dims(node.emit(_op.astype(batch, dtype)), 1))
    return node.emit(
        _op.vision.roi_align(
            data,
            node.emit(_op.concat([column, regions], 1)),
            pooled_size=tuple(
                int(node.attributes.get(name, 1)) for name in ("output_height", "output_width")
            ),
            spatial_scale=scale,
            sample_ratio=int(node.attributes.get("sampling_ratio", 0)),
            aligned=kind == "half_pixel",
            layout="NCHW",
            mode="avg",
        )
    )


def _slice(node: Node) -> Any:
    """Slice between known bounds as NumPy does: out of range is cut off, and may leave nothing."""
    data = node.required(0)
    if node.opset < 10:
        parts = [node.attributes.get(name) for name in ("starts", "ends", "axes")]
        given: list[Any] = [None if part is None else np.asarray(part) for part in parts]
    else:
        given = [node.constant(position) for position in (1, 2, 3, 4)]
        if any(known is None and node.optional(at) is not None for at, known in enumerate(given, 1)):
            return NotImplemented
    extents = getattr(data.ty.shape, "values", None)
    if extents is None:
        return NotImplemented
    starts, ends, axes, steps = (*given, None)[:4]
    count = len(starts)
    axes = list(range(count)) if axes is None else [int(axis) % rank_of(data) for axis in axes]
    steps = [1] * count if steps is None else steps
    bounds = []
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if not isinstance(extents[axis], tirx.IntImm):
            return NotImplemented
        bounds.append(_clipped(slice(int(start), int(end), int(step)), int(extents[axis])))
    begins, stops, strides = ([bound[place] for bound in bounds] for place in range(3))
    return node.emit(_op.strided_slice(data, axes, begins, stops, strides))


def _clipped(part: slice, extent: int) -> tuple[int, int, int]:
    """Return begin, end and step that give what a slice of an extent gives, in TVM's terms."""
    begin, end, step = part.indices(extent)
    if not len(range(begin, end, step)):
        return 0, 0, 1
    # TVM, too, counts a negative end from the back: this one is before the first element.
    return begin, end if end >= 0 else -extent - 1, step


def _pool(node: Node) -> Any:
    """Settle the padding; pool with ``ceil_mode`` without windows that begin behind data and padding."""
    data = node.required(0)
    settle_pads(node, data)
    auto_pad = node.text("auto_pad", "NOTSET")
    is_ceil = int(node.attributes.get("ceil_mode", 0)) and auto_pad == "NOTSET"
    has_places = node.num_outputs > 1
    if not is_ceil and not has_places:
        return NotImplemented
    extents = shape_of(node, data, "data")[2:]
    rank = len(extents)
    kernel = [int(size) for size in node.attributes["kernel_shape"]]
    strides = node.attributes.get("strides", [1] * rank)
    dilations = node.attributes.get("dilations", [1] * rank)
    none = [0] * 2 * rank
    pads = none if auto_pad == "VALID" else node.attributes.get("pads", none)
    wanted = []
    for axis, extent in enumerate(extents):
        covered = extent + pads[axis] + pads[rank + axis] - (kernel[axis] - 1) * dilations[axis] - 1
        count = (-(-covered // strides[axis]) if is_ceil else covered // strides[axis]) + 1
        wanted.append(count - (is_ceil and (count - 1) * strides[axis] >= extent + pads[axis]))
    if has_places:
        return _places(node, data, Windows(kernel, strides, pads[:rank], dilations, wanted))
    inputs = onnx_frontend.onnx_input()
    inputs.append(data)
    converter = onnx_frontend._get_convert_map()[node.op].get_converter(node.opset)
    made = node.emit(node.builder.normalize(converter(node.builder, inputs, dict(node.attributes), [])))
    if shape_of(node, made, "a pool")[2:] == wanted:
        return made
    axes = list(range(2, 2 + rank))
    return node.emit(_op.strided_slice(made, axes, [0] * rank, wanted))


def _places(node: Node, data: Any, windows: Windows) -> Any:
    """Pool, and say where in the whole tensor each maximum lies."""
    if int(node.attributes.get("storage_order", 0)):
        raise node.error("expected indices that count along rows (storage_order 0); got 1")
    largest, places = largest_of_windows(node.emit, data, windows)
    shape = shape_of(node, data, "data")
    images = np.arange(shape[0] * shape[1]).reshape(shape[0], shape[1], *[1] * (len(shape) - 2))
    before = relax.const(images * math.prod(shape[2:]), "int64")
    return largest, node.emit(_op.add(places, before))


def settle_pads(node: Node, data: Any) -> None:
    """Write automatic padding of a pool down as numbers, in place.

    Padding that would be negative is refused: some runtimes crop, some count it as nothing.

    Raises
    ------
    ModelError
        With the axis.
    """
    attributes: Any = node.attributes
    auto_pad = node.text("auto_pad", "NOTSET")
    if not auto_pad.startswith("SAME"):
        return
    kernel = [int(size) for size in attributes["kernel_shape"]]
    strides = attributes.get("strides", [1] * len(kernel))
    dilations = attributes.get("dilations", [1] * len(kernel))
    begin, end = [], []
    for axis, extent in enumerate(shape_of(node, data, "data")[2:]):
        size, step = (kernel[axis] - 1) * dilations[axis] + 1, strides[axis]
        total = (-(-extent // step) - 1) * step + size - extent
        if total < 0:
            raise node.error(
                f"expected auto_pad to add to axis {2 + axis}; its windows of {size} in steps of {step} "
                f"end before its extent of {extent}, and what then is left out is not defined"
            )
        begin.append(total // 2 if auto_pad == "SAME_UPPER" else total - total // 2)
        end.append(total - begin[-1])
    attributes.update(pads=(*begin, *end), auto_pad=b"NOTSET")


def _lp_pool(node: Node) -> Any:
    """Settle the padding, and leave the rest to TVM."""
    settle_pads(node, node.required(0))
    return NotImplemented


def _sign(node: Node) -> Any:
    data = node.required(0)
    if not dtype_of(data).startswith("uint"):
        return NotImplemented
    above = node.emit(_op.greater(data, const(0, dtype_of(data))))
    return node.emit(_op.astype(above, dtype_of(data)))


# What is left of a reduction over no axes: the function that it applies to each element.
_ALONE: dict[str, Callable[[Any], Any]] = {
    "ReduceL1": _op.abs,
    "ReduceL2": _op.abs,
    "ReduceLogSum": _op.log,
    "ReduceSumSquare": lambda data: _op.multiply(data, data),
}


def _reduction(node: Node) -> Any:
    """Reduce over no axes where ``noop_with_empty_axes`` says so; else leave it to TVM."""
    data = node.required(0)
    dtype = dtype_of(data)
    if node.op in _OF_FLOATS and not dtype.startswith(("float", "bfloat")):
        # No runtime rounds the roots and logarithms of whole numbers like another.
        raise node.error(f"expected floats; got {dtype}")
    axes = node.constant(1)
    is_empty = node.optional(1) is None or (axes is not None and not axes.size)
    if not is_empty or not int(node.attributes.get("noop_with_empty_axes", 0)):
        return _extreme_of_bools(node, data) if dtype == "bool" else NotImplemented
    return node.emit(_ALONE[node.op](data)) if node.op in _ALONE else data


def _extreme_of_bools(node: Node, data: Any) -> Any:
    """Return whether any of some bools is true, or all are; TVM knows this of numbers alone."""
    axes = node.constant(1)
    if node.optional(1) is not None and axes is None:
        raise node.error("expected axes that are constant")
    along = [int(axis) for axis in axes.reshape(-1)] if axes is not None and axes.size else None
    reduce = _op.max if node.op == "ReduceMax" else _op.min
    keeps = bool(int(node.attributes.get("keepdims", 1)))
    made = node.emit(reduce(cast(node, data, "uint8"), along, keepdims=keeps))
    return cast(node, made, "bool")


_OF_FLOATS = ("ReduceL2", "ReduceLogSum", "ReduceLogSumExp")
_REDUCTIONS = (
    "ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp "
    "ReduceSumSquare"
).split()


def _operands(node: Node) -> list[Any]:
    return [node.required(place) for place in range(len(node.inputs))]


def _extreme(choose: Callable[[Any, Any], Any]) -> Converter:
    """Return a converter to a chain of ``choose``; where an operand is NaN, so is the result.

    TVM's own gives the first or the second of two operands where one is NaN, and stacks many of them.
    """

    def convert(node: Node) -> Any:
        operands = _operands(node)
        chosen = functools.reduce(lambda left, right: node.emit(choose(left, right)), operands)
        if len(operands) == 1 or "float" not in dtype_of(chosen):
            return chosen
        for operand in operands:
            value = constant_value(operand)
            if value is None or np.isnan(value.astype(float)).any():
                is_nan = node.emit(_op.isnan(operand))
                chosen = node.emit(_op.where(is_nan, operand, chosen))
        return chosen

    return convert


def _sum(node: Node) -> Any:
    """Add any number of tensors one after another, as residual networks do; TVM's stacks and reduces."""
    operands = _operands(node)
    return cast(node, _total(node, operands), dtype_of(operands[0]))


def _mean(node: Node) -> Any:
    """Divide the sum of any number of tensors by their number."""
    operands = _operands(node)
    if len(operands) == 1:
        return operands[0]
    total = _total(node, operands)
    return cast(
        node,
        node.emit(_op.divide(total, const(len(operands), dtype_of(total)))),
        dtype_of(operands[0]),
    )


def _total(node: Node, operands: list[Any]) -> Any:
    """Return a sum; that of halves is one of float32, so that it is rounded once, as ONNX Runtime's."""
    if len(operands) > 1 and dtype_of(operands[0]) in HALVES:
        operands = [cast(node, operand, "float32") for operand in operands]
    return functools.reduce(lambda left, right: node.emit(_op.add(left, right)), operands)


def _unsqueeze(node: Node) -> Any:
    """Insert an axis that is given as one number; lists of them are TVM's."""
    axes = node.constant(1)
    if axes is None or axes.ndim:
        return NotImplemented
    return node.emit(_op.expand_dims(node.required(0), [int(axes)]))


def _bit_cast(node: Node) -> Any:
    """Read the bits of each element as another type of as many bits."""
    data = node.required(0)
    wanted = onnx.helper.tensor_dtype_to_np_dtype(int(node.attributes["to"]))
    before, after = dtype_of(data), str(wanted)
    if before == after:
        return data
    if "bool" in (before, after):
        raise node.error(f"from {before} to {after} has no counterpart in TVM")
    return reinterpret(node.builder, data, after)


def _eye_like(node: Node) -> Any:
    """Return ones on a diagonal, of the type that is asked for, else that of the input."""
    data, kind = node.required(0), node.attributes.get("dtype")
    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(int(kind))) if kind else dtype_of(data)
    shape = shape_of(node, data, "input")
    if len(shape) != 2:
        raise node.error(f"expected a matrix; got {data.ty}")
    return const(np.eye(shape[0], shape[1], int(node.attributes.get("k", 0))), dtype)


def _bit_shift(node: Node) -> Any:
    direction = node.text("direction")
    if direction not in ("LEFT", "RIGHT"):
        raise node.error(f"expected a direction LEFT or RIGHT; got {direction!r}")
    return shift(node.emit, node.required(0), node.required(1), left=direction == "LEFT")


def _max_unpool(node: Node) -> Any:
    """Refuse a shape for the result: runtimes do not agree on which of two its indices count in."""
    if node.optional(2) is not None:
        raise node.error("its input 'output_shape' is not known")
    return NotImplemented


def _space_to_depth(node: Node) -> Any:
    """Move blocks of an image into its channels, those of one channel side by side; others are TVM's."""
    mode = node.text("mode", "DCR")
    if mode == "DCR":
        return NotImplemented
    if mode != "CRD":
        raise node.error(f"expected mode DCR or CRD; got {mode!r}")
    data, block = node.required(0), int(node.attributes["blocksize"])
    batch, channels, height, width = shape_of(node, data, "input")
    inner = [height // block, width // block]
    split = node.emit(_op.reshape(data, [batch, channels, inner[0], block, inner[1], block]))
    moved = node.emit(_op.permute_dims(split, [0, 1, 3, 5, 2, 4]))
    return node.emit(_op.reshape(moved, [batch, channels * block * block, *inner]))


def _deform_conv(node: Node) -> Any:
    data, weight, offset = (node.required(position) for position in range(3))
    for name, tensor in (("X", data), ("W", weight), ("offset", offset)):
        if len(shape_of(node, tensor, name)) != 4:
            raise node.error(f"expected {name} of four axes; got {tensor.ty}")
    attributes = node.attributes
    pads = [int(each) for each in attributes.get("pads", (0, 0, 0, 0))]
    strides, dilations = (
        [int(each) for each in attributes.get(name, (1, 1))] for name in ("strides", "dilations")
    )
    return deformable_convolution(
        node.builder,
        data,
        weight,
        offset,
        node.optional(3),
        node.optional(4),
        strides=strides,
        pads=pads[:2],
        dilations=dilations,
        groups=int(attributes.get("group", 1)),
        offset_groups=int(attributes.get("offset_group", 1)),
    )


CONVERTERS: dict[tuple[str, str], Converter] = {
    (STANDARD, "Unsqueeze"): _unsqueeze,
    (STANDARD, "BitCast"): _bit_cast,
    (STANDARD, "MaxUnpool"): _max_unpool,
    (STANDARD, "SpaceToDepth"): _space_to_depth,
    (STANDARD, "DeformConv"): _deform_conv,
    (STANDARD, "EyeLike"): _eye_like,
    (STANDARD, "BitShift"): _bit_shift,
    (STANDARD, "Max"): _extreme(_op.maximum),
    (STANDARD, "Min"): _extreme(_op.minimum),
    (STANDARD, "Mean"): _mean,
    (STANDARD, "Sum"): _sum,
    (STANDARD, "IsInf"): _is_inf,
    (STANDARD, "Elu"): _elu,
    (STANDARD, "Selu"): _selu,
    (STANDARD, "Celu"): _celu,
    (STANDARD, "ThresholdedRelu"): _thresholded_relu,
    (STANDARD, "Split"): _split,
    (STANDARD, "Flatten"): _flatten,
    (STANDARD, "Compress"): _compress,
    (STANDARD, "Hardmax"): _hardmax,
    (STANDARD, "RoiAlign"): _roi_align,
    (STANDARD, "Slice"): _slice,
    (STANDARD, "MaxPool"): _pool,
    (STANDARD, "AveragePool"): _pool,
    (STANDARD, "LpPool"): _lp_pool,
    (STANDARD, "Sign"): _sign,
    **{(STANDARD, op): _reduction for op in _REDUCTIONS},
}
