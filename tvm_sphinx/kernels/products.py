"""Products in kernels over plain operands: sums that are a convolution or a matrix product. [TVM]"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir, tirx

from .channels_last import NHWC, inverse
from .compute import ROLE, ConvShape
from .maps import axis_range, read_map, root_nests, with_root_nests

_REDUCTION = tirx.IterVar.CommReduce
_SUMMABLE = ("float32", "float64")
# Channels of the result in a group, below which panels of weights are so empty that plain loops, with
# vectors along the rows of an image, are faster: on Zen 3 with 2 channels four times, with 4 no longer.
_FEWEST_OF_GROUP = 4


@dataclass(frozen=True)
class Product:
    """A sum of products: of what, by which axes, and into what.

    ``left_indices`` and ``right_indices`` are those of the two loads, in terms of ``spatial`` and
    ``reduced`` axes (variable, extent).
    """

    out: Any
    left: Any
    right: Any
    left_indices: tuple[Any, ...]
    right_indices: tuple[Any, ...]
    spatial: tuple[tuple[Any, int], ...]
    reduced: tuple[tuple[Any, int], ...]

    @property
    def dtype(self) -> str:
        """Type of both operands and of the result."""
        return str(self.out.dtype)


def only_product(func: tirx.PrimFunc) -> tuple[list[Any], int, Product] | None:
    """Return the statements of a function, and place and content of the one that sums products.

    None where none does, or several do, or the function is not what fusion leaves.
    """
    if not isinstance(func.body, s_tir.SBlockRealize) or func.body.block.annotations:
        return None
    nests = root_nests(func)
    found = [(number, product) for number, nest in enumerate(nests) if (product := read_product(nest))]
    return (nests, *found[0]) if len(found) == 1 else None


def read_product(nest: Any, dtypes: Collection[str] = _SUMMABLE) -> Product | None:
    """Return the sum of products of such types that a nest of loops is, None of another form."""
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
    found = {str(load.source.dtype) for load in loads}
    if not held.source.same_as(store.buffer) or len(found) != 1 or found.pop() not in dtypes:
        return None
    axes = [(it.var, int(it.dom.extent), it.iter_type == _REDUCTION) for it in block.iter_vars]
    spatial = tuple((var, extent) for var, extent, reduced in axes if not reduced)
    if len(store.indices) != len(spatial) or not all(
        map(is_var, store.indices, [v for v, _ in spatial])
    ):
        return None
    return Product(
        store.buffer,
        left.source,
        right.source,
        tuple(left.indices),
        tuple(right.indices),
        spatial,
        tuple((var, extent) for var, extent, reduced in axes if reduced),
    )


def without_copies(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return a function that reads what it copies where it lies, such as an image with a border of 0."""
    if not isinstance(func.body, s_tir.SBlockRealize):
        return func
    root = func.body.block
    names: dict[Any, Any] = {}
    kept = []
    for nest in root_nests(func):
        copied = _read_copy(nest)
        if copied is None or not any(copied[1].same_as(buffer) for buffer in root.alloc_buffers):
            kept.append(nest)
        else:
            names[copied[1]] = names.get(copied[0], copied[0])
    if not names:
        return func
    own = [buffer for buffer in root.alloc_buffers if buffer not in names]
    body = with_root_nests(func, kept, own).body
    return func.with_body(tvm_ffi.structural_map(body, (tirx.Var, lambda var: names.get(var, var))))


def _read_copy(nest: Any) -> tuple[Any, Any] | None:
    """Return what a nest copies, and where to, element by element; None of another form."""
    made = read_map(nest)
    if made is None or not isinstance(made.value, tvm.ir.expr.TensorLoad):
        return None
    source, axes = made.value.source, [var for var, _ in made.axes]
    indices = (made.indices, made.value.indices)
    if any(len(one) != len(axes) or not all(map(is_var, one, axes)) for one in indices):
        return None
    is_whole = made.extents == extents_of(source) == extents_of(made.buffer)
    return (source, made.buffer) if is_whole and str(source.dtype) == str(made.buffer.dtype) else None


def is_var(index: Any, var: Any) -> bool:
    """Return whether an index is a variable."""
    return bool(index.same_as(var))


def extents_of(buffer: Any) -> tuple[int, ...]:
    """Return the extents of a buffer of known shape."""
    return tuple(int(extent) for extent in buffer.shape)


def is_batch(indices: Sequence[Any], extents: Sequence[int], batch: Sequence[tuple[Any, int]]) -> bool:
    """Return whether indices are the last of the batch's, zero where an operand is broadcast."""
    if len(indices) > len(batch):
        return False
    axes = batch[len(batch) - len(indices) :]
    for index, extent, (var, whole) in zip(indices, extents, axes, strict=True):
        is_zero = isinstance(index, tirx.IntImm) and int(index.value) == 0 and extent == 1
        if not is_zero and not (is_var(index, var) and extent == whole):
            return False
    return True


@dataclass(frozen=True)
class Conv:
    """A convolution over a padded image; extents are of channels first, wherever they stand.

    ``is_image_last`` and ``is_out_last`` tell whether the channels of the image and of the result do
    stand last.
    """

    image: tuple[int, int, int, int]
    channels: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    out: tuple[int, int, int, int]
    is_image_last: bool = False
    is_out_last: bool = False

    @property
    def is_depthwise(self) -> bool:
        """Whether each channel of the result is made of its own one of the image."""
        return self.channels_last.is_depthwise

    @property
    def is_pointwise(self) -> bool:
        """Whether each pixel of the result is made of one pixel, of all its channels."""
        return self.groups == 1 and self.kernel == (1, 1) and self.strides == (1, 1)

    @property
    def is_first(self) -> bool:
        """Whether the channels of image and result stand first."""
        return not self.is_image_last and not self.is_out_last

    @property
    def channels_last(self) -> ConvShape:
        """The same convolution, channels last."""
        batch, depth, height, width = self.image
        return ConvShape(
            (batch, height, width, depth),
            self.channels,
            self.kernel,
            self.strides,
            (0, 0, 0, 0),
            self.dilation,
            self.groups,
        )


def read_conv(product: Product) -> Conv | None:
    """Return the convolution of four axes that a product is, None of another form."""
    if len(product.spatial) != 4 or len(product.reduced) != 3:
        return None
    if len(product.left_indices) != 4 or len(product.right_indices) != 4:
        return None
    is_out_last = is_var(product.right_indices[0], product.spatial[3][0])
    for is_image_last in (False, True):
        found = _read_conv(product, is_image_last, is_out_last)
        if found is not None:
            return found
    return None


def _first(axes: Sequence[Any], is_last: bool) -> tuple[Any, ...]:
    """Return what belongs to the axes of an image in the order of channels first."""
    return tuple(axes[axis] for axis in inverse(NHWC)) if is_last else tuple(axes)


def _read_conv(product: Product, is_image_last: bool, is_out_last: bool) -> Conv | None:
    (n, _), (f, channels), (y, _), (x, _) = _first(product.spatial, is_out_last)
    (c, depth), (ky, height), (kx, width) = product.reduced
    if not all(map(is_var, product.right_indices, (f, c, ky, kx))):
        return None
    image = _first(extents_of(product.left), is_image_last)
    indices = _first(product.left_indices, is_image_last)
    rows, columns = (_steps(indices[axis], *pair) for axis, pair in ((2, (y, ky)), (3, (x, kx))))
    if not is_var(indices[0], n) or rows is None or columns is None:
        return None
    groups = _groups(indices[1], (f, channels), (c, depth), image[1])
    if groups is None:
        return None
    return Conv(
        image,
        channels,
        (height, width),
        (rows[0], columns[0]),
        (rows[1], columns[1]),
        groups,
        _first(extents_of(product.out), is_out_last),
        is_image_last,
        is_out_last,
    )


def _groups(index: Any, out: tuple[Any, int], within: tuple[Any, int], channels: int) -> int | None:
    """Return in how many groups of channels an image is read; None otherwise, or of very narrow ones.

    Parameters
    ----------
    index
        Of the channel of the image.
    out, within
        Variable and extent of the channels of the result, and of those of a group of the image.
    channels
        Of the image.
    """
    (f, count), (c, depth) = out, within
    groups, rest = divmod(channels, depth)
    if rest or count % groups:
        return None
    is_depthwise = groups == channels == count
    if groups > 1 and not is_depthwise and count // groups < _FEWEST_OF_GROUP:
        return None
    analyzer = tvm.sym.Analyzer()
    for axis, extent in (out, within):
        analyzer.bind(axis, axis_range(axis, extent))
    wanted = f // (count // groups) * depth + c if groups > 1 else c
    return groups if analyzer.can_prove_equal(index, wanted) else None


def _steps(index: Any, outer: Any, inner: Any) -> tuple[int, int] | None:
    """Return (a, b) of an index that is ``a * outer + b * inner``, None of another."""
    found = tvm.sym.detect_linear_equation(index, [outer, inner])
    if len(found) != 3 or not all(isinstance(part, tirx.IntImm) for part in found):
        return None
    a, b, rest = (int(part.value) for part in found)
    return (a, b) if rest == 0 and a > 0 and b > 0 else None
