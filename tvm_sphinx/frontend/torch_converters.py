"""Converters for torch operators that TVM's importer lacks or gets wrong. [TVM]

Each takes the importer and the node of the operator, and returns a Relax variable, or ``NotImplemented``
where TVM's own converter is right.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .._tvm import relax
from ..errors import ModelError
from .grid_sample import PADDINGS, Sampling, grid_sample
from .interpolate import Taps, cubic_taps, linear_taps, nearest_taps, resized, resized_bytes
from .onnx_node import dtype_of
from .torch_experts import grouped_product
from .torch_functions import (
    divide,
    elu,
    erfc,
    exp2,
    hypot,
    negative,
    of_booleans,
    power,
    remainder,
    rsub,
    shift,
    view_as,
)
from .torch_indexing import as_strided, embedding, index, index_put, item, scatter, select_place
from .torch_open_shapes import masked_select, nonzero, unique
from .torch_windows import (
    adaptive_max_pool,
    antialiased,
    convolution,
    deform_conv,
    max_pool_with_indices,
)

Converter = Callable[[Any, Any], Any]

_op = relax.op


def _extreme(reduce: Callable[..., Any]) -> Converter:
    def convert(importer: Any, node: Any) -> Any:
        args = importer.retrieve_args(node)
        dims = args[1] if len(args) > 1 else node.kwargs.get("dim", None)
        keepdim = args[2] if len(args) > 2 else node.kwargs.get("keepdim", False)
        return importer.block_builder.emit(reduce(args[0], _axes(dims), keepdims=keepdim))

    return convert


def _axes(dims: Any) -> Any:
    """Return axes as Relax has them: None for all, where torch has an empty list too."""
    return None if isinstance(dims, (list, tuple)) and not dims else dims


def _all(importer: Any, node: Any) -> Any:
    """Convert ``all`` of booleans: none is false."""
    args = importer.retrieve_args(node)
    dims = args[1] if len(args) > 1 else node.kwargs.get("dim", None)
    keepdim = args[2] if len(args) > 2 else node.kwargs.get("keepdim", False)
    emit = importer.block_builder.emit
    least = emit(_op.min(emit(_op.astype(args[0], "int8")), _axes(dims), keepdims=keepdim))
    return emit(_op.astype(least, "bool"))


def _any(importer: Any, node: Any) -> Any:
    """Convert ``any`` of booleans: one is true."""
    args = importer.retrieve_args(node)
    dims = args[1] if len(args) > 1 else node.kwargs.get("dim", None)
    keepdim = args[2] if len(args) > 2 else node.kwargs.get("keepdim", False)
    emit = importer.block_builder.emit
    most = emit(_op.max(emit(_op.astype(args[0], "int8")), _axes(dims), keepdims=keepdim))
    # The greatest of no element is the least whole number.
    return emit(_op.greater(most, relax.const(0, "int8")))


def _dim_extreme(reduce: Callable[..., Any], search: Callable[..., Any]) -> Converter:
    """Convert ``max`` and ``min`` along one axis, which also return where they are."""

    def convert(importer: Any, node: Any) -> Any:
        args = importer.retrieve_args(node)
        dim = args[1]
        keepdim = args[2] if len(args) > 2 else node.kwargs.get("keepdim", False)
        emit = importer.block_builder.emit
        parts = [
            emit(reduce(args[0], dim, keepdims=keepdim)),
            emit(search(args[0], dim, keepdims=keepdim)),
        ]
        return emit(relax.Tuple(parts))

    return convert


def _with_mean(root: bool) -> Converter:
    """Convert ``var_mean`` and ``std_mean``."""

    def convert(importer: Any, node: Any) -> Any:
        emit = importer.block_builder.emit
        variance = importer._var_correction(node)
        args = importer.retrieve_args(node)
        dim = args[1] if len(args) > 1 else node.kwargs.get("dim", None)
        mean = emit(_op.mean(args[0], dim, keepdims=node.kwargs.get("keepdim", False)))
        return emit(relax.Tuple([emit(_op.sqrt(variance)) if root else variance, mean]))

    return convert


def _matmul(importer: Any, node: Any) -> Any:
    """Multiply in the type of the operands; TVM's converter makes float32 of all."""
    left, right = importer.retrieve_args(node)
    return importer.block_builder.emit(_op.matmul(left, right, out_dtype=str(left.ty.dtype)))


def _group_norm(importer: Any, node: Any) -> Any:
    """Normalize without weights, which TVM's operator needs, or in bfloat16, which it lacks."""
    x, weight, bias, _, channels, _, groups, epsilon = importer.retrieve_args(node)
    given, emit = str(x.ty.dtype), importer.block_builder.emit
    if weight is not None and bias is not None and given != "bfloat16":
        return NotImplemented
    dtype = "float32" if given == "bfloat16" else given

    def operand(value: Any, default: int) -> Any:
        if value is None:
            return relax.const(np.full(channels, default, dtype), dtype)
        return value if given == dtype else emit(_op.astype(value, dtype))

    found = emit(
        _op.nn.group_norm(
            operand(x, 0),
            operand(weight, 1),
            operand(bias, 0),
            num_groups=groups,
            channel_axis=1,
            axes=list(range(2, x.ty.ndim)),
            epsilon=epsilon,
        )
    )
    return found if given == dtype else emit(_op.astype(found, given))


def _addmm(importer: Any, node: Any) -> Any:
    """Multiply other types than float32, which is all that TVM's converter knows."""
    bias, left, right = importer.retrieve_args(node)
    dtype = str(left.ty.dtype)
    if dtype == "float32":
        return NotImplemented
    emit = importer.block_builder.emit
    parts = []
    for name, part in (("beta", bias), ("alpha", emit(_op.matmul(left, right, out_dtype=dtype)))):
        factor = node.kwargs.get(name, 1)
        parts.append(part if factor == 1 else emit(_op.multiply(part, relax.const(factor, dtype))))
    return emit(_op.add(*parts))


def _std(importer: Any, node: Any) -> Any:
    return importer.block_builder.emit(_op.sqrt(importer._var_correction(node)))


def _scaled(name: str) -> Converter:
    """Convert addition and subtraction of ``alpha`` times the second operand."""

    def convert(importer: Any, node: Any) -> Any:
        alpha = node.kwargs.get("alpha", 1)
        if alpha == 1:
            return of_booleans(_op.logical_or)(importer, node) if name == "add" else NotImplemented
        left, right = importer.retrieve_args(node)
        dtype = importer._convert_data_type(node.meta["val"].dtype)
        left, right = (
            each if isinstance(each, relax.Expr) else relax.const(each, dtype) for each in (left, right)
        )
        emit = importer.block_builder.emit
        return emit(getattr(_op, name)(left, emit(_op.multiply(right, relax.const(alpha, dtype)))))

    return convert


def _avg_pool(axes: int) -> Converter:
    """Convert average pooling with a divisor of its own."""

    def convert(importer: Any, node: Any) -> Any:
        args = node.args
        divisor = args[6] if len(args) > 6 else node.kwargs.get("divisor_override", None)
        ceil_mode = args[4] if len(args) > 4 else node.kwargs.get("ceil_mode", False)
        if divisor is None:
            return NotImplemented
        if "int" in dtype_of(importer.env[args[0]]):
            raise ModelError(f"{node.target} of whole numbers with divisor_override is not supported.")
        if ceil_mode:
            raise ModelError(f"{node.target} with both divisor_override and ceil_mode is not supported.")
        # What is divided by a number of its own is so whether the padding counts or not.
        _ = args[5:6], node.kwargs.get("count_include_pad")
        x, kernel = importer.env[args[0]], list(args[1])
        kernel = kernel * axes if len(kernel) == 1 else kernel
        stride = args[2] if len(args) > 2 and args[2] else kernel
        padding = args[3] if len(args) > 3 else 0
        pool = importer._avg_pool2d_impl if axes == 2 else importer._avg_pool3d_impl
        mean = pool(x, kernel, stride, padding, False, True)
        factor = relax.const(math.prod(kernel) / divisor, str(x.ty.dtype))
        return importer.block_builder.emit(_op.multiply(mean, factor))

    return convert


def _upsample(kind: str) -> Converter:
    """Convert an interpolation, by TVM's own kernel where the scale is that of the extents."""

    def convert(importer: Any, node: Any) -> Any:
        args = list(node.args)
        aligned = False
        if kind in ("nearest", "exact"):
            scales = args[2] if len(args) > 2 else node.kwargs.get("scale_factors")
        else:
            aligned = args[2] if len(args) > 2 else node.kwargs.get("align_corners", False)
            scales = args[3] if len(args) > 3 else node.kwargs.get("scale_factors")
        x, shapes = importer.env[args[0]], (node.args[0].meta["val"].shape, node.meta["val"].shape)
        if not all(isinstance(extent, int) for shape in shapes for extent in shape):
            raise ModelError(f"{node.target} needs extents that are known.")
        extents, wanted = shapes[0][2:], shapes[1][2:]
        ratios = [
            1 / scales[number] if scales and scales[number] else before / after
            for number, (before, after) in enumerate(zip(extents, wanted, strict=True))
        ]
        whole = all(
            after % before == 0 and ratio * after == before
            for before, after, ratio in zip(extents, wanted, ratios, strict=True)
        )
        dtype = str(x.ty.dtype)
        real = np.float64 if dtype in ("float64", "uint8") else np.float32
        is_tvms = kind == "nearest" or (kind == "linear" and real is np.float32)
        if whole and not aligned and len(extents) == 2 and is_tvms:
            return _resize2d(importer, x, wanted, kind)
        taps = {
            axis + 2: _axis_taps(kind, before, after, ratio, aligned, real)
            for axis, (before, after, ratio) in enumerate(zip(extents, wanted, ratios, strict=True))
            if before != after or ratio != 1
        }
        is_rounded = dtype == "uint8" and kind in ("linear", "cubic")
        return (resized_bytes if is_rounded else resized)(importer.block_builder.emit, x, taps)

    return convert


def _resize2d(importer: Any, x: Any, size: Any, kind: str) -> Any:
    method = {"nearest": "nearest_neighbor", "linear": "linear"}[kind]
    return importer._upsample_impl(x, tuple(size), None, method, False)


def _axis_taps(kind: str, before: int, after: int, ratio: float, aligned: bool, real: Any) -> Taps:
    """Return torch's taps: positions in the precision that its kernels compute them in."""
    out, scale, half = np.arange(after, dtype=real), real(ratio), real(0.5)
    if kind == "nearest":
        return nearest_taps(np.floor(out * scale), before)
    if kind == "exact":
        return nearest_taps(np.floor((out + half) * scale), before)
    if aligned:
        positions = out * real((before - 1) / (after - 1) if after > 1 else 0)
    else:
        positions = (out + half) * scale - half
    if kind == "cubic":
        return cubic_taps(positions, before)
    return linear_taps(np.maximum(positions, 0), before)


def _grid_sampler(importer: Any, node: Any) -> Any:
    """Convert the sampling of images and volumes at the places of a grid."""
    x, grid, mode, padding, is_aligned = importer.retrieve_args(node)
    how = Sampling(("linear", "nearest", "cubic")[mode], PADDINGS[padding], bool(is_aligned))
    return grid_sample(importer.block_builder, x, grid, how)


def _vector_norm(importer: Any, node: Any) -> Any:
    """Convert the norm of order 0: how many elements are not zero."""
    args = importer.retrieve_args(node)
    if (args[1] if len(args) > 1 else 2) != 0:
        return NotImplemented
    dims = args[2] if len(args) > 2 else node.kwargs.get("dim", None)
    keepdim = args[3] if len(args) > 3 else node.kwargs.get("keepdim", False)
    emit, dtype = importer.block_builder.emit, str(args[0].ty.dtype)
    counted = emit(_op.astype(emit(_op.not_equal(args[0], relax.const(0, dtype))), dtype))
    return emit(_op.sum(counted, _axes(dims), keepdims=keepdim))


def _stable_sort(importer: Any, node: Any) -> Any:
    """Convert a sort that keeps the order of equal elements, as TVM's does."""
    args = importer.retrieve_args(node)
    _ = args[1] if len(args) > 1 else node.kwargs.get("stable", None)
    dim = args[2] if len(args) > 2 else node.kwargs.get("dim", -1)
    descending = args[3] if len(args) > 3 else node.kwargs.get("descending", False)
    emit = importer.block_builder.emit
    places = emit(_op.argsort(args[0], axis=dim, descending=descending, dtype="int64"))
    values = emit(_op.gather_elements(args[0], places, dim % args[0].ty.ndim))
    return emit(relax.Tuple([values, places]))


def _topk(importer: Any, node: Any) -> Any:
    """Convert the largest or smallest elements; where torch leaves their order open they are sorted."""
    args = importer.retrieve_args(node)
    dim, largest, _ = (
        args[place] if place < len(args) else node.kwargs.get(name, default)
        for place, name, default in ((2, "dim", -1), (3, "largest", True), (4, "sorted", True))
    )
    found = _op.topk(args[0], k=args[1], axis=dim, largest=largest, ret_type="both", dtype="int64")
    return importer.block_builder.emit(found)


def _falling(importer: Any, node: Any) -> Any:
    """Convert a range that falls, of which TVM's shape inference counts too many elements."""
    numbers = [
        *node.args,
        *(node.kwargs[name] for name in ("start", "end", "step") if name in node.kwargs),
    ]
    if not all(isinstance(number, (int, float)) for number in numbers) or numbers[-1] >= 0:
        return NotImplemented
    shown = node.meta["val"]
    dtype = importer._convert_data_type(shown.dtype)
    # In torch's order: begin + place * step, in double precision or in whole numbers.
    values = numbers[0] + np.arange(shown.shape[0]) * np.asarray(numbers[2])
    return importer.block_builder.emit(relax.const(values.astype(dtype), dtype))


def _cat(importer: Any, node: Any) -> Any:
    """Join tensors; torch passes over those of one axis without elements, such as an empty cache."""
    args = importer.retrieve_args(node)
    tensors, rest = args[0], args[1:]
    rank = node.meta["val"].dim()
    joined = [each for each in tensors if int(each.ty.ndim) == rank]
    if len(joined) == len(tensors) or not joined:
        return NotImplemented
    dim = rest[0] if rest else node.kwargs.get("dim", 0)
    return importer.block_builder.emit(_op.concat(joined, dim)) if len(joined) > 1 else joined[0]


#: By the name of the overload.
CONVERTERS: dict[str, Converter] = {
    "index.Tensor": index,
    "_local_scalar_dense.default": item,
    "embedding.default": embedding,
    "select.int": select_place,
    "index_put.default": index_put,
    "scatter.src": scatter,
    "scatter.reduce": scatter,
    "scatter_add.default": scatter,
    "scatter_reduce.two": scatter,
    "as_strided.default": as_strided,
    "cat.default": _cat,
    "amax.default": _extreme(_op.max),
    "amin.default": _extreme(_op.min),
    "prod.dim_int": _extreme(_op.prod),
    "all.default": _all,
    "all.dim": _all,
    "all.dims": _all,
    "any.default": _any,
    "any.dim": _any,
    "any.dims": _any,
    "hypot.default": hypot,
    "elu.default": elu,
    "nonzero.default": nonzero,
    "masked_select.default": masked_select,
    "_unique2.default": unique,
    "div.Tensor_mode": divide,
    "div.Scalar_mode": divide,
    "mul.Tensor": of_booleans(_op.logical_and),
    "neg.default": negative,
    "rsub.Tensor": rsub,
    "remainder.default": remainder,
    "remainder.Scalar_Tensor": remainder,
    "pow.Scalar": power,
    "pow.Tensor_Tensor": power,
    "rsub.Scalar": rsub,
    "erfc.default": erfc,
    "exp2.default": exp2,
    **{f"__lshift__.{kind}": shift(left=True) for kind in ("Scalar", "Tensor")},
    **{f"__rshift__.{kind}": shift(left=False) for kind in ("Scalar", "Tensor")},
    "bitwise_left_shift.Tensor": shift(left=True),
    "bitwise_right_shift.Tensor": shift(left=False),
    "shift_left.default": shift(left=True),
    "shift_right_arithmetic.default": shift(left=False),
    "view.dtype": view_as,
    "max.dim": _dim_extreme(_op.max, _op.argmax),
    "min.dim": _dim_extreme(_op.min, _op.argmin),
    "std.correction": _std,
    "std_mean.correction": _with_mean(True),
    "var_mean.correction": _with_mean(False),
    "mm.default": _matmul,
    "bmm.default": _matmul,
    "matmul.default": _matmul,
    "addmm.default": _addmm,
    "native_group_norm.default": _group_norm,
    "add.Tensor": _scaled("add"),
    "add.Scalar": _scaled("add"),
    "sub.Tensor": _scaled("subtract"),
    "sub.Scalar": _scaled("subtract"),
    "avg_pool2d.default": _avg_pool(2),
    "avg_pool3d.default": _avg_pool(3),
    **{f"upsample_nearest{axes}d.vec": _upsample("nearest") for axes in (1, 2, 3)},
    **{f"_upsample_nearest_exact{axes}d.vec": _upsample("exact") for axes in (1, 2, 3)},
    **{f"_upsample_bilinear2d_aa.{form}": antialiased("linear") for form in ("default", "vec")},
    **{f"_upsample_bicubic2d_aa.{form}": antialiased("cubic") for form in ("default", "vec")},
    **{f"max_pool{axes}d_with_indices.default": max_pool_with_indices(axes) for axes in (2, 3)},
    **{f"adaptive_max_pool{axes}d.default": adaptive_max_pool(axes) for axes in (2, 3)},
    "convolution.default": convolution,
    "deform_conv2d.default": deform_conv,
    "arange.start_step": _falling,
    "_grouped_mm.default": grouped_product,
    "grouped_mm_fallback.default": grouped_product,
    "linalg_vector_norm.default": _vector_norm,
    "sort.stable": _stable_sort,
    "topk.default": _topk,
    "grid_sampler_2d.default": _grid_sampler,
    "grid_sampler_3d.default": _grid_sampler,
    "upsample_linear1d.vec": _upsample("linear"),
    "upsample_bilinear2d.vec": _upsample("linear"),
    "upsample_trilinear3d.vec": _upsample("linear"),
    "upsample_bicubic2d.vec": _upsample("cubic"),
}
