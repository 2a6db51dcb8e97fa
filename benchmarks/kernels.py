"""Latency and build time of the default kernel rules beside ONNX Runtime and `tvm.compile`'s default.

    PYTHONPATH=.:benchmarks python benchmarks/kernels.py googlenet --against onnxruntime default

Same model, threads and machine, in turn. Prints one line per model and writes JSON. Ratios are ours /
ONNX Runtime, the median over rounds; `error` is the largest difference relative to the largest value.
`--list 20` prints the kernels of each model that lose most against the machine's peak instead.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import numpy as np
import tvm
from tvm import relax
from tvm.target.codegen import llvm_get_system_cpu

from tvm_sphinx.build import lower_scheduled
from tvm_sphinx.cost.bench import bench_kernels, format_rows, measure_peak
from tvm_sphinx.cost.records import RecordStore
from tvm_sphinx.extract import extract_task_graph
from tvm_sphinx.kernels import ScheduleKernels
from tvm_sphinx.lower import lower_to_kernels
from tvm_sphinx.machine import usable_cores
from tvm_sphinx.platform import Device
from tvm_sphinx.targets import device_target, host_target

_PEERS = ("onnxruntime", "default")


def build(mod: tvm.IRModule, target: tvm.target.Target, cores: int) -> tuple[Any, float]:
    """Return a virtual machine for the module under the rules, and the seconds that took."""
    start = time.perf_counter()
    kernels = lower_to_kernels(mod, target, targets=[target])
    scheduled = ScheduleKernels(target, cores)(kernels)
    built = relax.build(scheduled, target, relax_pipeline=lower_scheduled())
    seconds = time.perf_counter() - start
    return relax.VirtualMachine(built, tvm.cpu()), seconds


def build_default(mod: tvm.IRModule, target: tvm.target.Target) -> tuple[Any, float]:
    """Return a virtual machine for the module as TVM compiles it by default, and the seconds."""
    start = time.perf_counter()
    built = tvm.compile(mod, target)
    seconds = time.perf_counter() - start
    return relax.VirtualMachine(built, tvm.cpu()), seconds


def arrays(value: Any) -> list[np.ndarray]:
    return [value.numpy()] if hasattr(value, "numpy") else [a for part in value for a in arrays(part)]


def seconds(call: Callable[[], Any]) -> float:
    """Return the mean time of one call over about a fifth of a second."""
    start = time.perf_counter()
    call()
    repeat = max(1, int(0.2 / max(1e-6, time.perf_counter() - start)))
    start = time.perf_counter()
    for _ in range(repeat):
        call()
    return (time.perf_counter() - start) / repeat


def compare(
    name: str, target: tvm.target.Target, cores: int, rounds: int, against: list[str]
) -> dict[str, Any]:
    model = models.load(name)
    module = model.relax()
    machine, build_s = build(module, target, cores)
    inputs = [tvm.runtime.tensor(array) for array in model.numpy_inputs()]
    row: dict[str, Any] = {"model": name, "build_s": build_s}
    got = arrays(machine["main"](*inputs))
    ours: list[float] = []
    if "onnxruntime" in against:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cores
        session = onnxruntime.InferenceSession(model.onnx(), options, providers=["CPUExecutionProvider"])
        feed = {entry.name: model.inputs[entry.name] for entry in session.get_inputs()}
        row["error"] = difference(got, session.run(None, feed))
        peer = []
        for _ in range(rounds):
            ours.append(seconds(lambda: machine["main"](*inputs)))
            peer.append(seconds(lambda: session.run(None, feed)))
        ratios = sorted(a / b for a, b in zip(ours, peer, strict=True))
        row["onnxruntime_ms"] = statistics.median(peer) * 1e3
        row["ratio"] = statistics.median(ratios)
        row["ratio_range"] = [ratios[0], ratios[-1]]
    if "default" in against:
        default, default_build_s = build_default(module, target)
        row["default_error"] = difference(got, arrays(default["main"](*inputs)))
        peer = []
        for _ in range(2):  # it is slow
            ours.append(seconds(lambda: machine["main"](*inputs)))
            peer.append(seconds(lambda: default["main"](*inputs)))
        row["default_ms"] = min(peer) * 1e3
        row["default_gain"] = min(peer) / min(ours)
        row["build_ratio"] = build_s / default_build_s
    row["ours_ms"] = statistics.median(ours) * 1e3
    return row


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


def list_kernels(name: str, cores: int, limit: int) -> None:
    """Print the kernels of a model that lose most against the peak of the first cores."""
    device = Device("cores", host_target(), "cpu:0", usable_cores()[:cores])
    target = device_target(device)
    lowered = lower_to_kernels(models.load(name).relax(), target, targets=[target])
    peak = measure_peak(device)
    rows = bench_kernels(extract_task_graph(lowered), device, RecordStore(None), peak)
    print(f"{name}\n{format_rows(rows, peak, limit)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="*", default=["googlenet", "resnet18", "squeezenet"])
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", nargs="+", choices=_PEERS, default=["onnxruntime"])
    parser.add_argument("--list", type=int, metavar="ROWS", help="print the worst kernels instead")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    tvm.get_global_func("runtime.config_threadpool")(1, options.cores)
    target = tvm.target.Target({"kind": "llvm", "mcpu": llvm_get_system_cpu()})
    print(f"{target} cores {options.cores} load {os.getloadavg()[0]:.1f} seed {models.SEED}")
    rows = []
    for name in options.model:
        if options.list is not None:
            list_kernels(name, options.cores, options.list)
            continue
        rows.append(compare(name, target, options.cores, options.rounds, options.against))
        print_row(rows[-1])
    ratios = [row["ratio"] for row in rows if "ratio" in row]
    if ratios:
        mean = math.exp(statistics.fmean(map(math.log, ratios)))
        print(f"geometric mean of the ratios {mean:.3f} over {len(ratios)} models")
    if options.json is not None:
        options.json.write_text(json.dumps({"cores": options.cores, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
