"""CPU kernels over plain operands that are brought into the packed form. [TVM]

Beside a GPU a model keeps the layout that its kernels for the GPU know: activations channels first,
weights as the model has them. A CPU that runs such a kernel as it stands sums one product after another.
Here the sum of products of a convolution or matrix product is replaced by the packed kernel of
`compute.py` and blocks that bring its operands there and its result back, all within the one kernel: no
other one, and no edge between two, has to know of it. It costs a pass over each operand.

`pack_ahead` leaves out the pass over a weight. Its kernel takes the weight packed already, and says by
an attribute how (`packed_weights`); who calls it packs the weight once (`tvm_sphinx.kernels.packing`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import tvm_ffi
from tvm import te, tirx

from . import compute
from .compute import ROLE, BatchMatmulShape, panels
from .maps import loads_of, root_nests, with_root_nests
from .packing import packing_of
from .products import (
    Conv,
    Product,
    extents_of,
    is_batch,
    is_var,
    only_product,
    read_conv,
    without_copies,
)
from .target_info import PANEL_LANES

# Attribute of a PrimFunc: for positions of its parameters, what packs the weights that they take.
_PACKED = "sphinx.packed_weights"
# Of the lanes of pixels. Where more are idle, it is faster to turn the image channels last and back.
_MOST_IDLE = 1 / 8


@dataclass(frozen=True)
class _Form:
    """What takes the place of a sum: functions, and the buffers that their parameters stand for.

    ``between`` are the buffers that only they use. ``weight`` takes the place of the right operand where
    that is packed ahead, by ``packing``.
    """

    stages: Sequence[tuple[tirx.PrimFunc, Sequence[Any]]]
    between: Sequence[Any] = ()
    weight: Any = None
    packing: str = ""


def repack(func: tirx.PrimFunc) -> tirx.PrimFunc | None:
    """Return a function of equal meaning and parameters that packs the operands of its one product.

    None where it holds no convolution of plain layout and no matrix product, or more than one.
    """
    found = only_product(func)
    if found is None:
        return None
    nests, position, product = found
    form = _vector(product) or _matmul(product) or _pointwise(product) or _conv2d(product)
    return None if form is None else _written(func, nests, position, form)


def pack_ahead(func: tirx.PrimFunc, constants: Collection[int]) -> tirx.PrimFunc | None:
    """Return a function of equal meaning that takes the weight of its one product packed.

    It has the parameters of ``func`` but for that weight, in the same order; `packed_weights` tells. A
    convolution of one pixel at a time takes the weight as it is: each of its numbers meets many pixels.

    Parameters
    ----------
    func
        As `repack` takes it.
    constants
        Positions of the parameters that are constants wherever it is called.

    Returns
    -------
    None where `repack` knows no product, its right operand is no constant, or is read elsewhere too.
    """
    func = without_copies(func)
    found = only_product(func)
    if found is None:
        return None
    nests, position, product = found
    places = [at for at, param in enumerate(func.params) if param.same_as(product.right)]
    others = [*nests[:position], *nests[position + 1 :]]
    readers = [load for nest in others for load in loads_of(nest) if load.source.same_as(product.right)]
    if not set(places) & set(constants) or readers or product.left.same_as(product.right):
        return None
    form = _matmul_ahead(product) or _conv2d_ahead(product)
    if form is None:
        return None
    (place,) = places
    made = _written(func, nests, position, form)
    if form.weight is None:
        return made
    params = [form.weight if at == place else param for at, param in enumerate(func.params)]
    taken = tirx.PrimFunc(params, made.body, made.ret_type).with_attrs(dict(made.attrs or {}))
    return taken.with_attr(_PACKED, {str(place): form.packing})


def packed_weights(function: Any) -> dict[int, str]:
    """Return what packs the weights of a function, as `pack_weight` takes it, by position.

    It is empty for a function that takes all weights as the model has them.
    """
    attrs = getattr(function, "attrs", None)
    packed = attrs[_PACKED] if attrs and _PACKED in attrs else {}
    return {int(str(position)): str(packing) for position, packing in packed.items()}


def _written(func: tirx.PrimFunc, nests: Sequence[Any], position: int, form: _Form) -> tirx.PrimFunc:
    """Return a function with a form in the place of one of its statements."""
    statements, buffers = [], list(form.between)
    for stage, operands in form.stages:
        body, own = _spliced(stage, operands)
        statements += body
        buffers += own
    placed = [*nests[:position], *statements, *nests[position + 1 :]]
    return with_root_nests(func, placed, [*func.body.block.alloc_buffers, *buffers])


def _spliced(func: tirx.PrimFunc, operands: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Return a function's statements on other operands, and the buffers that it has of its own."""
    names = dict(zip(func.params, operands, strict=True))
    body = tvm_ffi.structural_map(func.body, (tirx.Var, lambda var: names.get(var, var)))
    return root_nests(func.with_body(body)), list(body.block.alloc_buffers)


def _like(param: Any, name: str) -> Any:
    """Return a new buffer of the shape and type of a parameter."""
    return tirx.decl_buffer(extents_of(param), param.dtype, name, layout=None)


def _batch_shape(product: Product) -> BatchMatmulShape | None:
    """Return the shape of ``[..., m, k] @ [..., k, n]``, batches broadcast, if that is what it is."""
    if len(product.reduced) != 1 or len(product.spatial) < 2:
        return None
    ((k, inner),) = product.reduced
    *batch, (m, rows), (n, columns) = product.spatial
    lefts, rights = product.left_indices, product.right_indices
    if min(len(lefts), len(rights)) < 2:
        return None
    ends = (*lefts[-2:], *rights[-2:])
    if not all(map(is_var, ends, (m, k, k, n))):
        return None
    left, right = extents_of(product.left)[:-2], extents_of(product.right)[:-2]
    shape = BatchMatmulShape(left, right, rows, inner, columns)
    is_one = is_batch(lefts[:-2], shape.left_batch, batch)
    return shape if is_one and is_batch(rights[:-2], shape.right_batch, batch) else None


def _matmul(product: Product) -> _Form | None:
    shape = _batch_shape(product)
    if shape is None:
        return None
    kernel = compute.batch_matmul(shape, product.dtype, product.dtype)
    return _Form([(kernel, [product.left, product.right, product.out])])


def _vector(product: Product) -> _Form | None:
    """Return the product of a vector and a matrix, whose rows are vectors as they lie there."""
    if len(product.reduced) != 1 or not product.spatial or not product.left_indices:
        return None  # of two vectors, say
    if any(extent > 1 for _, extent in product.spatial[:-1]):
        return None
    ((k, inner),), (n, columns) = product.reduced, product.spatial[-1]
    *lead, last = product.left_indices
    if len(product.right_indices) != 2 or not all(
        map(is_var, (last, *product.right_indices), (k, k, n))
    ):
        return None
    if columns % PANEL_LANES or any(extent > 1 for extent in extents_of(product.left)[:-1]):
        return None
    dtype = product.dtype
    data = te.placeholder(extents_of(product.left), dtype, name="data")
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
        extents_of(product.out),
        lambda *at: acc[0, at[-1] // PANEL_LANES, at[-1] % PANEL_LANES],
        name="unpack",
    )
    return _Form([(_function([data, weight, out]), [product.left, product.right, product.out])])


def _matmul_ahead(product: Product) -> _Form | None:
    """Return a matrix product whose right operand, the weight, comes in panels of its columns."""
    dtype = product.dtype
    lead, inner = extents_of(product.left)[:-1], extents_of(product.left)[-1]
    columns = extents_of(product.right)[-1]
    if _is_of_rows(product):
        kernel = compute.matmul(lead, inner, columns, dtype, dtype)
    elif shape := _batch_shape(product):
        kernel = compute.batch_matmul(shape, dtype, dtype, is_packed=True)
    else:
        return None
    if extents_of(kernel.params[-1]) != extents_of(product.out):
        return None
    weight = _like(kernel.params[1], "panels")
    return _Form([(kernel, [product.left, weight, product.out])], (), weight, "matmul")


def _is_of_rows(product: Product) -> bool:
    """Return whether a product is ``[..., k] @ [k, n]``: each row of the left times the right."""
    if len(product.reduced) != 1 or not product.spatial or len(product.right_indices) != 2:
        return False
    (k, _), (n, _) = product.reduced[0], product.spatial[-1]
    *lead, last = product.left_indices
    if len(lead) != len(product.spatial) - 1:
        return False
    return all(map(is_var, (last, *product.right_indices), (k, k, n))) and is_batch(
        lead, extents_of(product.left)[:-1], product.spatial[:-1]
    )


def _pointwise(product: Product) -> _Form | None:
    """Return a convolution of one pixel at a time as weights times pixels, which are packed."""
    conv = read_conv(product)
    is_plain = conv is not None and conv.is_pointwise and conv.is_first
    return _of_pixels(conv, product, "batch_matmul") if conv and is_plain else None


def _of_pixels(conv: Conv, product: Product, role: str) -> _Form:
    batch, depth, height, width = conv.image
    count, pixels, dtype = panels(height * width), height * width, product.dtype
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
        name=role,
        attrs={ROLE: role},
    )

    def unpack(n: Any, f: Any, y: Any, x: Any) -> Any:
        pixel = y * width + x
        return acc[n, f, pixel // PANEL_LANES, pixel % PANEL_LANES]

    out = te.compute(conv.out, unpack, name="unpack")
    return _Form([(_function([data, weight, out]), [product.left, product.right, product.out])])


def _conv2d(product: Product) -> _Form | None:
    """Return a convolution channels last: the image brought there, weights packed, the result back."""
    conv = read_conv(product)
    if conv is None:
        return None
    made = _channels_last(conv, product, _packing(conv))
    packed = _pack_weights(conv, product.dtype, extents_of(made.weight)), [product.right, made.weight]
    at = 0 if conv.is_image_last else 1
    stages = [*made.stages[:at], packed, *made.stages[at:]]
    return _Form(stages, [*made.between[:at], made.weight, *made.between[at:]])


def _conv2d_ahead(product: Product) -> _Form | None:
    """Return the same with its weights packed ahead, or one of pixels."""
    conv = read_conv(product)
    if conv is None or extents_of(product.right)[2:] != conv.kernel:
        return None
    if conv.is_pointwise:
        pixels = conv.image[2] * conv.image[3]
        lanes = panels(pixels) * PANEL_LANES
        if conv.is_first and lanes - pixels <= _MOST_IDLE * lanes:
            return _of_pixels(conv, product, "pixels")
        return _channels_last(conv, product, "conv2d_1x1")
    return _channels_last(conv, product, _packing(conv))


def _packing(conv: Conv) -> str:
    """Return what packs the weights of a convolution of several pixels."""
    return "depthwise_conv2d" if conv.is_depthwise else packing_of("conv2d", conv.groups)


def _channels_last(conv: Conv, product: Product, packing: str) -> _Form:
    """Return a convolution channels last, which takes its weights packed.

    An image, or a result, whose channels stand first is turned.
    """
    dtype, shape = product.dtype, conv.channels_last
    if packing == "conv2d_1x1":
        kernel = compute.matmul(shape.data[:3], shape.data[3], conv.channels, dtype, dtype)
    else:
        make = compute.depthwise_conv2d if conv.is_depthwise else compute.conv2d
        kernel = make(shape, dtype, dtype)
    image, weight, result = map(_like, kernel.params, ("image", "panels", "result"))
    stages, between = [], []
    if conv.is_image_last:
        image = product.left
    else:
        source = te.placeholder(conv.image, dtype, name="source")
        moved = te.compute(
            extents_of(image), lambda n, h, w, c: source[n, c, h, w], name="image", attrs={ROLE: "pad"}
        )
        stages.append((_function([source, moved]), [product.left, image]))
        between.append(image)
    stages.append((kernel, [image, weight, product.out if conv.is_out_last else result]))
    if not conv.is_out_last:
        held = te.placeholder(extents_of(result), dtype, name="held")
        back = te.compute(conv.out, lambda n, f, y, x: held[n, y, x, f], name="back")
        stages.append((_function([held, back]), [result, product.out]))
        between.append(result)
    return _Form(stages, between, weight, packing)


def _function(tensors: list[Any]) -> tirx.PrimFunc:
    return te.create_prim_func(tensors, index_dtype_override="int64")


def _pack_weights(conv: Conv, dtype: str, packed: tuple[int, ...]) -> tirx.PrimFunc:
    """Return what packs weights ``[out, in / groups, kh, kw]`` as `compute.py` wants them."""
    depth = conv.image[1] // conv.groups
    of_group = conv.channels if conv.is_depthwise else conv.channels // conv.groups
    weight = te.placeholder((conv.channels, depth, *conv.kernel), dtype, name="weight")

    def of(g: Any, o: Any, c: Any, ky: Any, kx: Any, i: Any) -> Any:
        channel = o * PANEL_LANES + i
        value = weight[g * of_group + channel, c, ky, kx]
        if of_group % PANEL_LANES == 0:
            return value
        return tirx.if_then_else(channel < of_group, value, tirx.const(0, dtype))

    if conv.is_depthwise:
        made = te.compute(
            packed, lambda ky, kx, o, i: of(0, o, 0, ky, kx, i), name="p", attrs={ROLE: "pack"}
        )
    else:
        is_one = conv.groups == 1
        made = te.compute(
            packed,
            lambda g, o, ky, kx, c, i: of(0 if is_one else g, o, c, ky, kx, i),
            name="p",
            attrs={ROLE: "pack"},
        )
    return _function([weight, made])
