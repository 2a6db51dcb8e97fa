"""CPU kernels beside a GPU: weights packed in each call, and packed ahead; and platforms of CPUs alone.

    PYTHONPATH=.:benchmarks python benchmarks/gpu/weights_ahead.py inception_v1 encoder

`encoder` is that of BERT-base (12 layers, 128 tokens of 768 numbers), which needs no further package.

Needs no GPU: a platform that names one makes the CPU's kernels what they are beside it. Kernels are
timed in turn on one core, weights as far away as in the model, and whole models in turn, all on that
core. Prints one line for each kernel that is another one then, with half of the 95 % interval of its
median, and the sums over the model.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import Counter
from pathlib import Path
from typing import Any

import models
import numpy as np
from small_network import small_model

from tests.networks import transformer
from tvm_sphinx.cost.measure.kernel_timing import MeasureConfig, draws_of, kernel_symbol
from tvm_sphinx.cost.measure.lane_timing import Call, load_for_lanes
from tvm_sphinx.cost.measure.rotation import Turn, sample_in_rotation
from tvm_sphinx.frontend.extract import Extraction, Implement, extract_task_graph
from tvm_sphinx.frontend.lower import lower_for_platform
from tvm_sphinx.kernels import packed_weights
from tvm_sphinx.kernels.implement import for_target, implement_kernel
from tvm_sphinx.platform import Device, Platform
from tvm_sphinx.platform.machine import usable_cores
from tvm_sphinx.platform.targets import device_target, host_target, runtime_device
from tvm_sphinx.relax_pass import annotate_schedule
from tvm_sphinx.runtime.build import build_executable
from tvm_sphinx.runtime.executable import ConcurrentExecutable
from tvm_sphinx.scheduling.schedule import Schedule

_CORE = Device("core", host_target(), "cpu:0", usable_cores()[:1])
_GPU = Device("gpu", '{"kind": "cuda", "arch": "sm_90", "max_num_threads": 1024}', "cuda:9")


class _Encoder:
    """The encoder of BERT-base in the form of the zoo's models."""

    def relax(self) -> Any:
        return transformer(layers=12, length=128, width=768, heads=12)

    def numpy_inputs(self) -> list[np.ndarray]:
        return [np.random.default_rng(1).standard_normal((1, 128, 768)).astype(np.float32)]


def load(name: str) -> Any:
    """Return a model of the zoo, or one of those that are made here."""
    own = {"small": small_model, "encoder": _Encoder}
    return own[name]() if name in own else models.load(name)


def in_each_call(kernel: Any, device: Device) -> Any:
    """Implement a kernel so that it packs its operands itself."""
    return None if kernel.is_external else implement_kernel(kernel.function, device_target(device))


def kernel_rows(extraction: Extraction, config: MeasureConfig) -> list[dict[str, Any]]:
    """Return what each kernel takes in us, each way, whose weights may be packed, and its calls."""
    target, host = device_target(_CORE), runtime_device("cpu:0")
    calls = Counter(task.kernel for task in extraction.graph.tasks)
    kinds = {task.kernel: "+".join(task.op_kinds) for task in extraction.graph.tasks}
    turns, rows = [], []
    for kernel in extraction.kernels.values():
        if kernel.is_external:
            continue
        ahead = for_target(kernel.function, kernel.packable, target)
        if ahead is kernel.function:
            continue
        for function in (kernel.function, ahead):
            implemented = implement_kernel(function, target)
            symbol = kernel_symbol(kernel.id)
            loaded = load_for_lanes({symbol: implemented}).get_function(symbol)
            (operands,) = draws_of(kernel.as_implemented(implemented), host)
            call = Call(loaded, operands, _CORE)
            turns.append(Turn(call, kernel.weights, kernel.reuse_bytes, config.goal))
        shape = "x".join(str(int(n)) for n in kernel.argument_types[-1].shape.values)
        packing = next(iter(packed_weights(ahead).values()), "as it is")
        rows.append({"kernel": f"{kinds[kernel.id][:50]} -> {shape}", "calls": calls[kernel.id]})
        rows[-1] |= {"id": kernel.id, "packing": packing}
    found = sample_in_rotation(turns)
    for row, each, ahead in zip(rows, found[::2], found[1::2], strict=True):
        row |= {"each_us": each.median_ns / 1e3, "ahead_us": ahead.median_ns / 1e3}
        row |= {"each_half_width": each.half_width, "ahead_half_width": ahead.half_width}
    return sorted(rows, key=lambda row: -row["calls"] * row["each_us"])


def build(extraction: Extraction, where: Platform, implement: Implement | None) -> ConcurrentExecutable:
    """Return a model with all tasks on the core."""
    count = extraction.graph.num_tasks
    begin = np.arange(count)
    schedule = Schedule(np.zeros(count, dtype=int), begin, begin + 1, count, 0, "")
    return build_executable(annotate_schedule(extraction, schedule, where, implement), where, schedule)


def model_rows(model: Any, extraction: Extraction, rounds: int) -> dict[str, list[float]]:
    """Return the latencies of the whole model in ms, one a round, by the way that weights are packed."""
    beside, alone = Platform((_CORE, _GPU)), Platform((_CORE,))
    cpus = extract_task_graph(lower_for_platform(model.relax(), alone))
    ways = {
        "each call": build(extraction, beside, in_each_call),
        "ahead": build(extraction, beside, None),
        "no GPU": build(cpus, alone, None),
    }
    inputs = model.numpy_inputs()
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, executable in ways.items():
            executable.run(inputs)
            found[name] += [_milliseconds(executable, inputs)]
    return found


def _percent(share: float) -> str:
    return f"{share:6.1%}" if math.isfinite(share) else "     ?"


def _milliseconds(executable: ConcurrentExecutable, inputs: list[np.ndarray]) -> float:
    begin_ns = time.perf_counter_ns()
    executable.run(inputs)
    return (time.perf_counter_ns() - begin_ns) / 1e6


def report(name: str, rounds: int, config: MeasureConfig) -> dict[str, Any]:
    """Print the table of a model, and return it."""
    model = load(name)
    beside = Platform((_CORE, _GPU))
    extraction = extract_task_graph(lower_for_platform(model.relax(), beside))
    rows = kernel_rows(extraction, config)
    print(f"\n{name}: {extraction.graph.num_tasks} tasks, {len(extraction.kernels)} kernels")
    print("calls    each us     +-   ahead us     +-  ratio  weight            kernel")
    for row in rows:
        ratio = row["each_us"] / row["ahead_us"]
        print(
            f"{row['calls']:5} {row['each_us']:10.1f} {_percent(row['each_half_width'])} "
            f"{row['ahead_us']:10.1f} {_percent(row['ahead_half_width'])} {ratio:6.2f}  "
            f"{row['packing']:17} {row['kernel']}"
        )
    each, ahead = (sum(row["calls"] * row[way] for row in rows) for way in ("each_us", "ahead_us"))
    print(f"sum: {each / 1e3:.2f} ms, {ahead / 1e3:.2f} ms, {each / max(ahead, 1e-9):.2f} times")
    whole = model_rows(model, extraction, rounds) if rounds else {}
    for way, times in whole.items():
        low, middle, high = (float(np.quantile(times, share)) for share in (0.1, 0.5, 0.9))
        print(f"model, {way:10} {middle:8.2f} ms (tenths {low:.2f} and {high:.2f})", flush=True)
    return {"model": name, "kernels": rows, "whole_ms": whole}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "models", nargs="+", choices=[*models.names(), "small", "encoder"], metavar="MODEL"
    )
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--sample-ms", type=float, default=20.0)
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    config = MeasureConfig(sample_ms=args.sample_ms)
    found = [report(name, args.rounds, config) for name in args.models]
    if args.output:
        args.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
