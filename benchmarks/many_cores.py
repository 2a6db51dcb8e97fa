"""Search over nested groups of many cores: its time, and what it finds, on simulated machines.

    python benchmarks/many_cores.py [--tasks 100 500] [--json many.json]

Devices are the groups that `core_groups` offers on machines of 16, 64 and 128 cores. Of each task a
share cannot be divided; a team pays for starting a loop, and one that spans cache domains for what it
fetches from another. Graphs are chains, series of blocks of branches, and layered random graphs. CPU
seconds are those of this process.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from typing import Any

import numpy as np

from tvm_sphinx.platform.core_groups import core_groups
from tvm_sphinx.platform.core_kinds import group_cores
from tvm_sphinx.platform.topology import Core
from tvm_sphinx.scheduling.problem import SchedulingProblem
from tvm_sphinx.scheduling.schedule import validate
from tvm_sphinx.search import search_schedule

# Cores, and cores that share a last-level cache.
MACHINES = {"16 cores": (16, 8), "64 cores": (64, 8), "128 cores": (128, 8)}
_LAUNCH_NS, _HANDOVER_NS, _FETCH_NS_PER_BYTE = 400, 800, 0.1


def machine(num_cores: int, domain: int) -> tuple[tuple[int, ...], ...]:
    """Return the groups of a machine of equal cores, 64 of which make a socket."""
    caches = (32 << 10, 512 << 10, 32 << 20)
    cores = tuple(
        Core(
            n,
            "",
            None,
            None,
            caches,
            tuple(range(n // domain * domain, n // domain * domain + domain)),
            n // 64,
            n // 64,
            (n,),
        )
        for n in range(num_cores)
    )
    return core_groups(cores, group_cores(cores, {}))


def chain(num_tasks: int, _: np.random.Generator) -> set[tuple[int, int]]:
    """Return the edges of a chain."""
    return {(task, task + 1) for task in range(num_tasks - 1)}


def blocks(num_tasks: int, _: np.random.Generator, branches: int = 8) -> set[tuple[int, int]]:
    """Return the edges of a series of blocks: a task, some branches of two tasks, and so on."""
    edges: set[tuple[int, int]] = set()
    size = 1 + 2 * branches
    for first in range(0, num_tasks, size):
        for branch in range(branches):
            path = [first, first + 1 + 2 * branch, first + 2 + 2 * branch, first + size]
            path = [task for task in path if task < num_tasks]
            edges |= set(itertools.pairwise(path))
    return edges


def layered(num_tasks: int, rng: np.random.Generator) -> set[tuple[int, int]]:
    """Return the edges of a random graph of about sqrt(N) layers."""
    layer = np.sort(rng.integers(0, round(num_tasks**0.5), num_tasks))
    edges: set[tuple[int, int]] = set()
    for task in range(num_tasks):
        near = np.flatnonzero((layer > layer[task]) & (layer <= layer[task] + 2))
        chosen = rng.choice(near, min(int(rng.integers(1, 4)), len(near)), replace=False)
        edges |= {(task, int(other)) for other in chosen}
    return edges


GRAPHS = {"chain": chain, "blocks": blocks, "layered": layered}


def make_problem(
    name: str, groups: tuple[tuple[int, ...], ...], domain: int, num_tasks: int, seed: int
) -> SchedulingProblem:
    """Return a graph of kernels that scale unequally well, on groups of equal cores."""
    rng = np.random.default_rng(seed)
    edges = sorted(GRAPHS[name](num_tasks, rng))
    work_ns = np.exp(rng.uniform(np.log(3_000), np.log(3_000_000), num_tasks))
    serial = rng.uniform(0.005, 0.15, num_tasks)
    sizes = np.array([len(group) for group in groups])
    spans = np.array([len({core // domain for core in group}) for group in groups])
    exec_ns = work_ns[:, None] * (serial[:, None] + (1 - serial[:, None]) / sizes)
    exec_ns = exec_ns * (1 + 0.1 * (spans - 1) ** 0.5) + _LAUNCH_NS * np.log2(sizes) * spans
    tensor_bytes = rng.choice([1 << 14, 1 << 17, 1 << 20], len(edges))
    kinds = np.unique(tensor_bytes)
    copy_ns = np.zeros((len(kinds), len(groups), len(groups)), dtype=np.int64)
    for row, size in enumerate(kinds):
        copy_ns[row] = round(_HANDOVER_NS + _FETCH_NS_PER_BYTE * min(size, 1 << 18))
        np.fill_diagonal(copy_ns[row], 0)
    return SchedulingProblem(
        name=f"{name}-{num_tasks}x{len(groups)}-{seed}",
        devices=tuple(f"g{number}" for number in range(len(groups))),
        device_cores=groups,
        exec_ns=np.maximum(1, exec_ns).astype(np.int64),
        edges=np.array(edges, dtype=np.int64).reshape(-1, 2),
        copy_class=np.searchsorted(kinds, tensor_bytes),
        copy_ns=copy_ns,
    )


def measure(problem: SchedulingProblem) -> dict[str, Any]:
    """Return how long a search takes with its default budget, and what it finds."""
    begin = time.process_time()
    single = search_schedule(problem, algorithm="single").best
    single_s = time.process_time() - begin
    begin = time.process_time()
    found = search_schedule(problem, seed=0)
    search_s = time.process_time() - begin
    validate(problem, found.best)
    return {
        "problem": problem.name,
        "devices": problem.num_devices,
        "single_s": round(single_s, 3),
        "search_s": round(search_s, 3),
        "evaluations": found.evaluations,
        "stop": found.stop_reason,
        "over_best_single": round(single.makespan_ns / found.best.makespan_ns, 3),
        "gap": round(found.best.makespan_ns / max(1, found.best.lower_bound_ns), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tasks", nargs="+", type=int, default=[100, 500])
    parser.add_argument("--machines", nargs="+", default=list(MACHINES), choices=MACHINES)
    parser.add_argument("--json", help="write the figures to this file")
    args = parser.parse_args()
    rows = []
    for name in args.machines:
        num_cores, domain = MACHINES[name]
        groups = machine(num_cores, domain)
        for graph in GRAPHS:
            for num_tasks in args.tasks:
                problem = make_problem(graph, groups, domain, num_tasks, seed=1)
                rows.append({"machine": name, **measure(problem)})
                print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
