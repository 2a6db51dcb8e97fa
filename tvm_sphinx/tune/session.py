"""Tune the kernels of a model with MetaSchedule, where their time is. [TVM]

The search is MetaSchedule's evolutionary search under its XGBoost cost model (Shao et al., Tensor
Program Optimization with Probabilistic Programs, NeurIPS 2022). What is our own is what surrounds it:
which kernel gets the next trials, how candidates are compiled and timed, and that every result is on
disk before the next one is measured.
"""

from __future__ import annotations

import time
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvm.s_tir.meta_schedule.cost_model import CostModel
from tvm.s_tir.meta_schedule.database import MemoryDatabase, TuningRecord
from tvm.s_tir.meta_schedule.runner import RunnerResult

from ..cost.measure import MeasureConfig, measure_kernels
from ..cost.progress import Progress
from ..cost.records import RecordStore, median_and_spread
from ..errors import SphinxError, known_choices
from ..extract import Extraction, Kernel
from ..implement import implement_kernel
from ..machine import usable_cores
from ..platform import Device, Platform
from ..targets import device_target
from .space import make_context, scheduled_function, workload_module
from .store import FAILED_S, TuningStore, class_folder, trace_key
from .worker import Bench
from .workers import Workers

# Candidates that are generated, compiled and timed together; MetaSchedule's 64 suit thousands of trials.
_BATCH = 16
# Measurements from which the cost model predicts; before that candidates are random.
_WARM_UP = 32
# Earlier records that seed the search of a kernel and the cost model.
_SEED_RECORDS = 48


@dataclass(frozen=True)
class TuneConfig:
    """How long to tune.

    Parameters
    ----------
    trials
        Candidates to measure over all kernels and device classes; those on record count.
    time_limit_s
        Stop after this time; None for no limit.
    seed
        Seed of the search.
    sample_ms
        How long each candidate is timed.
    """

    trials: int = 1000
    time_limit_s: float | None = None
    seed: int = 0
    sample_ms: float = 5.0

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise SphinxError(f"Expected trials >= 1; got {self.trials}.")
        if self.time_limit_s is not None and not self.time_limit_s > 0:
            raise SphinxError(f"Expected a time limit > 0 s; got {self.time_limit_s}.")
        if self.seed < 0:
            raise SphinxError(f"Expected seed >= 0; got {self.seed}.")


@dataclass
class KernelTuning:
    """One kernel on one device class.

    Attributes
    ----------
    kernel, device
        What is tuned, and a device of the class.
    calls
        How often the model calls it in one inference.
    op_kinds
        Its kinds of operators.
    rule_ns
        Median time of one call under our schedule rules.
    best_ns
        The same of the fastest tuned candidate; None if there is none yet.
    trials, failed
        Candidates measured, those on record included; those of this run that failed.
    """

    kernel: Kernel
    device: Device
    calls: int
    op_kinds: tuple[str, ...]
    rule_ns: int
    module: Any
    best_ns: int | None = None
    trials: int = 0
    failed: int = 0
    exhausted: bool = False

    @property
    def now_ns(self) -> int:
        """Time of all its calls in one inference, with the faster of the two."""
        return self.calls * min(self.rule_ns, self.best_ns or self.rule_ns)

    @property
    def before_ns(self) -> int:
        """The same with our schedule rules."""
        return self.calls * self.rule_ns


@dataclass
class TuneResult:
    """What a tuning run reached.

    Attributes
    ----------
    kernels
        Every tuned kernel on every device class.
    trials_before
        Candidates that were on record when it began.
    stop_reason
        ``"trials"``, ``"time limit"``, ``"exhausted"`` or ``"interrupted"``.
    """

    kernels: list[KernelTuning]
    trials_before: int = 0
    stop_reason: str = "trials"

    @property
    def new_trials(self) -> int:
        """Candidates measured in this run."""
        return sum(kernel.trials for kernel in self.kernels) - self.trials_before

    @property
    def before_ns(self) -> int:
        """Kernel time of one inference on each device class, summed, with our rules."""
        return sum(kernel.before_ns for kernel in self.kernels)

    @property
    def now_ns(self) -> int:
        """The same with the fastest of rules and tuned candidates."""
        return sum(kernel.now_ns for kernel in self.kernels)


#: Called after every batch with what was reached so far and the seconds that are left, if known.
TuneProgress = Callable[[TuneResult, float | None], None]


def tune_kernels(
    extraction: Extraction,
    platform: Platform,
    root: str | Path | None,
    records: RecordStore,
    config: TuneConfig,
    *,
    tasks: Sequence[str] | int | None = None,
    progress: Progress | None = None,
    on_batch: TuneProgress | None = None,
) -> TuneResult:
    """Tune the kernels of a model for the CPU device classes of a platform.

    Ctrl-C ends it as the time limit does. Each result is on disk before the next candidate is measured,
    so that a kill costs at most the candidate in work.

    Parameters
    ----------
    extraction, platform
        The model's kernels, and the devices to tune them for.
    root
        Folder of the tuning records, see `tvm_sphinx.tune.store.class_folder`; None is memory.
    records
        Measured times, where those of our rules are looked up and added.
    tasks
        The number of kernels to tune, those with the most time first; or names, each part of a kind of
        operator; None tunes all.
    progress
        Told while our rules' kernels are measured.
    on_batch
        Told after each batch of candidates.

    Raises
    ------
    SphinxError
        If no kernel can be tuned, or a name in ``tasks`` fits none; the message lists the kinds.
    PlatformError
        If the platform claims cores that this machine lacks.
    """
    begin = time.monotonic()
    kernels = find_tunable(extraction, platform, records, tasks, progress)
    session = _Session(kernels, extraction, root, config)
    result = TuneResult(kernels, sum(kernel.trials for kernel in kernels))
    try:
        with Workers(max(1, len(usable_cores()))) as workers:
            while True:
                spent = time.monotonic() - begin
                if config.time_limit_s is not None and spent >= config.time_limit_s:
                    result.stop_reason = "time limit"
                    break
                left = config.trials - sum(kernel.trials for kernel in kernels)
                kernel = session.choose() if left > 0 else None
                if kernel is None:
                    result.stop_reason = "trials" if left <= 0 else "exhausted"
                    break
                deadline = None if config.time_limit_s is None else begin + config.time_limit_s
                session.tune_batch(kernel, min(left, _BATCH), workers, deadline)
                if on_batch is not None:
                    on_batch(result, _seconds_left(begin, result, left, config))
    except KeyboardInterrupt:
        result.stop_reason = "interrupted"
    return result


def find_tunable(
    extraction: Extraction,
    platform: Platform,
    records: RecordStore,
    tasks: Sequence[str] | int | None,
    progress: Progress | None = None,
) -> list[KernelTuning]:
    """Return the kernels to tune on each CPU device class; arguments and errors as in `tune_kernels`."""
    platform.check_machine()
    calls: dict[str, int] = {}
    kinds: dict[str, tuple[str, ...]] = {}
    for task in extraction.graph.tasks:
        calls[task.kernel] = calls.get(task.kernel, 0) + 1
        kinds[task.kernel] = task.op_kinds
    modules = {name: workload_module(kernel) for name, kernel in extraction.kernels.items()}
    chosen = _select_by_name(extraction, modules, kinds, tasks)
    by_class = {device.cost_class: device for device in reversed(platform.devices) if device.is_cpu}
    found = []
    for device in reversed(by_class.values()):
        stage = f"measure on {device.name}"
        measured = measure_kernels(chosen, device, records, MeasureConfig(), stage, progress)
        for kernel, record in zip(chosen, measured, strict=True):
            if not record.samples_ns:
                continue
            rule_ns = median_and_spread(record.samples_ns)[0]
            found.append(
                KernelTuning(
                    kernel, device, calls[kernel.id], kinds[kernel.id], rule_ns, modules[kernel.id]
                )
            )
    if isinstance(tasks, int):
        time_ns: dict[str, int] = {}
        for entry in found:
            time_ns[entry.kernel.id] = time_ns.get(entry.kernel.id, 0) + entry.before_ns
        heaviest = sorted(time_ns, key=lambda name: -time_ns[name])[:tasks]
        found = [entry for entry in found if entry.kernel.id in heaviest]
    if not found:
        raise SphinxError("Expected a kernel that can be tuned on a CPU device; the model has none.")
    return found


def _select_by_name(
    extraction: Extraction,
    modules: dict[str, Any],
    kinds: dict[str, tuple[str, ...]],
    tasks: Sequence[str] | int | None,
) -> list[Kernel]:
    if isinstance(tasks, int) and tasks < 1:
        raise SphinxError(f"Expected at least 1 task to tune; got {tasks}.")
    kernels = [kernel for kernel in extraction.kernels.values() if modules[kernel.id] is not None]
    if tasks is None or isinstance(tasks, int):
        return kernels
    known = sorted({kind for kernel in kernels for kind in kinds[kernel.id]})
    for name in tasks:
        if not any(name in kind for kind in known):
            raise SphinxError(known_choices("kind of operator", name, known))
    return [
        kernel for kernel in kernels if any(name in kind for kind in kinds[kernel.id] for name in tasks)
    ]


class _Session:
    """The state of a run: a search for each kernel, a cost model for each device class."""

    def __init__(
        self,
        kernels: list[KernelTuning],
        extraction: Extraction,
        root: str | Path | None,
        config: TuneConfig,
    ) -> None:
        self.config = config
        self.kernels = kernels
        self.stores: dict[str, TuningStore] = {}
        self.models: dict[str, Any] = {}
        self.searches: dict[int, _Search] = {}
        for kernel in kernels:
            name = kernel.device.cost_class
            if name not in self.stores:
                self.stores[name] = TuningStore(None if root is None else class_folder(root, name))
            times = self.stores[name].times_s(kernel.module)
            kernel.trials = len(times)
            best = min(times.values(), default=FAILED_S)
            kernel.best_ns = None if best >= FAILED_S else round(best * 1e9)

    def choose(self) -> KernelTuning | None:
        """Return the kernel that gets the next batch: the one with the most time for its trials.

        Trials are dealt out in proportion to the time that each kernel takes now (the divisor method of
        D'Hondt); a kernel whose trials do not come near our rule gets ever fewer.
        """
        open_ = [kernel for kernel in self.kernels if not kernel.exhausted]
        return max(open_, key=_claim, default=None)

    def tune_batch(
        self, kernel: KernelTuning, count: int, workers: Workers, deadline: float | None
    ) -> None:
        """Measure up to ``count`` new candidates of a kernel, or find that there are no more."""
        search = self._search(kernel, workers)
        bench = search.bench
        candidates = [] if bench is None else search.generate(count)
        if bench is None or not candidates:
            kernel.exhausted = True
            return
        libraries = workers.build([search.function(candidate) for candidate in candidates])
        results = []
        for candidate, library in zip(candidates, libraries, strict=True):
            if deadline is not None and time.monotonic() > deadline:
                break
            samples: list[float] = []
            if isinstance(library, bytes):
                best = min(kernel.rule_ns, kernel.best_ns or kernel.rule_ns)
                samples, wrong = workers.measure(bench, library, best * 1e-9)
                if wrong.startswith("it computes"):
                    warnings.warn(
                        f"A candidate of {'+'.join(kernel.op_kinds)} is dropped: {wrong}.", stacklevel=2
                    )
            results.append(search.add(candidate, samples))
            kernel.trials += 1
            kernel.failed += not samples
            if samples:
                found = median_and_spread([1e9 * sample for sample in samples])[0]
                kernel.best_ns = min(found, kernel.best_ns or found)
        search.learn(candidates[: len(results)], results)

    def _search(self, kernel: KernelTuning, workers: Workers) -> _Search:
        number = self.kernels.index(kernel)
        if number not in self.searches:
            name = kernel.device.cost_class
            if name not in self.models:
                self.models[name] = CostModel.create(
                    "xgb", num_tuning_cores=len(usable_cores()), num_warmup_samples=_WARM_UP
                )
            self.searches[number] = _Search(
                kernel, self.stores[name], self.models[name], workers, self.config
            )
        return self.searches[number]


def _claim(kernel: KernelTuning) -> float:
    """Return how much time of one inference stands behind the next trial of a kernel."""
    promise = 1.0
    if kernel.trials >= 2 * _BATCH:
        promise = min(1.0, kernel.rule_ns / kernel.best_ns) if kernel.best_ns else 0.1
    return promise * kernel.now_ns / (kernel.trials + _BATCH)


class _Search:
    """MetaSchedule's search for one kernel on one device class."""

    def __init__(
        self,
        kernel: KernelTuning,
        store: TuningStore,
        model: Any,
        workers: Workers,
        config: TuneConfig,
    ) -> None:
        self.module, self.store, self.model = kernel.module, store, model
        self.target = device_target(kernel.device)
        self.known = store.times_s(self.module)
        # A run that goes on after another draws other candidates than that one did.
        seed = zlib.crc32(f"{config.seed} {kernel.kernel.id} {len(self.known)}".encode())
        cores = len(kernel.device.cores)
        self.context = make_context(
            self.module, self.target, cores, len(usable_cores()), 1 + seed % (2**31 - 2)
        )
        self.database = MemoryDatabase()
        self.workload = self.database.commit_workload(self.module)
        self._seed_with(store.best(self.module, _SEED_RECORDS))
        spaces = self.context.generate_design_space()
        self.context.pre_tuning(1 << 30, _BATCH, spaces, self.database, self.model)
        self.bench = self._make_bench(kernel, workers, config.sample_ms)

    def _seed_with(self, records: Sequence[Any]) -> None:
        """Start from earlier records: the search from their traces, the cost model from their times."""
        results = []
        for record in records:
            self.database.commit_tuning_record(
                TuningRecord(record.trace, self.workload, record.run_secs, self.target, record.args_info)
            )
            results.append(RunnerResult([float(second) for second in record.run_secs], None))
        if records:
            candidates = [record.as_measure_candidate() for record in records]
            self.model.update(self.context, candidates, results)

    def _make_bench(self, kernel: KernelTuning, workers: Workers, sample_ms: float) -> Bench | None:
        implemented = implement_kernel(kernel.kernel.function, self.target)
        (library,) = workers.build([implemented])
        if isinstance(library, str):
            return None
        timed = kernel.kernel
        return Bench(
            f"{timed.id} {kernel.device.cost_class}",
            kernel.device,
            timed.argument_types,
            timed.weights,
            timed.reuse_bytes,
            library,
            sample_ms,
        )

    def generate(self, count: int) -> list[Any]:
        """Return up to ``count`` candidates that are not on record; none if there are no more."""
        candidates = self.context.generate_measure_candidates() or []
        fresh = []
        for candidate in candidates:
            key = trace_key(self._record(candidate, [FAILED_S]).as_json()[0])
            if key not in self.known:
                fresh.append(candidate)
        return fresh[:count]

    def function(self, candidate: Any) -> Any:
        """Return the PrimFunc of a candidate with its target."""
        return scheduled_function(candidate.sch).with_attr("target", self.target)

    def add(self, candidate: Any, samples: list[float]) -> Any:
        """Put a candidate on record; without samples it failed."""
        record = self._record(candidate, samples or [FAILED_S])
        self.database.commit_tuning_record(record)
        self.store.add(self.module, record)
        return RunnerResult(samples or None, None if samples else "failed")

    def _record(self, candidate: Any, times_s: list[float]) -> Any:
        return TuningRecord(
            candidate.sch.trace, self.workload, times_s, self.target, candidate.args_info
        )

    def learn(self, candidates: list[Any], results: list[Any]) -> None:
        """Tell the search and the cost model what candidates took."""
        if results:
            self.context.notify_runner_results(candidates, results)
            self.model.update(self.context, candidates, results)


def _seconds_left(begin: float, result: TuneResult, left: int, config: TuneConfig) -> float | None:
    """Return an estimate of the time left: to the limit, or at the pace so far."""
    spent = time.monotonic() - begin
    remaining = left - _BATCH
    by_pace = spent / result.new_trials * max(0, remaining) if result.new_trials else None
    if config.time_limit_s is None:
        return by_pace
    to_limit = max(0.0, config.time_limit_s - spent)
    return to_limit if by_pace is None else min(by_pace, to_limit)
