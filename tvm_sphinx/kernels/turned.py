"""Kernels over images whose channels stand last, made of those that a model has. [TVM]

Beside a GPU a model keeps its images channels first. On CPUs, whose kernels want them last, a kernel
takes and gives images in the latter form where both sides of a tensor are such kernels: `turned` is
what it computes then, and `turn` brings a tensor from one form to the other where it crosses over.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import Enum
from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir, te, tirx
from tvm.ir.expr import TensorLoad

from .channels_last import NHWC, inverse
from .interleave import interleaved
from .maps import Views, loads_of, read_map, root_nests, write_maps
from .plain_views import without_views
from .products import read_conv, read_product

#: Attribute of a PrimFunc that brings a tensor to another layout, and is no kernel of the model.
TURN = "sphinx.turn"


def permuted(extents: Sequence[Any], *, is_back: bool = False) -> list[Any]:
    """Return what belongs to the axes of an image in the order of channels last, or back again."""
    return [extents[axis] for axis in (inverse(NHWC) if is_back else NHWC)]


def turn(extents: Sequence[int], dtype: str, *, is_back: bool = False) -> tirx.PrimFunc:
    """Return the function that brings an image channels last, or back.

    Parameters
    ----------
    extents
        Of the image, channels first.
    dtype
    is_back
        Whether it comes channels last, and is to be channels first.
    """
    source = te.placeholder(permuted(extents) if is_back else tuple(extents), dtype, name="image")
    if is_back:
        made = te.compute(tuple(extents), lambda n, c, h, w: source[n, h, w, c], name="turn")
    else:
        made = te.compute(permuted(extents), lambda n, h, w, c: source[n, c, h, w], name="turn")
    func = te.create_prim_func([source, made], index_dtype_override="int64")
    return func.without_attr("global_symbol").with_attrs({"tirx.noalias": True, TURN: 1})


def is_turn(function: Any) -> bool:
    """Return whether a PrimFunc only brings a tensor to another layout (`turn`)."""
    attrs = getattr(function, "attrs", None)
    return attrs is not None and TURN in attrs


class ImageRole(Enum):
    """How a kernel takes and gives images."""

    CONVOLVES = "convolves"  # packed, with channels last
    FOLLOWS = "follows"  # as fast with channels first or last, if all of them are alike
    KEEPS = "keeps"  # as the model has them


def image_role(func: Any, constants: Collection[int]) -> ImageRole:
    """Return how a kernel takes and gives images.

    One that pools, joins or maps images writes each element of an image, or of what is left of one
    without height and width, from the same place of others, a window there, or what is the same for
    many places. A convolution does the same with its sums of products. What only looks at images in
    another shape in between, such as a shuffle of channels, is told by what that makes of each place.

    Parameters
    ----------
    func
        A PrimFunc; packed functions keep what they have.
    constants
        Positions of its parameters that may come packed, see `tvm_sphinx.kernels.pack_ahead`.
    """
    nests = _nests(without_views(func)) if isinstance(func, tirx.PrimFunc) else None
    if nests is None:
        return ImageRole.KEEPS
    products = {at: product for at, nest in enumerate(nests) if (product := read_product(nest))}
    if not all(_follows(nest) for at, nest in enumerate(nests) if at not in products):
        return ImageRole.KEEPS
    if not products:
        return ImageRole.FOLLOWS
    product = next(iter(products.values()))
    weights = [func.params[position] for position in constants]
    is_packed = any(_same(product.right, weight) for weight in weights)
    is_one = len(products) == 1 and is_packed and read_conv(product) is not None
    return ImageRole.CONVOLVES if is_one else ImageRole.KEEPS


def turned(func: tirx.PrimFunc, positions: Collection[int]) -> tirx.PrimFunc:
    """Return a function of equal meaning that takes and gives images channels last.

    Parameters
    ----------
    func
        One whose `image_role` is not to keep them.
    positions
        Those of its parameters, of four axes, that have the channels last; the others stay.
    """
    func = without_views(func)
    chosen = [param for at, param in enumerate(func.params) if at in set(positions)]
    names = {buffer: _turned_buffer(buffer) for buffer in [*chosen, *_between(func, chosen)]}
    made = set(names.values())

    def load(found: Any) -> Any:
        return _load(found.source, permuted(found.indices)) if found.source in made else found

    def store(found: Any) -> Any:
        if found.buffer not in made:
            return found
        return tirx.BufferStore(found.buffer, found.value, permuted(found.indices))

    def region(found: Any) -> Any:
        return tirx.BufferRegion(found.source, permuted(found.region)) if found.source in made else found

    body = tvm_ffi.structural_map(
        func.body,
        [
            (tirx.Var, lambda var: names.get(var, var)),
            (TensorLoad, load),
            (tirx.BufferStore, store),
            (tvm.ir.TensorRegion, region),
        ],
    )
    params = [names.get(param, param) for param in func.params]
    made_of = tirx.PrimFunc(params, body, func.ret_type).with_attrs(dict(func.attrs or {}))
    nests = [_in_order(nest) if _written(nest) in made else nest for nest in root_nests(made_of)]
    return write_maps(made_of, [_interleaved(nest, params) for nest in nests], Views(params))


def _interleaved(nest: Any, params: Sequence[Any]) -> Any:
    """Return a nest that writes a result, as maps where it interleaves channels."""
    whole = read_map(nest)
    if whole is None or not any(_same(whole.buffer, param) for param in params):
        return nest
    found = interleaved(whole)
    return nest if found is whole else [found]


def _nests(func: tirx.PrimFunc) -> list[Any] | None:
    """Return the statements of a function of blocks in one root, None of another."""
    if not isinstance(func.body, s_tir.SBlockRealize) or func.body.block.annotations:
        return None
    nests = root_nests(func)
    return nests if all(_block(nest) is not None for nest in nests) else None


def _block(nest: Any) -> Any | None:
    """Return the block around one store that a nest of loops is, each of them one axis of it."""
    loops, leaf = [], nest
    while isinstance(leaf, tirx.For):
        loops.append(leaf.loop_var)
        leaf = leaf.body
    if not isinstance(leaf, s_tir.SBlockRealize) or not isinstance(leaf.block.body, tirx.BufferStore):
        return None
    values = list(leaf.iter_values)
    is_plain = len(values) == len(loops) and all(map(_same, values, loops))
    return leaf.block if is_plain else None


def _store(nest: Any) -> Any:
    """Return the one store of a nest that `_nests` has let pass."""
    block = _block(nest)
    assert block is not None
    return block.body


def _same(one: Any, other: Any) -> bool:
    return bool(one.same_as(other))


def _follows(nest: Any) -> bool:
    block = _block(nest)
    assert block is not None
    store = block.body
    if len(store.indices) not in (2, 4):
        return False
    axes = [it.var for it in block.iter_vars if it.iter_type != tirx.IterVar.CommReduce]
    written = list(store.indices)
    if not all(_is_zero(index) or any(_same(index, axis) for axis in axes) for index in written):
        return False
    loads = [load for load in loads_of(store.value) if not _same(load.source, store.buffer)]
    return all(_is_along(load, written, axes) for load in loads)


def _is_along(load: Any, written: Sequence[Any], axes: Sequence[Any]) -> bool:
    """Return whether an image is read at each axis by what is written at that axis, or by a window."""
    if any(loads_of(index) for index in load.indices):
        return False
    if len(load.indices) != 4:
        return len(load.indices) < 4
    for place, index in enumerate(load.indices):
        used: list[Any] = []
        tvm_ffi.structural_walk(index, (tirx.Var, used.append))
        others = [axis for axis in axes if place >= len(written) or not _same(axis, written[place])]
        if any(_same(var, axis) for var in used for axis in others):
            return False
    return True


def _is_zero(index: Any) -> bool:
    return isinstance(index, tirx.IntImm) and int(index) == 0


def _between(func: tirx.PrimFunc, chosen: Collection[Any]) -> list[Any]:
    """Return the buffers of four axes between statements that are channels last with the parameters.

    What is made of such a tensor is one too, and what a convolution makes is as the result is.
    """
    own = list(func.body.block.alloc_buffers)
    found = list(chosen)
    ends_turned = any(func.params[-1].same_as(param) for param in chosen)
    for nest in root_nests(func):
        store = _store(nest)
        if len(store.indices) != 4 or not any(_same(store.buffer, buffer) for buffer in own):
            continue
        reads = [load.source for load in loads_of(store.value)]
        is_product = read_product(nest) is not None
        if ends_turned if is_product else any(_same(a, b) for a in reads for b in found):
            found.append(store.buffer)
    return found[len(chosen) :]


def _turned_buffer(buffer: Any) -> Any:
    return tirx.decl_buffer(permuted(buffer.shape), buffer.dtype, buffer.name, layout=None)


def _load(source: Any, indices: Sequence[Any]) -> Any:
    return tirx.BufferLoad(source, list(indices))


def _written(nest: Any) -> Any:
    return _store(nest).buffer


def _in_order(nest: Any) -> Any:
    """Return a nest with its axes in the order in which it writes, the others behind."""
    loops, leaf = [], nest
    while isinstance(leaf, tirx.For):
        loops.append(leaf)
        leaf = leaf.body
    block = leaf.block
    first = [
        at
        for index in block.body.indices
        for at, it in enumerate(block.iter_vars)
        if index.same_as(it.var)
    ]
    order = [*first, *(at for at in range(len(loops)) if at not in first)]
    iters = [block.iter_vars[at] for at in order]
    moved = s_tir.SBlock(
        iters,
        block.reads,
        block.writes,
        block.name_hint,
        block.body,
        block.init,
        alloc_buffers=block.alloc_buffers,
        match_buffers=block.match_buffers,
        annotations=block.annotations,
    )
    values = [leaf.iter_values[at] for at in order]
    made: Any = s_tir.SBlockRealize(values, leaf.predicate, moved)
    for at in reversed(order):
        loop = loops[at]
        made = tirx.For(loop.loop_var, loop.min, loop.extent, loop.kind, made)
    return made
