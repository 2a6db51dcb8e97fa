"""Compile the kernels of a lane program into one shared library, and load it. [TVM]"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .._tvm import tirx, tvm, tvm_ffi
from ..errors import UnsupportedError
from .encode import give_parallel_loops

#: A pass over the module of kernels, each of which carries its target.
KernelPass = Callable[[Any], Any]

# A C compiler is all that is needed to link; g++ is not there on every machine that has gcc.
_LINKERS = ("gcc", "cc", "clang")


def compile_kernels(kernels: Mapping[str, Any], kernel_pass: KernelPass) -> bytes:
    """Return the shared library of PrimFuncs that carry their targets; empty if there are none.

    Each target is built by itself: TVM builds the host functions of a module for one processor, that of
    the first of them.

    Raises
    ------
    UnsupportedError
        If a kernel has no CPU target, or there is no C compiler to link with.
    """
    by_target: dict[str, dict[str, Any]] = {}
    for name, function in kernels.items():
        target = function.attrs.get("target") if function.attrs else None
        if target is None or "cpu" not in [str(key) for key in target.keys]:
            raise UnsupportedError(f"Lanes run kernels with a CPU target; {name!r} has {target}.")
        named = function.with_attr("global_symbol", name)
        by_target.setdefault(str(target), {})[name] = named
    if not by_target:
        return b""
    with tempfile.TemporaryDirectory(prefix="tvm-sphinx-") as folder:
        objects = []
        for number, functions in enumerate(by_target.values()):
            objects.append(os.path.join(folder, f"kernels{number}.o"))
            _build(functions, kernel_pass).write_to_file(objects[-1])
        library = os.path.join(folder, "kernels.so")
        tvm.support.cc.create_shared(library, objects, options=["-lm"], cc=_linker())
        return Path(library).read_bytes()


def _build(functions: Mapping[str, Any], kernel_pass: KernelPass) -> Any:
    target = next(iter(functions.values())).attrs["target"]
    module = tvm.IRModule(dict(functions))
    with target:
        module = kernel_pass(module)
    return tirx.build(module, target=target)


def _linker() -> str:
    for name in _LINKERS:
        if path := shutil.which(name):
            return path
    raise UnsupportedError(f"Expected a C compiler to link kernels with; none of {_LINKERS} is found.")


def load_kernels(library: bytes) -> Any:
    """Load a shared library of kernels; its parallel loops run on the lanes' teams.

    The module that is returned keeps it loaded. The file that the loader needs is gone on return.
    """
    with tempfile.TemporaryDirectory(prefix="tvm-sphinx-") as folder:
        path = os.path.join(folder, "kernels.so")
        with open(path, "xb") as file:
            file.write(library)
        module = tvm_ffi.load_module(path, keep_module_alive=False)
        give_parallel_loops(path)
    return module
