"""CPU kernels beside a GPU: weights packed in each call or ahead, images turned in each kernel or not.

And the same on platforms of CPUs alone.

    PYTHONPATH=.:benchmarks python benchmarks/gpu/weights_ahead.py inception_v1 encoder

`encoder` is that of BERT-base (12 layers, 128 tokens of 768 numbers), which needs no further package.

Needs no GPU: a platform that names one makes the CPU's kernels what they are beside it. Kernels are
timed in turn on one core, weights as far away as in the model, and whole models in turn, all on that
core. Prints one line for each kernel that is another one then, with half of the 95 % interval of its
median, and the sums over the model: ``each`` packs and turns in each call, ``ahead`` has its weights
packed, and ``last`` its images channels last besides, where the kernels on both sides want them so.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import models
import numpy as np
from small_network import small_model

from tests.networks import transformer
from tvm_sphinx.cost.measure.kernel_timing import MeasureConfig, draws_of, kernel_symbol
from tvm_sphinx.cost.measure.lane_timing import Call, load_for_lanes
from tvm_sphinx.cost.measure.rotation import Turn, sample_in_rotation
from tvm_sphinx.frontend.extract import Extraction, Implement, Kernel, extract_task_graph
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


def plain_images(extraction: Extraction) -> Extraction:
    """Return an extraction whose images stand on CPUs as they do on the GPU."""
    kernels = {key: replace(kernel, channels_last=()) for key, kernel in extraction.kernels.items()}
    return replace(extraction, kernels=kernels, channels_last=frozenset())


def forms_of(kernel: Kernel) -> dict[str, tuple[Kernel, Any]]:
    """Return what computes a kernel each way, and what of; without those that are like one before."""
    target, here = device_target(_CORE), kernel.on(_CORE)
    forms = {
        "each": (kernel, kernel.function),
        "ahead": (kernel, for_target(kernel.function, kernel.packable, target)),
        "last": (here, for_target(here.function, kernel.packable, target)),
    }
    if forms["last"][0] is kernel:
        del forms["last"]
    if forms["ahead"][1] is kernel.function:
        del forms["ahead"]
    return forms


def kernel_rows(extraction: Extraction, config: MeasureConfig) -> list[dict[str, Any]]:
    """Return what each kernel takes in us, each way, that is not the same in all, and its calls."""
    target, host = device_target(_CORE), runtime_device("cpu:0")
    calls = Counter(task.kernel for task in extraction.graph.tasks)
    kinds = {task.kernel: "+".join(task.op_kinds) for task in extraction.graph.tasks}
    turns, rows, places = [], [], []
    for kernel in extraction.kernels.values():
        forms = {} if kernel.is_external else forms_of(kernel)
        if len(forms) < 2:
            continue
        for way, (what, function) in forms.items():
            implemented = implement_kernel(function, target)
            symbol = kernel_symbol(kernel.id)
            loaded = load_for_lanes({symbol: implemented}).get_function(symbol)
            (operands,) = draws_of(what.as_implemented(implemented), host)
            call = Call(loaded, operands, _CORE)
            turns.append(Turn(call, kernel.weights, kernel.reuse_bytes, config.goal))
            places.append((len(rows), way))
        shape = "x".join(str(int(n)) for n in kernel.argument_types[-1].shape.values)
        best = list(forms.values())[-1][1]
        packing = next(iter(packed_weights(best).values()), "as it is")
        rows.append({"kernel": f"{kinds[kernel.id][:50]} -> {shape}", "calls": calls[kernel.id]})
        rows[-1] |= {"id": kernel.id, "packing": packing}
    for (number, way), samples in zip(places, sample_in_rotation(turns), strict=True):
        rows[number] |= {f"{way}_us": samples.median_ns / 1e3, f"{way}_half_width": samples.half_width}
    for row in rows:
        for way, before in (("ahead", "each"), ("last", "ahead")):
            row.setdefault(f"{way}_us", row[f"{before}_us"])
            row.setdefault(f"{way}_half_width", row[f"{before}_half_width"])
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
        "each call": build(plain_images(extraction), beside, in_each_call),
        "ahead": build(plain_images(extraction), beside, None),
        "last": build(extraction, beside, None),
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
    ways = ("each", "ahead", "last")
    print(f"calls {'':1}{''.join(f'{way:>8} us     +- ' for way in ways)} weight            kernel")
    for row in rows:
        times = "".join(f"{row[f'{w}_us']:11.1f} {_percent(row[f'{w}_half_width'])} " for w in ways)
        print(f"{row['calls']:5} {times} {row['packing']:17} {row['kernel']}")
    sums = {way: sum(row["calls"] * row[f"{way}_us"] for row in rows) / 1e3 for way in ways}
    print(
        f"sum: {', '.join(f'{way} {ms:.2f} ms' for way, ms in sums.items())}; of what kernels take with "
        f"weights packed ahead, {sums['last'] / max(sums['ahead'], 1e-9):.3f} with images channels last"
    )
    whole = model_rows(model, extraction, rounds) if rounds else {}
    for way, times in whole.items():
        low, middle, high = (float(np.quantile(times, share)) for share in (0.1, 0.5, 0.9))
        ratios = np.array(whole["last"]) / np.array(times)  # round by round
        print(
            f"model, {way:10} {middle:8.2f} ms (tenths {low:.2f} and {high:.2f}), channels last takes "
            f"{np.median(ratios):.3f} of that ({np.quantile(ratios, 0.1):.3f} to "
            f"{np.quantile(ratios, 0.9):.3f})",
            flush=True,
        )
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
