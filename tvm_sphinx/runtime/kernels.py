"""Compile the kernels of a lane program into one shared library. [TVM]"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .._tvm import tirx, tvm, tvm_ffi
from ..errors import NoCodeError, UnsupportedError, cause_of
from ..platform import Device
from ..platform.targets import device_target, host_target
from .loading import build_folder, linking
from .processor import Processor, emitted

#: A pass over the module of kernels, each of which carries its target.
KernelPass = Callable[[Any], Any]

# A C compiler is all that is needed to link; g++ is not there on every machine that has gcc.
_LINKERS = ("gcc", "cc", "clang")


def compile_kernels(
    kernels: Mapping[str, Any], kernel_pass: KernelPass, linker: str | None = None
) -> bytes:
    """Return the shared library of PrimFuncs that carry their targets; empty if there are none.

    Each target is built by itself: TVM builds the host functions of a module for one processor, that of
    the first of them.

    Raises
    ------
    NoCodeError
        If TVM refuses a kernel.
    UnsupportedError
        If a kernel has no CPU target, or this machine cannot link them: no compiler, no space.
    """
    by_target: dict[str, dict[str, Any]] = {}
    for name, function in kernels.items():
        target = function.attrs.get("target") if function.attrs else None
        if target is None or "cpu" not in [str(key) for key in target.keys]:
            raise UnsupportedError(f"Lanes run kernels with a CPU target; {name!r} has {target}.")
        by_target.setdefault(str(target), {})[name] = function
    if not by_target:
        return b""
    modules = [
        generate_code(functions, next(iter(functions.values())).attrs["target"], kernel_pass)
        for functions in by_target.values()
    ]
    compiler = linker or find_linker(next(iter(kernels.values())).attrs["target"])
    with linking(f"{compiler!r} cannot link the kernels"), build_folder() as folder:
        objects = [os.path.join(folder, f"kernels{number}.o") for number in range(len(modules))]
        for module, path in zip(modules, objects, strict=True):
            module.write_to_file(path)
        library = os.path.join(folder, "kernels.so")
        tvm.support.cc.create_shared(library, objects, options=["-lm"], cc=compiler)
        return Path(library).read_bytes()


def generate_code(
    functions: Mapping[str, Any], target: Any, kernel_pass: KernelPass | None = None
) -> Any:
    """Return the module that TVM generates of PrimFuncs by symbol, all for one target.

    Raises
    ------
    NoCodeError
        If TVM refuses one of them.
    UnsupportedError
        If it is this machine that fails: a compiler that TVM calls is missing, or memory.
    """
    named = {name: function.with_attr("global_symbol", name) for name, function in functions.items()}
    try:
        with target:
            module = tvm.IRModule(named)
            module = kernel_pass(module) if kernel_pass else module
        return tirx.build(module, target=target)
    except (OSError, MemoryError) as error:
        raise UnsupportedError(f"Kernels cannot be built on this machine: {cause_of(error)}") from error
    except Exception as error:  # TVM raises many types
        raise NoCodeError(f"Kernels cannot be compiled for {target}: {cause_of(error)}") from error


def find_linker(target: Any) -> str:
    """Return a C compiler that links for a target's architecture."""
    wanted, ours = _architecture(target), _architecture(tvm.target.Target(host_target()))
    names = _LINKERS if wanted == ours else (f"{wanted}-linux-gnu-gcc",)
    for name in names:
        if path := shutil.which(name):
            return path
    raise UnsupportedError(
        f"Expected a C compiler to link kernels for {wanted} with; none of {', '.join(names)} is found."
    )


def device_processor(device: Device) -> Processor | None:
    """Return what a device's kernels take for granted of a processor; None of a GPU's."""
    if not device.is_cpu:
        return None
    target = device_target(device)
    name, used = str(target.attrs.get("mcpu") or ""), []
    if target.kind.name == "llvm":
        with target:
            used = tvm_ffi.get_global_func("target.llvm_get_cpu_features")(target)
    return Processor(name, _architecture(target), emitted(map(str, used)))


def _architecture(target: Any) -> str:
    triple = str(target.attrs.get("mtriple") or _host_triple())
    return triple.partition("-")[0]


def _host_triple() -> str:
    return str(tvm_ffi.get_global_func("tvm.codegen.llvm.GetDefaultTargetTriple")())
