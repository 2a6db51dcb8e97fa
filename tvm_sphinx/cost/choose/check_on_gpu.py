"""Whether what a library computes in the place of a GPU's kernel is what the kernel does. [TVM]"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..._tvm import tvm
from ...errors import GpuError, NoCodeError, cause_of
from ...frontend.extract import Kernel
from ...kernels import LibraryProduct, find_library_product, library_of
from ...runtime.libraries import LIBRARY_CHOICES
from ..measure.gpu_results import results_on_gpu
from ..measure.gpu_timing import GpuCall, build_for_gpu
from .agreement import agree
from .kernel_costs import Implementation

# Of the largest value, by the type of the products: sums in another order; float32 is held to so much
# that the two forms of GELU, 5e-4 apart, are two. Products of tf32 know 10 bits of each factor.
_TOLERANCES = {"float32": 2e-5, "float16": 2e-2}
_OF_TF32 = {"float32": 3e-3}


def gpu_fault(candidate: Implementation, rule: Implementation) -> str:
    """Return what is wrong with a library's kernel, beside that of the rules; "" if nothing is.

    Operands are drawn so that sums are about 1, of both signs: an activation shows in them. The kernel
    of the library runs twice, and has to compute the same to the bit.

    Raises
    ------
    UnsupportedError
        If this machine cannot build kernels.
    """
    kernel, device = candidate.kernel, candidate.device
    mark, product = library_of(candidate.candidate.function), find_library_product(kernel.function)
    if mark is None or product is None:
        return "no library computes it"
    operands = drawn(kernel, product)
    expected = results_on_gpu(
        GpuCall(build_for_gpu({"rule": rule.function}), "rule", operands, device), 1
    )
    try:
        built = build_for_gpu({"library": candidate.function})
        found = results_on_gpu(GpuCall(built, "library", operands, device), 2)
    except (GpuError, NoCodeError) as error:
        return cause_of(error).rstrip(".")
    if not np.array_equal(found[0], found[1], equal_nan=True):
        return "it computes other numbers in each run"
    is_tf32 = LIBRARY_CHOICES[mark.choice][1] == "tf32"
    if not agree(found[:1], expected, _OF_TF32 if is_tf32 else _TOLERANCES):
        return "it computes other numbers than our rule's"
    return ""


def drawn(kernel: Kernel, product: LibraryProduct) -> list[Any]:
    """Return operands of a kernel as host tensors, normally distributed, and so that sums are, too."""
    rng = np.random.default_rng(0)
    operands = []
    for position, ty in enumerate(kernel.argument_types):
        shape, dtype = [int(extent) for extent in ty.shape.values], str(ty.dtype)
        is_factor = position in (product.left.param, product.right.param)
        scale = product.depth**-0.25 if is_factor else 1.0
        # Whole numbers are 0, which is a valid index into any tensor.
        values = scale * rng.standard_normal(shape) if dtype.startswith("float") else np.zeros(shape)
        operands.append(tvm.runtime.tensor(values.astype(dtype)))
    return operands
