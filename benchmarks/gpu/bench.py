"""Latency of models at batch 1: ours on CPU and GPU, on one of them; torch and ONNX Runtime.

    python benchmarks/gpu/bench.py --out OUT --work WORK --seconds 400 --models bilstm googlenet

One process per model and stage, so that a crash costs one; one JSON line in OUT/bench.jsonl per
result, written when it is known. Torch and ONNX Runtime come first, several models at once, of which one
at a time is timed; then ours, one model after another, as they measure while they compile. Records of
kernels, with which machines without this GPU can schedule for it, go to WORK/records, what the processes
say to WORK/logs. Times are of a call from host arrays to host arrays.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import models
import numpy as np
from latency import on_one_device
from other_runtimes import time_others
from platforms import gpu_alone, install_fake_compiler, platforms, with_streams
from small_network import small_model
from timing import Row, timed

import tvm_sphinx
from tvm_sphinx.cost.choose.costing import cost_kernels
from tvm_sphinx.cost.measure.kernel_timing import MeasureConfig
from tvm_sphinx.cost.records.store import RecordStore, record_path
from tvm_sphinx.cost.table import build_problem
from tvm_sphinx.errors import UnsupportedError
from tvm_sphinx.frontend.extract import extract_task_graph
from tvm_sphinx.frontend.lower import lower_to_kernels
from tvm_sphinx.platform import Platform
from tvm_sphinx.platform.targets import device_target
from tvm_sphinx.program.build import build_stock_program
from tvm_sphinx.program.kinds import LaneProgramFile, flatten_outputs
from tvm_sphinx.relax_pass import annotate_schedule
from tvm_sphinx.runtime.build import build_image
from tvm_sphinx.search import search_schedule

# Short: beside such a card the CPU's kernels seldom matter, and the GPU's are known well soon.
_MEASURE = MeasureConfig(sample_ms=0.3)
MODELS = (
    "nasnet googlenet bilstm inception_v3 clip lxmert bert_base resnet50 mobilenet_v2 vit_b16".split()
)


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
        self.write(row)
        print({key: value for key, value in row.items() if key != "trace"}, flush=True)

    def write(self, row: Row) -> None:
        """Append a row."""
        with open(self.path, "a") as file:
            file.write(json.dumps(row) + "\n")


def ours(model: Any, results: Results, args: argparse.Namespace) -> None:
    """Compile for a CPU and the GPU, then search for other numbers of its streams, and time each."""
    install_fake_compiler()
    module, expected = model.relax(), torch_outputs(model)
    known = platforms()
    both = known.pop("ours, cpu + gpu")
    results.add("ours, cpu + gpu", partial(compile_and_time, module, model, both, expected, args.work))
    variants = Variants(module, model, expected, args.work)
    results.add("ours, gpu alone", partial(variants.time, gpu_alone(), 1))
    for streams in args.streams:
        add = partial(variants.time, with_streams(both, streams))
        results.add(f"ours, cpu + gpu, {streams} streams", add)
    for what, platform in known.items() if args.cpu_alone else ():
        results.add(what, partial(compile_and_time, module, model, platform, expected, args.work))


def compile_and_time(
    module: Any, model: Any, platform: Platform, expected: list[np.ndarray], work: Path
) -> Row:
    """Time what the package compiles for a platform."""
    begin = time.perf_counter()
    compiled = tvm_sphinx.compile(module, platform, records=work / "records", measure=_MEASURE)
    row: Row = {"compile_s": round(time.perf_counter() - begin, 1), "note": compiled.note}
    row["stages_s"] = {stage: round(seconds, 1) for stage, seconds in compiled.stages_s.items()}
    if compiled.report is not None:
        report = compiled.report
        row["predicted_us"] = report.makespan_ns / 1e3
        row["predicted_single_us"] = report.best_single_device_ns / 1e3
        row["lower_bound_us"] = report.lower_bound_ns / 1e3
        row["devices"] = {device.name: [device.tasks, device.busy_ns] for device in report.devices}
    return {**row, **check_and_time(compiled.run, model, expected)}


class Variants:
    """Schedules of one model for other platforms of the same devices, of whose kernels all is known."""

    def __init__(self, module: Any, model: Any, expected: list[np.ndarray], work: Path) -> None:
        self.model, self.expected = model, expected
        self.store = RecordStore(record_path(work / "records"))
        targets = [device_target(device) for device in gpu_alone().devices]
        self.extraction = extract_task_graph(lower_to_kernels(module, targets[0], targets=targets))

    def time(self, platform: Platform, only_last: int = 0) -> Row:
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
        try:
            program: Any = LaneProgramFile(build_image(annotated, platform, schedule))
        except UnsupportedError:
            program = build_stock_program(annotated, platform, "main")
        opened = program.open()
        row: Row = {"predicted_us": schedule.makespan_ns / 1e3, "program": type(program).__name__}
        run = lambda given: flatten_outputs(opened(given))  # noqa: E731
        row.update(check_and_time(run, self.model, self.expected))
        if isinstance(program, LaneProgramFile):
            row["graphs_us"] = [float(ns) / 1e3 for ns in program.executable.gpu_durations_ns()]
        return row


def check_and_time(run: Callable[..., Any], model: Any, expected: list[np.ndarray]) -> Row:
    inputs = model.numpy_inputs()
    row: Row = {}
    if expected:
        row["error_to_torch"] = max(map(relative_error, run(inputs), expected))
    return {**row, **timed(lambda: run(inputs))}


def torch_outputs(model: Any) -> list[np.ndarray]:
    """Return what torch computes on the CPU; nothing where there is no torch module."""
    if model.torch_module is None:
        return []
    import torch

    with torch.inference_mode():
        result = model.torch_module(*model.torch_inputs())
    return [value.numpy() for value in ([result] if torch.is_tensor(result) else result)]


def relative_error(output: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(output - expected).max() / max(1e-30, np.abs(expected).max()))


def child(args: argparse.Namespace) -> None:
    """Run one stage of one model."""
    model = small_model() if args.child == "small" else models.load(args.child)
    results = Results(args.out / "bench.jsonl", args.child)
    if args.stage == "peers":
        time_others(model, results.add)
    else:
        ours(model, results, args)


def run_child(args: argparse.Namespace, name: str, stage: str, until: float) -> None:
    """Run a stage in a process of its own until then; say how it ended if not well."""
    left = until - time.time()
    if left < 15:
        print(f"no time is left for {name}, {stage}", flush=True)
        return
    options = ["--child", name, "--stage", stage, "--out", str(args.out), "--work", str(args.work)]
    options += ["--streams", *map(str, args.streams), *(["--cpu-alone"] if args.cpu_alone else [])]
    with open(args.work / "logs" / f"{name}_{stage}.txt", "w") as log:
        process = subprocess.Popen([sys.executable, __file__, *options], stdout=log, stderr=log)
        try:
            status: int | str = process.wait(left)
        except subprocess.TimeoutExpired:
            process.kill()
            status = "out of time"
    if status:
        print(f"{name}, {stage}: ended with {status}", flush=True)
        row = {"model": name, "what": stage, "ok": False, "error": f"ended with {status}"}
        Results(args.out / "bench.jsonl", name).write(row)


def print_table(path: Path) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        value = f"{row['median_us']:.1f} us" if "median_us" in row else row.get("error", "")[:80]
        predicted = f"   predicted {row['predicted_us']:.1f}" if "predicted_us" in row else ""
        print(f"{row['model']:14} {row['what']:28} {value}{predicted}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--models", nargs="*", default=MODELS)
    parser.add_argument("--peers", nargs="*", help="models whose peers are timed; by default all")
    parser.add_argument("--streams", nargs="*", type=int, default=[2, 4], help="of the GPU, beside 3")
    parser.add_argument("--cpu-alone", action="store_true", help="also compile for the CPU alone")
    parser.add_argument("--jobs", type=int, default=5, help="models whose peers run at once")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--stage", default="peers", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args)
        return
    (args.work / "logs").mkdir(parents=True, exist_ok=True)
    (args.out / "bench.jsonl").touch()
    begin = time.time()
    end = begin + args.seconds
    with ThreadPoolExecutor(args.jobs) as pool:
        until = begin + args.seconds / 3
        peers = args.models if args.peers is None else args.peers
        list(pool.map(lambda name: run_child(args, name, "peers", until), peers))
    for name in args.models:
        run_child(args, name, "ours", end)
    print_table(args.out / "bench.jsonl")


if __name__ == "__main__":
    main()
