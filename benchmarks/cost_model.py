"""Error of predicted kernel times on models that the training never saw: leave one model out.

    python benchmarks/cost_model.py --cache /tmp/kernels --records /tmp/records.jsonl --json out.json

For each model and device: the median of abs(predicted - measured) / measured over its distinct kernels,
the share within 25 %, and Spearman's rank correlation, beside a roofline and a linear model on the same
data. Training leaves out every kernel that the model has, in whichever network it occurs. Then the
schedule found with predicted times alone is valued with measured times, against the one found with
these. Kernels that are on record are not measured again; --no-measure uses only what is on record.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import models
import numpy as np
from kernel_sets import KernelSet, load_kernel_set

from tvm_sphinx._tvm import tvm
from tvm_sphinx.cost.classes import class_of
from tvm_sphinx.cost.links import measure_links
from tvm_sphinx.cost.measure import (
    MeasureConfig,
    implement_for,
    implementation_id,
    measure_kernels,
    weight_footprint_bytes,
)
from tvm_sphinx.cost.model.features import FEATURE_NAMES, feature_rows, kernel_numbers
from tvm_sphinx.cost.model.generate import draw_kernels
from tvm_sphinx.cost.model.profile import DeviceProfile
from tvm_sphinx.cost.model.regression import TrainingSet, predict_ns, train_booster
from tvm_sphinx.cost.model.terms import TERM_NAMES
from tvm_sphinx.cost.model.training import device_profile
from tvm_sphinx.cost.records import RecordStore, median_and_spread
from tvm_sphinx.cost.table import CostTable, build_problem
from tvm_sphinx.errors import SphinxError
from tvm_sphinx.extract import Kernel
from tvm_sphinx.platform import Device, Platform
from tvm_sphinx.schedule import Schedule
from tvm_sphinx.search import search_schedule
from tvm_sphinx.targets import device_target

#: Goals of the issue.
GOALS = {"error": 0.15, "within": 0.80, "spearman": 0.95, "regret": 1.05}
_DRAWN = "drawn"
_ROOFLINE = FEATURE_NAMES.index("roofline_ns")
# What a plain linear model sees: logarithms of counts and of the device's rates, no times.
_PLAIN = slice(0, 1 + len(TERM_NAMES) + 12)


@dataclass(frozen=True)
class Row:
    """A kernel of a source (a model, or the drawn ones) on a device."""

    source: str
    kernel: str
    device: str
    numbers: list[float]
    time_ns: float
    spread: float


def main() -> None:
    args = _parse()
    devices = _devices()
    platform = Platform(tuple(devices.values()))
    print(f"{os.uname().machine} load {os.getloadavg()[0]:.1f} tvm {tvm.__version__} seed {args.seed}")
    sets = _load_sets(args.models, platform, Path(args.cache))
    records = RecordStore(args.records)
    config = MeasureConfig()
    profiles = {name: device_profile(device, records, config) for name, device in devices.items()}
    for name, profile in profiles.items():
        print(f"{name:9} " + " ".join(f"{value:.5g}" for value in profile.numbers))
    if args.rows and Path(args.rows).is_file():
        rows = [Row(*row) for row in json.loads(Path(args.rows).read_text())]
    else:
        rows = _rows(sets, devices, profiles, records, args)
    if args.rows:
        Path(args.rows).write_text(json.dumps([list(vars(row).values()) for row in rows]))
    print(f"{len(rows)} measured kernels, {sum(row.source == _DRAWN for row in rows)} of them drawn")
    print(f"spread of the samples (half an interquartile range): {_noise(rows):.1%} median", flush=True)
    report = _leave_one_out(rows, sets, profiles, args.seed)
    _print_table(report)
    regrets = (
        []
        if args.no_schedules
        else _regrets(
            sets,
            devices,
            rows,
            {n: e for n, e in report.items() if n in (args.schedules or report)},
            args.seed,
            records,
        )
    )
    if args.json:
        for entry in report.values():
            entry.pop("predicted")
        Path(args.json).write_text(json.dumps({"models": report, "regrets": regrets}, indent=1))


def _devices() -> dict[str, Device]:
    """Return one core with all instruction sets, one held to the baseline, and all cores."""
    unlike = {device.name: device for device in Platform.unlike_cpus().devices}
    everything = max(Platform.detect().devices, key=lambda device: len(device.cores))
    return {**unlike, "all": Device("all", everything.target, "cpu:0", everything.cores)}


def _load_sets(names: Sequence[str], platform: Platform, cache: Path) -> dict[str, KernelSet]:
    sets = {}
    for name in names or models.names():
        try:
            sets[name] = load_kernel_set(name, platform, cache)
        except (SphinxError, FileNotFoundError) as error:
            print(f"{name}: {error}")
    return sets


def _rows(
    sets: dict[str, KernelSet],
    devices: dict[str, Device],
    profiles: dict[str, DeviceProfile],
    records: RecordStore,
    args: argparse.Namespace,
) -> list[Row]:
    """Return all kernels with their times; those that are not on record are measured, or left out."""
    sources: list[tuple[str, Kernel, int]] = []
    for name, kernels in sets.items():
        footprint = weight_footprint_bytes(kernels.graph, kernels.kernels)
        sources += [(name, kernel, footprint) for kernel in kernels.kernels.values()]
    targets = [device_target(device) for device in devices.values()]
    for number, sample in enumerate(draw_kernels(args.samples, args.seed + 1, targets)):
        # Each drawn kernel goes to one device, unless it is on record for others too.
        sources.append((_DRAWN, sample.kernel, sample.footprint_bytes))
        if not args.no_measure:
            device = list(devices.values())[number % len(devices)]
            measure_kernels(
                [sample.kernel], device, records, MeasureConfig(), footprint_bytes=sample.footprint_bytes
            )
    if not args.no_measure:
        for name, kernels in sets.items():
            for device in devices.values():
                begin = time.monotonic()
                footprint = weight_footprint_bytes(kernels.graph, kernels.kernels)
                ours = [kernel for kernel in kernels.kernels.values() if not kernel.is_external]
                measure_kernels(ours, device, records, MeasureConfig(), footprint_bytes=footprint)
                print(f"{name} on {device.name}: {time.monotonic() - begin:.1f} s", flush=True)
    rows = []
    for source, kernel, footprint in sources:
        for name, device in devices.items():
            row = None if kernel.is_external else _row(source, kernel, footprint, name, device, records)
            if row is not None:
                function, time_ns, spread = row
                shape = profiles[name].shape
                numbers = kernel_numbers(function, kernel.weights, footprint, shape)
                rows.append(Row(source, kernel.id, name, numbers, time_ns, spread))
    return rows


def _row(
    source: str, kernel: Kernel, footprint: int, name: str, device: Device, records: RecordStore
) -> tuple[Any, float, float] | None:
    function = implement_for(kernel, device)
    key = implementation_id(kernel, function, footprint)
    record = records.get(key, str(class_of(device)), str(tvm.__version__))
    if record is None or not record.samples_ns:
        return None
    median, spread = median_and_spread(record.samples_ns)
    return function, float(max(1, median)), spread / max(1, median)


def _noise(rows: Sequence[Row]) -> float:
    return float(np.median([row.spread for row in rows]))


def _leave_one_out(
    rows: Sequence[Row], sets: dict[str, KernelSet], profiles: dict[str, DeviceProfile], seed: int
) -> dict[str, dict[str, Any]]:
    features = feature_rows(
        np.array([row.numbers for row in rows]),
        np.array([profiles[row.device].numbers for row in rows]),
    )
    times = np.array([row.time_ns for row in rows])
    kernel = np.array([row.kernel for row in rows])
    source = np.array([row.source for row in rows])
    report: dict[str, dict[str, Any]] = {}
    for name, kernels in sets.items():
        held = source == name
        if not held.any():
            continue
        known = ~np.isin(kernel, list(kernels.kernels))
        data = TrainingSet(features[known], times[known], kernel[known])
        predicted = {
            "model": predict_ns(train_booster(data, seed), features[held]),
            "roofline": np.exp(features[held, _ROOFLINE]),
            "linear": _linear(features[known][:, _PLAIN], times[known], features[held][:, _PLAIN]),
        }
        entry: dict[str, Any] = {
            "tasks": kernels.graph.num_tasks,
            "kernels": len(kernels.kernels),
            "rows": int(held.sum()),
            "trained_on": int(known.sum()),
            "predicted": {},
        }
        for how, values in predicted.items():
            entry[how] = _errors(values, times[held])
        for place, value in zip(np.flatnonzero(held), predicted["model"], strict=True):
            entry["predicted"][rows[place].kernel, rows[place].device] = float(value)
        for device in profiles:
            here = np.array([row.device == device for row in rows])[held]
            if here.any():
                entry[f"model on {device}"] = _errors(predicted["model"][here], times[held][here])
        report[name] = entry
    return report


def _errors(predicted: Any, measured: Any) -> dict[str, float]:
    error = np.abs(predicted - measured) / measured
    return {
        "error": float(np.median(error)),
        "within": float((error <= 0.25).mean()),
        "spearman": _spearman(predicted, measured),
        "total": float(predicted.sum() / measured.sum()),
    }


def _spearman(first: Any, second: Any) -> float:
    if len(first) < 3:
        return 1.0
    ranks = [_ranks(values) for values in (first, second)]
    return float(np.corrcoef(*ranks)[0, 1])


def _ranks(values: Any) -> Any:
    """Return ranks, the mean of the places for ties."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[inverse]


def _linear(features: Any, times: Any, wanted: Any) -> Any:
    """Fit the logarithm of the time by ridge regression on the logarithms of the counts."""
    mean, scale = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-9)
    known = np.concatenate([(features - mean) / scale, np.ones((len(features), 1))], axis=1)
    weights = np.linalg.solve(known.T @ known + 1e-2 * np.eye(known.shape[1]), known.T @ np.log(times))
    asked = np.concatenate([(wanted - mean) / scale, np.ones((len(wanted), 1))], axis=1)
    return np.exp(np.clip(asked @ weights, 0.0, 34.0))


def _print_table(report: dict[str, dict[str, Any]]) -> None:
    head = (
        f"{'model':18} {'kernels':>7} {'rows':>5}  {'error':>6} {'in 25%':>6} {'Spearman':>8} {'sum':>5}"
    )
    print(f"\n{head}  {'roofline':>8} {'linear':>7}")
    for name, entry in report.items():
        ours = entry["model"]
        print(
            f"{name:18} {entry['kernels']:>7} {entry['rows']:>5}  {ours['error']:>6.1%} "
            f"{ours['within']:>6.0%} {ours['spearman']:>8.3f} {ours['total']:>5.2f}  "
            f"{entry['roofline']['error']:>8.1%} {entry['linear']['error']:>7.1%}"
        )
    means = {
        how: float(np.mean([entry[how]["error"] for entry in report.values()]))
        for how in ("model", "roofline", "linear")
    }
    print(f"mean of the median errors: {', '.join(f'{how} {mean:.1%}' for how, mean in means.items())}")
    count = len(report)
    for key, better in (("error", False), ("within", True), ("spearman", True)):
        goal = GOALS[key]
        values = [entry["model"][key] for entry in report.values()]
        met = sum(value >= goal if better else value <= goal for value in values)
        print(f"{key} goal {goal}: met by {met} of {count} models")


def _regrets(
    sets: dict[str, KernelSet],
    devices: dict[str, Device],
    rows: Sequence[Row],
    report: dict[str, dict[str, Any]],
    seed: int,
    records: RecordStore,
) -> list[dict[str, Any]]:
    """Return how much longer schedules found with predictions are, by measured times."""
    platforms = {
        "unlike": Platform((devices["native"], devices["baseline"])),
        "three": Platform(tuple(devices.values())),
    }
    results = []
    for label, platform in platforms.items():
        links = measure_links(platform, records)
        for name, entry in report.items():
            measured = {(row.kernel, row.device): row.time_ns for row in rows if row.source == name}
            tables = [
                _table(sets[name], platform, times, links) for times in (measured, entry["predicted"])
            ]
            if None in tables:
                continue
            problem, guessed = (build_problem(sets[name].graph, platform, table) for table in tables)
            best = search_schedule(problem, seed=seed).best
            found = search_schedule(guessed, seed=seed).best
            judged = replay_ns(problem, found)
            # Of two schedules for the measured problem the searcher would keep the shorter.
            regret = judged / min(best.makespan_ns, judged)
            results.append({"platform": label, "model": name, "regret": regret})
            print(
                f"{label:7} {name:18} found with measured {best.makespan_ns / 1e6:8.2f} ms, with "
                f"predicted {judged / 1e6:8.2f} ms: {regret:.3f}",
                flush=True,
            )
    values = [entry["regret"] for entry in results]
    if values:
        met = sum(value <= GOALS["regret"] for value in values)
        print(f"schedules within 5%: {met} of {len(values)}, worst {max(values):.3f}")
    return results


def _table(
    kernels: KernelSet, platform: Platform, times: dict[tuple[str, str], float], links: Any
) -> CostTable | None:
    """Return a cost table of given times; None where one is missing."""
    shape = (kernels.graph.num_tasks, len(platform.devices))
    exec_ns = np.zeros(shape, dtype=np.int64)
    for column, device in enumerate(platform.devices):
        for task, entry in enumerate(kernels.graph.tasks):
            value = times.get((entry.kernel, device.name))
            if value is None:
                return None
            exec_ns[task, column] = max(1, round(value))
    latency, bandwidth = links[0], links[1]
    fingerprint = kernels.graph.fingerprint
    zeros = np.zeros(shape, dtype=np.int64)
    return CostTable(exec_ns, zeros, np.ones(shape, dtype=bool), latency, bandwidth, fingerprint)


def replay_ns(problem: Any, schedule: Schedule) -> int:
    """Return the makespan of a schedule's devices and order under a problem's own times."""
    free: dict[int, int] = {}
    finish: dict[int, int] = {}
    before: dict[int, list[tuple[int, int]]] = {}
    for (src, dst), kind in zip(problem.edges.tolist(), problem.copy_class.tolist(), strict=True):
        before.setdefault(dst, []).append((src, kind))
    makespan = 0
    for task in schedule.order:
        device = int(schedule.device[task])
        ready = int(problem.release_ns[task, device])
        for src, kind in before.get(task, ()):
            copy = int(problem.copy_ns[kind, schedule.device[src], device])
            ready = max(ready, finish[src] + copy)
        cores = problem.device_cores[device]
        start = max([ready, *(free.get(core, 0) for core in cores)])
        finish[task] = start + int(problem.exec_ns[task, device])
        free.update(dict.fromkeys(cores, finish[task]))
        makespan = max(makespan, finish[task] + int(problem.delivery_ns[task, device]))
    return makespan


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", help="default: all of benchmarks/models.py")
    parser.add_argument("--cache", default="kernel-sets", help="folder that keeps lowered kernels")
    parser.add_argument("--records", required=True, help="file of measured times to use and extend")
    parser.add_argument("--samples", type=int, default=900, help="drawn kernels to train on as well")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", help="file that keeps the kernels' counts and times for a next run")
    parser.add_argument("--no-measure", action="store_true", help="use only what is on record")
    parser.add_argument("--no-schedules", action="store_true", help="leave out the schedules")
    parser.add_argument("--json", help="write all figures to this file")
    parser.add_argument("--schedules", nargs="*", help="models to schedule; default: all")
    return parser.parse_args()


if __name__ == "__main__":
    main()
