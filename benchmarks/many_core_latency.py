"""Latency on all cores of a machine beside ONNX Runtime with each number of threads.

    PYTHONPATH=.:benchmarks python benchmarks/many_core_latency.py --out OUT --seconds 400

A process for each model: all make ready side by side what needs no measuring (models, kernels, machine
code), and then measure in turn, alone on the machine: what `compile` would run, each single group of
cores that may be the best one, and ONNX Runtime as it comes and with 1, 2, 4, ... threads. A GPU is left
out. One JSON line in OUT/many_core.jsonl per model, written when it is known. It also says how long the
kernels of a model took to measure on all groups of cores, and on one core and two as if there were no
more.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import latency
import models
import numpy as np
from turns import Child, take_turns, wait_for_turn, wait_until_ready

from tvm_sphinx.cost.measure.kernel_timing import MeasureConfig
from tvm_sphinx.cost.records.store import RecordStore
from tvm_sphinx.frontend.extract import Extraction
from tvm_sphinx.platform import Platform
from tvm_sphinx.platform.core_kinds import find_kinds
from tvm_sphinx.platform.detect import cpu_devices
from tvm_sphinx.platform.device import one_of_each_class
from tvm_sphinx.platform.topology import read_cores
from tvm_sphinx.search import search_schedule

_MODELS = (
    "googlenet nasnet inception_v3 lxmert clip bilstm branches resnet50 mobilenet_v2 bert_base "
    "squeezenet densenet121"
).split()
_OURS, _DEFAULT = "ours", "onnxruntime default"
# A group of cores that is predicted to take this many times as long as the best one is not measured, nor
# a number of ONNX Runtime's threads that took so long in the first calls.
_HOPELESS, _LOOKS = 1.5, 4


def all_cores() -> Platform:
    """Return this machine's CPU as `detect` offers it."""
    cores = read_cores()
    return Platform(tuple(cpu_devices(cores, find_kinds(cores))))


def measure_model(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one model; waits for its turn before it measures."""
    platform = all_cores()
    model = models.load(name)
    extraction = latency.lower(model, platform)
    for device in one_of_each_class(platform.devices):
        latency.compile_ahead(extraction, device)
    model_bytes = model.onnx()
    wait_for_turn()
    row: dict[str, Any] = {"model": name, "tasks": extraction.graph.num_tasks}
    row["load"] = os.getloadavg()[0]
    store = RecordStore(args.out / f"records_{name}.jsonl")
    begin = time.perf_counter()
    config = MeasureConfig(sample_ms=args.sample_ms)
    prepared = latency.cost(model, extraction, platform, store, config)
    row["measured_s"] = time.perf_counter() - begin
    begin = time.perf_counter()
    schedule = search_schedule(prepared.problem, seed=0).best
    row["searched_s"] = time.perf_counter() - begin
    variants, row["kept"] = variants_of(prepared, schedule)
    variants.update(onnxruntime_variants(model, model_bytes))
    times = latency.run_in_turn(variants, args.rounds, args.round_ms)
    median = {key: float(np.median(values)) for key, values in times.items()}
    groups = [key for key in variants if key.startswith("group ")]
    best_group = min(groups, key=median.__getitem__)
    best_threads = min((key for key in median if "onnxruntime" in key), key=median.__getitem__)
    ours = times[_OURS]
    row["median_us"] = {key: value / 1e3 for key, value in median.items()}
    row["best_group"], row["best_threads"] = best_group, best_threads
    row["over_best_group"] = latency.quartiles(times[best_group] / ours)
    row["over_best_threads"] = latency.quartiles(times[best_threads] / ours)
    row["over_default"] = latency.quartiles(times[_DEFAULT] / ours)
    row["over_predicted"] = latency.quartiles(ours / variants[_OURS].predicted_ns)
    if name in args.measuring:
        row["measured_on_two_s"] = measured_on_two_s(model, extraction, platform, args.out, config)
    return row


def variants_of(prepared: latency.Prepared, found: Any) -> tuple[dict[str, latency.Variant], str]:
    """Return what `compile` would run and the groups of cores that may be best, and what is kept."""
    devices = prepared.platform.devices
    alone = {
        f"group {entry.name}": latency.on_one_device(prepared.alone, devices.index(entry))
        for entry in one_of_each_class(devices)
    }
    least_ns = min(schedule.makespan_ns for schedule in alone.values())
    variants = {
        name: latency.on_lanes(prepared, schedule)
        for name, schedule in alone.items()
        if schedule.makespan_ns <= _HOPELESS * least_ns
    }
    best = min(variants, key=lambda name: alone[name].makespan_ns)
    ours, kept = latency.settle(prepared, found, alone[best], variants[best], best)
    return {_OURS: ours, **variants}, kept


def onnxruntime_variants(model: models.Model, source: bytes) -> dict[str, latency.Variant]:
    """Return ONNX Runtime as it comes, and with 1, 2, 4, ... threads up to all cores."""
    import onnxruntime

    def variant(threads: int) -> latency.Variant:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_inputs()]
        feed = {key: model.inputs[key] for key in names}
        return latency.Variant(lambda count: latency.time_calls(lambda: session.run(None, feed), count))

    cores = len(read_cores())
    counts = sorted({cores, *(2**power for power in range(int(math.log2(cores)) + 1))})
    found = {_DEFAULT: variant(0), **{f"onnxruntime {count}": variant(count) for count in counts}}
    # The first calls are no measure; after them the least of a few tells who may be the best.
    least = {name: min(one.timer(1) for _ in range(_LOOKS)) for name, one in found.items()}
    best = min(least.values())
    return {
        name: one for name, one in found.items() if name == _DEFAULT or least[name] <= _HOPELESS * best
    }


def measured_on_two_s(
    model: models.Model, extraction: Extraction, platform: Platform, out: Path, config: MeasureConfig
) -> float:
    """Return what it takes to measure a model's kernels as on a machine of two cores."""
    devices = one_of_each_class(platform.devices)
    two = Platform(tuple(device for device in devices if len(device.cores) <= 2))
    begin = time.perf_counter()
    latency.cost(model, extraction, two, RecordStore(out / f"two_{model.name}.jsonl"), config)
    return time.perf_counter() - begin


def print_table(path: Path) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        if "error" in row:
            print(f"{row['model']:14} {row['error']}")
            continue
        ratios = "  ".join(
            "{} {:.2f} ({:.2f}-{:.2f})".format(key.replace("_", " "), *row[key])
            for key in ("over_best_group", "over_best_threads", "over_default", "over_predicted")
        )
        ours = row["median_us"][_OURS] / 1e3
        print(
            f"{row['model']:14} {ours:8.2f} ms  {ratios}  {row['kept']} / {row['best_group']} / "
            f"{row['best_threads']}  measured in {row['measured_s']:.1f} s"
        )
    known = [row for row in rows if "error" not in row]
    for key in ("over_best_group", "over_best_threads", "over_default"):
        if known:
            mean = math.exp(sum(math.log(row[key][0]) for row in known) / len(known))
            print(f"{key}: geometric mean {mean:.3f}, least {min(row[key][0] for row in known):.3f}")


def start(name: str, args: argparse.Namespace) -> Child:
    options = ["--child", "--out", str(args.out), "--rounds", str(args.rounds)]
    options += ["--sample-ms", str(args.sample_ms), "--round-ms", str(args.round_ms)]
    options += ["--measuring", name] if name in args.measuring else []
    return Child(f"many_core_{name}", [__file__, "--models", name, *options], args.out)


def write_row(out: Path, row: dict[str, Any]) -> None:
    with open(out / "many_core.jsonl", "a") as file:
        file.write(json.dumps(row) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=_MODELS)
    parser.add_argument("--seconds", type=float, default=540, help="for all of it")
    parser.add_argument(
        "--turn-seconds", type=float, default=90, help="that a model is measured at most"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--round-ms", type=float, default=60.0, help="time of a variant in a round")
    parser.add_argument("--sample-ms", type=float, default=20.0, help="as of MeasureConfig")
    parser.add_argument("--measuring", nargs="*", default=[], help="models to measure on two cores, too")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.child:
        for name in args.models:
            write_row(args.out, measure_model(name, args))
        return
    end = time.monotonic() + args.seconds
    children = [start(name, args) for name in args.models]
    wait_until_ready(children, args.seconds / 3)
    print(f"{sum(child.may_go for child in children)} of {len(children)} are ready", flush=True)

    def ended(child: Child, status: int | str) -> None:
        if status:
            model = child.name.removeprefix("many_core_")
            write_row(args.out, {"model": model, "error": f"ended with {status}"})

    (args.out / "many_core.jsonl").touch()
    take_turns(children, args.turn_seconds, end, ended)
    print_table(args.out / "many_core.jsonl")


if __name__ == "__main__":
    main()
