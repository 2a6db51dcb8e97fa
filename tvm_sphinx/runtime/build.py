"""Build a scheduled module for the lanes, on this machine or for another one. [TVM]"""

from __future__ import annotations

from typing import Any

from ..kernels.implement import ImplementKernels
from ..platform import Platform
from ..scheduling.schedule import Schedule
from .executable import ConcurrentExecutable
from .gpu_compile import compile_for_gpus
from .gpu_parts import GpuParts, with_workspaces
from .image import Image
from .kernels import KernelPass, compile_kernels, device_processor
from .plan import check_capacity, make_plan
from .program import HOST
from .read import read_program
from .tensors import aligned_bytes
from .threads import map_in_threads


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
    implement: Any = kernel_pass or ImplementKernels()
    images, functions = compile_for_gpus(read.gpu_kernels)
    program = with_workspaces(
        read.program, {name: function for name, (_, function) in functions.items()}
    )
    plan = make_plan(program, platform)
    check_capacity(plan, platform)
    weights = {
        memory: aligned_bytes(size) for (space, memory), size in plan.sizes.items() if space == "weights"
    }

    def put(weight: tuple[int, Any]) -> None:
        buffer, value = weight
        place = weights[program.buffers[buffer].memory]
        value.copyto(place._create_view(value.shape, value.dtype, plan.offsets[buffer]))

    map_in_threads(put, zip(program.space_buffers("weights"), read.weights, strict=True))
    host = weights.pop(HOST, None)
    return Image(
        program,
        platform,
        schedule,
        aligned_bytes(0) if host is None else host,
        compile_kernels(read.kernels, implement, linker),
        GpuParts(images, functions, weights) if plan.places.gpus else None,
        tuple(map(device_processor, platform.devices)),
    )


def build_executable(
    module: Any,
    platform: Platform,
    schedule: Schedule | None = None,
    *,
    kernel_pass: KernelPass | None = None,
    bind_cores: bool = True,
    use_graphs: bool = True,
) -> ConcurrentExecutable:
    """Compile a scheduled module for the lanes of this machine.

    Parameters and errors are those of `build_image` and of `ConcurrentExecutable`.
    """
    image = build_image(module, platform, schedule, kernel_pass=kernel_pass)
    return ConcurrentExecutable(image, bind_cores=bind_cores, use_graphs=use_graphs)
