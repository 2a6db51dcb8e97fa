"""Load a shared library of kernels. [TVM]"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .._tvm_runtime import tvm_ffi
from ..errors import UnsupportedError, cause_of
from .encode import give_parallel_loops


@contextmanager
def linking(failure: str) -> Iterator[None]:
    """Raise what fails here, where there is code already, as `UnsupportedError`: ``FAILURE: cause``."""
    try:
        yield
    except (RuntimeError, OSError, MemoryError) as error:
        raise UnsupportedError(f"{failure}: {cause_of(error)}") from error


def build_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder for what is linked, gone at the end of its context."""
    return tempfile.TemporaryDirectory(prefix="tvm-sphinx-")


def load_kernels(library: bytes) -> Any:
    """Load a shared library of kernels; its parallel loops run on the lanes' teams.

    The functions of the module that is returned keep it loaded. The file that the loader needs is gone
    on return.

    Raises
    ------
    UnsupportedError
        If this machine cannot load it.
    """
    with linking("The kernels cannot be loaded"), build_folder() as folder:
        path = os.path.join(folder, "kernels.so")
        with open(path, "xb") as file:
            file.write(library)
        module = tvm_ffi.load_module(path, keep_module_alive=False)
        give_parallel_loops(path)
    return module
