"""Build a scheduled module for the lanes, on this machine or for another one. [TVM]"""

from __future__ import annotations

from typing import Any

from ..kernels.implement import ImplementKernels
from ..platform import Platform
from ..scheduling.schedule import Schedule
from .image import Image
from .kernels import KernelPass, compile_kernels
from .plan import make_plan
from .read import read_program
from .tensors import aligned_bytes


def build_image(
    module: Any,
    platform: Platform,
    schedule: Schedule | None = None,
    *,
    kernel_pass: KernelPass | None = None,
    linker: str | None = None,
) -> Image:
    """Compile a scheduled module for the lanes of the machine that its platform describes.

    Parameters
    ----------
    module
        As `tvm_sphinx.relax_pass.annotate_schedule` returns it.
    platform, schedule
        Those that it was annotated with; the schedule gives traces their predicted times.
    kernel_pass
        Pass over the kernels of one target, under that target; `ImplementKernels` by default.
    linker
        C compiler to link with; by default one for the platform's architecture from the search path.

    Raises
    ------
    UnsupportedError
        If it cannot run on lanes, with the reason. The stock VM can then run it.
    """
    read = read_program(module, platform)
    plan = make_plan(read.program, platform)
    weights = aligned_bytes(plan.weight_bytes)
    for buffer, value in zip(read.program.space_buffers("weights"), read.weights, strict=True):
        value.copyto(weights._create_view(value.shape, value.dtype, plan.offsets[buffer]))
    implement: Any = kernel_pass or ImplementKernels()
    return Image(
        read.program, platform, schedule, weights, compile_kernels(read.kernels, implement, linker)
    )
