"""Functions that programs call by name, for operators whose results have no known shape. [TVM]

TVM has such functions in Python, in the package that holds its compiler, which what only runs a program
does not load. These have names of their own, so that both may be there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._tvm_runtime import tvm_ffi
from .tensors import to_array, to_tensor


def nonzero(tensor: Any) -> Any:
    """Return the places of all elements that are not zero.

    Returns
    -------
    int64 (rank, found)
        A column for each, in the order of the elements; a scalar counts as of rank 1.
    """
    places = np.nonzero(np.atleast_1d(to_array(tensor)))
    return to_tensor(np.stack(places).astype(np.int64), tensor.device)


def unique(
    tensor: Any, is_sorted: int, index: int, inverse: int, counts: int, axis: int | None = None
) -> Any:
    """Return the distinct elements, or slices along an axis, each once.

    Parameters
    ----------
    tensor
        Of any shape; without an axis it is taken as flat.
    is_sorted
        Whether they ascend; else each stands where it is first met.
    index, inverse, counts
        Whether to return, too, where each is first met, which of them each element is, and how often
        each is met.

    Returns
    -------
    A tensor, or a tuple of it and of int64 (found,), (elements,) and (found,).
    """
    values, first, which, times = np.unique(
        to_array(tensor), return_index=True, return_inverse=True, return_counts=True, axis=axis
    )
    which = which.reshape(-1)
    if not is_sorted:
        order = np.argsort(first)
        values = np.take(values, order, axis=0 if axis is None else axis)
        first, times, which = first[order], times[order], np.argsort(order)[which]
    found = [values]
    found += [array for wanted, array in ((index, first), (inverse, which), (counts, times)) if wanted]
    tensors = [
        to_tensor(array if number == 0 else array.astype(np.int64), tensor.device)
        for number, array in enumerate(found)
    ]
    return tensors[0] if len(tensors) == 1 else tuple(tensors)


def shape_to_tensor(shape: Any) -> Any:
    """Return a shape as a tensor, int64 (rank,)."""
    return to_tensor(np.array([int(extent) for extent in shape], np.int64))


def register_functions() -> None:
    """Let programs find these functions by their names, ``tvm_sphinx.run.nonzero`` and so on."""
    for function in (nonzero, unique, shape_to_tensor):
        name = f"tvm_sphinx.run.{function.__name__}"
        tvm_ffi.register_global_func(name, function, override=True)
