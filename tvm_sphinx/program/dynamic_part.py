"""The dynamic part of a model: what depends on a shape that is known only at run time. [TVM]

It comes after the static part, as a whole, by TVM's virtual machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..cost.measure.kernels import MeasureConfig
from ..errors import SphinxError, UnsupportedError, cause_of
from ..frontend.default_pipeline import compile_default
from ..frontend.split_dynamic import DynamicSplit
from ..frontend.tensor_spec import TensorSpec
from ..platform import Device, Platform
from ..platform.targets import device_target
from ..progress import StageClock
from ..report.dynamic import DynamicReport
from .build import library_bytes
from .compiled import random_inputs
from .fallback import fastest_device, processors_of
from .kinds import Array, Program, SplitProgram, StockProgram

# Runs of it that are timed, at most, and seconds after which there are no more.
_RUNS, _RUN_S = 30, 1.0
_LEAST_RUNS = 3


@dataclass(frozen=True)
class DynamicPart:
    """The dynamic part as a program, and what is known of it."""

    split: DynamicSplit
    program: StockProgram
    report: DynamicReport


def open_part(
    split: DynamicSplit | None,
    entry: str,
    platform: Platform,
    clock: StageClock,
    config: MeasureConfig | None = None,
) -> DynamicPart | None:
    """Compile a dynamic part, None if there is none, for one CPU device.

    That is the fastest on a probe of those of one core: what has open shapes runs on one.

    Raises
    ------
    UnsupportedError
        If TVM cannot compile it.
    """
    if split is None:
        return None
    with clock("build dynamic part"):
        device = fastest_device(Platform(_candidates(platform)), config)
        try:
            executable = compile_default(split.dynamic, device_target(device))
        except Exception as error:  # TVM raises many types
            raise UnsupportedError(
                f"TVM cannot compile {split.operators[0]} and what follows it for {device.name!r}: "
                f"{cause_of(error)}"
            ) from error
        program = StockProgram(
            library_bytes(executable), (device.runtime,), entry, processors=processors_of(device)
        )
    return DynamicPart(split, program, DynamicReport(split.operators, split.reason, device.name))


def _candidates(platform: Platform) -> tuple[Device, ...]:
    """Return the CPU devices of each target that have the fewest cores: it runs on one."""
    fewest: dict[str, Device] = {}
    for device in platform.devices:
        if device.is_cpu:
            best = fewest.setdefault(device.target, device)
            if len(device.cores) < len(best.cores):
                fewest[device.target] = device
    return tuple(fewest.values())


@dataclass(frozen=True)
class WholePrograms:
    """The programs of a model, the dynamic part behind each of them, and what is known of that."""

    program: Program
    reference: Program | None
    variants: dict[str, Program]
    dynamic: DynamicReport | None = None

    def with_note(self, note: str) -> str:
        """Return a note with what is to be said of the dynamic part behind it."""
        return note if self.dynamic is None else f"{note} {self.dynamic.describe()}".lstrip()


def complete_programs(
    part: DynamicPart | None,
    program: Program,
    reference: Program | None,
    variants: dict[str, Program],
    inputs: Sequence[TensorSpec],
    clock: StageClock,
) -> WholePrograms:
    """Return programs with the dynamic part, if there is one, behind them, timed on drawn inputs."""
    if part is None:
        return WholePrograms(program, reference, variants)
    whole = SplitProgram(program, part.program, part.split.reads, part.split.outputs)
    with clock("time dynamic part"):
        report = _timed(part.report, whole, list(random_inputs(inputs).values()))
    behind: dict[str, Program] = {
        name: replace(whole, static=variant) for name, variant in variants.items()
    }
    if reference is None:
        return WholePrograms(whole, None, behind, report)
    # Where the best single device is what runs, both are one program.
    twin = whole if reference is program else replace(whole, static=reference)
    return WholePrograms(whole, twin, behind, report)


def _timed(report: DynamicReport, whole: SplitProgram, inputs: Sequence[Array]) -> DynamicReport:
    """Return a report with the median time of some runs, or why it does not run on these inputs."""
    try:
        read = whole.dynamic_arguments(inputs, whole.static.open()(inputs))
        run = whole.dynamic.open()
        times_ns = _times_ns(lambda: run(read))
    except SphinxError as error:
        return replace(report, not_timed=str(error))
    except Exception as error:  # the virtual machine raises whatever its kernels and checks raise
        return replace(report, not_timed=cause_of(error))
    return replace(report, median_ns=int(np.median(times_ns)))


def _times_ns(run: Callable[[], object]) -> list[int]:
    """Return how long some runs took, after one that is not counted."""
    run()
    end_s, times = time.monotonic() + _RUN_S, list[int]()
    while len(times) < _RUNS and (len(times) < _LEAST_RUNS or time.monotonic() < end_s):
        begin = time.perf_counter_ns()
        run()
        times.append(time.perf_counter_ns() - begin)
    return times
