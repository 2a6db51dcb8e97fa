"""Tune the kernels of a model with MetaSchedule, where their time is. [TVM]

The search is MetaSchedule's evolutionary search under its XGBoost cost model (Shao et al., Tensor
Program Optimization with Probabilistic Programs, NeurIPS 2022). What is our own is what surrounds it:
which kernel gets the next trials, how candidates are compiled and timed, and that every result is on
disk before the next one is measured.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvm.s_tir.meta_schedule.cost_model import CostModel

from ..cost.records.store import RecordStore, median_and_spread
from ..errors import SphinxError
from ..frontend.extract import Extraction
from ..notice import warn
from ..platform import Platform
from ..platform.device import CostClass
from ..platform.machine import usable_cores
from ..progress import Progress
from .kernel_search import BATCH, KernelSearch
from .store import FAILED_S, TuningStore, class_folder
from .tasks import KernelTuning, find_tunable
from .workers import Workers

# Measurements from which the cost model predicts; before that candidates are random.
_WARM_UP = 32


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
        if self.time_limit_s is not None and not 0 < self.time_limit_s < math.inf:
            raise SphinxError(f"Expected a finite time limit > 0 s; got {self.time_limit_s}.")
        if self.seed < 0:
            raise SphinxError(f"Expected seed >= 0; got {self.seed}.")


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
    session = _Session(kernels, root, config)
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
                session.tune_batch(kernel, min(left, BATCH), workers, deadline)
                if on_batch is not None:
                    on_batch(result, _seconds_left(begin, result, left, config))
    except KeyboardInterrupt:
        result.stop_reason = "interrupted"
    return result


class _Session:
    """The state of a run: a search for each kernel, a cost model for each device class."""

    def __init__(
        self,
        kernels: list[KernelTuning],
        root: str | Path | None,
        config: TuneConfig,
    ) -> None:
        self.config = config
        self.kernels = kernels
        self.stores: dict[CostClass, TuningStore] = {}
        self.models: dict[CostClass, Any] = {}
        self.searches: dict[int, KernelSearch] = {}
        for kernel in kernels:
            kind = kernel.device.cost_class
            if kind not in self.stores:
                self.stores[kind] = TuningStore(None if root is None else class_folder(root, kind))
            times = self.stores[kind].times_s(kernel.module)
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
        job = search.job
        candidates = [] if job is None else search.generate(count)
        if job is None or not candidates:
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
                samples, wrong = workers.measure(job, library, best * 1e-9)
                if wrong.startswith("it computes"):
                    warn(f"A candidate of {'+'.join(kernel.op_kinds)} is dropped: {wrong}.")
            results.append(search.add(candidate, samples))
            kernel.trials += 1
            kernel.failed += not samples
            if samples:
                found = median_and_spread([1e9 * sample for sample in samples])[0]
                kernel.best_ns = min(found, kernel.best_ns or found)
        search.learn(candidates[: len(results)], results)

    def _search(self, kernel: KernelTuning, workers: Workers) -> KernelSearch:
        number = self.kernels.index(kernel)
        if number not in self.searches:
            kind = kernel.device.cost_class
            if kind not in self.models:
                self.models[kind] = CostModel.create(
                    "xgb", num_tuning_cores=len(usable_cores()), num_warmup_samples=_WARM_UP
                )
            self.searches[number] = KernelSearch(
                kernel,
                self.stores[kind],
                self.models[kind],
                workers,
                self.config.seed,
                self.config.sample_ms,
            )
        return self.searches[number]


def _claim(kernel: KernelTuning) -> float:
    """Return how much time of one inference stands behind the next trial of a kernel."""
    promise = 1.0
    if kernel.trials >= 2 * BATCH:
        promise = min(1.0, kernel.rule_ns / kernel.best_ns) if kernel.best_ns else 0.1
    return promise * kernel.now_ns / (kernel.trials + BATCH)


def _seconds_left(begin: float, result: TuneResult, left: int, config: TuneConfig) -> float | None:
    """Return an estimate of the time left: to the limit, or at the pace so far."""
    spent = time.monotonic() - begin
    remaining = left - BATCH
    by_pace = spent / result.new_trials * max(0, remaining) if result.new_trials else None
    if config.time_limit_s is None:
        return by_pace
    to_limit = max(0.0, config.time_limit_s - spent)
    return to_limit if by_pace is None else min(by_pace, to_limit)
