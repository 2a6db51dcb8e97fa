"""Lower bounds of the makespan over the best that is found: families of problems, before and after.

    python benchmarks/bounds.py [--data ../shared/data/generated] [--cpu 2] [FAMILY ...]

"cheap" is the best of the longest chain and the load of sets of tasks, "default" what every search
of the default budget computes, "2 s" what one of two seconds computes, and "long", with ``--long``,
what work of some two seconds refutes. The times are CPU milliseconds, "share" that of "default" in a
default search that ran to its end. Each bound is divided by the best makespan found in ``--cpu``
seconds, or by a proven optimum.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from drawn import draw_layered
from pruning import load_graphs
from search import PROVEN_OPTIMA, PUBLISHED_BEST, load, print_table
from synthetic import BOARDS, Board, Device, make_problem

from tvm_sphinx.scheduling.graph import TaskGraph
from tvm_sphinx.scheduling.problem import SchedulingProblem
from tvm_sphinx.search import Stop, search_schedule
from tvm_sphinx.search.bounds import lower_bound_ns
from tvm_sphinx.search.native import native_problem

#: An accelerator and a signal processor, of which `with_twin` makes two.
ACCELERATED = Board(
    "npu+2dsp",
    (Device("npu", 200, 20, 20, 4_000), Device("dsp", 100, 30, 25, 3_000)),
    latency_ns=3_000,
    bandwidth=20,
    spread=0.4,
)
#: Work that takes about two seconds.
_LONG_WORK = 1_000_000_000

Known = tuple[SchedulingProblem, int]


def with_twin(graph: TaskGraph) -> SchedulingProblem:
    """Return the problem of a graph on an accelerator and two equal signal processors."""
    problem = make_problem(graph, ACCELERATED)
    twice = [0, 1, 1]
    copies = problem.copy_ns[:, twice][:, :, twice].copy()
    copies[:, [1, 2], [2, 1]] = copies[:, [0, 0], [1, 1]]
    return SchedulingProblem(
        name=problem.name,
        devices=("npu", "dsp0", "dsp1"),
        device_cores=((0,), (1,), (2,)),
        exec_ns=problem.exec_ns[:, twice],
        edges=problem.edges,
        copy_class=problem.copy_class,
        copy_ns=copies,
        release_ns=problem.release_ns[:, twice],
        delivery_ns=problem.delivery_ns[:, twice],
    )


def long_copies(_: argparse.Namespace) -> list[Known]:
    """Layered graphs of 50 tasks on 3 devices, communication-to-computation ratio 10."""
    return [(draw_layered(seed, 50, 3, 10.0), best) for seed, best in PROVEN_OPTIMA.items()]


def many_devices(_: argparse.Namespace) -> list[Known]:
    """Layered graphs on 8 devices, communication-to-computation ratio 10."""
    return [(draw_layered(seed, tasks, 8, 10.0), 0) for seed, tasks in ((1, 50), (2, 50), (3, 150))]


def twins(_: argparse.Namespace) -> list[Known]:
    """Networks of 95 to 400 operators over an accelerator and two equal signal processors."""
    return [(with_twin(g), 0) for g in load_graphs() if 95 <= g.num_tasks <= 400]


def boards(_: argparse.Namespace) -> list[Known]:
    """Networks of up to 400 operators over the boards of `synthetic`."""
    graphs = [g for g in load_graphs() if g.num_tasks <= 400]
    return [(make_problem(graph, board), 0) for graph in graphs for board in BOARDS]


def published(args: argparse.Namespace) -> list[Known]:
    """The problems that the search is measured on."""
    problems = load(args.data, list(PUBLISHED_BEST))
    return [(problem, PUBLISHED_BEST[problem.name]) for problem in problems]


def rounds(_: argparse.Namespace) -> list[Known]:
    """Equal tasks on almost as many devices: 80 on 70, one round of which is not enough."""
    found = []
    for tasks, devices in ((80, 70), (10, 4), (17, 8)):
        apart = SchedulingProblem(
            name=f"{tasks} equal tasks on {devices}",
            devices=tuple(f"d{i}" for i in range(devices)),
            device_cores=tuple((i,) for i in range(devices)),
            exec_ns=np.full((tasks, devices), 1_000),
            edges=np.zeros((0, 2), dtype=np.int64),
            copy_class=np.zeros(0, dtype=np.int64),
            copy_ns=np.zeros((0, devices, devices), dtype=np.int64),
        )
        found.append((apart, 1_000 * -(-tasks // devices)))
    return found


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """Return what a call returns, and its CPU milliseconds."""
    begin = time.thread_time()
    found = run()
    return found, 1e3 * (time.thread_time() - begin)


def measure(problem: SchedulingProblem, best: int, cpu_s: float, is_long: bool) -> dict[str, Any]:
    """Return the row of a problem."""
    native = native_problem(problem)
    cheap, cheap_ms = timed(native.lower_bound)
    default, default_ms = timed(lambda: lower_bound_ns(problem))
    more, more_ms = timed(lambda: lower_bound_ns(problem, Stop(cpu_limit_s=2.0)))
    searched, search_ms = timed(lambda: search_schedule(problem))
    found = [searched.best, search_schedule(problem, stop=Stop(cpu_limit_s=cpu_s)).best]
    shortest = min([one.makespan_ns for one in found] + [best] * (best > 0))
    row: dict[str, Any] = {"problem": problem.name, "tasks": problem.num_tasks}
    row |= {"cheap": round(cheap / shortest, 3), "ms": round(cheap_ms, 1)}
    row |= {"default": round(default / shortest, 3), "ms ": round(default_ms, 1)}
    is_whole = searched.stop_reason == "evaluations"
    row |= {"share %": round(100 * default_ms / search_ms, 1) if is_whole else "proven"}
    row |= {"2 s": round(more / shortest, 3), "ms  ": round(more_ms)}
    if is_long:
        long, long_ms = timed(lambda: native.refute(default, _LONG_WORK))
        row |= {"long": round(long / shortest, 3), "ms   ": round(long_ms)}
    return row


def main() -> None:
    families = {f.__name__: f for f in (long_copies, many_devices, twins, boards, published, rounds)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("families", nargs="*", default=list(families), help=", ".join(families))
    parser.add_argument("--data", type=Path, default=Path("../shared/data/generated"))
    parser.add_argument("--cpu", type=float, default=2.0, help="CPU seconds of each search")
    parser.add_argument("--long", action="store_true", help="also what two seconds' work refutes")
    args = parser.parse_args()
    unknown = set(args.families) - set(families)
    if unknown:
        parser.error(f"expected families of {', '.join(families)}; got {', '.join(sorted(unknown))}")
    for name in args.families:
        family = families[name]
        print(f"{name}: {family.__doc__}")
        rows = [measure(problem, best, args.cpu, args.long) for problem, best in family(args)]
        print_table(rows)
        columns = [key for key in ("cheap", "default", "2 s", "long") if key in rows[0]]
        means = {key: statistics.geometric_mean(row[key] for row in rows) for key in columns}
        print("  geometric means:", ", ".join(f"{key} {mean:.3f}" for key, mean in means.items()))


if __name__ == "__main__":
    main()
