"""Why a network on the GPU takes longer than its kernels: each kernel alone beside itself in place.

    python benchmarks/gpu/in_place.py MODEL OUT.jsonl [RECORDS]

All tasks run on one stream of the GPU. For each kernel: what it takes called again and again (its code
and weights at hand), after other code, as it is measured for the schedule (after other code and other
weights), and in the network, between two events. For the whole: the sums of these, the graph between
two events, a run in C, a run from Python, and what the feeder copies on the way in and out. What one
call says is in the row "whole"; rows of kernels tell where it comes from.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import numpy as np
from platforms import gpu_alone, install_fake_compiler
from small_network import small_model

from tvm_sphinx._tvm import tvm
from tvm_sphinx.cost.choose.costing import measure_rules
from tvm_sphinx.cost.choose.kernel_costs import choose_kernels
from tvm_sphinx.cost.measure.divisors import divisor_operands
from tvm_sphinx.cost.measure.gpu_surroundings import surroundings
from tvm_sphinx.cost.measure.gpu_timing import (
    CacheState,
    GpuCall,
    GpuRuns,
    build_for_gpu,
    sample_on_gpu,
)
from tvm_sphinx.cost.measure.kernel_timing import MeasureConfig, kernel_symbol, random_operands
from tvm_sphinx.cost.records.store import RecordStore, record_path
from tvm_sphinx.errors import SphinxError
from tvm_sphinx.frontend.extract import extract_task_graph
from tvm_sphinx.frontend.lower import lower_to_kernels
from tvm_sphinx.platform.targets import device_target, runtime_device
from tvm_sphinx.relax_pass import annotate_schedule
from tvm_sphinx.runtime.build import build_executable
from tvm_sphinx.runtime.executable import ConcurrentExecutable
from tvm_sphinx.scheduling.schedule import Schedule

_MEASURE = MeasureConfig(sample_ms=1.0, under_load=False)
_RUNS = 30


def in_place(model: Any, extraction: Any, store: RecordStore) -> list[dict[str, Any]]:
    """Return a row for each kernel, and the last one for the whole.

    Parameters
    ----------
    model
        Gives the inputs.
    extraction
        Its tasks, lowered for `platforms.gpu_alone`.
    store
        Records of what kernels take; what is not there is measured.
    """
    platform = gpu_alone()
    gpu = len(platform.devices) - 1
    begin = time.perf_counter()
    device = platform.devices[gpu]
    costs = measure_rules(extraction.kernels.values(), [device], store, config=_MEASURE)
    costed_s = time.perf_counter() - begin
    rules = [costs[task.kernel, device.cost_class].rule for task in extraction.graph.tasks]
    predicted = np.array([rule.time_ns for rule in rules])
    if predicted.min() < 0:
        raise SphinxError(f"the GPU cannot run a task of {model.name}")
    finish = np.cumsum(predicted)
    on_gpu, start = np.full(len(finish), gpu), finish - predicted
    schedule = Schedule(on_gpu, start, finish, int(finish[-1]), 0, "in place")
    function = choose_kernels(costs).function
    annotated = annotate_schedule(extraction, schedule, platform, function)
    executable = build_executable(annotated, platform, schedule)
    inputs = model.numpy_inputs()
    rows = kernel_rows(extraction, device, predicted, task_times(executable, inputs))
    whole = {"row": "whole", "tasks": extraction.graph.num_tasks, "costed_s": costed_s}
    for column in ("warm_ns", "code_ns", "predicted_ns", "in_place_ns"):
        known = [row["count"] * row[column] for row in rows if row[column] is not None]
        whole[f"sum_of_{column}"] = round(sum(known))
    return [*rows, {**whole, **whole_times(executable, inputs, schedule)}]


def task_times(executable: ConcurrentExecutable, inputs: Any) -> dict[int, float]:
    """Return the median time of each task between two events around it, without a graph."""
    found = defaultdict(list)
    for number in range(_RUNS):
        _, trace = executable.run_traced(inputs)
        for step in trace.steps:
            if number and step.task is not None:
                found[step.task].append(step.duration_ns)
    return {task: float(np.median(times)) for task, times in found.items()}


def kernel_rows(extraction: Any, device: Any, predicted: Any, in_place: Any) -> list[dict[str, Any]]:
    tasks = defaultdict(list)
    for number, task in enumerate(extraction.graph.tasks):
        tasks[task.kernel].append(number)
    rows = []
    for key, numbers in tasks.items():
        kernel = extraction.kernels[key]
        row: dict[str, Any] = {"row": "kernel", "kernel": key, "count": len(numbers)}
        row["name"] = "+".join(extraction.graph.tasks[numbers[0]].op_kinds)
        row["shapes"] = [str(ty.shape) for ty in kernel.argument_types]
        row["predicted_ns"] = int(predicted[numbers[0]])
        row["in_place_ns"] = float(np.mean([in_place[number] for number in numbers]))
        row["warm_ns"] = row["code_ns"] = None
        if not kernel.is_external:
            built = build_for_gpu(
                {kernel_symbol(key): kernel.function.with_attr("target", device_target(device))}
            )
            operands = random_operands(
                kernel.argument_types, divisor_operands(kernel.function), runtime_device("cpu:0")
            )
            call = GpuCall(built, kernel_symbol(key), operands, device)
            for column, state in (("warm_ns", CacheState.WARM), ("code_ns", CacheState.CODE)):
                samples = sample_on_gpu(
                    call,
                    _MEASURE.goal,
                    lambda: 0,
                    cold=kernel.weights,
                    reuse_bytes=kernel.reuse_bytes,
                    state=state,
                )
                row[column] = float(np.median(samples.ns))
            row["code_bytes"] = sum(map(len, built.images))
        rows.append(row)
    return rows


def whole_times(executable: ConcurrentExecutable, inputs: Any, schedule: Any) -> dict[str, Any]:
    """Return what a run takes, from the graph on the GPU to the call from Python."""
    graphs = [int(executable.gpu_durations_ns(inputs).sum()) for _ in range(_RUNS)]
    row = {"makespan_ns": schedule.makespan_ns, "graph_ns": float(np.median(graphs))}
    row["run_in_c_ns"] = float(np.median(executable.durations_ns(inputs, _RUNS)))
    row["run_ns"] = median_ns(lambda: executable.run(inputs))
    aligned = [aligned_copy(value) for value in inputs]
    row["run_on_aligned_ns"] = median_ns(lambda: executable.run(aligned))
    traces = [executable.run_traced(inputs)[1] for _ in range(_RUNS)]
    for kind in ("stage", "copy"):
        each = zip(*([s.duration_ns for s in t.steps if s.kind == kind] for t in traces), strict=True)
        row[f"{kind}_ns"] = [float(np.median(times)) for times in each]
    row["bytes_in"] = sum(value.nbytes for value in inputs)
    around = surroundings(executable.platform.devices[-1], 0)
    device = executable.platform.devices[-1]
    alone = GpuRuns([], around=around, count=8, device=device)
    row["other_code_ns"] = median_ns_of(alone.duration_ns) / 8
    row["clocks"] = clocks_while(lambda: executable.run(inputs))
    return row


def aligned_copy(value: np.ndarray) -> np.ndarray:
    made = np.from_dlpack(tvm.runtime.empty(value.shape, str(value.dtype)))
    made[...] = value
    return made


def median_ns(call: Callable[[], Any]) -> float:
    def once() -> int:
        begin = time.perf_counter_ns()
        call()
        return time.perf_counter_ns() - begin

    return median_ns_of(once)


def median_ns_of(sample: Callable[[], int]) -> float:
    sample()
    return float(np.median([sample() for _ in range(_RUNS)]))


def clocks_while(call: Callable[[], Any]) -> str:
    """Return the GPU's clocks and why they are no higher, while it works."""
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            call()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        fields = "clocks.sm,clocks.max.sm,clocks.mem,clocks_throttle_reasons.active,power.draw"
        query = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
        return subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    finally:
        done.set()
        thread.join()


def show(rows: list[dict[str, Any]]) -> None:
    """Print the kernels that differ most, and the whole."""
    kernels = [row for row in rows if row["row"] == "kernel"]
    print(f"{'us: warm':>9} {'code':>8} {'predicted':>9} {'in place':>9}  n  code KB  kernel")
    kernels.sort(key=lambda row: -row["count"] * abs(row["in_place_ns"] - row["predicted_ns"]))
    for row in kernels[:25]:
        times = [row[c] or 0 for c in ("warm_ns", "code_ns", "predicted_ns", "in_place_ns")]
        cells = "{:9.2f} {:8.2f} {:9.2f} {:9.2f}".format(*(value / 1e3 for value in times))
        size = row.get("code_bytes", 0) >> 10
        print(f"{cells} {row['count']:2} {size:8}  {row['name'][:40]} {row['shapes'][-1]}")
    print(json.dumps(rows[-1], indent=1))


def main(name: str, out: str, records: str | None = None) -> None:
    install_fake_compiler()
    model = small_model() if name == "small" else models.load(name)
    targets = [device_target(device) for device in gpu_alone().devices]
    extraction = extract_task_graph(lower_to_kernels(model.relax(), targets[0], targets=targets))
    rows = in_place(model, extraction, RecordStore(record_path(records)))
    with open(Path(out), "a") as file:
        file.writelines(json.dumps({"model": name, **row}) + "\n" for row in rows)
    show(rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
