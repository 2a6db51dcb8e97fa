"""Latency and build time of the default kernel rules beside ONNX Runtime and `tvm.compile`'s default.

    PYTHONPATH=.:benchmarks python benchmarks/kernels.py googlenet --against onnxruntime default

Same model, threads and machine, in turn; ours on one lane of the concurrent runtime. Prints one line per
model and writes JSON. Ratios are ours / ONNX Runtime, the median over rounds; `error` is the largest
difference relative to the largest value.
`--tune 600 --records DIR` first tunes each model for ten minutes, and then takes for each kernel what
measured the fastest. `--list 20` prints the kernels of each model that lose most against the machine's
peak instead, and `--share haswell native` what each model reaches of the peak of code for these
processors, so that AVX2 code is judged on a machine with AVX-512: in all, and by the kernels that are
bound by arithmetic.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import numpy as np
import tvm
from tvm import relax

from tvm_sphinx.cost.bench import KernelRow, Peak, bench_kernels, format_rows, measure_peak
from tvm_sphinx.cost.choose.costing import cost_kernels
from tvm_sphinx.cost.choose.kernel_costs import KernelChoices
from tvm_sphinx.cost.records.store import RecordStore, record_path
from tvm_sphinx.frontend.extract import Extraction, extract_task_graph
from tvm_sphinx.frontend.lower import lower_to_kernels
from tvm_sphinx.platform import Device, Platform
from tvm_sphinx.platform.machine import usable_cores
from tvm_sphinx.platform.targets import device_target, host_target
from tvm_sphinx.relax_pass import annotate_schedule
from tvm_sphinx.runtime.build import build_executable
from tvm_sphinx.runtime.executable import ConcurrentExecutable
from tvm_sphinx.scheduling.schedule import Schedule
from tvm_sphinx.tune.apply import open_records
from tvm_sphinx.tune.paths import tuning_root
from tvm_sphinx.tune.session import TuneConfig, tune_kernels

_PEERS = ("onnxruntime", "default")
# The thread pools of TVM and ONNX Runtime spin on after a run; what runs next would pay.
_SETTLE_S = 0.3


#: Chooses the implementation of each kernel.
Choose = Callable[[Extraction, Platform], KernelChoices]


def by_the_rules(_extraction: Extraction, _platform: Platform) -> KernelChoices:
    return KernelChoices()


def tuned(seconds_each: float, records: str) -> Choose:
    """Return a choice that tunes a model's kernels first, and takes the fastest that is on record."""

    def choose(extraction: Extraction, platform: Platform) -> KernelChoices:
        store, sources = open_records(records)
        config = TuneConfig(trials=1_000_000, time_limit_s=seconds_each)
        root = tuning_root(record_path(records))
        result = tune_kernels(extraction, platform, root, store, config)
        gain = result.before_ns / max(1, result.now_ns)
        print(f"  {result.new_trials} trials, kernels {gain:.2f}x as fast", flush=True)
        return cost_kernels(extraction, platform, store, sources).choices

    return choose


def build(
    mod: tvm.IRModule, device: Device, choose: Choose = by_the_rules
) -> tuple[ConcurrentExecutable, float]:
    """Return the module on one lane, and the seconds that it took to choose kernels and to build."""
    start = time.perf_counter()
    target = device_target(device)
    extraction = extract_task_graph(lower_to_kernels(mod, target, targets=[target]))
    count = len(extraction.graph.tasks)
    begin = np.arange(count)  # one after another; there is nothing to decide, so any time will do
    schedule = Schedule(np.zeros(count, dtype=int), begin, begin + 1, count, 0, "")
    platform = Platform((device,))
    choices = choose(extraction, platform)
    annotated = annotate_schedule(extraction, schedule, platform, choices.function)
    return build_executable(annotated, platform, schedule), time.perf_counter() - start


def build_default(mod: tvm.IRModule, target: tvm.target.Target) -> tuple[Any, float]:
    """Return a virtual machine for the module as TVM compiles it by default, and the seconds.

    They include the library that is loaded, as ours do: without one, the first call makes the code.
    """
    start = time.perf_counter()
    built = tvm.compile(mod, target)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "default.so")
        built.export_library(path)
        machine = relax.VirtualMachine(tvm.runtime.load_module(path), tvm.cpu())
    return machine, time.perf_counter() - start


def arrays(value: Any) -> list[np.ndarray]:
    return [value.numpy()] if hasattr(value, "numpy") else [a for part in value for a in arrays(part)]


def seconds(call: Callable[[], Any]) -> float:
    """Return the mean time of one call over about a fifth of a second, once other threads sleep."""
    time.sleep(_SETTLE_S)
    start = time.perf_counter()
    call()
    repeat = max(1, int(0.2 / max(1e-6, time.perf_counter() - start)))
    start = time.perf_counter()
    for _ in range(repeat):
        call()
    return (time.perf_counter() - start) / repeat


def compare(
    name: str, device: Device, rounds: int, against: list[str], choose: Choose
) -> dict[str, Any]:
    model = models.load(name)
    module = model.relax()
    target = device_target(device)
    executable, build_s = build(module, device, choose)
    inputs = model.numpy_inputs()
    row: dict[str, Any] = {"model": name, "build_s": build_s}
    got = arrays(executable.run(inputs))
    ours: list[float] = []
    if "onnxruntime" in against:
        call, outputs = onnxruntime_session(model, len(device.cores))
        row["error"] = difference(got, outputs)
        peer = []
        for _ in range(rounds):
            ours.append(seconds(lambda: executable.run(inputs)))
            peer.append(seconds(call))
        ratios = sorted(a / b for a, b in zip(ours, peer, strict=True))
        row["onnxruntime_ms"] = statistics.median(peer) * 1e3
        row["ratio"] = statistics.median(ratios)
        row["ratio_range"] = [ratios[0], ratios[-1]]
    if "default" in against:
        default, default_build_s = build_default(module, target)
        tensors = [tvm.runtime.tensor(array) for array in inputs]
        row["default_error"] = difference(got, arrays(default["main"](*tensors)))
        peer = []
        for _ in range(2):  # it is slow
            ours.append(seconds(lambda: executable.run(inputs)))
            peer.append(seconds(lambda: default["main"](*tensors)))
        row["default_ms"] = min(peer) * 1e3
        row["default_gain"] = min(peer) / min(ours)
        row["build_ratio"] = build_s / default_build_s
    row["ours_ms"] = statistics.median(ours) * 1e3
    return row


def onnxruntime_session(model: models.Model, threads: int) -> tuple[Callable[[], Any], list[np.ndarray]]:
    """Return a call of ONNX Runtime with a number of threads, and the outputs that it gives."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.onnx(), options, providers=["CPUExecutionProvider"])
    feed = {entry.name: model.inputs[entry.name] for entry in session.get_inputs()}
    return lambda: session.run(None, feed), session.run(None, feed)


def difference(got: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """Return the largest difference relative to the largest value."""
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(got, expected, strict=True))


def print_row(row: dict[str, Any]) -> None:
    text = f"{row['model']:16} ours {row['ours_ms']:8.2f} ms  built in {row['build_s']:.1f} s"
    if "ratio" in row:
        low, high = row["ratio_range"]
        text += f"  onnxruntime {row['onnxruntime_ms']:8.2f} ms  ratio {row['ratio']:.2f}"
        text += f" ({low:.2f}-{high:.2f})  error {row['error']:.0e}"
    if "default_ms" in row:
        text += f"  TVM's default {row['default_ms']:.0f} ms, {row['default_gain']:.0f}x ours"
        text += f"  build {row['build_ratio']:.2f} of its  error {row['default_error']:.0e}"
    print(text, flush=True)


def bench(name: str, device: Device) -> tuple[list[KernelRow], Peak]:
    """Return what the kernels of a model take, and the peak of the device."""
    target = device_target(device)
    lowered = lower_to_kernels(models.load(name).relax(), target, targets=[target])
    peak = measure_peak(device)
    return bench_kernels(extract_task_graph(lowered), device, RecordStore(None), peak), peak


def list_kernels(name: str, device: Device, limit: int) -> None:
    """Print the kernels of a model that lose most against the peak of a device."""
    rows, peak = bench(name, device)
    print(f"{name}\n{format_rows(rows, peak, limit)}", flush=True)


def shares(name: str, device: Device) -> dict[str, Any]:
    """Return what a model takes, and the time that it would take at the peak of the device over that."""
    rows, peak = bench(name, device)
    arithmetic = [row for row in rows if row.gflops / peak.gflops > row.gbytes_per_s / peak.gbytes_per_s]
    total_ns = sum(row.total_ns for row in rows)
    return {
        "model": name,
        "processor": device.target_config.get("mcpu"),
        "peak_gflops": peak.gflops,
        "total_ms": total_ns / 1e6,
        "share": _share(rows),
        "arithmetic": _share(arithmetic),
        "arithmetic_of_time": sum(row.total_ns for row in arithmetic) / total_ns,
    }


def _share(rows: list[KernelRow]) -> float:
    return 1 - sum(row.lost_ns for row in rows) / max(1, sum(row.total_ns for row in rows))


def print_shares(row: dict[str, Any]) -> None:
    text = (
        f"{row['model']:18} {row['processor']:10} {row['total_ms']:8.2f} ms, {row['share']:.0%} of peak"
    )
    text += f", {row['arithmetic']:.0%} where bound by arithmetic"
    print(f"{text} ({row['arithmetic_of_time']:.0%} of the time)", flush=True)


def compare_shares(
    names: list[str], processors: list[str], cores: tuple[int, ...]
) -> list[dict[str, Any]]:
    """Return and print the shares of the models for each processor."""
    rows = []
    for name in names:
        for processor in processors:
            native = json.loads(host_target())
            cpu = native["mcpu"] if processor == "native" else processor
            device = Device("cores", json.dumps({**native, "mcpu": cpu}), "cpu:0", cores)
            rows.append(shares(name, device))
            print_shares(rows[-1])
    for cpu in dict.fromkeys(row["processor"] for row in rows):
        here = [row for row in rows if row["processor"] == cpu]
        means = [statistics.geometric_mean(row[key] for row in here) for key in ("share", "arithmetic")]
        print(f"{cpu}: geometric means {means[0]:.2f} of peak, {means[1]:.2f} where bound by arithmetic")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="*", default=["googlenet", "resnet18", "squeezenet"])
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", nargs="+", choices=_PEERS, default=["onnxruntime"])
    parser.add_argument("--tune", type=float, metavar="SECONDS", help="tune each model that long first")
    parser.add_argument("--records", metavar="DIR", default="tuned", help="where tuned kernels are kept")
    parser.add_argument("--list", type=int, metavar="ROWS", help="print the worst kernels instead")
    parser.add_argument("--share", nargs="+", metavar="CPU", help="print shares of the peak instead")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    device = Device("cores", host_target(), "cpu:0", usable_cores()[: options.cores])
    print(f"{device.target} cores {options.cores} load {os.getloadavg()[0]:.1f} seed {models.SEED}")
    choose = by_the_rules if options.tune is None else tuned(options.tune, options.records)
    rows = []
    if options.share is not None:
        rows = compare_shares(options.model, options.share, device.cores)
    for name in options.model if options.share is None else ():
        if options.list is not None:
            list_kernels(name, device, options.list)
            continue
        rows.append(compare(name, device, options.rounds, options.against, choose))
        print_row(rows[-1])
    ratios = [row["ratio"] for row in rows if "ratio" in row]
    if ratios:
        mean = math.exp(statistics.fmean(map(math.log, ratios)))
        print(f"geometric mean of the ratios {mean:.3f} over {len(ratios)} models")
    if options.json is not None:
        options.json.write_text(json.dumps({"cores": options.cores, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
