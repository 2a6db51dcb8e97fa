"""What a compilation is asked for, checked before any work. [TVM]"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar

from .._tvm import tvm
from ..cost.choose.candidates import CandidateSource
from ..cost.choose.guided import MANY_CLASSES, num_classes
from ..cost.choose.library_candidates import LibraryKernels
from ..cost.measure.kernel_timing import MeasureConfig
from ..cost.model.automatic import find_guide, find_model
from ..cost.model.guide import Guide
from ..cost.model.model_file import find_cost_model, load_cost_model
from ..cost.model.predictor import KernelPredictor
from ..cost.records.store import RecordStore
from ..errors import ProblemError, SphinxError
from ..frontend.signature import Interface
from ..interrupt import finish, raise_if_interrupted
from ..platform import Platform
from ..platform.platform_file import load_platform
from ..progress import Progress, StageClock
from ..report.files import check_writable
from ..runtime.libraries import check_libraries
from ..scheduling.constraints import Pin, parse_pin, pin_tasks, pinned_tasks
from ..scheduling.graph import TaskGraph
from ..scheduling.problem import SchedulingProblem
from ..scheduling.replay import check_places
from ..scheduling.schedule import Schedule
from ..scheduling.schedule_file import load_schedule
from ..search import Stop, check_search
from .compiled import CompiledModel, check_inputs
from .dump_code import check_forms, write_code, write_script
from .kinds import Program
from .verify.check import Subject, verify_program
from .verify.verification import Verification

#: Seconds that the rates of a machine's devices may take where the measuring budget is less.
PROBE_S = 2.0


@dataclass(frozen=True, kw_only=True)
class CompileOptions:
    """The keyword arguments of `tvm_sphinx.compile`.

    Parameters
    ----------
    input_shapes
        Shapes of ONNX inputs that the file leaves open.
    fixed_inputs
        Values by the names of inputs that become constants of the model, and are no inputs of the
        program: arrays, or numbers, which take the type that the model declares.
    function
        Relax function to schedule; by default ``main`` or the only one.
    records
        File of measured times to use and to extend, or its folder (see
        `tvm_sphinx.cost.records.store.record_path`); what `tvm-sphinx tune` has found lies beside it.
        None keeps times in memory, without tuned kernels.
    algorithm, seed, stop, prune
        See `tvm_sphinx.search.search_schedule`.
    measure
        How long to measure, and through which RPC tracker where the platform is of another machine.
    measure_budget_s
        Seconds to measure kernels that are not on record; the rest is predicted, see
        `tvm_sphinx.cost.choose.costing.cost_kernels`. None measures all of them, but for those that
        are left out.
    leave_out
        Whether kernels are left out, predicted in place of measured, that make no schedule shorter by as
        much as 0.5 %, by predictions and their errors so far; see
        `tvm_sphinx.cost.choose.guided.measure_decisive`. Not with a budget, pins, a fixed schedule,
        limits of memory, or variants. None does so where it spares time: without these, on five or
        more classes of devices (`tvm_sphinx.cost.choose.guided.MANY_CLASSES`).
    libraries
        Libraries that may compute products on GPUs in the place of kernels of ours, where they are
        faster and compute the same, by the names of `tvm_sphinx.runtime.libraries.LIBRARY_CHOICES`;
        ``cublaslt-tf32`` computes products of float32 in TF32. By default none.
    cost_model
        File of the model that predicts; by default the one that ``tvm-sphinx train`` made of this
        machine, else one that is made of what is on record, if that suffices
        (`tvm_sphinx.cost.model.automatic.find_model`), else the one that is shipped.
    with_reference
        Also build the model for the best single device, and race the two: where the schedule turns out
        to be slower, the model runs on the single device. It does so, too, where the schedule promises
        less than 2 % (`tvm_sphinx.program.compare_builds.LEAST_GAIN`).
    refine_s
        Seconds to close the loop (`tvm_sphinx.program.refine.refine`): run the program, search again
        with the times that kernels had in it, and keep the fastest of all that were found; 0 leaves it
        at the race. It needs ``with_reference``.
    verify
        Run the program and the source of the model (an ONNX file by ONNX Runtime, a torch program by
        torch) on the same inputs and compare; see `tvm_sphinx.program.verify.check`.
    verify_inputs
        Inputs by name to verify with; by default some are drawn.
    pins
        Tasks that have to run on given devices: `tvm_sphinx.scheduling.constraints.Pin`, or their text,
        ``"conv*=core0"``. Of two pins of a task the later one counts.
    exclude_devices
        Names of devices that are left out.
    memory_bytes
        Capacities by the names of devices.
    fixed_schedule
        A schedule, or a file of one, that is taken in place of a search: its devices and its order. The
        times are those of the costs at hand.
    variants
        Also build the model for every single device, and the schedule for the stock VM, to compare
        with (`CompiledModel.variants`).
    dump_ir
        Folder to write the module to after each phase, as TVMScript; it is made if it is not there.
    dump_code, dump_code_to
        Forms of the generated code to write (`tvm_sphinx.program.dump_code.FORMS`), and the beginning of
        the names of their files.
    output
        File to save the compiled model to.
    progress
        Called as ``progress(stage, done, total)``.

    Raises
    ------
    SphinxError
        If one is out of range: an unknown algorithm, a seed, a budget, an output that has no folder.
    """

    input_shapes: Mapping[str, Sequence[int]] | None = None
    fixed_inputs: Mapping[str, Any] | None = None
    function: str | None = None
    records: str | Path | None = "default"
    algorithm: str = "cpga"
    seed: int = 0
    stop: Stop | None = None
    prune: bool = True
    measure: MeasureConfig | None = None
    measure_budget_s: float | None = None
    leave_out: bool | None = None
    libraries: Sequence[str] = ()
    cost_model: str | Path = "default"
    with_reference: bool = True
    refine_s: float = 0.0
    verify: bool = True
    verify_inputs: Mapping[str, Any] | None = None
    pins: Sequence[Pin | str] = ()
    exclude_devices: Sequence[str] = ()
    memory_bytes: Mapping[str, int] | None = None
    fixed_schedule: Schedule | str | Path | None = None
    variants: bool = False
    dump_ir: str | Path | None = None
    dump_code: Sequence[str] = ()
    dump_code_to: str | Path = "kernels"
    output: str | Path | None = None
    progress: Progress | None = None

    def __post_init__(self) -> None:
        check_search(self.algorithm, self.seed, self.stop)
        if self.measure is not None and not isinstance(self.measure, MeasureConfig):
            raise SphinxError(f"Expected measure as a MeasureConfig; got {self.measure!r:.80}.")
        if self.fixed_inputs is not None and not isinstance(self.fixed_inputs, Mapping):
            raise SphinxError(
                f"Expected fixed_inputs as values by the names of inputs; got {self.fixed_inputs!r:.80}."
            )
        budget_s = self.measure_budget_s
        if budget_s is not None and not 0 <= budget_s < math.inf:
            raise SphinxError(f"Expected a measuring budget of 0 s or more; got {budget_s} s.")
        if not 0 <= self.refine_s < math.inf:
            raise SphinxError(f"Expected a time to refine of 0 s or more; got {self.refine_s} s.")
        if self.leave_out and (self.measure_budget_s is not None or self._is_limited):
            raise SphinxError(
                "Expected leave_out without a measuring budget, pins, a fixed schedule, limits of "
                "memory and variants, which need other kernels than the schedule; got both."
            )
        for name in ("pins", "exclude_devices", "dump_code", "libraries"):
            if isinstance(getattr(self, name), str):
                given = getattr(self, name)
                raise SphinxError(f"Expected {name} as a list of texts, [{given!r}]; got {given!r}.")
        check_forms(self.dump_code)
        check_libraries(self.libraries)
        object.__setattr__(self, "pins", tuple(map(_to_pin, self.pins)))
        check_writable(self.output)

    @property
    def _is_limited(self) -> bool:
        """Whether what is built may need kernels that no unlimited schedule does."""
        is_fixed = self.fixed_schedule is not None
        return bool(self.pins or self.memory_bytes or self.variants) or is_fixed

    def platform(self, platform: Platform | str | Path) -> Platform:
        """Return the platform that is meant, within the limits.

        Raises
        ------
        PlatformError
            If it cannot be read, or a limit names a device that it lacks.
        """
        return load_platform(platform).with_memory(self.memory_bytes or {}).without(self.exclude_devices)

    def constrain(self, problem: SchedulingProblem, graph: TaskGraph) -> SchedulingProblem:
        """Return the problem with the pins in it; see `pin_tasks`."""
        return pin_tasks(problem, graph, map(_to_pin, self.pins))

    def check_limits(self, graph: TaskGraph, platform: Platform) -> None:
        """Check, before anything is measured, that pins and a fixed schedule are of this model.

        Raises
        ------
        SphinxError
            If a pin names no task or no device.
        ProblemError
            If the fixed schedule has other tasks or devices.
        """
        names = [device.name for device in platform.devices]
        pinned_tasks(graph, names, map(_to_pin, self.pins))
        given = self.fixed_schedule
        if given is not None:
            schedule = given if isinstance(given, Schedule) else load_schedule(given)
            with naming_fixed_schedule():
                check_places(schedule.device, schedule.order, graph.num_tasks, len(names))

    def dump(self, phase: str, module: Any) -> None:
        """Write a module for `dump_ir`, if that was asked for."""
        if self.dump_ir is not None:
            write_script(self.dump_ir, phase, module)

    def dump_placed(self, module: Any) -> None:
        """Write a placed module, and its code, if that was asked for."""
        self.dump("3-placed", module)
        if self.dump_code:
            write_code(module, self.dump_code, self.dump_code_to)

    def deliver(self, compiled: CompiledModel) -> CompiledModel:
        """Return the compiled model, saved first if that was asked for."""
        raise_if_interrupted()
        if self.output is not None:
            compiled.save(self.output)
            finish()
        return compiled

    def check_verify_inputs(self, interface: Interface) -> None:
        """Check that the inputs to verify with, if there are any, fit the model.

        Raises
        ------
        InputError
            If one is missing or unknown, or its shape or dtype is wrong.
        """
        if self.verify_inputs is not None:
            check_inputs(interface.inputs, self.verify_inputs)

    def library_kernels(self) -> list[CandidateSource]:
        """Return the source of the kernels that libraries compute, none where none was asked for.

        Raises
        ------
        UnsupportedError
            If a library is not on this machine, with the command that installs it.
        """
        return [LibraryKernels(self.libraries)] if self.libraries else []

    def predictor(self, platform: Platform, records: RecordStore) -> KernelPredictor | None:
        """Return what predicts times that a budget leaves out; None without a budget.

        What it has to know of a machine's devices takes no longer than the budget, or `PROBE_S`.
        """
        if self.measure_budget_s is None:
            return None
        probe_s = max(PROBE_S, self.measure_budget_s)
        model, label = find_model(self.cost_model, platform.devices, records, self.measure, probe_s)
        return KernelPredictor(model, records, self.measure, probe_s, label)

    def guide(self, platform: Platform, records: RecordStore) -> Guide | None:
        """Return what tells which kernels need not be measured; None where all are to be."""
        is_wanted = self.leave_out
        if is_wanted is None:
            is_free = self.measure_budget_s is None and not self._is_limited
            is_wanted = is_free and num_classes(platform) >= MANY_CLASSES
        if not is_wanted:
            return None
        return find_guide(self.cost_model, platform.devices, records, self.measure)

    def verify_program(
        self, subject: Subject, program: Program, reference: Program | None, clock: StageClock
    ) -> Verification | None:
        """Return how a program compares with its source, None where that was not asked for.

        Raises
        ------
        VerificationError
            If it differs.
        """
        if not self.verify:
            return None
        with clock("verify"):
            return verify_program(subject, program, reference, self.verify_inputs, seed=self.seed)

    def check_cost_model(self) -> None:
        """Check, before any work, that the model that is to predict can be read.

        Raises
        ------
        ArtifactError
            If there is none in the file, or it is of another version.
        """
        if self.measure_budget_s is not None or self.cost_model != "default":
            path = find_cost_model() if self.cost_model == "default" else self.cost_model
            load_cost_model(path, str(tvm.__version__))


@contextmanager
def naming_fixed_schedule() -> Iterator[None]:
    """Say of what a problem does not hold, that it is the fixed schedule that does not fit."""
    try:
        yield
    except ProblemError as error:
        raise ProblemError(
            f"The fixed schedule does not fit this model and platform: {error}"
        ) from error


def _to_pin(pin: Pin | str) -> Pin:
    if not isinstance(pin, Pin | str):
        raise SphinxError(f"Expected a pin as a Pin, or as text 'conv*=core0'; got {pin!r:.80}.")
    return parse_pin(pin) if isinstance(pin, str) else pin


_Function = TypeVar("_Function", bound=Callable[..., Any])


def shows_options(function: _Function) -> _Function:
    """Let `help` and editors list the fields of `CompileOptions` in place of ``**options``."""
    own = [p for p in signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
    taken = signature(CompileOptions).parameters.values()
    function.__signature__ = signature(function).replace(parameters=[*own, *taken])  # type: ignore[attr-defined]  # PEP 362 has it, the stub has not
    return function
