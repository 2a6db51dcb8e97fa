"""Devices of TVM's runtime by name, without the compiler. [TVM]"""

from __future__ import annotations

import contextlib
from typing import Any

from .._tvm_runtime import load_library, tvm_ffi
from ..errors import EnvironmentMismatchError

_EXISTS = 0  # number of the attribute in TVM's DeviceAttrKind


def open_device(runtime: str) -> Any:
    """Return the device of a runtime name such as ``"cpu:0"``; its library is loaded if it has one."""
    kind, _, index = runtime.partition(":")
    if kind != "cpu":
        # Without it the device is not there, which is what is asked next.
        with contextlib.suppress(EnvironmentMismatchError):
            load_library(f"tvm_runtime_{kind}", "RTLD_LOCAL")
    return tvm_ffi.device(kind, int(index))


def exists(device: Any) -> bool:
    """Return whether TVM's runtime knows the device and this machine has it."""
    ask = tvm_ffi.get_global_func("runtime.GetDeviceAttr")
    return bool(ask(device.dlpack_device_type(), device.index, _EXISTS))
