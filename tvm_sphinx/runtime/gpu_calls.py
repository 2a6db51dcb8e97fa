"""Kernels that a library computes, as calls of it and kernels of ours for the rest. [TVM]"""

from __future__ import annotations

from typing import Any

from ..errors import NoCodeError
from ..kernels import LibraryFactor, LibraryMark, find_library_product, library_of
from ..kernels.implement import implement_kernel
from .gpu_kernels import GpuCode, generate_cuda
from .gpu_launch import Factor, GpuFunction, Launch, LibraryCall
from .libraries import LIBRARY_CHOICES

# As NVIDIA recommends for a stream: from Hopper on, and before. On top of it what an address that is
# not aligned loses.
_WORKSPACE_BYTES, _EARLIER_BYTES, _ALIGNMENT = 32 << 20, 4 << 20, 256
_HOPPER = 90


def generate_code(function: Any, target: Any) -> GpuCode:
    """Return how a PrimFunc runs on a GPU: by kernels of its own, or by a library if it is marked so.

    Raises
    ------
    NoCodeError
        If TVM refuses it, or it is no product that the library computes.
    """
    mark = library_of(function)
    if mark is None:
        return generate_cuda(implement_kernel(function, target), target)
    return _generate_call(function, target, mark)


def _generate_call(function: Any, target: Any, mark: LibraryMark) -> GpuCode:
    product = find_library_product(function, is_fused=mark.is_fused)
    if product is None:
        raise NoCodeError(f"A kernel cannot be computed by {mark.choice}: it is no product of matrices.")
    name, type_of_float32 = LIBRARY_CHOICES[mark.choice]
    workspaces: list[int] = []
    source, launches = "", list[Launch | LibraryCall]()  # of ours
    if product.rest is not None:
        # Its last parameter, which the library writes, is the first workspace of the whole.
        rest = generate_cuda(implement_kernel(product.rest, target), target)
        source, launches = rest.source, list(rest.function.launches)
        workspaces += [product.result_bytes, *rest.function.workspaces]
    workspaces.append(_workspace_bytes(target))
    place = len(function.params) + len(workspaces) - 1
    operands = (product.left.param, product.right.param, product.result.param, place)
    call = LibraryCall(
        library=name,
        major=int(mark.version.partition(".")[0]),
        type=product.dtype if product.dtype != "float32" else type_of_float32,
        activation=product.activation,
        scale=product.scale,
        rows=product.rows,
        columns=product.columns,
        depth=product.depth,
        batch=product.batch,
        left=_factor(product.left),
        right=_factor(product.right),
        result=_factor(product.result),
        workspace_bytes=workspaces[-1],
        has_bias=product.bias >= 0,
        has_residual=product.residual >= 0,
        operands=(*operands, *(term for term in (product.bias, product.residual) if term >= 0)),
    )
    return GpuCode(source, GpuFunction((call, *launches), tuple(workspaces)))


def _factor(factor: LibraryFactor) -> Factor:
    return Factor(factor.transposed, factor.leading, factor.stride)


def _workspace_bytes(target: Any) -> int:
    capability = int("".join(filter(str.isdigit, str(target.attrs["arch"]))))
    return (_WORKSPACE_BYTES if capability >= _HOPPER else _EARLIER_BYTES) + _ALIGNMENT
