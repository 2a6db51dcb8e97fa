"""Error of predicted kernel times on models that the training never saw: leave one model out.

    python benchmarks/cost_model.py --cache /tmp/kernels --records /tmp/records.jsonl --json out.json

For each model and device: the median of abs(predicted - measured) / measured over its distinct kernels,
the share within 25 %, and Spearman's rank correlation, beside a roofline and a linear model on the same
data. Training leaves out every kernel that the model has, in whichever network it occurs. Then the
schedule found with predicted times alone is valued with measured times, against the one found with
these. A second table leaves one kind of device out, its kernels known from the other devices and not.
The last lines tell how long features and predictions take. Kernels that are on record are not measured
again; --no-measure uses only what is on record.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import models
import numpy as np
from cost_devices import leave_one_device_out, print_devices
from cost_rows import DRAWN, Row, baselines, errors, noise, read_rows, training_set
from cost_schedules import regrets
from cost_speed import measure_speed, print_speed
from kernel_sets import KernelSet, load_kernel_set

from tvm_sphinx._tvm import tvm
from tvm_sphinx.cost.measure.kernels import MeasureConfig
from tvm_sphinx.cost.model.generate import draw_kernels
from tvm_sphinx.cost.model.model_file import CostModel
from tvm_sphinx.cost.model.profile import DeviceProfile
from tvm_sphinx.cost.model.regression import (
    cross_validate,
    held_out,
    predict_ns,
    train_booster,
    train_spread,
)
from tvm_sphinx.cost.model.training import device_profile
from tvm_sphinx.cost.records.store import RecordStore
from tvm_sphinx.errors import SphinxError
from tvm_sphinx.platform import Device, Platform, detect_platform, unlike_cpus
from tvm_sphinx.platform.targets import device_target

#: Goals of the issue.
GOALS = {"error": 0.15, "within": 0.80, "spearman": 0.95}


def main(arguments: Sequence[str] | None = None) -> None:
    args = _parse(arguments)
    devices = _devices()
    platform = Platform(tuple(devices.values()))
    print(f"{os.uname().machine} load {os.getloadavg()[0]:.1f} tvm {tvm.__version__} seed {args.seed}")
    sets = _load_sets(args.models, platform, Path(args.cache))
    records = RecordStore(args.records)
    config = MeasureConfig()
    targets = [device_target(device) for device in devices.values()]
    profiles = {name: device_profile(device, records, config) for name, device in devices.items()}
    for name, profile in profiles.items():
        print(f"{name:9} " + " ".join(f"{value:.5g}" for value in profile.numbers))
    if args.rows and Path(args.rows).is_file():
        rows = [Row(*row) for row in json.loads(Path(args.rows).read_text())]
    else:
        samples = list(draw_kernels(args.samples, args.seed + 1, targets)) if args.samples else []
        rows = read_rows(sets, samples, devices, profiles, records, measure=not args.no_measure)
    if args.rows:
        Path(args.rows).write_text(json.dumps([list(vars(row).values()) for row in rows]))
    print(f"{len(rows)} measured kernels, {sum(row.source == DRAWN for row in rows)} of them drawn")
    print(f"spread of the samples (half an interquartile range): {noise(rows):.1%} median", flush=True)
    report = _leave_one_out(rows, sets, profiles, args.seed)
    _print_table(report)
    found = {"models": report, "devices": leave_one_device_out(rows, profiles, args.seed)}
    print_devices(found["devices"])
    found["speed"] = measure_speed(_model_of_all(rows, profiles, args.seed), sets, devices, profiles)
    print_speed(found["speed"])
    if not args.no_schedules:
        chosen = {name: entry for name, entry in report.items() if name in (args.schedules or report)}
        found["regrets"] = regrets(sets, devices, rows, chosen, args.seed, records)
    if args.json:
        for entry in report.values():
            entry.pop("predicted")
        Path(args.json).write_text(json.dumps(found, indent=1))


def _model_of_all(rows: Sequence[Row], profiles: dict[str, DeviceProfile], seed: int) -> CostModel:
    """Return a model as `tvm-sphinx train` makes it, of all rows."""
    data = training_set(rows, profiles)
    predicted = cross_validate(data, seed)
    trees, spread = train_booster(data, seed), train_spread(data, predicted, seed)
    size, quality = len(data.times_ns), held_out(data, predicted)
    return CostModel(trees, spread, str(tvm.__version__), data.fingerprint, size, quality)


def _devices() -> dict[str, Device]:
    """Return one core with all instruction sets, one held to the baseline, and all cores."""
    unlike = {device.name: device for device in unlike_cpus().devices}
    everything = max(detect_platform().devices, key=lambda device: len(device.cores))
    return {**unlike, "all": Device("all", everything.target, "cpu:0", everything.cores)}


def _load_sets(names: Sequence[str], platform: Platform, cache: Path) -> dict[str, KernelSet]:
    sets = {}
    for name in names or models.names():
        try:
            sets[name] = load_kernel_set(name, platform, cache)
        except (SphinxError, FileNotFoundError) as error:
            print(f"{name}: {error}")
    return sets


def _leave_one_out(
    rows: Sequence[Row], sets: dict[str, KernelSet], profiles: dict[str, DeviceProfile], seed: int
) -> dict[str, dict[str, Any]]:
    data = training_set(rows, profiles)
    source = np.array([row.source for row in rows])
    report: dict[str, dict[str, Any]] = {}
    for name, kernels in sets.items():
        held = source == name
        if not held.any():
            continue
        known = data.take(~np.isin(data.groups, list(kernels.kernels)))
        features, times = data.features[held], data.times_ns[held]
        predicted = {
            "model": predict_ns(train_booster(known, seed), features),
            **baselines(known, features),
        }
        entry: dict[str, Any] = {
            "tasks": kernels.graph.num_tasks,
            "kernels": len(kernels.kernels),
            "rows": int(held.sum()),
            "trained_on": len(known.times_ns),
            "predicted": {},
        }
        for how, values in predicted.items():
            entry[how] = errors(values, times)
        for place, value in zip(np.flatnonzero(held), predicted["model"], strict=True):
            entry["predicted"][rows[place].kernel, rows[place].device] = float(value)
        for device in profiles:
            here = np.array([row.device == device for row in rows])[held]
            if here.any():
                entry[f"model on {device}"] = errors(predicted["model"][here], times[here])
        report[name] = entry
    return report


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


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
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
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
