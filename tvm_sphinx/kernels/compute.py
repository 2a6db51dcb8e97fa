"""Tensor expressions of the packed kernels: convolution and matrix product over packed weights.

Activations are channels-last; weights come in panels of `PANEL_LANES` output channels, so that the
innermost loop of every kernel is one aligned load of weights times a broadcast input. Each function
returns a PrimFunc whose accumulating block carries the annotation `ROLE`, which is how the schedule
rule finds it after fusion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tvm
from tvm import te, tirx

from .target_info import PANEL_LANES

ROLE = "sphinx.role"
OUT_EWISE_FUSABLE = 4  # relax's OpPatternKind: elementwise consumers fuse into it


@dataclass(frozen=True)
class ConvShape:
    """Static shape of one convolution: NHWC data, OIHW weight, square meaning kept per axis."""

    data: tuple[int, int, int, int]
    out_channels: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]  # top, left, bottom, right
    dilation: tuple[int, int]
    groups: int

    @property
    def out_hw(self) -> tuple[int, int]:
        """Height and width of the output."""
        _, height, width, _ = self.data
        top, left, bottom, right = self.padding
        reach_h = (self.kernel[0] - 1) * self.dilation[0] + 1
        reach_w = (self.kernel[1] - 1) * self.dilation[1] + 1
        return (
            (height + top + bottom - reach_h) // self.strides[0] + 1,
            (width + left + right - reach_w) // self.strides[1] + 1,
        )

    @property
    def is_depthwise(self) -> bool:
        """Whether every channel is its own group."""
        return self.groups == self.data[3] == self.out_channels and self.groups > 1

    @property
    def is_pointwise(self) -> bool:
        """Whether it is a matrix product over pixels."""
        unit = self.kernel == (1, 1) and self.strides == (1, 1) and self.groups == 1
        return unit and self.padding == (0, 0, 0, 0)


def panels(channels: int) -> int:
    """Return how many weight panels hold `channels` output channels."""
    return -(-channels // PANEL_LANES)


def _accumulator(dtype: str) -> str:
    """Return the type that products of `dtype` are summed in."""
    return "float32" if dtype in ("float16", "bfloat16") else dtype


def _finish(args: list[te.Tensor]) -> tirx.PrimFunc:
    # Relax's legalized operators index with int64; FuseTIR joins buffers of equal types only.
    func = te.create_prim_func(args, index_dtype_override="int64")
    # Without its exported name, dead code elimination drops it once it is fused into another.
    func = func.without_attr("global_symbol")
    return func.with_attrs({"op_pattern": OUT_EWISE_FUSABLE, "tirx.noalias": True})


def _pad(data: te.Tensor, shape: ConvShape, channels: int) -> te.Tensor:
    """Return the data with its zero border, widened to `channels` with zeros."""
    batch, height, width, depth = shape.data
    top, left, bottom, right = shape.padding
    if not any(shape.padding) and channels == depth:
        return data

    def padded(n: Any, h: Any, w: Any, c: Any) -> Any:
        conditions = []
        if top or bottom:
            conditions += [h >= top, h < top + height]
        if left or right:
            conditions += [w >= left, w < left + width]
        if channels != depth:
            conditions.append(c < depth)
        zero = tirx.const(0, data.dtype)
        return tirx.if_then_else(tirx.all(*conditions), data[n, h - top, w - left, c], zero)

    extent = (batch, height + top + bottom, width + left + right, channels)
    return te.compute(extent, padded, name="pad", attrs={ROLE: "pad"})


def conv2d(shape: ConvShape, dtype: str, out_dtype: str) -> tirx.PrimFunc:
    """Return a convolution over packed weights [groups, panel, kh, kw, in / groups, lane]."""
    batch, _, _, depth = shape.data
    out_h, out_w = shape.out_hw
    in_group, out_group = depth // shape.groups, shape.out_channels // shape.groups
    data = te.placeholder(shape.data, dtype, name="data")
    extent = (shape.groups, panels(out_group), *shape.kernel, in_group, PANEL_LANES)
    weight = te.placeholder(extent, dtype, name="weight")
    source = _pad(data, shape, depth)
    kh, kw = (te.reduce_axis((0, k), name=n) for k, n in zip(shape.kernel, ("kh", "kw"), strict=True))
    ic = te.reduce_axis((0, in_group), name="ic")
    acc_dtype = _accumulator(out_dtype)

    def product(n: Any, h: Any, w: Any, g: Any, o: Any, i: Any) -> Any:
        row = h * shape.strides[0] + kh * shape.dilation[0]
        column = w * shape.strides[1] + kw * shape.dilation[1]
        left = source[n, row, column, g * in_group + ic].astype(acc_dtype)
        return te.sum(left * weight[g, o, kh, kw, ic, i].astype(acc_dtype), axis=[kh, kw, ic])

    extent = (batch, out_h, out_w, shape.groups, panels(out_group), PANEL_LANES)
    acc = te.compute(extent, product, name="conv2d", attrs={ROLE: "conv2d"})

    def unpack(n: Any, h: Any, w: Any, c: Any) -> Any:
        inner = c % out_group if shape.groups > 1 else c
        group = c // out_group if shape.groups > 1 else 0
        lane = inner % PANEL_LANES
        return acc[n, h, w, group, inner // PANEL_LANES, lane].astype(out_dtype)

    out = te.compute((batch, out_h, out_w, shape.out_channels), unpack, name="unpack")
    return _finish([data, weight, out])


def depthwise_conv2d(shape: ConvShape, dtype: str, out_dtype: str) -> tirx.PrimFunc:
    """Return a depthwise convolution over packed weights [kh, kw, panel, lane]."""
    batch, _, _, depth = shape.data
    out_h, out_w = shape.out_hw
    count = panels(depth)
    data = te.placeholder(shape.data, dtype, name="data")
    weight = te.placeholder((*shape.kernel, count, PANEL_LANES), dtype, name="weight")
    source = _pad(data, shape, count * PANEL_LANES)
    kh, kw = (te.reduce_axis((0, k), name=n) for k, n in zip(shape.kernel, ("kh", "kw"), strict=True))
    acc_dtype = _accumulator(out_dtype)

    def product(n: Any, h: Any, w: Any, o: Any, i: Any) -> Any:
        row = h * shape.strides[0] + kh * shape.dilation[0]
        column = w * shape.strides[1] + kw * shape.dilation[1]
        left = source[n, row, column, o * PANEL_LANES + i].astype(acc_dtype)
        return te.sum(left * weight[kh, kw, o, i].astype(acc_dtype), axis=[kh, kw])

    extent = (batch, out_h, out_w, count, PANEL_LANES)
    acc = te.compute(extent, product, name="depthwise_conv2d", attrs={ROLE: "depthwise_conv2d"})
    out = te.compute(
        (batch, out_h, out_w, depth),
        lambda n, h, w, c: acc[n, h, w, c // PANEL_LANES, c % PANEL_LANES].astype(out_dtype),
        name="unpack",
    )
    return _finish([data, weight, out])


def _flat_index(indices: tuple[Any, ...], extents: tuple[int, ...]) -> Any:
    """Return the row that leading indices stand for; axes of extent one add nothing."""
    flat: Any = 0
    for index, extent in zip(indices, extents, strict=True):
        if extent > 1:
            flat = index if isinstance(flat, int) else flat * extent + index
    return flat


def _split_index(flat: Any, extents: tuple[int, ...]) -> list[Any]:
    parts: list[Any] = []
    for position, extent in reversed(list(enumerate(extents))):
        parts.append(flat % extent if position else flat)
        flat = flat // extent
    return parts[::-1]


def matmul(lead: tuple[int, ...], inner: int, columns: int, dtype: str, out_dtype: str) -> tirx.PrimFunc:
    """Return [*lead, inner] times packed weights [panel, inner, lane], giving [*lead, columns]."""
    rows = 1
    for extent in lead:
        rows *= extent
    data = te.placeholder((*lead, inner), dtype, name="data")
    weight = te.placeholder((panels(columns), inner, PANEL_LANES), dtype, name="weight")
    k = te.reduce_axis((0, inner), name="k")
    acc_dtype = _accumulator(out_dtype)

    def product(m: Any, o: Any, i: Any) -> Any:
        left = data[*_split_index(m, lead), k].astype(acc_dtype)
        return te.sum(left * weight[o, k, i].astype(acc_dtype), axis=k)

    acc = te.compute(
        (rows, panels(columns), PANEL_LANES), product, name="matmul", attrs={ROLE: "matmul"}
    )

    def unpack(*indices: Any) -> Any:
        column = indices[-1]
        row = _flat_index(indices[:-1], lead)
        return acc[row, column // PANEL_LANES, column % PANEL_LANES].astype(out_dtype)

    out = te.compute((*lead, columns), unpack, name="unpack")
    return _finish([data, weight, out])


@dataclass(frozen=True)
class BatchMatmulShape:
    """Static shape of one batched product of two activations, batches broadcast."""

    left_batch: tuple[int, ...]
    right_batch: tuple[int, ...]
    rows: int
    inner: int
    columns: int

    @property
    def batch(self) -> tuple[int, ...]:
        """The broadcast batch extents."""
        rank = max(len(self.left_batch), len(self.right_batch))
        left = (1,) * (rank - len(self.left_batch)) + self.left_batch
        right = (1,) * (rank - len(self.right_batch)) + self.right_batch
        return tuple(max(a, b) for a, b in zip(left, right, strict=True))


def _broadcast(indices: tuple[Any, ...], extents: tuple[int, ...]) -> list[Any]:
    """Index an operand whose trailing batch axes are `extents`, axes of extent one held at zero."""
    tail = indices[len(indices) - len(extents) :]
    return [0 if extent == 1 else index for index, extent in zip(tail, extents, strict=True)]


def batch_matmul(
    shape: BatchMatmulShape, dtype: str, out_dtype: str, *, is_packed: bool = False
) -> tirx.PrimFunc:
    """Return a batched product; the right side is packed into panels inside the kernel.

    Packing costs one pass over the right side and saves every row of the left side a strided,
    partly empty vector load. With ``is_packed`` the right side comes as [..., panel, inner, lane].
    """
    left = te.placeholder((*shape.left_batch, shape.rows, shape.inner), dtype, name="left")
    count = panels(shape.columns)
    acc_dtype = _accumulator(out_dtype)
    zero = tirx.const(0, dtype)
    extent = (*shape.right_batch, count, shape.inner, PANEL_LANES)
    right = panel = te.placeholder(extent, dtype, name="right")
    if not is_packed:
        right = te.placeholder((*shape.right_batch, shape.inner, shape.columns), dtype, name="right")

    def packed(*indices: Any) -> Any:
        *batch, o, k, i = indices
        column = o * PANEL_LANES + i
        value = right[*batch, k, column]
        if shape.columns % PANEL_LANES == 0:
            return value
        return tirx.if_then_else(column < shape.columns, value, zero)

    if not is_packed:
        panel = te.compute(extent, packed, name="pack", attrs={ROLE: "pack"})
    k = te.reduce_axis((0, shape.inner), name="k")

    def product(*indices: Any) -> Any:
        *batch, m, o, i = indices
        a = left[*_broadcast(tuple(batch), shape.left_batch), m, k].astype(acc_dtype)
        b = panel[*_broadcast(tuple(batch), shape.right_batch), o, k, i].astype(acc_dtype)
        return te.sum(a * b, axis=k)

    extent = (*shape.batch, shape.rows, count, PANEL_LANES)
    acc = te.compute(extent, product, name="batch_matmul", attrs={ROLE: "batch_matmul"})

    def unpack(*indices: Any) -> Any:
        *batch, m, column = indices
        value = acc[*batch, m, column // PANEL_LANES, column % PANEL_LANES]
        return value.astype(out_dtype)

    out = te.compute((*shape.batch, shape.rows, shape.columns), unpack, name="unpack")
    return _finish([left, right, out])


def flops(func: tvm.tirx.PrimFunc) -> float:
    """Return TVM's estimate of the floating point operations of a PrimFunc."""
    from tvm.s_tir.analysis import estimate_tir_flops

    return float(estimate_tir_flops(tvm.IRModule({"main": func})))
