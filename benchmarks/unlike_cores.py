"""A fast and a slow core: what telling them apart, and dealing loops out by their speeds, is worth.

    python benchmarks/unlike_cores.py --records unlike.jsonl --json unlike.json

The second core of this machine is made slower (`tvm_sphinx.platform.slow_cores`), for everything that is
measured and run. For each model, all in turn in one process:

    ours              what `compile` would run on the detected platform: the schedule found, or the best
                      single device
    single NAME       the whole model on one device, such as the fast core, or both cores as a team
    even dealing      the team of all cores with equal shares of each loop, corrected by stealing alone
    one cost class    the schedule that is found where both cores are taken for equally fast

What is printed are medians of the ratios of neighbouring runs, with quartiles. A model whose packages
are missing is left out. A benchmark never fails on a time.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import latency
import models
import numpy as np

from tvm_sphinx.cost.records.store import RecordStore
from tvm_sphinx.errors import SphinxError
from tvm_sphinx.platform import Platform, detect_platform
from tvm_sphinx.platform.core_kinds import find_kinds
from tvm_sphinx.platform.device import CORE_KEYS
from tvm_sphinx.platform.machine import usable_cores
from tvm_sphinx.platform.slow_cores import SLOW_VARIABLE
from tvm_sphinx.platform.topology import read_cores
from tvm_sphinx.relax_pass import annotate_schedule
from tvm_sphinx.runtime.build import build_executable
from tvm_sphinx.scheduling.schedule import Schedule
from tvm_sphinx.search import search_schedule

#: Chains and branched networks; the first four are the chains that a team has to be worth something on.
MODELS = (
    "resnet50",
    "bert_base",
    "vit_b16",
    "mobilenet_v2",
    "googlenet",
    "inception_v3",
    "squeezenet",
    "densenet121",
    "bilstm",
    "nasnet",
)
_OURS, _EVEN, _BLIND = "ours", "even dealing", "one cost class"


def main() -> None:
    args = _parse()
    cores = usable_cores()
    if len(cores) < 2:
        raise SystemExit("Expected two cores at least; this process may use one.")
    # The probe, the measurements and the lanes of this process read it.
    os.environ[SLOW_VARIABLE] = f"{cores[1]}:{args.factor}"
    platform = detect_platform()
    kinds = find_kinds(read_cores())
    for kind in kinds:
        print(f"kind {kind.name or '(all equal)'}: cores {kind.cores}, speed {kind.speed}")
    store, rows = RecordStore(args.records), []
    for name in args.models:
        try:
            rows.append({"model": name, **measure(name, platform, store, args)})
        except SphinxError as error:
            print(f"{name}: {error}", flush=True)
            continue
        _print_row(rows[-1])
        if args.json:  # what is known is kept, whatever comes after it
            with open(args.json, "w", encoding="utf-8") as file:
                content = {"factor": args.factor, "load": os.getloadavg(), "rows": rows}
                json.dump({**content, "kinds": [kind.__dict__ for kind in kinds]}, file, indent=1)
    if rows:
        _print_summary(rows)


def measure(
    name: str, platform: Platform, store: RecordStore, args: argparse.Namespace
) -> dict[str, Any]:
    """Return the figures of one model."""
    prepared = latency.prepare(name, platform, store)
    variants, kept = _variants(prepared)
    variants[_EVEN] = _even(prepared, len(platform.devices) - 1)
    variants[_BLIND] = _blind(name, platform, store)
    times = latency.run_in_turn(variants, args.rounds, args.round_ms)
    singles = {n: float(np.median(times[n])) for n in variants if n.startswith("single ")}
    best = min(singles, key=lambda n: singles[n])
    team, fast = (f"single {platform.devices[n].name}" for n in (-1, 0))
    return {
        "tasks": prepared.problem.num_tasks,
        "kept": kept,
        "best_single": best,
        "median_us": {n: float(np.median(values)) / 1e3 for n, values in times.items()},
        "over_best_single": latency.quartiles(times[best] / times[_OURS]),
        "team_over_fast": latency.quartiles(times[fast] / times[team]),
        "even_team_over_fast": latency.quartiles(times[fast] / times[_EVEN]),
        "over_one_cost_class": latency.quartiles(times[_BLIND] / times[_OURS]),
        "over_predicted": {
            n: latency.quartiles(times[n] / v.predicted_ns)
            for n, v in variants.items()
            if v.predicted_ns
        },
    }


def _variants(prepared: latency.Prepared) -> tuple[dict[str, latency.Variant], str]:
    """Return our program and that of each single device, and which of them ours is."""
    devices = prepared.platform.devices
    alone = [latency.on_one_device(prepared.alone, number) for number in range(len(devices))]
    schedules = {f"single {d.name}": s for d, s in zip(devices, alone, strict=True) if s is not None}
    variants = {name: latency.on_lanes(prepared, schedule) for name, schedule in schedules.items()}
    best = min(schedules, key=lambda name: schedules[name].makespan_ns)
    found = search_schedule(prepared.problem, seed=0).best
    ours, kept = latency.settle(prepared, found, schedules[best], variants[best], best)
    return {_OURS: ours, **variants}, kept


def _even(prepared: latency.Prepared, device: int) -> latency.Variant:
    """Return a device's program with equal shares for its cores."""
    schedule = latency.on_one_device(prepared.alone, device)
    assert schedule is not None
    return _build(prepared, schedule, _all(prepared.platform, core_speeds=(), core_memory_speeds=()))


def _blind(name: str, platform: Platform, store: RecordStore) -> latency.Variant:
    """Return the program of the schedule that is found where all cores count as equal."""
    alike: dict[str, Any] = dict.fromkeys(CORE_KEYS, ())
    prepared = latency.prepare(name, _all(platform, **alike), store)
    found = search_schedule(prepared.problem, seed=0).best
    return _build(prepared, found, prepared.platform)


def _all(platform: Platform, **changes: Any) -> Platform:
    devices = tuple(replace(device, **changes) for device in platform.devices)
    return replace(platform, devices=devices)


def _build(prepared: latency.Prepared, schedule: Schedule, platform: Platform) -> latency.Variant:
    annotated = annotate_schedule(
        prepared.extraction, schedule, prepared.platform, prepared.choices.function
    )
    executable = build_executable(annotated, platform, schedule)
    inputs = prepared.model.numpy_inputs()
    timer: Callable[[int], float] = lambda count: float(  # noqa: E731
        np.median(executable.durations_ns(inputs, count))
    )
    return latency.Variant(timer, schedule.makespan_ns, executable)


def _print_row(row: dict[str, Any]) -> None:
    print(f"\n{row['model']}: {row['tasks']} tasks, {row['kept']} is kept")
    for name, median in row["median_us"].items():
        predicted = row["over_predicted"].get(name)
        told = "   over predicted {:.3f} ({:.3f}-{:.3f})".format(*predicted) if predicted else ""
        print(f"  {name:24} {median:12.1f} us{told}")
    for key in ("over_best_single", "team_over_fast", "even_team_over_fast", "over_one_cost_class"):
        print("  {:24} {:.3f} ({:.3f}-{:.3f})".format(key.replace("_", " "), *row[key]), flush=True)


def _print_summary(rows: list[dict[str, Any]]) -> None:
    print(f"\n{len(rows)} models: geometric mean, least")
    for key in ("over_best_single", "team_over_fast", "even_team_over_fast", "over_one_cost_class"):
        values = np.array([row[key][0] for row in rows])
        mean = np.exp(np.log(values).mean())
        print(f"  {key.replace('_', ' '):24} {mean:.3f}  {values.min():.3f}")
    errors = [abs(row["over_predicted"][_OURS][0] - 1) for row in rows]
    print(f"  prediction error, median {np.median(errors):.1%}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--models", nargs="+", default=list(MODELS), choices=models.names(), metavar="MODEL"
    )
    parser.add_argument("--factor", type=float, default=2.5, help="how much slower the second core is")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--round-ms", type=float, default=100.0, help="time of a variant in a round")
    parser.add_argument("--records", help="file of measured times to use and to extend")
    parser.add_argument("--json", help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
