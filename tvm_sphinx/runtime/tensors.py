"""Inputs of a run as host tensors: in place where kernels can use them so, else copied. [TVM]"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .._tvm_runtime import tvm_ffi
from ..errors import ModelError, known_choices
from .plan import ALIGNMENT
from .program import TensorView

#: TVM's kernels take for granted that tensors begin at a multiple of this.
_KERNEL_ALIGNMENT = 64
# DLPack device types whose memory the host can read: the CPU, and host memory pinned for a GPU.
_HOST_DEVICES = (1, 3, 11)
# Kinds of numpy's own types; of others, such as ml_dtypes' bfloat16, it shares no arrays.
_NUMPY_KINDS = "biufc"


class InputError(ModelError, ValueError):
    """The inputs of a run do not fit the model: their number, names, shapes, dtypes or devices."""


def order_inputs(inputs: Any, names: Sequence[str]) -> list[Any]:
    """Return inputs in the order of the model's arguments.

    Parameters
    ----------
    inputs
        A mapping from argument names to tensors, or a sequence of tensors.
    names
        Names of the arguments.

    Raises
    ------
    InputError
        If one is missing, unknown or too many.
    """
    if isinstance(inputs, Mapping):
        for name in inputs:
            if name not in names:
                raise InputError(known_choices("input", name, names))
        missing = [name for name in names if name not in inputs]
        if missing:
            raise InputError(f"Expected inputs {list(names)}; {missing[0]!r} is missing.")
        return [inputs[name] for name in names]
    if not isinstance(inputs, Sequence) or isinstance(inputs, str):
        raise InputError(
            f"Expected inputs as a mapping by name or a sequence; got {type(inputs).__name__}."
        )
    if len(inputs) != len(names):
        raise InputError(f"Expected {len(names)} inputs {list(names)}; got {len(inputs)}.")
    return list(inputs)


def host_tensor(value: Any, name: str, view: TensorView, align: bool = True) -> Any:
    """Return a value as a compact, aligned host tensor of the given shape and dtype.

    It shares the memory of a numpy array, a torch or TVM tensor, or whatever else speaks DLPack, if
    that is compact and aligned to 64 bytes, which does not matter if ``align`` is not set; otherwise it
    is a copy.

    Raises
    ------
    InputError
        If the value is no tensor, or of another shape, dtype or device.
    """
    if isinstance(value, np.ndarray):
        _check_form(name, view, value.shape, _dtype_name(value.dtype))
        if not value.dtype.isnative or not value.flags.c_contiguous or not value.flags.writeable:
            return _aligned_copy(value, view)
        if value.dtype.kind in _NUMPY_KINDS:
            tensor = tvm_ffi.from_dlpack(value)
        else:
            bits = tvm_ffi.from_dlpack(value.view(f"u{value.dtype.itemsize}"))
            tensor = view_as(bits, view.shape, view.dtype)
    else:
        tensor = _from_dlpack(value, name)
        _check_form(name, view, tuple(tensor.shape), str(tensor.dtype))
        if not tensor.is_contiguous():
            return _aligned_copy(_as_numpy(tensor, name), view)
    if align and tensor.data_ptr() % _KERNEL_ALIGNMENT:
        copy = empty_tensor(view.shape, view.dtype)
        _runtime("TVMTensorCopyFromTo")(tensor, copy)
        return copy
    return tensor


def as_array(value: Any, name: str) -> npt.NDArray[Any]:
    """Return an array, a tensor of torch or TVM, or whatever numpy takes, as an array.

    It shares the memory of a tensor on the host, if numpy has its type itself.

    Raises
    ------
    InputError
        If it is a tensor of another device; ``name`` is that of the input.
    """
    if hasattr(value, "detach"):
        value = value.detach()
    if not hasattr(value, "numpy"):
        return np.asarray(value)
    try:
        array: npt.NDArray[Any] = value.numpy()
    except TypeError:  # torch's, of types that numpy lacks and of other devices
        compact = value.contiguous() if hasattr(value, "contiguous") else value
        array = to_array(_from_dlpack(compact, name))
    return array


def _from_dlpack(value: Any, name: str) -> Any:
    if not hasattr(value, "__dlpack__") or not hasattr(value, "__dlpack_device__"):
        raise InputError(
            f"Expected input {name!r} as a numpy array or a tensor that speaks DLPack; "
            f"got {type(value).__name__}."
        )
    device = value.__dlpack_device__()
    if int(device[0]) not in _HOST_DEVICES:
        raise InputError(f"Expected input {name!r} on the CPU; got DLPack device {tuple(device)}.")
    if isinstance(value, tvm_ffi.Tensor):
        return value
    try:
        return tvm_ffi.from_dlpack(value)
    except Exception as error:  # each framework raises its own errors here
        raise InputError(f"Input {name!r} cannot be shared through DLPack: {error}") from error


@functools.lru_cache(maxsize=64)
def _dtype_name(dtype: np.dtype[Any]) -> str:
    return str(dtype)  # takes numpy some microseconds


def _check_form(name: str, view: TensorView, shape: tuple[int, ...], dtype: str) -> None:
    if shape != view.shape:
        raise InputError(f"Expected input {name!r} of shape {view.shape}; got {shape}.")
    if dtype != view.dtype:
        raise InputError(f"Expected input {name!r} of dtype {view.dtype}; got {dtype}.")


def _as_numpy(tensor: Any, name: str) -> Any:
    try:
        return np.from_dlpack(tensor)
    except (RuntimeError, BufferError) as error:
        raise InputError(f"Expected input {name!r} to be contiguous: {error}") from error


def _aligned_copy(array: Any, view: TensorView) -> Any:
    return to_tensor(np.asarray(array, dtype=view.dtype))


def empty_tensor(shape: Sequence[int], dtype: str, device: Any = None) -> Any:
    """Return a new tensor, by default on the host, aligned for kernels."""
    allocate, where = _runtime("TVMTensorAllocWithScope"), device or _host()
    return allocate(_extents(tuple(shape)), _dtype(dtype), where, None)


def to_tensor(array: npt.NDArray[Any], device: Any = None) -> Any:
    """Return a copy of an array as a tensor, by default on the host."""
    tensor = empty_tensor(array.shape, str(array.dtype), device)
    compact = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    pointer = ctypes.c_void_p(compact.ctypes.data)
    _runtime("TVMTensorCopyFromBytes")(tensor, pointer, compact.nbytes)
    return tensor


def to_array(tensor: Any) -> npt.NDArray[Any]:
    """Return a copy of a tensor of any device as an array."""
    array = np.empty(tuple(tensor.shape), dtype=str(tensor.dtype))
    _runtime("TVMTensorCopyToBytes")(tensor, ctypes.c_void_p(array.ctypes.data), array.nbytes)
    return array


def view_as(tensor: Any, shape: Sequence[int], dtype: str) -> Any:
    """Return a view of a tensor's memory from its beginning."""
    return _runtime("TVMTensorCreateView")(tensor, _extents(tuple(shape)), _dtype(dtype), 0)


# Each of these takes microseconds, and a run needs one for each of its tensors.
@functools.lru_cache(maxsize=1024)
def _extents(shape: tuple[int, ...]) -> Any:
    return tvm_ffi.Shape([int(extent) for extent in shape])


@functools.lru_cache(maxsize=64)
def _dtype(name: str) -> Any:
    return tvm_ffi.dtype(name)


@functools.cache
def _host() -> Any:
    return tvm_ffi.device("cpu", 0)


@functools.cache
def _runtime(name: str) -> Any:
    return tvm_ffi.get_global_func(f"runtime.{name}")


def aligned_bytes(size: int) -> Any:
    """Return a zeroed uint8 tensor of that size, at least one byte, aligned to `ALIGNMENT`."""
    padded = np.zeros(max(size, 1) + ALIGNMENT, dtype=np.uint8)
    start = -padded.ctypes.data % ALIGNMENT
    return tvm_ffi.from_dlpack(padded[start : start + max(size, 1)])
