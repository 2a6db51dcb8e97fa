"""What pruning by recurring subgraphs does: segments decided once, search time, quality.

    python benchmarks/pruning.py [--json OUT] [--only segments,scaling,reach,deep,quality] [--seeds N]
                                 [--models bert_base,clip] [--cpu-s 0.5]

Models are the task graphs in tests/data/graphs, costs those of `synthetic`, both the same everywhere;
times are CPU seconds of one thread. Nothing here fails on a time.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "patterns")]

import network_graphs as nets  # noqa: E402
from synthetic import BOARDS, make_problem  # noqa: E402

from tvm_sphinx.patterns import find_patterns  # noqa: E402
from tvm_sphinx.scheduling.graph import TaskGraph  # noqa: E402
from tvm_sphinx.scheduling.problem import SchedulingProblem  # noqa: E402
from tvm_sphinx.search import Stop, search_schedule, solve_series  # noqa: E402
from tvm_sphinx.search.pruning import report_pruning  # noqa: E402

#: Budgets in evaluations of the runs that try to reach the quality of the unpruned search at REFERENCE.
LADDER = (3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
REFERENCE = 300_000
TOLERANCES = (0.0, 0.01, 0.03)

Row = dict[str, Any]


def load_graphs() -> list[TaskGraph]:
    paths = sorted((ROOT / "tests" / "data" / "graphs").glob("*.json.gz"))
    return [TaskGraph.from_json(json.loads(gzip.decompress(path.read_bytes()))) for path in paths]


def print_table(title: str, rows: Sequence[Row]) -> None:
    if not rows:
        return
    print(f"\n{title}")
    texts = [list(rows[0])] + [
        [f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for text in texts:
        print("  " + "  ".join(cell.rjust(width) for cell, width in zip(text, widths, strict=True)))


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values))) if values else float("nan")


def segments(graphs: Sequence[TaskGraph]) -> list[Row]:
    """What is decided once on every model and board, and the sizes of the space before and after."""
    rows = []
    for graph in graphs:
        for board in BOARDS:
            problem = make_problem(graph, board)
            begin = time.thread_time()
            plan = solve_series(problem, Stop.default(problem.num_tasks))
            spent = time.thread_time() - begin
            report = report_pruning(problem, plan)
            rows.append({"model": graph.name, "board": board.name, **report.to_json(), "cpu_s": spent})
    print_table("Segments: tasks, those that are decided once, log10 of placements", rows)
    decided = [row for row in rows if row["is_exact"]]
    print(f"  decided by their segments: {len(decided)} of {len(rows)}")
    if decided:
        before, after = (
            statistics.median(row[f"log10_{when}"] for row in decided) for when in ("before", "after")
        )
        print(f"  medians of these: 10^{before:.1f} placements before, 10^{after:.1f} after")
    return rows


def deep_graphs() -> list[TaskGraph]:
    """Networks deeper than the stored ones, of 500 to 3,000 tasks."""
    return [
        nets.transformer(48),
        nets.transformer(200),
        nets.two_towers(24),
        nets.two_towers(72),
        nets.bilstm(150),
        nets.stacked(nets.random_block(3, 18, 6), 50),
        nets.stacked(nets.random_block(5, 18, 6), 150),
    ]


class Curve:
    """Mean makespans, and mean CPU seconds, of runs with growing budgets."""

    def __init__(self, run: Callable[[int, int], int], seeds: int) -> None:
        self.cpu_s: list[float] = []
        self.makespan: list[float] = []
        for budget in LADDER:
            begin = time.thread_time()
            self.makespan.append(statistics.fmean(run(budget, seed) for seed in range(seeds)))
            self.cpu_s.append((time.thread_time() - begin) / seeds)

    def reach(self, quality: float, costs: Sequence[float]) -> float:
        """Cost, interpolated between budgets, at which the mean reaches a quality; inf if never."""
        for at, makespan in enumerate(self.makespan):
            if makespan <= quality:
                if at == 0:
                    return costs[0]
                share = (self.makespan[at - 1] - quality) / (self.makespan[at - 1] - makespan)
                return float(costs[at - 1] * (costs[at] / costs[at - 1]) ** share)
        return math.inf


def reach(graphs: Sequence[TaskGraph], seeds: int) -> list[Row]:
    """Evaluations and CPU time of both searches to the unpruned search's quality, within tolerances.

    A search that does not get there within the ladder counts with its largest budget, which flatters
    it; ``missed`` says so.
    """
    rows = []
    for graph in graphs:
        for board in BOARDS:
            problem = make_problem(graph, board)
            series = solve_series(problem)

            def plain(budget: int, seed: int, problem: SchedulingProblem = problem) -> int:
                stop = Stop(max_evaluations=budget)
                return search_schedule(problem, seed=seed, stop=stop, prune=False).best.makespan_ns

            def pruned(budget: int, seed: int, problem: SchedulingProblem = problem) -> int:
                stop = Stop(max_evaluations=budget)
                return search_schedule(problem, seed=seed, stop=stop).best.makespan_ns

            one, other = Curve(plain, seeds), Curve(pruned, seeds)
            row: Row = {"model": graph.name, "board": board.name, "tasks": graph.num_tasks}
            row["segments"] = f"{len(series.distinct)} of {series.num_segments}" if series else ""
            row["proven"] = series is not None and series.is_optimal
            missed = False
            for tolerance in TOLERANCES:
                quality_ns = one.makespan[LADDER.index(REFERENCE)] * (1 + tolerance)
                for what, costs in (("evals", (LADDER, LADDER)), ("cpu", (one.cpu_s, other.cpu_s))):
                    ratio = []
                    for curve, cost in zip((one, other), costs, strict=True):
                        found = curve.reach(quality_ns, cost)
                        missed |= math.isinf(found)
                        ratio.append(min(found, cost[-1]))
                    row[f"{what}+{tolerance:.0%}"] = ratio[0] / ratio[1]
            row["missed"] = missed
            rows.append(row)
            print(f"  {graph.name}/{board.name}", file=sys.stderr, flush=True)
    print_table(
        f"Unpruned over pruned to reach the unpruned search's mean of {REFERENCE:,} evaluations, "
        f"{seeds} seeds (goal 5)",
        rows,
    )
    for name in rows[0] if rows else ():
        if name.startswith(("evals", "cpu")):
            values = [row[name] for row in rows]
            print(f"  geometric mean of {name}: {geometric_mean(values):.2f}; best {max(values):.2f}")
    return rows


def quality(graphs: Sequence[TaskGraph], seeds: int, cpu_s: float) -> list[Row]:
    """Makespans of both searches with equal CPU time."""
    rows = []
    for graph in graphs:
        for board in BOARDS:
            problem = make_problem(graph, board)
            plain, pruned = [], []
            for seed in range(seeds):
                stop = Stop(cpu_limit_s=cpu_s)
                result = search_schedule(problem, seed=seed, stop=stop)
                pruned.append(result.best.makespan_ns)
                unpruned = search_schedule(problem, seed=seed, stop=stop, prune=False)
                plain.append(unpruned.best.makespan_ns)
            ratio = statistics.fmean(pruned) / statistics.fmean(plain)
            # Of the difference of two means (Welch).
            error = math.sqrt((statistics.pvariance(plain) + statistics.pvariance(pruned)) / (seeds - 1))
            error /= statistics.fmean(plain)
            rows.append(
                {
                    "model": graph.name,
                    "board": board.name,
                    "tasks": graph.num_tasks,
                    "proven": result.stop_reason == "optimal",
                    "unpruned_ns": int(statistics.fmean(plain)),
                    "pruned_over_unpruned": ratio,
                    "standard_error": error,
                    "worse_by_2_errors": ratio > 1 + 2 * error,
                    "best_over_best": min(pruned) / min(plain),
                }
            )
            print(f"  {graph.name}/{board.name}: {ratio:.4f}", file=sys.stderr, flush=True)
    print_table(f"Equal CPU time ({cpu_s} s), means of {seeds} seeds", rows)
    ratios = [row["pruned_over_unpruned"] for row in rows]
    print(
        f"  geometric mean {geometric_mean(ratios):.5f}; worst {max(ratios):.4f}; best {min(ratios):.4f}"
    )
    print(
        f"  equal or better on {sum(ratio <= 1.0 for ratio in ratios)} of {len(ratios)}, within 0.1 % "
        f"on {sum(ratio <= 1.001 for ratio in ratios)}; worse by more than two standard errors on "
        f"{sum(row['worse_by_2_errors'] for row in rows)}"
    )
    return rows


def scaling() -> list[Row]:
    """CPU time of finding patterns as graphs grow."""
    makers: dict[str, Callable[[int], TaskGraph]] = {
        "repeated blocks": lambda n: nets.stacked(nets.random_block(3, 18, 6), n // 20),
        "transformer layers": lambda n: nets.transformer(n // 14),
        "random, 40 kernels": lambda n: nets.random_graph(n),
        "random, 5 kernels": lambda n: nets.random_graph(n, kernels=5),
        "long chain": nets.long_chain,
        "wide fan": nets.wide_fan,
    }
    rows = []
    for name, make in makers.items():
        row: Row = {"graph": name}
        for count in (500, 1000, 2000, 4000, 10000):
            graph = make(count)
            spent = []
            for _ in range(3):
                begin = time.process_time()
                find_patterns(graph)
                spent.append(time.process_time() - begin)
            row[f"{count}_s"] = min(spent)
        row["exponent"] = math.log(row["10000_s"] / row["500_s"]) / math.log(20)
        rows.append(row)
    print_table("CPU time of find_patterns (goal: 2,000 tasks in 0.5 s)", rows)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--only", default="segments,scaling,reach,deep,quality", help="parts, by comma")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--models", help="only these, by comma")
    parser.add_argument("--cpu-s", type=float, default=0.5, help="CPU time of each search of quality")
    options = parser.parse_args()
    known = load_graphs()
    chosen = options.models.split(",") if options.models else [graph.name for graph in known]
    graphs = [graph for graph in known if graph.name in chosen]
    large = [graph for graph in graphs if graph.num_tasks > 200]
    parts: dict[str, Callable[[], list[Row]]] = {
        "segments": lambda: segments(graphs),
        "scaling": scaling,
        "reach": lambda: reach(large, options.seeds),
        "deep": lambda: reach(deep_graphs(), options.seeds),
        "quality": lambda: quality(graphs, options.seeds, options.cpu_s),
    }
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    figures = {name: parts[name]() for name in options.only.split(",")}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
