"""Programs of the same model to compare with: on each single device, and on the stock VM. [TVM]"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..cost.choose.costing import Costing
from ..errors import ProblemError
from ..frontend.extract import Extraction
from ..platform import Platform
from ..relax_pass import annotate_schedule
from ..scheduling.problem import CANNOT_RUN
from ..search import NoRoomError, SearchResult, search_schedule
from .build import build_stock_program
from .compare_builds import Build
from .decide import Decided
from .kinds import LaneProgramFile, Program

#: The schedule that was found, run by TVM's virtual machine.
STOCK_VM = "stock VM"


def build_variants(
    decided: Decided,
    kept: Build,
    build: Callable[[SearchResult], Build],
    extraction: Extraction,
    platform: Platform,
    costs: Costing,
    entry: str,
) -> dict[str, Program]:
    """Return programs by name: one for each device that can run all, and `STOCK_VM`."""
    programs = {}
    for number, device in enumerate(platform.devices):
        exec_ns = decided.alone.exec_ns.copy()
        if (exec_ns[:, number] == CANNOT_RUN).any():
            continue
        exec_ns[:, [other for other in range(len(platform.devices)) if other != number]] = CANNOT_RUN
        try:
            found = search_schedule(replace(decided.alone, exec_ns=exec_ns), algorithm="single")
        except (ProblemError, NoRoomError):  # it does not fit the device's memory
            continue
        programs[f"on {device.name}"] = build(found).program
    if isinstance(kept.program, LaneProgramFile):
        annotated = annotate_schedule(extraction, kept.found.best, platform, costs.choices.function)
        programs[STOCK_VM] = build_stock_program(annotated, platform, entry)
    return programs
