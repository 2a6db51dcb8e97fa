"""The gate to all of TVM: checks the installed versions before the first import of it.

Modules that need the compiler take it from here (``from ._tvm import tvm``), so that a pair of packages
that would crash inside TVM is refused with a message instead. What only runs programs takes
`tvm_sphinx._tvm_runtime`, which is loaded in a tenth of the time.
"""

from __future__ import annotations

from ._tvm_runtime import tvm_ffi  # first: it checks the versions

# isort: split
import tvm
import tvm.relax as relax
import tvm.tirx as tirx

__all__ = ["relax", "tirx", "tvm", "tvm_ffi"]
