"""A seeded generator of kernels, lowered exactly as those of models are. [TVM]"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from ...errors import SphinxError
from ...frontend.extract import Kernel, extract_task_graph, op_kinds
from ...frontend.lower import lower_to_kernels
from .draw import Draw, Sketch
from .images import draw_image_network
from .pointwise import draw_pointwise_network
from .rearranged import draw_rearranged_network
from .sequences import draw_sequence_network

_FAMILIES = (
    draw_image_network,
    draw_sequence_network,
    draw_pointwise_network,
    draw_rearranged_network,
)
_SHARES = (5, 3.5, 1.5, 2.5)
# What is read between two uses of the weights of a drawn kernel, rounded as `weight_reuse` does.
_REUSE_BYTES = tuple(1 << power for power in (20, 22, 24, 26))
_MOST_MODULES_PER_KERNEL = 20
_TRANSPOSES_KEPT = 0.25


def draw_kernels(count: int, seed: int, targets: Sequence[Any]) -> Iterator[Kernel]:
    """Yield distinct kernels of drawn networks.

    The kernels come out of the lowering that models go through, so they have its layouts, its packed
    weights and its fusion. Equal arguments give the same kernels in the same order, and more of them
    continue the sequence.

    Parameters
    ----------
    count
        Kernels to yield.
    seed
        Of all draws.
    targets
        Targets of the devices that the kernels are for.

    Raises
    ------
    SphinxError
        If count is below one.
    """
    if count < 1:
        raise SphinxError(f"Expected at least one kernel to draw; got count = {count}.")
    draw = Draw(seed)
    seen: set[str] = set()
    for _ in range(_MOST_MODULES_PER_KERNEL * count):
        reuse_bytes = int(draw.pick(_REUSE_BYTES))
        sketch = draw.pick(_FAMILIES, _SHARES)(draw)
        for kernel in kernels_of(sketch, targets):
            if kernel.id in seen:
                continue
            if op_kinds(kernel.function) == ("transpose",) and not draw.chance(_TRANSPOSES_KEPT):
                continue  # every drawn network brings one along
            seen.add(kernel.id)
            yield replace(kernel, reuse_bytes=reuse_bytes if kernel.weights else 0)
            if len(seen) == count:
                return


def kernels_of(sketch: Sketch, targets: Sequence[Any]) -> list[Kernel]:
    """Return the distinct kernels of a drawn module, in the order of their calls."""
    module = sketch.builder.finalize()
    lowered = lower_to_kernels(module, targets[0], targets=targets)
    found = extract_task_graph(lowered)
    return [kernel for kernel in found.kernels.values() if not kernel.is_external and _is_sane(kernel)]


def _is_sane(kernel: Kernel) -> bool:
    """Leave out what would take as long to measure as a hundred others."""
    total = sum(math.prod(int(extent) for extent in ty.shape.values) for ty in kernel.argument_types)
    return total <= 1 << 24
