"""Compile the kernels of a lane program into one shared library. [TVM]"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from .._tvm import tirx, tvm, tvm_ffi
from ..errors import NoCodeError, UnsupportedError, cause_of
from ..kernels.code_cache import cache_key, read_cached, trim_cache, write_cached
from ..kernels.implement import pass_options
from ..platform import Device
from ..platform.targets import device_target, host_target, target_instructions
from .loading import build_folder, linking
from .processor import Processor
from .threads import map_in_threads

#: A pass over the module of kernels, each of which carries its target.
KernelPass = Callable[[Any], Any]

# A C compiler is all that is needed to link; g++ is not there on every machine that has gcc.
_LINKERS = ("gcc", "cc", "clang")

# What TVM's FFI looks for in a library, before the name of a function.
_EXPORTED = "__tvm_ffi_"
# To be raised with whatever changes the code of a kernel, but for those that the key names.
_OBJECT_FORM = "tvm-sphinx object 1"


def compile_kernels(
    kernels: Mapping[str, Any], kernel_pass: KernelPass, linker: str | None = None
) -> bytes:
    """Return the shared library of PrimFuncs that carry their targets; empty if there are none.

    Each kernel is built by itself, once on a machine: its code is kept (`kernels.code_cache`). A
    target of its own it needs anyway: TVM builds the functions of a module for one processor, that of
    the first.

    Raises
    ------
    NoCodeError
        If TVM refuses a kernel.
    UnsupportedError
        If a kernel has no CPU target, or this machine cannot link them: no compiler, no space.
    """
    for name, function in kernels.items():
        target = function.attrs.get("target") if function.attrs else None
        if target is None or "cpu" not in [str(key) for key in target.keys]:
            raise UnsupportedError(f"Lanes run kernels with a CPU target; {name!r} has {target}.")
    if not kernels:
        return b""
    objects = map_in_threads(kernel_object, _scheduled(kernels, kernel_pass))
    if any(made.is_new for made in objects):  # to look through the folder takes time
        trim_cache()
    compiler = linker or find_linker(next(iter(kernels.values())).attrs["target"])
    with linking(f"{compiler!r} cannot link the kernels"), build_folder() as folder:
        paths = []
        for made in {made.symbol: made for made in objects}.values():  # some kernels are the same
            paths.append(os.path.join(folder, f"{made.symbol}.o"))
            Path(paths[-1]).write_bytes(made.code)
        # Each kernel has a name in the program, which stands for that of its code.
        names = [
            f"-Wl,--defsym={_EXPORTED}{name}={_EXPORTED}{made.symbol}"
            for name, made in zip(kernels, objects, strict=True)
        ]
        arguments = os.path.join(folder, "names")
        Path(arguments).write_text("\n".join(names))
        library = os.path.join(folder, "kernels.so")
        tvm.support.cc.create_shared(library, paths, options=["-lm", f"@{arguments}"], cc=compiler)
        return Path(library).read_bytes()


class KernelObject(NamedTuple):
    """An object file with the code of one kernel, which it exports by a symbol; new if just made."""

    symbol: str
    code: bytes
    is_new: bool


def kernel_object(function: Any) -> KernelObject:
    """Return the machine code of a scheduled PrimFunc for its target, from disk where it is there.

    Raises
    ------
    NoCodeError, UnsupportedError
        See `generate_code`.
    """
    target = function.attrs["target"]
    bare = function.without_attr("global_symbol")
    text = tvm_ffi.serialization.to_json_graph_str(bare)
    key = cache_key(
        _OBJECT_FORM, str(tvm.__version__), _llvm_version(), str(target), pass_options(), text
    )
    symbol = f"kernel_{key[:32]}"
    cached = read_cached(key)
    if cached is not None:
        return KernelObject(symbol, cached, is_new=False)
    module = generate_code({symbol: bare}, target)
    with linking("The code of a kernel cannot be written"), build_folder() as folder:
        path = os.path.join(folder, "kernel.o")
        module.write_to_file(path)
        code = Path(path).read_bytes()
    write_cached(key, code)
    return KernelObject(symbol, code, is_new=True)


def _scheduled(kernels: Mapping[str, Any], kernel_pass: KernelPass) -> list[Any]:
    """Return kernels after a pass that runs under the target of each, in their order."""
    found: dict[str, Any] = {}
    by_target: dict[str, dict[str, Any]] = {}
    for name, function in kernels.items():
        by_target.setdefault(str(function.attrs["target"]), {})[name] = function
    for functions in by_target.values():
        with _compiling_for(next(iter(functions.values())).attrs["target"]):
            module = kernel_pass(tvm.IRModule(functions))
        found.update({var.name_hint: function for var, function in module.functions.items()})
    return [found[name] for name in kernels]


@functools.cache
def _llvm_version() -> str:
    return str(tvm_ffi.get_global_func("target.llvm_version_major")())


def generate_code(functions: Mapping[str, Any], target: Any) -> Any:
    """Return the module that TVM generates of PrimFuncs by symbol, all for one target.

    Raises
    ------
    NoCodeError
        If TVM refuses one of them.
    UnsupportedError
        If it is this machine that fails: a compiler that TVM calls is missing, or memory.
    """
    named = {name: function.with_attr("global_symbol", name) for name, function in functions.items()}
    with _compiling_for(target):
        return tirx.build(tvm.IRModule(named), target=target)


@contextmanager
def _compiling_for(target: Any) -> Iterator[None]:
    """Enter the scope of a target; raise what fails in it as `NoCodeError` or `UnsupportedError`."""
    try:
        with target:
            yield
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
    name = str(target.attrs.get("mcpu") or "")
    return Processor(name, _architecture(target), target_instructions(device.target))


def _architecture(target: Any) -> str:
    triple = str(target.attrs.get("mtriple") or _host_triple())
    return triple.partition("-")[0]


def _host_triple() -> str:
    return str(tvm_ffi.get_global_func("tvm.codegen.llvm.GetDefaultTargetTriple")())
