"""Measured latency of schedules on the lanes: ratios to what else would run the model.

    python benchmarks/latency.py --models bilstm googlenet --platforms detect unlike-cpus --json out.json

For each model and platform: what `compile` would run, which is the schedule found, or the best single
device where the schedule promises too little or loses the race against it. It is held against single
devices, one of each class (the best as *measured*), against schedules of other algorithms through the
same lanes, against the same schedule on the stock VM, and against ONNX Runtime and torch where they
are installed. Variants run in turn, each of them first in one round and last in another; what is printed
is the median of the ratios of neighbours and their quartiles. A second copy of what is run is one of the
variants: how far its ratio lies from 1 is the noise floor, and a gain that is no larger is said to be
within the noise. A benchmark never fails on a time.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform as host
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import models
import numpy as np
from baselines import BASELINES, search_with

from tvm_sphinx._tvm import relax, tvm
from tvm_sphinx.cost.choose.costing import cost_kernels
from tvm_sphinx.cost.choose.kernel_costs import KernelChoices, read_kernel_costs
from tvm_sphinx.cost.measure.handover import measure_handover
from tvm_sphinx.cost.measure.kernel_timing import (
    BuiltKernels,
    LocalBench,
    MeasureConfig,
    build_kernels,
    kernel_symbol,
)
from tvm_sphinx.cost.records.store import RecordStore
from tvm_sphinx.cost.table import build_problem
from tvm_sphinx.errors import SphinxError
from tvm_sphinx.frontend.extract import Extraction, extract_task_graph
from tvm_sphinx.frontend.lower import lower_to_kernels
from tvm_sphinx.platform import Device, Platform, load_platform
from tvm_sphinx.platform.device import one_of_each_class
from tvm_sphinx.platform.targets import device_target
from tvm_sphinx.program.compare_builds import compare_executables, is_promising
from tvm_sphinx.program.stock_vm import build_executable as build_for_vm
from tvm_sphinx.program.stock_vm import vm_devices
from tvm_sphinx.relax_pass import annotate_schedule
from tvm_sphinx.runtime.build import build_executable
from tvm_sphinx.runtime.executable import ConcurrentExecutable
from tvm_sphinx.scheduling.problem import CANNOT_RUN, SchedulingProblem
from tvm_sphinx.scheduling.schedule import Schedule
from tvm_sphinx.search import ALGORITHMS

#: The six of the issue; the others of BENCHMARKS.md have to be no slower than the best single device.
MODELS = ("googlenet", "inception_v3", "nasnet", "clip", "lxmert", "bilstm")
_OURS, _COPY = "cpga", "copy of ours"
# The thread pools of TVM, torch and ONNX Runtime spin on after a run; the next variant would pay.
_SETTLE_S = 0.3
#: Other schedules that are measured through the same lanes.
_PEERS = ("heft", "cpop", "peft", "ga")

Timer = Callable[[int], float]


@dataclass
class Variant:
    """One way to run a model: ``timer(n)`` runs it n times and returns the median in ns."""

    timer: Timer
    predicted_ns: int | None = None
    executable: ConcurrentExecutable | None = None


@dataclass(frozen=True)
class Prepared:
    """A model with its costs on a platform."""

    model: models.Model
    platform: Platform
    extraction: Extraction
    choices: KernelChoices
    problem: SchedulingProblem
    # Costs without what a device loses beside others: those of a device that works alone.
    alone: SchedulingProblem


def main() -> None:
    args = _parse()
    store = RecordStore(args.records)
    rows = []
    print(_machine(), flush=True)
    for platform_name in args.platforms:
        platform = load_platform(platform_name)
        for pair, latency in measure_handover(platform).items():
            print(f"hand-over {pair[0]} -> {pair[1]}: {latency} ns", flush=True)
        for model_name in args.models:
            try:
                row = measure(prepare(model_name, platform, store), args)
            except SphinxError as error:
                print(f"{model_name} on {platform_name}: {error}", flush=True)
                continue
            rows.append({"model": model_name, "platform": platform_name, **row})
            _print_row(rows[-1])
            if args.json:  # what is known is kept, whatever comes after it
                content = {"machine": _machine(), "rows": rows}
                Path(args.json).write_text(json.dumps(content, indent=1), encoding="utf-8")
    _print_summary(rows)


def prepare(model_name: str, platform: Platform, store: RecordStore) -> Prepared:
    """Lower a model and measure its kernels; those on record are not measured again."""
    model = models.load(model_name)
    return cost(model, lower(model, platform), platform, store)


def lower(model: models.Model, platform: Platform) -> Extraction:
    """Return the tasks of a model for a platform."""
    targets = [device_target(device) for device in platform.devices]
    kernels = lower_to_kernels(model.relax(), targets[platform.host_index], targets=targets)
    return extract_task_graph(kernels)


def cost(
    model: models.Model,
    extraction: Extraction,
    platform: Platform,
    store: RecordStore,
    config: MeasureConfig | None = None,
) -> Prepared:
    """Measure the kernels of a model; those on record are not measured again."""
    costing = cost_kernels(extraction, platform, store, config=config)
    choices, costs = costing.choices, costing.table
    problem = build_problem(extraction.graph, platform, costs)
    alone = build_problem(extraction.graph, platform, costs, loaded=False)
    return Prepared(model, platform, extraction, choices, problem, alone)


def measure(prepared: Prepared, args: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one model on one platform."""
    variants = make_variants(prepared, args)
    times = run_in_turn(variants, args.rounds, args.round_ms)
    singles = [name for name in variants if name.startswith("single ")]
    best_single = min(singles, key=lambda name: float(np.median(times[name])))
    ours = variants[_OURS]
    row: dict[str, Any] = {
        "tasks": prepared.problem.num_tasks,
        "load": os.getloadavg()[0],
        "best_single": best_single,
        "median_us": {name: float(np.median(values)) / 1e3 for name, values in times.items()},
        # How many times longer the other takes than ours: quartiles of neighbouring runs.
        "ratio": {
            name: quartiles(values / times[_OURS]) for name, values in times.items() if name != _OURS
        },
        "prediction": {
            name: quartiles(times[name] / variant.predicted_ns)
            for name, variant in variants.items()
            if variant.predicted_ns
        },
        "peak_bytes": ours.executable.plan.arena_bytes,
        "sum_bytes": ours.executable.plan.total_bytes,
        "overhead_ns_per_task": {name: lane_overhead(variants[name], args.rounds) for name in singles},
    }
    row["speedup"] = row["ratio"][best_single]
    row["noise_floor"] = noise_floor(row["ratio"][_COPY])
    row["within_noise"] = abs(row["speedup"][0] - 1) <= row["noise_floor"]
    return row


def noise_floor(copy: list[float]) -> float:
    """Return how far from 1 the ratio of two equal executables lies, its median or a quartile."""
    return max(abs(ratio - 1) for ratio in copy)


def make_variants(prepared: Prepared, args: argparse.Namespace) -> dict[str, Variant]:
    """Return all ways to run a model: ours first."""
    schedules = {
        name: search_with(prepared.problem, name, seed=args.seed).best
        for name in dict.fromkeys([_OURS, *args.algorithms])
    }
    devices = prepared.platform.devices
    for entry in one_of_each_class(devices):
        alone = on_one_device(prepared.alone, devices.index(entry))
        if alone is not None:
            schedules[f"single {entry.name}"] = alone
    singles = [name for name in schedules if name.startswith("single ")]
    best = min(singles, key=lambda name: schedules[name].makespan_ns)
    is_tried = is_promising(schedules[_OURS], schedules[best])
    if not is_tried:
        schedules[_OURS] = schedules[best]
    variants: dict[str, Variant] = {}
    for name, schedule in schedules.items():
        # Schedules that run the same tasks on the same devices in the same order are one executable.
        same = [other for other in variants if is_same(schedules[other], schedule)]
        variants[name] = variants[same[0]] if same else on_lanes(prepared, schedule)
    racers = [variants[name].executable for name in (_OURS, best)]
    if is_tried and compare_executables(*racers, prepared.model.numpy_inputs()) < 1.0:
        variants[_OURS], is_tried = variants[best], False
    print(f"\n{'the schedule' if is_tried else best} is kept", flush=True)
    variants[_COPY] = on_lanes(prepared, schedules[_OURS if is_tried else best])
    variants["stock vm"] = Variant(on_stock_vm(prepared, schedules[_OURS]))
    if args.peers:
        variants.update(
            peers(prepared.model, len({c for d in prepared.platform.devices for c in d.cores}))
        )
    return variants


def on_one_device(problem: SchedulingProblem, device: int) -> Schedule | None:
    """Return the schedule that runs all tasks on one device; None if it cannot run one of them."""
    times = problem.exec_ns[:, device]
    if (times == CANNOT_RUN).any():
        return None
    finish, end_ns = np.zeros_like(times), 0
    for task, (time_ns, release_ns) in enumerate(zip(times, problem.release_ns[:, device], strict=True)):
        finish[task] = end_ns = max(end_ns, release_ns) + time_ns
    alone = np.full(problem.num_tasks, device)
    makespan = int((finish + problem.delivery_ns[:, device]).max(initial=0))
    return Schedule(alone, finish - times, finish, makespan, 0, problem.fingerprint)


def is_same(left: Schedule, right: Schedule) -> bool:
    return left.order == right.order and bool((left.device == right.device).all())


def on_lanes(prepared: Prepared, schedule: Schedule) -> Variant:
    annotated = annotate_schedule(
        prepared.extraction, schedule, prepared.platform, prepared.choices.function
    )
    executable = build_executable(annotated, prepared.platform, schedule)
    inputs = prepared.model.numpy_inputs()
    timer = lambda count: float(np.median(executable.durations_ns(inputs, count)))  # noqa: E731
    return Variant(timer, schedule.makespan_ns, executable)


def settle(
    prepared: Prepared, found: Schedule, single: Schedule, on_single: Variant, name: str
) -> tuple[Variant, str]:
    """Return what `compile` would run and what is kept: a schedule, or the single device of a name."""
    if is_promising(found, single):
        ours = on_lanes(prepared, found)
        inputs = prepared.model.numpy_inputs()
        if compare_executables(ours.executable, on_single.executable, inputs) >= 1.0:
            return ours, "the schedule"
    return on_single, name


def compile_ahead(
    extraction: Extraction, device: Device, config: MeasureConfig | None = None
) -> BuiltKernels:
    """Compile kernels as the rules make them for a device; machine code is kept for who times them."""
    rules = read_kernel_costs(extraction.kernels.values(), [device], RecordStore(None))
    functions = {kernel_symbol(cost.rule.key): cost.rule.function for cost in rules.values()}
    return build_kernels(LocalBench(device, config or MeasureConfig()), functions, device)


def on_stock_vm(prepared: Prepared, schedule: Schedule) -> Timer:
    annotated = annotate_schedule(
        prepared.extraction, schedule, prepared.platform, prepared.choices.function
    )
    machine = relax.VirtualMachine(build_for_vm(annotated), vm_devices(prepared.platform))
    inputs = [tvm.runtime.tensor(array) for array in prepared.model.numpy_inputs()]
    return partial(time_calls, lambda: machine["main"](*inputs))


def peers(model: models.Model, num_threads: int) -> dict[str, Variant]:
    """Return ONNX Runtime and torch where they are installed and take the model."""
    found = {}
    for name, make in (("onnxruntime", _onnxruntime), ("torch", _torch)):
        try:
            found[f"{name} {num_threads}"] = Variant(partial(time_calls, make(model, num_threads)))
        except Exception as error:  # each peer fails in its own way: it is left out, and that is told
            print(f"  without {name}: {type(error).__name__}: {str(error).splitlines()[0]}", flush=True)
    return found


def _onnxruntime(model: models.Model, num_threads: int) -> Callable[[], Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    session = onnxruntime.InferenceSession(model.onnx(), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    feed = dict(zip(names, model.numpy_inputs(), strict=True))
    return lambda: session.run(None, feed)


def _torch(model: models.Model, num_threads: int) -> Callable[[], Any]:
    import torch

    if model.torch_module is None:
        raise SphinxError("the model comes from an ONNX graph")
    torch.set_num_threads(num_threads)
    inputs = model.torch_inputs()

    def call() -> Any:
        with torch.inference_mode():
            return model.torch_module(*inputs)

    return call


def time_calls(call: Callable[[], Any], count: int) -> float:
    times = []
    for _ in range(count):
        begin = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - begin)
    return float(np.median(times))


def run_in_turn(variants: dict[str, Variant], rounds: int, round_ms: float) -> dict[str, np.ndarray]:
    """Return for each variant its time in each round, in ns."""
    counts = {}
    for name, variant in variants.items():
        variant.timer(2)
        counts[name] = max(1, min(50, int(round_ms * 1e6 / max(variant.timer(1), 1.0))))
    times: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    for number in range(rounds):
        # Whoever comes after a pause finds cold caches and a slow clock: everybody warms up, and no one
        # always comes first.
        first = number % len(names)
        for name in names[first:] + names[:first]:
            variant = variants[name]
            variant.timer(max(1, counts[name] // 3))
            times[name].append(variant.timer(counts[name]))
            if variant.executable is None:
                time.sleep(_SETTLE_S)
    return {name: np.array(values) for name, values in times.items()}


def lane_overhead(variant: Variant, rounds: int) -> float:
    """Return what a run on one lane takes over the sum of its kernels' own times, in ns per task."""
    executable = variant.executable
    inputs = executable.zero_inputs()
    traces = [executable.run_traced(inputs)[1] for _ in range(rounds)]
    over = [trace.makespan_ns - sum(s.duration_ns for s in trace.steps) for trace in traces]
    return float(np.median(over)) / max(1, len(traces[0].steps))


def quartiles(values: np.ndarray) -> list[float]:
    """Return the median and the quartiles."""
    return [float(value) for value in np.percentile(values, [50, 25, 75])]


def _print_row(row: dict[str, Any]) -> None:
    print(f"\n{row['model']} on {row['platform']}: {row['tasks']} tasks, load {row['load']:.2f}")
    print(f"  buffers {row['peak_bytes']} bytes at the peak, {row['sum_bytes']} in all")
    for name, value in row["overhead_ns_per_task"].items():
        print(f"  {name}: {value:.0f} ns per task beside the kernels")
    for name, median in row["median_us"].items():
        line = f"  {name:24} {median:12.1f} us"
        if name in row["ratio"]:
            line += "   over ours {:.3f} ({:.3f}-{:.3f})".format(*row["ratio"][name])
        if name in row["prediction"]:
            line += "   over predicted {:.3f} ({:.3f}-{:.3f})".format(*row["prediction"][name])
        print(line + ("   <- best single device" if name == row["best_single"] else ""), flush=True)
    gain = row["speedup"][0]
    told = "within the noise" if row["within_noise"] else f"{gain:.3f}x over the best single device"
    print(f"  noise floor {row['noise_floor']:.1%}: {told}", flush=True)


def _print_summary(rows: list[dict[str, Any]]) -> None:
    for platform_name in dict.fromkeys(row["platform"] for row in rows):
        chosen = [row for row in rows if row["platform"] == platform_name]
        names = dict.fromkeys(name for row in chosen for name in row["ratio"])
        print(f"\n{platform_name}: geometric mean over {len(chosen)} models, best, worst")
        series = {"best single device": [row["speedup"][0] for row in chosen]}
        for name in names:
            if name != _COPY and not name.startswith("single "):
                series[name] = [row["ratio"][name][0] for row in chosen if name in row["ratio"]]
        for name, values in series.items():
            mean = math.exp(sum(map(math.log, values)) / len(values))
            print(f"  {name:24} {mean:.3f}  {max(values):.3f}  {min(values):.3f}")
        errors = [abs(row["prediction"][_OURS][0] - 1) for row in chosen]
        print(f"  prediction error, median  {np.median(errors):.1%}")


def _machine() -> str:
    return (
        f"{host.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}, Python "
        f"{host.python_version()}, TVM {tvm.__version__}"
    )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--models", nargs="+", default=list(MODELS), choices=models.names(), metavar="MODEL"
    )
    parser.add_argument("--platforms", nargs="+", default=["detect", "unlike-cpus"])
    choices = sorted({*ALGORITHMS, *BASELINES} - {_OURS, "single"})
    parser.add_argument("--algorithms", nargs="*", default=list(_PEERS), choices=choices)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--round-ms", type=float, default=100.0, help="time of a variant in a round")
    parser.add_argument("--records", help="file of measured times to use and to extend")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-peers", dest="peers", action="store_false")
    parser.add_argument("--json", help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
