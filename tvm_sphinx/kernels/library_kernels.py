"""Kernels that a library can compute: one product, with what follows it. [TVM]

What follows is a bias, a residual and an activation that a library computes by the same definition, or
else a kernel of ours for the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx

from .library_epilogue import with_epilogue
from .library_matrices import position_of, read_matrices
from .library_product import LIBRARY, LibraryProduct
from .maps import root_nests, with_root_nests
from .products import Product, read_product, without_copies
from .staged import is_staged

_TYPES = ("float32", "float16")


def find_library_product(func: Any, *, is_fused: bool = True) -> LibraryProduct | None:
    """Return the product that an unscheduled PrimFunc is, None where a library cannot compute it.

    Unless ``is_fused``, all that follows the product is left to a kernel of ours.
    """
    if not isinstance(func, tirx.PrimFunc) or is_staged(func) or not _is_plain(func):
        return None
    func = without_copies(func)
    if not isinstance(func.body, tvm.s_tir.SBlockRealize) or func.body.block.annotations:
        return None
    nests = root_nests(func)
    found = [(at, one) for at, nest in enumerate(nests) if (one := read_product(nest, _TYPES))]
    if len(found) != 1:
        return None
    ((at, product),) = found
    others = [*nests[:at], *nests[at + 1 :]]
    made = read_matrices(func, product)
    if made is None:
        return None
    if not others:
        is_result = product.out.same_as(func.params[-1])
        return made.product if is_result else None
    if not _follow(func, product, others):
        return None
    ended = with_epilogue(func, made, others) if is_fused else None
    return ended or _with_rest(func, made.product, product, others)


def _is_plain(func: Any) -> bool:
    """Return whether a function is not scheduled, and all its shapes are known."""
    shapes = [getattr(param, "shape", None) for param in func.params]
    is_known = all(
        shape is not None and all(isinstance(extent, tirx.IntImm) for extent in shape)
        for shape in shapes
    )
    return is_known and not (func.attrs and func.attrs.get("tirx.is_scheduled", 0))


def _follow(func: Any, product: Product, others: Sequence[Any]) -> bool:
    """Return whether what else a function does writes its last parameter alone, and none before."""
    if position_of(func, product.out) is not None:
        return False
    own = list(func.body.block.alloc_buffers)
    writes = [buffer for nest in others for buffer in _stored(nest)]
    last = func.params[-1]
    is_known = all(any(one.same_as(buffer) for buffer in [*own, last]) for one in writes)
    return is_known and any(one.same_as(last) for one in writes)


def _stored(nest: Any) -> list[Any]:
    found: list[Any] = []
    tvm_ffi.structural_walk(nest, (tirx.BufferStore, lambda store: found.append(store.buffer)))
    return found


def _with_rest(
    func: Any, made: LibraryProduct, product: Product, others: Sequence[Any]
) -> LibraryProduct:
    """Return a product that leaves what follows to a kernel of ours."""
    kept = [one for one in func.body.block.alloc_buffers if not one.same_as(product.out)]
    body = with_root_nests(func, others, kept).body
    attrs = {key: value for key, value in dict(func.attrs or {}).items() if str(key) != LIBRARY}
    rest = tirx.PrimFunc([*func.params, product.out], body, func.ret_type).with_attrs(attrs)
    return replace(made, rest=rest)
