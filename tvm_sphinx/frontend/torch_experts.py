"""Converter of torch's grouped products, which networks of experts are made of. [TVM]"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._tvm import relax

_op = relax.op


def grouped_product(importer: Any, node: Any) -> Any:
    """Convert the product of groups of rows by a matrix each; rows after the last group give zeros.

    Rows (S, K) times matrices (E, K, N), where group e ends before row ``offsets[e]``, give (S, N). How
    many rows a group has is known only at run time: all rows are multiplied by all matrices, each of
    which is read once, and a row takes what the matrix of its group gives.
    """
    args = importer.retrieve_args(node)
    rows, matrices = args[:2]
    offsets, bias, dtype = (
        args[place] if place < len(args) else node.kwargs.get(name)
        for place, name in ((2, "offs"), (3, "bias"), (4, "out_dtype"))
    )
    if isinstance(offsets, type(node)):
        offsets = importer.env[offsets]
    is_usual = rows.ty.ndim == 2 and matrices.ty.ndim == 3 and offsets is not None
    if not is_usual or bias is not None or dtype is not None:
        return NotImplemented
    emit = importer.block_builder.emit
    num_rows, (num_groups, _, width) = int(rows.ty.shape[0]), map(int, matrices.ty.shape.values)
    kind = str(offsets.ty.dtype)
    places = relax.const(np.arange(num_rows, dtype=kind)[:, None], kind)
    is_after = emit(_op.greater_equal(places, emit(_op.expand_dims(offsets, 0))))
    group = emit(_op.sum(emit(_op.astype(is_after, "int64")), 1, keepdims=True))
    every = emit(_op.matmul(emit(_op.expand_dims(rows, 0)), matrices))  # (E, S, N)
    by_row = emit(_op.permute_dims(every, [1, 0, 2]))
    known = emit(_op.minimum(group, relax.const(num_groups - 1, "int64")))
    index = emit(_op.broadcast_to(emit(_op.expand_dims(known, 2)), (num_rows, 1, width)))
    taken = emit(_op.squeeze(emit(_op.gather_elements(by_row, index, 1)), 1))
    none = relax.const(np.zeros((), str(rows.ty.dtype)), str(rows.ty.dtype))
    is_known = emit(_op.less(group, relax.const(num_groups, "int64")))
    return emit(_op.where(is_known, taken, none))
