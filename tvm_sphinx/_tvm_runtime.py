"""The gate to TVM's runtime, for what only runs programs: its FFI and one small library, no compiler.

Modules that run what is compiled take ``tvm_ffi`` and the functions here; `tvm_sphinx._tvm` is the gate
to all of TVM. Both refuse a pair of packages that would crash, with a message.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
from importlib import metadata
from pathlib import Path

from .errors import EnvironmentMismatchError

# TVM renames Python names in every minor release. apache-tvm-ffi 0.1.15 with this TVM segfaults in
# tvm.ir.save_json and in all of MetaSchedule.
_REQUIRED = {
    "apache-tvm": ((0, 27), (0, 28)),
    "apache-tvm-ffi": ((0, 1, 14), (0, 1, 15)),
}


def check_versions(installed: dict[str, str] | None = None) -> None:
    """Check that apache-tvm and apache-tvm-ffi are a pair that works.

    Parameters
    ----------
    installed
        Versions by package name; by default those of the running environment.

    Raises
    ------
    EnvironmentMismatchError
        If one of them is missing or outside the versions that tvm-sphinx is made for.
    """
    for package, (lowest, below) in _REQUIRED.items():
        wanted = f"{package}>={'.'.join(map(str, lowest))},<{'.'.join(map(str, below))}"
        try:
            version = metadata.version(package) if installed is None else installed[package]
        except (metadata.PackageNotFoundError, KeyError):
            raise EnvironmentMismatchError(
                f"Expected {wanted}; {package} is not installed. Try: pip install '{wanted}'"
            ) from None
        numbers = tuple(int(part) for part in re.findall(r"\d+", version.split("post")[0])[:3])
        if not lowest <= numbers < below:
            raise EnvironmentMismatchError(
                f"Expected {wanted}; got {package} {version}. This pair of packages is known to crash "
                f"or to lack names that tvm-sphinx uses. Try: pip install '{wanted}'"
            )


check_versions()

import tvm_ffi  # noqa: E402 - the check has to come first
from tvm_ffi.libinfo import load_lib_ctypes  # noqa: E402 - as above

from . import errors  # noqa: E402 - below the imports that the check guards


def load_library(name: str, mode: str) -> None:
    """Load a library that ships with TVM, such as ``"tvm_runtime"``; twice is once.

    Parameters
    ----------
    name
    mode
        ``"RTLD_GLOBAL"`` for the one that all others build on, else ``"RTLD_LOCAL"``.

    Raises
    ------
    EnvironmentMismatchError
        If it is missing or cannot be loaded.
    """
    # Where the package lies is asked without an import of it, which would load the compiler.
    spec = importlib.util.find_spec("tvm")
    folders = [Path(place) / "lib" for place in (spec and spec.submodule_search_locations) or ()]
    if given := os.environ.get("TVM_LIBRARY_PATH"):
        folders.insert(0, Path(given))
    try:
        load_lib_ctypes("tvm", name, mode, extra_lib_paths=folders)
    except (RuntimeError, OSError) as error:
        raise EnvironmentMismatchError(
            f"Expected lib{name} beside TVM's package; it cannot be loaded: {error}"
        ) from error


load_library("tvm_runtime", "RTLD_GLOBAL")
# What sorts, cumulates and the like, which programs call by name. A package may be built without it.
with contextlib.suppress(EnvironmentMismatchError):
    load_library("tvm_runtime_extra", "RTLD_LOCAL")

# An error that crosses TVM (raised in a pass, caught around it) keeps its class.
for _error in vars(errors).values():
    if isinstance(_error, type) and issubclass(_error, errors.SphinxError):
        tvm_ffi.register_error(_error)

# So does Ctrl-C where TVM's C++ code has called back into Python: a RuntimeError in its place would be
# taken for a kernel or a linker that fails.
tvm_ffi.register_error("KeyboardInterrupt", KeyboardInterrupt)

__all__ = ["check_versions", "load_library", "tvm_ffi"]
