"""Build the program of a scheduled module: for our lanes, else for the stock Relax VM. [TVM]"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from .._tvm import tvm
from ..errors import UnsupportedError
from ..platform import Platform
from ..platform.targets import host_target
from ..relax_pass import WEIGHTS_ATTR
from ..runtime.build import build_image
from ..runtime.kernels import device_processor, find_linker
from ..runtime.loading import linking
from ..scheduling.schedule import Schedule
from .kinds import LIBRARY, LaneProgramFile, Program, StockProgram
from .stock_vm import build_executable


def library_bytes(executable: Any) -> bytes:
    """Return a ``relax.VMExecutable`` as the bytes of a shared library.

    Raises
    ------
    UnsupportedError
        If this machine cannot link it: no compiler, no space.
    """
    compiler = find_linker(tvm.target.Target(host_target()))
    with linking(f"{compiler!r} cannot link the program"), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / LIBRARY
        executable.export_library(str(path), cc=compiler)
        return path.read_bytes()


def build_program(
    annotated: Any, platform: Platform, schedule: Schedule, function: str
) -> tuple[Program, str]:
    """Return the program of a scheduled module for our lanes, or for the stock VM and the reason why."""
    try:
        return LaneProgramFile(build_image(annotated, platform, schedule)), ""
    except UnsupportedError as error:
        note = f"{error} It runs on the stock VM, where CPU devices take turns."
        return build_stock_program(annotated, platform, function), note


def build_stock_program(annotated: Any, platform: Platform, function: str) -> StockProgram:
    """Return a scheduled module compiled for the stock VM."""
    library = library_bytes(build_executable(annotated))
    attrs = annotated[function].attrs
    weights = str(attrs[WEIGHTS_ATTR]) if attrs and WEIGHTS_ATTR in attrs else ""
    # A device of another machine has a processor of its own.
    made = {d.name: device_processor(d) for d in platform.devices if d.rpc_key is None}
    processors = {name: processor for name, processor in made.items() if processor is not None}
    return StockProgram(
        library, tuple(d.runtime for d in platform.devices), function, weights, processors
    )
