"""Maxima that start from infinity, as reductions that TVM can split into partial results."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import tvm_ffi
from tvm import tirx


def know_infinite_reducers() -> None:
    """Let TVM know maxima and minima from infinity; it knows those from the extreme finite numbers."""
    register = tvm_ffi.get_global_func("s_tir.schedule.RegisterReducer")
    for combine, start in ((tirx.max, float("-inf")), (tirx.min, float("inf"))):
        register(1, _for_ever(_combiner(combine)), _for_ever(_identity(start)))


def _combiner(combine: Callable[[Any, Any], Any]) -> Callable[[Any, Any], list[Any]]:
    return lambda left, right: [combine(left[0], right[0])]


def _identity(start: float) -> Callable[[Any], list[Any]]:
    return lambda values: [tirx.const(start, str(values[0].ty))]


def _for_ever(function: Callable[..., Any]) -> Any:
    """Return a function as TVM takes it, which is never freed.

    TVM's registry lets go of it when the process ends, and Python is gone then.
    """
    made = tvm_ffi.convert(function)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))
    return made
