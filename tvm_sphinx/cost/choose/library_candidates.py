"""Kernels of a GPU that a library of NVIDIA's computes, as candidates beside the schedule rules'. [TVM]

They are off unless their library is asked for by name: what they compute is the library's, and on which
cards that was looked at, `docs/limits.md` tells.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...frontend.extract import Kernel
from ...kernels import LibraryMark, find_library_product, for_library
from ...platform import Device
from ...runtime.libraries import LIBRARY_CHOICES, check_libraries, find_library
from .candidates import Candidate


class LibraryKernels:
    """A `tvm_sphinx.cost.choose.candidates.CandidateSource`: products by cuBLASLt.

    Parameters
    ----------
    names
        Of `tvm_sphinx.runtime.libraries.LIBRARY_CHOICES`. A name with a type in it stands for products
        of float32 that are computed in that type; others are those that keep it.

    Raises
    ------
    UnsupportedError
        If a library is not known, or not on this machine.
    """

    def __init__(self, names: Sequence[str]) -> None:
        check_libraries(names)
        self._versions = {
            name: ".".join(map(str, find_library(LIBRARY_CHOICES[name][0]).version)) for name in names
        }

    def __call__(self, kernel: Kernel, device: Device) -> Sequence[Candidate]:
        """Return the candidates of a kernel on a device.

        Where the library computes a GELU there is one more that leaves it to a kernel of ours: it may
        approximate ``tanh``, and be dropped for that.
        """
        if not device.runtime.startswith("cuda:") or kernel.is_external:
            return []
        product = find_library_product(kernel.function)
        if product is None:
            return []
        return [
            Candidate(name, for_library(kernel.function, LibraryMark(name, version, is_fused)))
            for name, version in self._versions.items()
            if "float32" in (product.dtype, LIBRARY_CHOICES[name][1])
            for is_fused in ((True, False) if product.activation == "gelu_tanh" else (True,))
        ]
