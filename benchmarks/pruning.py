"""What pruning by recurring patterns does: genes, search time, quality, and its own time.

    python benchmarks/pruning.py [--json OUT] [--only genes,time,quality,tying,scaling] [--seeds N]

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
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "patterns")]

import network_graphs as nets  # noqa: E402
from cp_sat import solve  # noqa: E402
from synthetic import BOARDS, make_problem  # noqa: E402

from tvm_sphinx.graph import TaskGraph  # noqa: E402
from tvm_sphinx.patterns import (  # noqa: E402
    Pruning,
    find_patterns,
    log10_size,
    prune_problem,
    prune_search_space,
    report_pruning,
    search_with_pruning,
    tie_occurrences,
)
from tvm_sphinx.problem import SchedulingProblem  # noqa: E402
from tvm_sphinx.search import SearchResult, SearchSpace, Stop, search_schedule  # noqa: E402

TRANSFORMERS = ("bert_base", "clip", "lxmert", "t5_small", "vit_b16")
#: Seconds of the unpruned search whose quality is to be reached, and of the runs that try.
REFERENCE_S = 1.0
LADDER_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)

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


def genes(graphs: Sequence[TaskGraph]) -> list[Row]:
    """Genes and sizes of the space, before and after, for every model."""
    rows = []
    for graph in graphs:
        hierarchy = find_patterns(graph)
        for board in BOARDS:
            problem = make_problem(graph, board)
            space = prune_search_space(graph, hierarchy, problem)
            report = report_pruning(graph, hierarchy, space, problem)
            row = {"board": board.name, **report.to_json()}
            row["goal"] = (
                8 if graph.name in TRANSFORMERS else 2 if 2 * report.kernels <= report.tasks else ""
            )
            row["met"] = "" if row["goal"] == "" else report.gene_ratio >= row["goal"]
            rows.append(row)
    print_table(
        "Genes (goal: transformers 8x; CNNs and others with each kernel twice on average 2x)", rows
    )
    return rows


def reach_s(search: Callable[[float], SearchResult], quality_ns: int) -> float:
    """CPU time of the shortest run that reaches a quality, up to when it does; inf if none does."""
    for budget in LADDER_S:
        for point in search(budget).history:
            if point.makespan_ns <= quality_ns:
                return point.cpu_s
    return math.inf


def run_plain(problem: SchedulingProblem, seed: int, budget_s: float) -> SearchResult:
    return search_schedule(problem, seed=seed, stop=Stop(cpu_limit_s=budget_s))


def run_pruned(problem: SchedulingProblem, pruning: Pruning, seed: int, budget_s: float) -> SearchResult:
    return search_with_pruning(problem, pruning, seed=seed, stop=Stop(cpu_limit_s=budget_s))


def time_to_quality(graphs: Sequence[TaskGraph], seeds: int, tolerance: float) -> list[Row]:
    """CPU time to the final quality of the unpruned search, on graphs of over 200 tasks.

    With a tolerance, to within that share of it, for both searches.
    """
    rows = []
    for graph in (graph for graph in graphs if graph.num_tasks > 200):
        for board in BOARDS:
            problem = make_problem(graph, board)
            begin = time.thread_time()
            pruning = prune_problem(problem, graph)
            pruning_s = time.thread_time() - begin
            found: list[tuple[float, float, float]] = []
            for seed in range(seeds):
                reference = search_schedule(problem, seed=seed, stop=Stop(cpu_limit_s=REFERENCE_S))
                quality_ns = int(reference.best.makespan_ns * (1 + tolerance))
                last = next(p for p in reference.history if p.makespan_ns <= quality_ns)
                plain = reach_s(partial(run_plain, problem, seed), quality_ns)
                pruned = reach_s(partial(run_pruned, problem, pruning, seed), quality_ns)
                found.append((last.cpu_s, plain, pruned))
            medians = [
                min(statistics.median(column), LADDER_S[-1]) for column in zip(*found, strict=True)
            ]
            row = dict(zip(("unpruned_s", "shortest_unpruned_s", "pruned_s"), medians, strict=True))
            rows.append(
                {
                    "model": graph.name,
                    "board": board.name,
                    "tasks": graph.num_tasks,
                    **row,
                    "reached": sum(math.isfinite(pruned) for _, _, pruned in found),
                    "pruning_s": pruning_s,
                    "ratio": row["unpruned_s"] / row["pruned_s"],
                    "ratio_to_shortest": row["shortest_unpruned_s"] / row["pruned_s"],
                    "ratio_with_pruning": row["unpruned_s"] / (row["pruned_s"] + pruning_s),
                }
            )
            print(f"  {graph.name}/{board.name}: {rows[-1]['ratio']:.2f}", file=sys.stderr, flush=True)
    title = f"CPU time to {REFERENCE_S} s of unpruned search + {tolerance:.2%}, medians of {seeds} seeds"
    print_table(title, rows)
    for name in ("ratio", "ratio_to_shortest", "ratio_with_pruning"):
        print(f"  geometric mean of {name}: {geometric_mean([row[name] for row in rows]):.2f} (goal 5)")
    return rows


def quality(graphs: Sequence[TaskGraph], seeds: int) -> list[Row]:
    """Makespans of both searches with equal CPU time, the time to prune counted."""
    rows = []
    for graph in graphs:
        for board in BOARDS:
            problem = make_problem(graph, board)
            plain, pruned = [], []
            for seed in range(seeds):
                begin = time.thread_time()
                pruning = prune_problem(problem, graph)
                left = Stop(cpu_limit_s=max(0.0, REFERENCE_S / 2 - (time.thread_time() - begin)))
                pruned.append(
                    search_with_pruning(problem, pruning, seed=seed, stop=left).best.makespan_ns
                )
                whole = Stop(cpu_limit_s=REFERENCE_S / 2)
                plain.append(search_schedule(problem, seed=seed, stop=whole).best.makespan_ns)
            rows.append(
                {
                    "model": graph.name,
                    "board": board.name,
                    "tasks": graph.num_tasks,
                    "unpruned_ns": int(statistics.median(plain)),
                    "pruned_ns": int(statistics.median(pruned)),
                    "pruned_over_unpruned": statistics.median(pruned) / statistics.median(plain),
                    "best_over_best": min(pruned) / min(plain),
                }
            )
    print_table(f"Equal CPU time ({REFERENCE_S / 2} s, pruning counted), medians of {seeds} seeds", rows)
    ratios = [row["pruned_over_unpruned"] for row in rows]
    worse = sum(ratio > 1.0 for ratio in ratios)
    print(
        f"  geometric mean {geometric_mean(ratios):.5f}; worst {max(ratios):.4f}; best {min(ratios):.4f}"
    )
    print(f"  equal or better on {len(ratios) - worse} of {len(ratios)}")
    return rows


def tying_loss(graphs: Sequence[TaskGraph], seconds: float) -> list[Row]:
    """Optimum with recurring tasks tied over the optimum, by CP-SAT."""
    small = [graph for graph in graphs if graph.num_tasks <= 60]
    small += [nets.transformer(2), nets.transformer(4), nets.two_towers(2), nets.bilstm(5)]
    rows = []
    for graph in small:
        for board in BOARDS:
            problem = make_problem(graph, board)
            # Ties alone: units lose nothing, which the tests prove by brute force.
            labels = tie_occurrences(graph, find_patterns(graph))
            tied = SearchSpace.from_labels(labels).respecting(problem)
            free = SearchSpace.untied(graph.num_tasks).respecting(problem)
            # Everything on one device is feasible in both spaces.
            upper = search_schedule(problem, algorithm="single").best.makespan_ns
            one, other = (solve(problem, space, seconds, upper) for space in (free, tied))
            rows.append(
                {
                    "model": graph.name,
                    "board": board.name,
                    "tasks": graph.num_tasks,
                    "genes": tied.num_genes,
                    "log10_before": log10_size(free, problem),
                    "log10_after": log10_size(tied, problem),
                    "optimum_ns": one.makespan_ns if one else "",
                    "tied_ns": other.makespan_ns if other else "",
                    "proven": bool(one and other and one.proven and other.proven),
                    "loss": other.makespan_ns / one.makespan_ns - 1 if one and other else "",
                }
            )
            print(f"  {graph.name}/{board.name}: {rows[-1]['loss']}", file=sys.stderr, flush=True)
    print_table(f"Loss from tying alone, CP-SAT {seconds:g} s each", rows)
    losses = [row["loss"] for row in rows if row["proven"]]
    if losses:
        print(f"  proven on {len(losses)} of {len(rows)}: mean {statistics.fmean(losses):.4f}, ", end="")
        print(f"median {statistics.median(losses):.4f}, largest {max(losses):.4f}")
    return rows


def scaling() -> list[Row]:
    """CPU time of pruning as graphs grow."""
    makers: dict[str, Callable[[int], TaskGraph]] = {
        "repeated blocks": lambda n: nets.stacked(nets.random_block(3, 18, 6), n // 20),
        "transformer layers": lambda n: nets.transformer(n // 14),
        "random, 40 kernels": lambda n: nets.random_graph(n),
        "random, 5 kernels": lambda n: nets.random_graph(n, kernels=5),
        "long chain": nets.long_chain,
        "wide fan": nets.wide_fan,
    }
    rows = []
    for with_costs in (False, True):
        for name, make in makers.items():
            row: Row = {"graph": name, "costs": with_costs}
            for count in (500, 1000, 2000, 4000, 10000):
                graph = make(count)
                problem = make_problem(graph, BOARDS[0]) if with_costs else None
                spent = []
                for _ in range(3):
                    begin = time.process_time()
                    prune_search_space(graph, problem=problem)
                    spent.append(time.process_time() - begin)
                row[f"{count}_s"] = min(spent)
            row["exponent"] = math.log(row["10000_s"] / row["500_s"]) / math.log(20)
            rows.append(row)
    print_table(
        "CPU time of prune_search_space, by structure alone and with costs (goal: 2,000 tasks in 0.5 s)",
        rows,
    )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--only", default="genes,scaling,time,quality,tying", help="parts, by comma")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tolerance", type=float, default=0.0, help="how far above counts as reached")
    parser.add_argument("--exact-seconds", type=float, default=10.0)
    options = parser.parse_args()
    graphs = load_graphs()
    parts: dict[str, Callable[[], list[Row]]] = {
        "genes": lambda: genes(graphs),
        "scaling": scaling,
        "time": lambda: time_to_quality(graphs, options.seeds, options.tolerance),
        "quality": lambda: quality(graphs, options.seeds),
        "tying": lambda: tying_loss(graphs, options.exact_seconds),
    }
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    figures = {name: parts[name]() for name in options.only.split(",")}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
