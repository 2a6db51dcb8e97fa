"""The one gate to TVM: checks the installed versions before the first import of TVM.

Modules that need TVM take it from here (``from ._tvm import tvm``), so that a pair of packages that
would crash inside TVM is refused with a message instead.
"""

from __future__ import annotations

import re
from importlib import metadata

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

import tvm  # noqa: E402 - the check has to come first
import tvm.relax as relax  # noqa: E402 - as above
import tvm.tirx as tirx  # noqa: E402 - as above
import tvm_ffi  # noqa: E402 - as above

from . import errors  # noqa: E402 - below the imports that the check guards

# An error that crosses TVM (raised in a pass, caught around it) keeps its class.
for _error in vars(errors).values():
    if isinstance(_error, type) and issubclass(_error, errors.SphinxError):
        tvm_ffi.register_error(_error)

# So does Ctrl-C where TVM's C++ code has called back into Python: a RuntimeError in its place would be
# taken for a kernel or a linker that fails.
tvm_ffi.register_error("KeyboardInterrupt", KeyboardInterrupt)

__all__ = ["check_versions", "relax", "tirx", "tvm", "tvm_ffi"]
