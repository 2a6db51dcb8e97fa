"""Measure the search: rates, quality, peers, ablations; tables on stdout, JSON beside them.

    python benchmarks/search.py --data ../shared/data/generated [PART ...]

CPU seconds of one thread throughout. Makespans are divided by the best value known for the problem: the
one in ``PUBLISHED_BEST``, or the best of this run for a problem that has none. Better ones are printed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import itertools
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parent))
from baselines import search_with
from decoding import decoding
from drawn import draw_layered, draw_problems
from peers import PEERS

from tvm_sphinx.cpga_ext._cpga import Search
from tvm_sphinx.errors import SphinxError
from tvm_sphinx.scheduling.problem import SchedulingProblem
from tvm_sphinx.scheduling.problem_file import read_problem
from tvm_sphinx.scheduling.schedule import validate
from tvm_sphinx.search import CpgaParams, SearchResult, Stop, search_schedule
from tvm_sphinx.search.native import native_problem, to_int64

# As published with the problems; what is found since is printed.
PUBLISHED_BEST = {
    "heft-100-ccr1": 550_008,
    "heft-100-ccr10": 1_025_191,
    "heft-500-ccr1": 522_016,
    "inception-9": 1_449_117,
    "transformer-12": 1_681_922,
}
#: Problems for which something better was found in this run, and the makespan.
NEW_BEST: dict[str, int] = {}
# The 50-task graphs at ratio 10 of `draw_layered` by seed: optima that CP-SAT has proven.
PROVEN_OPTIMA = {1: 581_557, 2: 657_903, 3: 617_968, 4: 620_989, 5: 441_762}
BASELINES = ("heft", "cpop", "peft", "fastest", "single", "greedy", "random", "ga", "annealing", "cpga")

Table = list[dict[str, Any]]


def load(folder: Path, names: Iterable[str]) -> list[SchedulingProblem]:
    return [read_problem(folder / f"{name}.json") for name in names]


def best_known(problem: SchedulingProblem, *found: int) -> int:
    """Return the published best value, or the best that was found; print what is better."""
    published = PUBLISHED_BEST.get(problem.name)
    if published is None:
        return min(found)
    if min(found) < min(published, NEW_BEST.get(problem.name, published)):
        NEW_BEST[problem.name] = min(found)
        print(
            f"  new best known: {problem.name} {min(found)}, {min(found) / published:.4f} of {published}"
        )
    return published


def rates(problems: list[SchedulingProblem], _: argparse.Namespace) -> Table:
    """Evaluations per CPU second of the decoders and the search; microseconds of HEFT."""
    rows = []
    for problem in problems:
        native = native_problem(problem)
        order = to_int64(native.heuristic(0)[1])
        rng = np.random.default_rng(0)
        device = rng.integers(0, problem.num_devices, problem.num_tasks)
        row: dict[str, Any] = {"problem": problem.name, "tasks": problem.num_tasks}
        row["append/s"] = rate(2_000, native.decode, order, device, 0, 2_000)
        row["insert/s"] = rate(2_000, native.decode, order, device, 1, 2_000)
        row["heft us"] = round(1e6 / rate(1, native.heuristic, 0))
        found = search_schedule(problem, stop=Stop(cpu_limit_s=1.0))
        row["search/s"] = found.evaluations
        rows.append(row)
    return rows


def rate(count: int, run: Callable[..., object], *args: object) -> int:
    """Return evaluations per CPU second, the best of five runs."""
    times = []
    for _ in range(5):
        begin = time.thread_time()
        run(*args)
        times.append(time.thread_time() - begin)
    return round(count / min(times))


def quality(problems: list[SchedulingProblem], args: argparse.Namespace) -> Table:
    """Every algorithm, several seeds, the same CPU time: mean and worst makespan over the best known."""
    rows = []
    for problem in problems:
        results: dict[str, list[SearchResult]] = {}
        for name in args.algorithms:
            seeds = range(args.seeds if name in ("random", "ga", "annealing", "cpga") else 1)
            stop = Stop(cpu_limit_s=args.cpu)
            results[name] = [search_with(problem, name, seed=s, stop=stop) for s in seeds]
        for found in results["cpga"]:
            validate(problem, found.best)
        values = {name: [r.best.makespan_ns for r in runs] for name, runs in results.items()}
        best = best_known(problem, *(v for runs in values.values() for v in runs))
        row: dict[str, Any] = {"problem": problem.name}
        row |= {name: round(statistics.mean(runs) / best, 4) for name, runs in values.items()}
        cpga = values["cpga"]
        row["cpga worst"] = round(max(cpga) / best, 4)
        row["cpga sd %"] = round(100 * statistics.pstdev(cpga) / statistics.mean(cpga), 2)
        row["gap"] = round(min(cpga) / results["cpga"][0].best.lower_bound_ns, 4)
        rows.append(row)
    return rows


def peers(problems: list[SchedulingProblem], args: argparse.Namespace) -> Table:
    """Peers with our seeds and decoder and ``--peer-cpu`` seconds; time that CPGA takes to their best.

    CPGA runs with an eighth, a quarter, a half and all of ``--cpu`` until one run gets there, as one
    would who does not know how long it takes; the time of all its runs counts.
    """
    rows = []
    for problem in problems:
        budgets = [args.cpu / share for share in (8, 4, 2, 1)]
        ours = [
            [search_schedule(problem, seed=s, stop=Stop(cpu_limit_s=cpu)) for cpu in budgets]
            for s in range(args.seeds)
        ]
        for name in args.peers:
            try:
                makespan, peer_s, peer_evaluations = PEERS[name](problem, args.peer_cpu)
            except (ImportError, SphinxError) as error:
                print(f"  {name} left out: {error}")
                continue
            reached = [found for runs in ours if (found := first_below(runs, makespan)) is not None]
            row: dict[str, Any] = {"problem": problem.name, "peer": name}
            row["peer / best"] = round(makespan / best_known(problem, makespan), 4)
            row["missed"] = len(ours) - len(reached)
            if reached:
                row["x time"] = round(peer_s / max(1e-4, statistics.median(s for s, _ in reached)), 1)
            if reached and peer_evaluations:
                evaluations = statistics.median(count for _, count in reached)
                row["x evaluations"] = round(peer_evaluations / evaluations, 2)
            rows.append(row)
    for column in ("x time", "x evaluations"):
        ratios = [row[column] for row in rows if row.get(column)]
        if ratios:
            mean, least = statistics.geometric_mean(ratios), min(ratios)
            print(f"  geometric mean of {column}: {mean:.1f}; least: {least}")
    return rows


def first_below(runs: list[SearchResult], makespan_ns: int) -> tuple[float, int] | None:
    """Return the CPU seconds and evaluations of runs one after the other up to a makespan, or None."""
    cpu_s, evaluations = 0.0, 0
    for run in runs:
        for point in run.history:
            if point.makespan_ns <= makespan_ns:
                return cpu_s + point.cpu_s, evaluations + point.evaluations
        cpu_s += run.history[-1].cpu_s if run.stop_reason == "optimal" else run.runtime_s
        evaluations += run.evaluations
    return None


UNPRUNED = "no segments and no blocks first"
ABLATIONS: dict[str, dict[str, int]] = {
    "default": {},
    "critical path off in mutation": {"critical_percent": 0},
    "critical path off in local search": {"late_percent": 0},
    "critical path off in both": {"critical_percent": 0, "late_percent": 0},
    "short cycles": {"effort": 40},
    "short cycles, no crossover": {"effort": 40, "population": 1},
    "no swaps": {"swap_percent": 0},
    "no blocks": {"block_percent": 0},
    "blocks from one device only": {"gather_percent": 0},
    "one long annealing": {"effort": 1_000_000},
    "no focus": {"focus": 1_000_000},
    "no sorting": {"sort_every": 1_000_000},
    UNPRUNED: {},
}


def ablation(problems: list[SchedulingProblem], args: argparse.Namespace) -> Table:
    """Each operator off, at equal evaluations: makespan over that of the default, per problem.

    Rows of short cycles are to be compared with each other: they bring crossover into play early.
    """
    chosen = [*problems, *draw_problems()][: args.ablation_problems]
    values: dict[str, list[list[int]]] = {}
    for name, change in ABLATIONS.items():
        params = replace(CpgaParams(), **change)
        stop = Stop(max_evaluations=args.ablation_evaluations)
        values[name] = [
            [
                search_schedule(
                    p, seed=s, params=params, stop=stop, prune=name != UNPRUNED
                ).best.makespan_ns
                for s in range(args.ablation_seeds)
            ]
            for p in chosen
        ]
    rows = []
    for name, per_problem in values.items():
        ratios = [
            statistics.mean(a) / statistics.mean(b)
            for a, b in zip(per_problem, values["default"], strict=True)
        ]
        rows.append(
            {
                "operator": name,
                "geometric mean": round(statistics.geometric_mean(ratios), 4),
                "worse on": sum(ratio > 1.0005 for ratio in ratios),
                "better on": sum(ratio < 0.9995 for ratio in ratios),
                "of": len(ratios),
                "least": round(min(ratios), 4),
                "most": round(max(ratios), 4),
            }
        )
    return rows


def optima(_: list[SchedulingProblem], args: argparse.Namespace) -> Table:
    """50-task, CCR 10 graphs against their optima, proven by CP-SAT in up to minutes each."""
    rows = []
    for seed, optimum in list(PROVEN_OPTIMA.items())[: args.optima]:
        problem = draw_layered(seed, 50, 3, 10.0)
        stop = Stop(cpu_limit_s=args.cpu)
        found = [search_schedule(problem, seed=s, stop=stop) for s in range(args.seeds)]
        values = [run.best.makespan_ns / optimum for run in found]
        row: dict[str, Any] = {"problem": problem.name, "optimum": optimum}
        row["mean / optimum"] = round(statistics.mean(values), 4)
        row["worst / optimum"] = round(max(values), 4)
        rows.append(row)
    means = [row["mean / optimum"] for row in rows]
    print(f"  geometric mean of mean / optimum: {statistics.geometric_mean(means):.4f}")
    return rows


def proofs(_: list[SchedulingProblem], args: argparse.Namespace) -> Table:
    """Graphs of 40 tasks, proven optimal by CP-SAT on one thread: seconds in all, and CPGA alone."""
    rows = []
    for ccr, devices in itertools.product((0.1, 1.0, 10.0), (3, 8)):
        for seed in range(args.proofs):
            problem = draw_layered(seed, 40, devices, ccr)
            stop = Stop(time_limit_s=args.exact_s)
            proven = search_schedule(problem, algorithm="exact", stop=stop)
            found = search_schedule(problem, stop=Stop(cpu_limit_s=args.cpu))
            row: dict[str, Any] = {"problem": problem.name, "proven": proven.stop_reason == "optimal"}
            row["seconds"] = round(proven.runtime_s, 1)
            row["gap"] = round(proven.best.gap, 4)
            row["cpga / exact"] = round(found.best.makespan_ns / proven.best.makespan_ns, 4)
            rows.append(row)
    return rows


def scale(_: list[SchedulingProblem], args: argparse.Namespace) -> Table:
    """Large graphs on 8 devices: HEFT's time, memory per edge, and the makespan over the best seed's."""
    rows = []
    for tasks in (1_000, 10_000, 20_000):
        problem = draw_layered(1, tasks, 8, 1.0)
        before = resident_bytes()
        native = native_problem(problem)
        values = np.array(astuple(CpgaParams()), dtype=np.int64)
        kept = Search(native, values, 0)
        row: dict[str, Any] = {"tasks": tasks, "edges": problem.num_edges}
        row["heft ms"] = round(1e3 / rate(1, native.heuristic, 0), 2)
        row["bytes / edge"] = round((resident_bytes() - before) / problem.num_edges)
        del kept
        found = search_schedule(problem, stop=Stop(cpu_limit_s=args.cpu))
        row["found / seed"] = round(found.best.makespan_ns / found.history[0].makespan_ns, 4)
        rows.append(row)
    return rows


def resident_bytes() -> int:
    """Return the memory that this process holds."""
    return psutil.Process().memory_info().rss


def versions() -> dict[str, str]:
    """Return the versions of Python, of ourselves and of the peers that are installed."""
    found = {"python": platform.python_version()}
    for name in ("tvm-sphinx", "numpy", "pymoo", "deap", "ortools"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def print_table(rows: Table) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[str(row.get(column, "")) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in [columns, *cells]) for i in range(len(columns))]
    for line in [columns, *cells]:
        print("  " + "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def main() -> None:
    every = (rates, decoding, quality, peers, ablation, optima, proofs, scale)
    parts = {part.__name__: part for part in every}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "parts", nargs="*", default=list(parts), help=f"of {', '.join(parts)}; default: all"
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data/generated"))
    parser.add_argument("--problems", nargs="*", default=list(PUBLISHED_BEST))
    parser.add_argument(
        "--algorithms", nargs="*", default=list(BASELINES), help="in quality; needs cpga"
    )
    parser.add_argument("--cpu", type=float, default=2.0, help="CPU seconds of each search")
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--peer-cpu", type=float, default=20.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ablation-seeds", type=int, default=10)
    parser.add_argument("--ablation-problems", type=int, default=12)
    parser.add_argument("--ablation-evaluations", type=int, default=300_000)
    parser.add_argument("--optima", type=int, default=5)
    parser.add_argument("--proofs", type=int, default=2, help="graphs of each kind in proofs")
    parser.add_argument("--exact-s", type=float, default=60.0)
    parser.add_argument("--json", type=Path, help="write all tables there")
    args = parser.parse_args()
    unknown = set(args.parts) - set(parts)
    if unknown:
        parser.error(f"unknown parts {sorted(unknown)}; known: {', '.join(parts)}")
    problems = load(args.data, args.problems)
    load_average = os.getloadavg()
    machine = platform.processor() or platform.machine()
    print(f"{machine}, Python {platform.python_version()}, load {load_average}")
    tables = {}
    for name in args.parts:
        print(f"\n{name}: {parts[name].__doc__}")
        tables[name] = parts[name](problems, args)
        print_table(tables[name])
    if args.json:
        given = {name: str(value) for name, value in vars(args).items()}
        report = {"machine": machine, "load": load_average, "versions": versions(), "arguments": given}
        report |= {"new_best_known_ns": NEW_BEST, "tables": tables}
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
