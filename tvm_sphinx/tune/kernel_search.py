"""MetaSchedule's search for one kernel on one kind of device. [TVM]"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

from tvm.s_tir.meta_schedule.database import MemoryDatabase, TuningRecord
from tvm.s_tir.meta_schedule.runner import RunnerResult

from ..cost.measure.divisors import divisor_operands
from ..kernels.implement import implement_kernel
from ..platform.machine import usable_cores
from ..platform.targets import device_target
from .space import make_context, scheduled_function
from .store import FAILED_S, TuningStore, trace_key
from .tasks import KernelTuning
from .worker import TimingJob
from .workers import Workers

#: Candidates that are generated, compiled and timed together; of thousands, MetaSchedule takes 64.
BATCH = 16
# Earlier records that seed the search of a kernel and the cost model.
_SEED_RECORDS = 48


class KernelSearch:
    """MetaSchedule's search for one kernel on one device class."""

    def __init__(
        self,
        kernel: KernelTuning,
        store: TuningStore,
        model: Any,
        workers: Workers,
        seed: int,
        sample_ms: float,
    ) -> None:
        self.module, self.store, self.model = kernel.module, store, model
        self.target = device_target(kernel.device)
        self.known = store.times_s(self.module)
        # A run that goes on after another draws other candidates than that one did.
        drawn = zlib.crc32(f"{seed} {kernel.kernel.id} {len(self.known)}".encode())
        cores = len(kernel.device.cores)
        self.context = make_context(
            self.module, self.target, cores, len(usable_cores()), 1 + drawn % (2**31 - 2)
        )
        self.database = MemoryDatabase()
        self.workload = self.database.commit_workload(self.module)
        self._seed_with(store.best(self.module, _SEED_RECORDS))
        spaces = self.context.generate_design_space()
        self.context.pre_tuning(1 << 30, BATCH, spaces, self.database, self.model)
        self.job = self._make_job(kernel, workers, sample_ms)

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

    def _make_job(self, kernel: KernelTuning, workers: Workers, sample_ms: float) -> TimingJob | None:
        implemented = implement_kernel(kernel.kernel.function, self.target)
        (library,) = workers.build([implemented])
        if isinstance(library, str):
            return None
        timed = kernel.kernel
        return TimingJob(
            f"{timed.id} {kernel.device.cost_class}",
            kernel.device,
            timed.argument_types,
            timed.weights,
            timed.reuse_bytes,
            library,
            sample_ms,
            divisor_operands(timed.function),
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
