"""Choose the implementation of each kernel on each kind of device: the fastest that was measured. [TVM]

Candidates are the schedule rules' kernel, TVM's default loops, and what `CandidateSource`s add, such
as tuned schedules. A library call would be one more source: the PrimFunc that calls it. The apache-tvm
wheel registers none (neither CBLAS nor MKL nor DNNL), so there is none here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..._tvm import tirx, tvm
from ...frontend.extract import Extraction, Kernel
from ...kernels.implement import implement_kernel
from ...platform import Device, Platform
from ...platform.targets import device_target, runtime_device
from ...progress import Progress
from ..measure.kernel_timing import MeasureConfig
from ..measure.kernels import measure_kernels
from ..records.store import RecordStore, median_and_spread
from .check_candidate import vet_implementation

# A candidate has to be faster than the rules' kernel by this much, which is more than their noise.
_MARGIN = 0.03
# A serial sum of floats takes at least two cycles a step, which no processor does in less than this.
_LEAST_NS_PER_STEP = 0.33
_REDUCTION = 2  # tirx.IterVar.CommReduce


@dataclass(frozen=True)
class Candidate:
    """An implementation of a kernel.

    Parameters
    ----------
    origin
        ``"rule"``, ``"default"`` (the loops as TVM lowers them), ``"tuned"``, or what a source says.
    function
        The PrimFunc, which is compiled as it is.
    found_ns
        What it took where it was found, in the same conditions, and compared with a kernel that is known
        to be right; 0 is not known. If that is more than the rules' kernel takes, it is not measured
        again.
    """

    origin: str
    function: Any
    found_ns: int = 0


#: Gives further implementations of a kernel for a CPU device.
CandidateSource = Callable[[Kernel, Device], Sequence[Candidate]]


@dataclass(frozen=True)
class KernelChoices:
    """The implementation of each kernel on each device class, by (kernel id, class).

    A kernel that is not listed takes what `tvm_sphinx.kernels.implement.implement_kernel` makes of it.
    """

    chosen: Mapping[tuple[str, str], Candidate] = field(default_factory=dict)

    def function(self, kernel: Kernel, device: Device) -> Any | None:
        """Return the chosen PrimFunc of a kernel with the device's target, None if none was chosen."""
        candidate = self.chosen.get((kernel.id, device.cost_class))
        return candidate and candidate.function.with_attr("target", device_target(device))

    def origin(self, kernel: str, device: Device) -> str:
        """Return where the implementation of a kernel on a device comes from; "" if it is not listed."""
        candidate = self.chosen.get((kernel, device.cost_class))
        return candidate.origin if candidate else ""


def choose_kernels(
    extraction: Extraction,
    platform: Platform,
    records: RecordStore,
    sources: Sequence[CandidateSource] = (),
    *,
    config: MeasureConfig | None = None,
    progress: Progress | None = None,
) -> KernelChoices:
    """Measure the candidates of every kernel on each CPU device class, and choose the fastest.

    What is on record is not measured again. A candidate that is new is run beside the rules' kernel
    first, and dropped with a warning if it computes other numbers.

    Raises
    ------
    PlatformError
        If the platform claims cores that this machine lacks.
    """
    platform.check_machine()
    chosen: dict[tuple[str, str], Candidate] = {}
    kernels = [kernel for kernel in extraction.kernels.values() if not kernel.is_external]
    for device in {device.cost_class: device for device in reversed(platform.devices)}.values():
        if has_candidates(device):
            chooser = _Chooser(device, records, config or MeasureConfig(), progress)
            chosen.update(chooser.choose(kernels, sources))
    return KernelChoices(chosen)


def has_candidates(device: Device) -> bool:
    """Return whether kernels of a device have other implementations than the rules': a CPU at hand."""
    return device.is_cpu and device.rpc_key is None and bool(runtime_device(device.runtime).exist)


def rules_candidate(function: Any) -> Candidate:
    """Return what `tvm_sphinx.kernels.implement.implement_kernel` has made as a candidate."""
    return Candidate("rule" if function.attrs.get("tirx.is_scheduled", 0) else "default", function)


def other_candidates(
    kernel: Kernel,
    device: Device,
    sources: Sequence[CandidateSource],
    rule: Candidate,
    rule_ns: int,
) -> list[Candidate]:
    """Return the candidates beside the rules' one: those of the sources, and TVM's default loops."""
    found = [candidate for source in sources for candidate in source(kernel, device)]
    loops = None if rule.origin == "default" else default_loops(kernel, rule_ns)
    return [*found, loops] if loops else found


def default_loops(kernel: Kernel, rule_ns: int) -> Candidate | None:
    """Return TVM's default loops as a candidate; None where they cannot beat a kernel of that time."""
    if serial_sum_ns(kernel.function) >= rule_ns:
        return None
    return Candidate("default", kernel.function.with_attr("tirx.is_scheduled", True))


def may_win(candidate: Candidate, rule_ns: int) -> bool:
    """Return whether a candidate is worth measuring beside a rules' kernel of that time."""
    return candidate.found_ns <= rule_ns


def is_faster(found_ns: int, best_ns: int, rule_ns: int) -> bool:
    """Return whether a candidate beats the best so far, and the rules' kernel by more than noise."""
    return found_ns < min(best_ns, (1 - _MARGIN) * rule_ns)


def serial_sum_ns(function: Any) -> float:
    """Return a lower bound of an unscheduled PrimFunc's time: of its sums of floats, step after step.

    Where the innermost loop of a block runs over a reduction, each step adds to what the one before it
    has left, and LLVM keeps that order.
    """

    def visit(statement: Any, loops: list[Any]) -> float:
        if isinstance(statement, tirx.For):
            return visit(statement.body, [*loops, statement])
        if isinstance(statement, tirx.SeqStmt):
            return sum(visit(child, loops) for child in statement)
        if not isinstance(statement, tvm.s_tir.SBlockRealize):
            return 0.0
        block = statement.block
        bound = visit(block.body, []) if not loops else 0.0
        return max(bound, _serial_steps(statement, loops) * _LEAST_NS_PER_STEP)

    return float(visit(function.body, []))


def _serial_steps(realize: Any, loops: list[Any]) -> int:
    """Return the steps of a block that sums floats in its innermost loop, else 0."""
    store = realize.block.body
    if not loops or not isinstance(store, tirx.BufferStore) or not isinstance(store.value, tirx.Add):
        return 0
    if not str(store.buffer.dtype).startswith("float"):
        return 0
    reduced = [
        value
        for iter_var, value in zip(realize.block.iter_vars, realize.iter_values, strict=True)
        if int(iter_var.iter_type) == _REDUCTION
    ]
    if not any(loops[-1].loop_var.same_as(value) for value in reduced):
        return 0
    steps = 1
    for loop in loops:
        if not isinstance(loop.extent, tirx.IntImm):
            return 0
        steps *= int(loop.extent)
    return steps


class _Chooser:
    """Chooses for one device class."""

    def __init__(
        self,
        device: Device,
        records: RecordStore,
        config: MeasureConfig,
        progress: Progress | None,
    ) -> None:
        self.device, self.records, self.config = device, records, config
        self.progress = progress
        self.target = device_target(device)

    def choose(
        self, kernels: Sequence[Kernel], sources: Sequence[CandidateSource]
    ) -> dict[tuple[str, str], Candidate]:
        kernels = [k for k in kernels if k.target_kind in (None, str(self.target.kind.name))]
        rules = [rules_candidate(implement_kernel(kernel.function, self.target)) for kernel in kernels]
        best_ns = self._measure(kernels, rules, f"measure on {self.device.name}")
        best = dict(zip((kernel.id for kernel in kernels), rules, strict=True))
        rule_ns = dict(best_ns)
        rounds: list[dict[str, Candidate]] = []
        for kernel in kernels:
            if kernel.id not in rule_ns:
                continue
            time_ns = rule_ns[kernel.id]
            others = other_candidates(kernel, self.device, sources, best[kernel.id], time_ns)
            candidates = [candidate for candidate in others if may_win(candidate, time_ns)]
            for number, candidate in enumerate(candidates):
                if number == len(rounds):
                    rounds.append({})
                rounds[number][kernel.id] = candidate
        for number, candidates_of in enumerate(rounds):
            tried = [kernel for kernel in kernels if kernel.id in candidates_of]
            candidates = [candidates_of[kernel.id] for kernel in tried]
            for kernel, candidate in zip(tried, candidates, strict=True):
                vet_implementation(
                    kernel,
                    candidate.function,
                    best[kernel.id].function,
                    self.device,
                    self.records,
                    origin=candidate.origin,
                    rule_ns=rule_ns[kernel.id],
                )
            stage = f"candidates on {self.device.name} ({number + 1}/{len(rounds)})"
            for name, found_ns in self._measure(tried, candidates, stage).items():
                if is_faster(found_ns, best_ns[name], rule_ns[name]):
                    best_ns[name], best[name] = found_ns, candidates_of[name]
        return {(name, self.device.cost_class): candidate for name, candidate in best.items()}

    def _measure(
        self, kernels: Sequence[Kernel], candidates: Sequence[Candidate], stage: str
    ) -> dict[str, int]:
        """Return the median time of those candidates that run, by kernel."""
        functions = {k.id: c.function for k, c in zip(kernels, candidates, strict=True)}
        found = measure_kernels(
            kernels,
            self.device,
            self.records,
            self.config,
            stage,
            self.progress,
            implement=lambda kernel, _: functions[kernel.id].with_attr("target", self.target),
        )
        return {
            kernel.id: median_and_spread(record.samples_ns)[0]
            for kernel, record in zip(kernels, found, strict=True)
            if record.samples_ns
        }
