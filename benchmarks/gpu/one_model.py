"""One model of `bench.py`: what else runs it (``--stage peers``), or ours (``--stage ours``)."""

from __future__ import annotations

import argparse
import json
import os
import time
import traceback
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import models
import numpy as np
from in_place import in_place
from latency import compile_ahead, on_one_device
from other_runtimes import prepare_others
from platforms import (
    cpu_alone,
    cpu_alone_counts,
    gpu_alone,
    install_fake_compiler,
    platforms,
    with_streams,
)
from small_network import small_model
from timing import Row, timed
from turns import wait_for_turn

import tvm_sphinx
from tvm_sphinx.cost.choose.costing import cost_kernels
from tvm_sphinx.cost.measure.kernel_timing import MeasureConfig
from tvm_sphinx.cost.records.store import RecordStore, record_path
from tvm_sphinx.cost.table import build_problem
from tvm_sphinx.errors import UnsupportedError
from tvm_sphinx.frontend.extract import Extraction, extract_task_graph
from tvm_sphinx.frontend.lower import lower_to_kernels
from tvm_sphinx.platform import Platform
from tvm_sphinx.platform.targets import device_target
from tvm_sphinx.program.build import build_stock_program
from tvm_sphinx.program.kinds import LaneProgramFile, flatten_outputs
from tvm_sphinx.relax_pass import annotate_schedule
from tvm_sphinx.runtime.build import build_image
from tvm_sphinx.scheduling.schedule import Schedule
from tvm_sphinx.search import search_schedule

# Short: beside such a card the CPU's kernels seldom matter, and the GPU's are known well soon.
# What streams of the fake GPU lose to each other says nothing, and takes minutes.
_MEASURE = MeasureConfig(sample_ms=0.3, under_load="FAKE" not in os.environ)
Run = Callable[[list[np.ndarray]], list[np.ndarray]]


class Results:
    """Appends rows to a file, each when it is known."""

    def __init__(self, path: Path, model: str) -> None:
        self.path, self.model = path, model

    def add(self, what: str, function: Callable[[], Row]) -> None:
        """Call a function and write the row that it returns, or its error."""
        begin = time.perf_counter()
        row: Row = {"model": self.model, "what": what}
        try:
            row.update({"ok": True, **function()})
        except Exception as error:
            row.update({"ok": False, "error": f"{type(error).__name__}: {error}"[:800]})
            row["trace"] = traceback.format_exc()[-1200:]
        row["seconds"] = round(time.perf_counter() - begin, 1)
        with open(self.path, "a") as file:
            file.write(json.dumps(row) + "\n")
        print({key: value for key, value in row.items() if key != "trace"}, flush=True)


class Ours:
    """A model as this package runs it."""

    def __init__(self, model: Any, work: Path) -> None:
        self.model, self.work = model, work
        self.logs = work / "logs"

    @cached_property
    def module(self) -> Any:
        """The model in Relax."""
        return self.model.relax()

    @cached_property
    def expected(self) -> list[np.ndarray]:
        """What torch computes on the CPU; nothing where there is no torch module."""
        if self.model.torch_module is None:
            return []
        import torch

        with torch.inference_mode():
            result = self.model.torch_module(*self.model.torch_inputs())
        return [value.numpy() for value in ([result] if torch.is_tensor(result) else result)]

    @cached_property
    def store(self) -> RecordStore:
        """The records, as they are when this is first asked for."""
        return RecordStore(record_path(self.work / "records"))

    @cached_property
    def extraction(self) -> Extraction:
        """The tasks of the model for a CPU and the GPU."""
        return self._extract(gpu_alone())

    def _extract(self, platform: Platform) -> Extraction:
        targets = [device_target(device) for device in platform.devices]
        return extract_task_graph(lower_to_kernels(self.module, targets[0], targets=targets))

    def prepare(self) -> None:
        """Do ahead what needs no measuring: the model, and machine code of its kernels for the GPU."""
        assert self.expected is not None
        built = compile_ahead(self.extraction, gpu_alone().devices[-1], _MEASURE)
        print(f"{len(built.modules)} kernels, {len(built.refused)} refused", flush=True)

    def on_cpu_alone(self, count: int) -> Run:
        """Return the model on some cores, by the schedule rules' kernels."""
        platform = cpu_alone(count)
        extraction = self._extract(platform)
        tasks = extraction.graph.num_tasks
        start = np.arange(tasks)
        schedule = Schedule(np.zeros(tasks, np.int64), start, start + 1, tasks, 0, "as they come")
        return self._open(annotate_schedule(extraction, schedule, platform), platform, schedule)

    def compiled(self, platform: Platform) -> Row:
        """Time what the package compiles for a platform; keep a trace."""
        begin = time.perf_counter()
        # It makes ready once more, and then asks for its turn before the first kernel is timed.
        asks = _Once(wait_for_turn)
        compiled = tvm_sphinx.compile(
            self.module, platform, records=self.work / "records", measure=_MEASURE, progress=asks
        )
        asks()
        row: Row = {"compile_s": round(time.perf_counter() - begin - asks.seconds, 1)}
        row["note"] = compiled.note
        row["stages_s"] = {stage: round(seconds, 1) for stage, seconds in compiled.stages_s.items()}
        row["waited_s"] = round(asks.seconds, 1)
        row["measured_s"] = {stage: round(seconds, 1) for stage, seconds in asks.stages_s.items()}
        if compiled.report is not None:
            report = compiled.report
            row["predicted_us"] = report.makespan_ns / 1e3
            row["predicted_single_us"] = report.best_single_device_ns / 1e3
            row["lower_bound_us"] = report.lower_bound_ns / 1e3
            row["devices"] = {device.name: [device.tasks, device.busy_ns] for device in report.devices}
        row.update(self.checked_and_timed(compiled.run))
        if isinstance(compiled.program, LaneProgramFile):
            _, trace = compiled.run_traced(self.model.numpy_inputs())
            (self.logs / f"trace_{self.model.name}.json").write_text(trace.to_chrome())
        return row

    def scheduled(self, platform: Platform, only_last: bool = False) -> Row:
        """Time the schedule that is found, or that puts all on the last device, be that best or not."""
        graph = self.extraction.graph
        costing = cost_kernels(self.extraction, platform, self.store, config=_MEASURE)
        problem = build_problem(graph, platform, costing.table, loaded=not only_last)
        schedule = (
            on_one_device(problem, len(platform.devices) - 1)
            if only_last
            else search_schedule(problem).best
        )
        if schedule is None:
            return {"ok": False, "error": "the GPU cannot run one of its tasks"}
        annotated = annotate_schedule(self.extraction, schedule, platform, costing.choices.function)
        row = {"predicted_us": schedule.makespan_ns / 1e3}
        return {**row, **self.checked_and_timed(self._open(annotated, platform, schedule))}

    def _open(self, annotated: Any, platform: Platform, schedule: Schedule) -> Run:
        try:
            program: Any = LaneProgramFile(build_image(annotated, platform, schedule))
        except UnsupportedError as error:
            print(f"on the stock VM: {error}", flush=True)
            program = build_stock_program(annotated, platform, "main")
        opened = program.open()
        return lambda inputs: flatten_outputs(opened(inputs))

    def checked_and_timed(self, run: Run) -> Row:
        """Return how far outputs are from torch's, and the time of a call."""
        inputs = self.model.numpy_inputs()
        row: Row = {}
        if self.expected:
            row["error_to_torch"] = max(map(relative_error, run(inputs), self.expected))
        return {**row, **timed(lambda: run(inputs))}

    def in_place(self) -> Row:
        """Measure kernels alone beside the same in the network; they go to a file of their own."""
        rows = in_place(self.model, self.extraction, self.store)
        with open(self.logs / "in_place.jsonl", "a") as file:
            file.writelines(json.dumps({"model": self.model.name, **row}) + "\n" for row in rows)
        return rows[-1]


class _Once:
    """Calls a function the first time that it is called, and keeps how long that and each stage took."""

    def __init__(self, function: Callable[[], None]) -> None:
        self.function: Callable[[], None] | None = function
        self.seconds = 0.0
        self.stages_s: dict[str, float] = {}
        self._last = time.perf_counter()

    def __call__(self, stage: str = "", *_: Any) -> None:
        now = time.perf_counter()
        if self.function is not None:
            self.function()
            self.function, self.seconds = None, time.perf_counter() - now
            now += self.seconds
        elif stage:
            self.stages_s[stage] = self.stages_s.get(stage, 0.0) + now - self._last
        self._last = now


def relative_error(output: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(output - expected).max() / max(1e-30, np.abs(expected).max()))


def time_ours(model: Any, results: Results, args: argparse.Namespace) -> None:
    """Compile for a CPU and the GPU; time each alone, and other numbers of streams."""
    install_fake_compiler()
    ours = Ours(model, args.work)
    ours.prepare()
    on_cpu = {count: ours.on_cpu_alone(count) for count in cpu_alone_counts()}
    both = platforms()["ours, cpu + gpu"]
    results.add("ours, cpu + gpu", partial(ours.compiled, both))
    results.add("ours, gpu alone", partial(ours.scheduled, gpu_alone(), only_last=True))
    for count, run in on_cpu.items():
        results.add(f"ours, cpu alone, {count} cores", partial(ours.checked_and_timed, run))
    results.add("ours, kernels in place", ours.in_place)
    for streams in args.streams:
        add = partial(ours.scheduled, with_streams(both, streams))
        results.add(f"ours, cpu + gpu, {streams} streams", add)


def time_peers(model: Any, results: Results) -> None:
    """Time what else runs the model."""
    timings = prepare_others(model)
    wait_for_turn()
    for what, function in timings:
        results.add(what, function)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--stage", choices=("peers", "ours"), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--streams", nargs="*", type=int, default=[])
    args = parser.parse_args()
    model = small_model() if args.model == "small" else models.load(args.model)
    results = Results(args.out / "bench.jsonl", args.model)
    if args.stage == "peers":
        time_peers(model, results)
    else:
        time_ours(model, results, args)


if __name__ == "__main__":
    main()
