"""What closing the loop is worth, and how true predictions are before and after it.

    python benchmarks/refined.py --records records.jsonl --json refined.json

Each model is compiled for each platform without the loop and with it (`compile --refine`). All programs
then run in turn in a fresh process:

    plain             what is kept without the loop: by a race with the best single device
    refined           what is kept with it
    single            the best single device by prediction
    copy              a second copy of ``refined``: how far from 1 its ratio lies is the noise floor

What is printed are medians of the ratios of neighbouring rounds with quartiles, and what was measured
over what was predicted: of ``plain`` by kernels that were timed alone, of ``refined`` by times in place.
A gain that lies below the noise floor is none. A benchmark never fails on a time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import models
import numpy as np

import tvm_sphinx
from tvm_sphinx.errors import SphinxError
from tvm_sphinx.platform.machine import machine_id
from tvm_sphinx.program.compiled import CompiledModel

Quartiles = tuple[float, float, float]
_VARIANTS = ("plain", "refined", "single", "copy")


def main() -> None:
    args = _parse()
    if args.measure:
        print(json.dumps(run_in_turn(args.measure, args.rounds, args.round_ms)))
        return
    print(f"{machine_id()}; load {os.getloadavg()[0]:.1f}", flush=True)
    rows = []
    for platform in args.platforms:
        for name in args.models:
            try:
                rows.append({"model": name, "platform": platform, **measure(name, platform, args)})
            except SphinxError as error:
                print(f"{name} on {platform}: {error}", flush=True)
                continue
            _print_row(rows[-1])
            if args.json:  # what is known is kept, whatever comes after it
                content = {"machine": machine_id(), "rows": rows}
                Path(args.json).write_text(json.dumps(content, indent=1), encoding="utf-8")
    if rows:
        _print_summary(rows)


def measure(name: str, platform: str, args: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of a model on a platform."""
    module = models.load(name).relax()
    options = {"records": args.records, "verify": False}
    plain = tvm_sphinx.compile(module, platform, **options)
    refined = tvm_sphinx.compile(module, platform, refine_s=args.refine_s, **options)
    with tempfile.TemporaryDirectory(prefix="tvm-sphinx-") as folder:
        paths = [str(Path(folder) / f"{each}.sphinx") for each in ("plain", "refined")]
        for path, compiled in zip(paths, (plain, refined), strict=True):
            compiled.save(path)
        command = [sys.executable, "-W", "ignore", __file__, "--measure", *paths]
        command += ["--rounds", str(args.rounds), "--round-ms", str(args.round_ms)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    times = {each: np.array(ns) for each, ns in json.loads(done.stdout).items()}
    return {
        "tasks": plain.graph.num_tasks if plain.graph else 0,
        "median_us": {each: float(np.median(ns)) / 1e3 for each, ns in times.items()},
        "refined_over_plain": quartiles(times["plain"] / times["refined"]),
        "refined_over_single": quartiles(times["single"] / times["refined"]),
        "noise_floor": quartiles(times["copy"] / times["refined"]),
        "plain_over_predicted": quartiles(times["plain"] / plain.report.makespan_ns),
        "refined_over_predicted": quartiles(times["refined"] / refined.report.makespan_ns),
        "refine_s": refined.stages_s.get("refine", 0.0),
        "note": refined.note,
    }


def run_in_turn(paths: list[str], rounds: int, round_ms: float) -> dict[str, list[float]]:
    """Return the median time in ns of each variant in each round, all in turn."""
    plain, refined = (CompiledModel.load(path) for path in paths)
    programs = {
        "plain": plain.program,
        "refined": refined.program,
        "single": plain.reference or plain.program,
        "copy": CompiledModel.load(paths[1]).program,
    }
    inputs = list(plain.random_inputs().values())
    executables = {name: program.executable for name, program in programs.items()}
    counts = {}
    for name, executable in executables.items():
        once_ns = float(np.median(executable.durations_ns(inputs, 3)))
        counts[name] = max(1, int(1e6 * round_ms / once_ns))
    times: dict[str, list[float]] = {name: [] for name in _VARIANTS}
    for number in range(rounds):
        shift = number % len(_VARIANTS)  # who comes first rotates
        for name in _VARIANTS[shift:] + _VARIANTS[:shift]:
            times[name].append(float(np.median(executables[name].durations_ns(inputs, counts[name]))))
    return times


def quartiles(ratios: Any) -> Quartiles:
    """Return median, lower and upper quartile."""
    median, low, high = np.quantile(ratios, [0.5, 0.25, 0.75])
    return float(median), float(low), float(high)


def _print_row(row: dict[str, Any]) -> None:
    medians = ", ".join(f"{name} {us / 1e3:.2f} ms" for name, us in row["median_us"].items())
    print(f"\n{row['model']} on {row['platform']}, {row['tasks']} tasks: {medians}")
    for key in ("refined_over_plain", "refined_over_single", "noise_floor"):
        print("  {:24} {:.3f} ({:.3f}-{:.3f})".format(key.replace("_", " "), *row[key]))
    for key in ("plain_over_predicted", "refined_over_predicted"):
        print("  {:24} {:.3f} ({:.3f}-{:.3f})".format(key.replace("_", " "), *row[key]))
    print(f"  {row['note']} ({row['refine_s']:.1f} s)", flush=True)


def _print_summary(rows: list[dict[str, Any]]) -> None:
    print(f"\n{len(rows)} cases: geometric mean, least")
    for key in ("refined_over_plain", "refined_over_single"):
        values = np.array([row[key][0] for row in rows])
        mean = np.exp(np.log(values).mean())
        print(f"  {key.replace('_', ' '):24} {mean:.3f}  {values.min():.3f}")
    print("|measured / predicted - 1|: median, worst")
    for key in ("plain_over_predicted", "refined_over_predicted"):
        errors = np.array([abs(row[key][0] - 1) for row in rows])
        print(f"  {key.replace('_', ' '):24} {np.median(errors):.1%}  {errors.max():.1%}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--models", nargs="+", default=models.names(), choices=models.names(), metavar="MODEL"
    )
    parser.add_argument("--platforms", nargs="+", default=["detect", "unlike-cpus"])
    parser.add_argument("--refine-s", type=float, default=20.0, help="time of the loop")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--round-ms", type=float, default=100.0, help="time of a variant in a round")
    parser.add_argument("--records", help="file of measured times to use and to extend")
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
