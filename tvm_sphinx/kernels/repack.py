"""CPU kernels over plain operands that bring them into the packed form themselves.

Beside a GPU a model keeps the layout that its kernels for the GPU know: activations channels first,
weights as the model has them. A CPU that runs such a kernel as it stands sums one product after another.
Here the sum of products of a convolution or matrix product is replaced by the packed kernel of
`compute.py` and blocks that bring its operands there and its result back, all within the one kernel: no
other one, and no edge between two, has to know of it. It costs a pass over each operand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir, te, tirx

from . import compute
from .compute import ROLE, BatchMatmulShape, ConvShape, panels
from .maps import root_nests
from .target_info import PANEL_LANES

_REDUCTION = tirx.IterVar.CommReduce
_SUMMABLE = ("float32", "float64")


@dataclass(frozen=True)
class _Product:
    """A sum of products: of what, by which axes, and into what.

    ``left`` and ``right`` are the indices of the two loads, in terms of ``spatial`` and ``reduced`` axes
    (variable, extent).
    """

    out: Any
    left: Any
    right: Any
    left_indices: tuple[Any, ...]
    right_indices: tuple[Any, ...]
    spatial: tuple[tuple[Any, int], ...]
    reduced: tuple[tuple[Any, int], ...]


#: What takes the place of a sum: functions, and the buffers that their parameters stand for.
_Stages = list[tuple[tirx.PrimFunc, list[Any]]]


def repack(func: tirx.PrimFunc) -> tirx.PrimFunc | None:
    """Return a function of equal meaning and parameters that packs the operands of its one product.

    None where it holds no convolution of plain layout and no matrix product, or more than one.
    """
    if not isinstance(func.body, s_tir.SBlockRealize) or func.body.block.annotations:
        return None
    nests = root_nests(func)
    found = [(number, product) for number, nest in enumerate(nests) if (product := _read(nest))]
    if len(found) != 1:
        return None
    position, product = found[0]
    made = _vector(product) or _matmul(product) or _pointwise(product) or _conv2d(product)
    if made is None:
        return None
    stages, buffers = made
    statements = []
    for stage, operands in stages:
        body, own = _spliced(stage, operands)
        statements += body
        buffers = [*buffers, *own]
    return _with_nests(func, [*nests[:position], *statements, *nests[position + 1 :]], buffers)


def _with_nests(func: tirx.PrimFunc, nests: Sequence[Any], buffers: Sequence[Any]) -> tirx.PrimFunc:
    root = func.body.block
    block = s_tir.SBlock(
        root.iter_vars,
        root.reads,
        root.writes,
        root.name_hint,
        tirx.SeqStmt(list(nests)),
        alloc_buffers=[*root.alloc_buffers, *buffers],
        annotations=root.annotations,
    )
    return func.with_body(s_tir.SBlockRealize(func.body.iter_values, func.body.predicate, block))


def _spliced(func: tirx.PrimFunc, operands: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Return a function's statements on other operands, and the buffers that it has of its own."""
    names = dict(zip(func.params, operands, strict=True))
    body = tvm_ffi.structural_map(func.body, (tirx.Var, lambda var: names.get(var, var)))
    return root_nests(func.with_body(body)), list(body.block.alloc_buffers)


def _read(nest: Any) -> _Product | None:
    """Return the sum of products that a nest of loops is, None of another form."""
    leaf = nest
    while isinstance(leaf, tirx.For):
        leaf = leaf.body
    if not isinstance(leaf, s_tir.SBlockRealize) or leaf.block.init is None:
        return None
    block = leaf.block
    store = block.body
    if ROLE in block.annotations or not isinstance(store, tirx.BufferStore):
        return None
    total = store.value
    if not isinstance(total, tirx.Add) or not isinstance(total.b, tirx.Mul):
        return None
    loads = (total.a, total.b.a, total.b.b)
    if not all(isinstance(load, tvm.ir.expr.TensorLoad) for load in loads):
        return None
    held, left, right = loads
    dtypes = {str(load.source.dtype) for load in loads}
    if not held.source.same_as(store.buffer) or len(dtypes) != 1 or dtypes.pop() not in _SUMMABLE:
        return None
    axes = [(it.var, int(it.dom.extent), it.iter_type == _REDUCTION) for it in block.iter_vars]
    spatial = tuple((var, extent) for var, extent, reduced in axes if not reduced)
    if len(store.indices) != len(spatial) or not all(map(_is, store.indices, [v for v, _ in spatial])):
        return None
    return _Product(
        store.buffer,
        left.source,
        right.source,
        tuple(left.indices),
        tuple(right.indices),
        spatial,
        tuple((var, extent) for var, extent, reduced in axes if reduced),
    )


def _is(index: Any, var: Any) -> bool:
    return bool(index.same_as(var))


def _shape(buffer: Any) -> tuple[int, ...]:
    return tuple(int(extent) for extent in buffer.shape)


def _matmul(product: _Product) -> tuple[_Stages, list[Any]] | None:
    """Return ``[..., m, k] @ [..., k, n]`` with batches broadcast, if that is what it is."""
    if len(product.reduced) != 1 or len(product.spatial) < 2:
        return None
    ((k, inner),) = product.reduced
    *batch, (m, rows), (n, columns) = product.spatial
    lefts, rights = product.left_indices, product.right_indices
    if min(len(lefts), len(rights)) < 2:
        return None
    ends = (*lefts[-2:], *rights[-2:])
    if not all(map(_is, ends, (m, k, k, n))):
        return None
    shape = BatchMatmulShape(_shape(product.left)[:-2], _shape(product.right)[:-2], rows, inner, columns)
    if not (
        _is_batch(lefts[:-2], shape.left_batch, batch)
        and _is_batch(rights[:-2], shape.right_batch, batch)
    ):
        return None
    dtype = str(product.out.dtype)
    return [(compute.batch_matmul(shape, dtype, dtype), [product.left, product.right, product.out])], []


def _vector(product: _Product) -> tuple[_Stages, list[Any]] | None:
    """Return the product of a vector and a matrix, whose rows are vectors as they lie there."""
    if len(product.reduced) != 1 or not product.spatial or not product.left_indices:
        return None  # of two vectors, say
    if any(extent > 1 for _, extent in product.spatial[:-1]):
        return None
    ((k, inner),), (n, columns) = product.reduced, product.spatial[-1]
    *lead, last = product.left_indices
    if len(product.right_indices) != 2 or not all(map(_is, (last, *product.right_indices), (k, k, n))):
        return None
    if columns % PANEL_LANES or any(extent > 1 for extent in _shape(product.left)[:-1]):
        return None
    dtype = str(product.out.dtype)
    data = te.placeholder(_shape(product.left), dtype, name="data")
    weight = te.placeholder((inner, columns), dtype, name="weight")
    axis = te.reduce_axis((0, inner), name="k")
    acc = te.compute(
        (1, columns // PANEL_LANES, PANEL_LANES),
        lambda m, o, i: te.sum(
            data[*([0] * len(lead)), axis] * weight[axis, o * PANEL_LANES + i], axis=axis
        ),
        name="matmul",
        attrs={ROLE: "matmul"},
    )
    out = te.compute(
        _shape(product.out),
        lambda *at: acc[0, at[-1] // PANEL_LANES, at[-1] % PANEL_LANES],
        name="unpack",
    )
    return [(_function([data, weight, out]), [product.left, product.right, product.out])], []


def _is_batch(indices: Sequence[Any], extents: Sequence[int], batch: Sequence[tuple[Any, int]]) -> bool:
    """Return whether indices are the last of the batch's, zero where an operand is broadcast."""
    if len(indices) > len(batch):
        return False
    axes = batch[len(batch) - len(indices) :]
    for index, extent, (var, whole) in zip(indices, extents, axes, strict=True):
        is_zero = isinstance(index, tirx.IntImm) and int(index.value) == 0 and extent == 1
        if not is_zero and not (_is(index, var) and extent == whole):
            return False
    return True


@dataclass(frozen=True)
class _Conv:
    """A convolution over a padded image, channels first."""

    image: tuple[int, int, int, int]
    channels: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilation: tuple[int, int]
    is_depthwise: bool
    out: tuple[int, int, int, int]


def _read_conv(product: _Product) -> _Conv | None:
    if len(product.spatial) != 4 or len(product.reduced) != 3:
        return None
    (n, _), (f, channels), (y, _), (x, _) = product.spatial
    (c, depth), (ky, height), (kx, width) = product.reduced
    if len(product.left_indices) != 4 or len(product.right_indices) != 4:
        return None
    if not all(map(_is, product.right_indices, (f, c, ky, kx))):
        return None
    image = _shape(product.left)
    rows, columns = (
        _steps(product.left_indices[axis], *pair) for axis, pair in ((2, (y, ky)), (3, (x, kx)))
    )
    if not _is(product.left_indices[0], n) or rows is None or columns is None:
        return None
    from_all = _is(product.left_indices[1], c) and image[1] == depth
    is_depthwise = (
        not from_all
        and depth == 1
        and image[1] == channels
        and _steps(product.left_indices[1], f, c) == (1, 1)
    )
    if not from_all and not is_depthwise:
        return None
    strides, dilation = zip(rows, columns, strict=True)
    kernel, out = (height, width), _shape(product.out)
    return _Conv(image, channels, kernel, strides, dilation, is_depthwise, out)  # type: ignore[arg-type]


def _steps(index: Any, outer: Any, inner: Any) -> tuple[int, int] | None:
    """Return (a, b) of an index that is ``a * outer + b * inner``, None of another."""
    found = tvm.sym.detect_linear_equation(index, [outer, inner])
    if len(found) != 3 or not all(isinstance(part, tirx.IntImm) for part in found):
        return None
    a, b, rest = (int(part.value) for part in found)
    return (a, b) if rest == 0 and a > 0 and b > 0 else None


def _pointwise(product: _Product) -> tuple[_Stages, list[Any]] | None:
    """Return a convolution of one pixel at a time as weights times pixels, which are packed."""
    conv = _read_conv(product)
    if conv is None or conv.is_depthwise or conv.kernel != (1, 1) or conv.strides != (1, 1):
        return None
    batch, depth, height, width = conv.image
    count, pixels, dtype = panels(height * width), height * width, str(product.out.dtype)
    data = te.placeholder(conv.image, dtype, name="data")
    weight = te.placeholder((conv.channels, depth, 1, 1), dtype, name="weight")

    def packed(n: Any, o: Any, c: Any, i: Any) -> Any:
        pixel = o * PANEL_LANES + i
        value = data[n, c, pixel // width, pixel % width]
        if pixels % PANEL_LANES == 0:
            return value
        return tirx.if_then_else(pixel < pixels, value, tirx.const(0, dtype))

    panel = te.compute((batch, count, depth, PANEL_LANES), packed, name="pack", attrs={ROLE: "pack"})
    c = te.reduce_axis((0, depth), name="c")
    acc = te.compute(
        (batch, conv.channels, count, PANEL_LANES),
        lambda n, f, o, i: te.sum(weight[f, c, 0, 0] * panel[n, o, c, i], axis=c),
        name="batch_matmul",
        attrs={ROLE: "batch_matmul"},
    )

    def unpack(n: Any, f: Any, y: Any, x: Any) -> Any:
        pixel = y * width + x
        return acc[n, f, pixel // PANEL_LANES, pixel % PANEL_LANES]

    out = te.compute(conv.out, unpack, name="unpack")
    return [(_function([data, weight, out]), [product.left, product.right, product.out])], []


def _conv2d(product: _Product) -> tuple[_Stages, list[Any]] | None:
    """Return a convolution channels last: the image brought there, weights packed, the result back."""
    conv = _read_conv(product)
    if conv is None:
        return None
    batch, depth, height, width = conv.image
    dtype = str(product.out.dtype)
    shape = ConvShape(
        (batch, height, width, depth),
        conv.channels,
        conv.kernel,
        conv.strides,
        (0, 0, 0, 0),
        conv.dilation,
        depth if conv.is_depthwise else 1,
    )
    make = compute.depthwise_conv2d if conv.is_depthwise else compute.conv2d
    kernel = make(shape, dtype, dtype)
    image, weight, result = (
        tirx.decl_buffer(_shape(kernel_param), dtype, name, layout=None)
        for kernel_param, name in zip(kernel.params, ("image", "panels", "result"), strict=True)
    )
    source = te.placeholder(conv.image, dtype, name="source")
    moved = te.compute(
        _shape(image), lambda n, h, w, c: source[n, c, h, w], name="image", attrs={ROLE: "pad"}
    )
    held = te.placeholder(_shape(result), dtype, name="held")
    back = te.compute(conv.out, lambda n, f, y, x: held[n, y, x, f], name="back")
    stages = [
        (_function([source, moved]), [product.left, image]),
        (_pack_weights(conv, dtype, _shape(weight)), [product.right, weight]),
        (kernel, [image, weight, result]),
        (_function([held, back]), [result, product.out]),
    ]
    return stages, [image, weight, result]


def _function(tensors: list[Any]) -> tirx.PrimFunc:
    return te.create_prim_func(tensors, index_dtype_override="int64")


def _pack_weights(conv: _Conv, dtype: str, packed: tuple[int, ...]) -> tirx.PrimFunc:
    """Return what packs weights ``[out, in, kh, kw]`` as `compute.py` wants them."""
    depth = 1 if conv.is_depthwise else conv.image[1]
    weight = te.placeholder((conv.channels, depth, *conv.kernel), dtype, name="weight")

    def of(o: Any, c: Any, ky: Any, kx: Any, i: Any) -> Any:
        channel = o * PANEL_LANES + i
        value = weight[channel, c, ky, kx]
        if conv.channels % PANEL_LANES == 0:
            return value
        return tirx.if_then_else(channel < conv.channels, value, tirx.const(0, dtype))

    if conv.is_depthwise:
        made = te.compute(
            packed, lambda ky, kx, o, i: of(o, 0, ky, kx, i), name="p", attrs={ROLE: "pack"}
        )
    else:
        made = te.compute(
            packed, lambda g, o, ky, kx, c, i: of(o, c, ky, kx, i), name="p", attrs={ROLE: "pack"}
        )
    return _function([weight, made])
