"""How many kernels guided measuring leaves out, and what that costs the schedule.

    python benchmarks/left_out.py simulated [--cores 2 16]
    python benchmarks/left_out.py measured --models squeezenet --records records.jsonl --cache sets

``simulated`` takes graphs of tests/data/graphs on groups of equal cores, with times as kernels scale
(`many_cores`) and predictions off by as much as those of a model that was trained on the machine.

``measured`` measures all kernels of some models, where they are not on record, on one core, all, and
one core held to the baseline, and then asks what would have been measured: by predictions of the model
that is shipped, and by one that has learned up to 500 times of the other models alone.

What is printed: kernels, each once for each class of devices; how many of them are measured, in how many
rounds; and the makespan over that with everything measured.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cost_model
import many_cores
import numpy as np
import synthetic
from cost_rows import read_rows, training_set
from kernel_sets import KernelSet

from tvm_sphinx._tvm import tvm
from tvm_sphinx.cost.choose.assemble import assemble_costs, under_load
from tvm_sphinx.cost.choose.costing import decide_kernels
from tvm_sphinx.cost.choose.decisive import Outlook, to_measure
from tvm_sphinx.cost.choose.guided import calls_of
from tvm_sphinx.cost.choose.intervals import ranges
from tvm_sphinx.cost.choose.kernel_costs import CostKey, times_of
from tvm_sphinx.cost.measure.kernel_timing import MeasureConfig
from tvm_sphinx.cost.measure.links import measure_links
from tvm_sphinx.cost.model.model_file import SHIPPED, load_cost_model
from tvm_sphinx.cost.model.training import device_profile, fit_model
from tvm_sphinx.cost.records.store import RecordStore
from tvm_sphinx.cost.table import build_problem
from tvm_sphinx.platform import Platform, detect_platform, unlike_cpus
from tvm_sphinx.scheduling.graph import TaskGraph
from tvm_sphinx.scheduling.problem import SchedulingProblem
from tvm_sphinx.search import search_schedule

GRAPHS = Path(__file__).resolve().parents[1] / "tests" / "data" / "graphs"
# Time on one core of a simulated kernel over that on the CPU of a phone.
_SLOWER = 3.0


def replay(outlook: Outlook, truth_ns: Any, predicted_ns: Any, spread_ns: Any) -> dict[str, Any]:
    """Return what guided measuring does on kernels of known times, all (K, C)."""
    can_run = np.isfinite(truth_ns)
    is_measured, rounds = ~can_run, 0
    while True:
        times = ranges(predicted_ns, spread_ns, truth_ns, is_measured)
        wanted = to_measure(outlook, times, is_measured)
        if not wanted.any():
            break
        is_measured, rounds = is_measured | wanted, rounds + 1

    def best_ns(allowed: Any) -> int:
        exec_ns = outlook.exec_ns(truth_ns, allowed)
        single = search_schedule(outlook.alone(exec_ns), algorithm="single").best.makespan_ns
        return min(single, search_schedule(outlook.problem(exec_ns)).best.makespan_ns)

    return {
        "kernels": int(can_run.sum()),
        "measured": int((is_measured & can_run).sum()),
        "rounds": rounds,
        "makespan": best_ns(is_measured) / best_ns(None),
    }


def simulate(name: str, num_cores: int, args: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of a graph on the groups of equal cores that share caches by eights."""
    text = gzip.decompress((GRAPHS / f"{name}.json.gz").read_bytes())
    graph = TaskGraph.from_json(json.loads(text))
    groups = many_cores.machine(num_cores, 8)
    kernels = list(calls_of(graph))
    kernel_of = np.array([kernels.index(task.kernel) for task in graph.tasks])
    rng = np.random.default_rng(args.seed)
    sizes = np.array([len(group) for group in groups])
    spans = np.array([len({core // 8 for core in group}) for group in groups])
    kinds = sorted(set(zip(sizes.tolist(), spans.tolist(), strict=True)))
    class_of = np.array([kinds.index(kind) for kind in zip(sizes.tolist(), spans.tolist(), strict=True)])
    phone = synthetic.make_problem(graph, synthetic.PHONE, args.seed)
    work_ns = np.zeros(len(kernels))
    work_ns[kernel_of] = np.maximum(2000, _SLOWER * phone.exec_ns[:, 0])
    serial = rng.uniform(0.02, 0.25, len(kernels))
    of_class = [_scaled(work_ns, serial, rng, *kind) for kind in kinds]
    truth_ns = np.stack(of_class, axis=1)
    error = args.error / 0.6745 * np.where(rng.random(truth_ns.shape) < 0.1, 3.0, 1.0)
    own, common = rng.standard_normal(truth_ns.shape), rng.standard_normal((len(kernels), 1))
    predicted_ns = truth_ns * np.exp(error * (0.6 * common + 0.8 * own))
    outlook = Outlook(kernel_of, class_of, *_problems(graph, groups, sizes))
    return replay(outlook, truth_ns, predicted_ns, args.claimed * predicted_ns)


def _scaled(work_ns: Any, serial: Any, rng: np.random.Generator, size: int, span: int) -> Any:
    """Return what kernels take on so many cores of so many cache domains."""
    noise = np.exp(rng.normal(0, 0.05, len(work_ns)))
    shared = work_ns * (serial + (1 - serial) / size) * (1 + 0.1 * (span - 1) ** 0.5)
    return np.rint(shared * noise + 400 * np.log2(size) * span)


def _problems(graph: TaskGraph, groups: Any, sizes: Any) -> list[Callable[[Any], SchedulingProblem]]:
    """Return what makes problems of times: beside busy cores, and alone."""
    num_bytes = np.minimum([edge.bytes for edge in graph.edges], 1 << 18)
    kinds, copy_class = np.unique(num_bytes, return_inverse=True)
    copy_ns = np.rint(800 + 0.1 * kinds)[:, None, None] * (1 - np.eye(len(groups)))
    slowdown = np.where(sizes == sizes.max(), 1.0, 1.08)
    edges = np.array([(edge.src, edge.dst) for edge in graph.edges], dtype=np.int64).reshape(-1, 2)

    def alone(exec_ns: Any) -> SchedulingProblem:
        names = tuple(f"g{number}" for number in range(len(groups)))
        return SchedulingProblem(
            graph.name, names, groups, exec_ns, edges, copy_class, copy_ns.astype(np.int64)
        )

    return [lambda exec_ns: alone(_slowed(exec_ns, slowdown)), alone]


def _slowed(exec_ns: Any, slowdown: Any) -> Any:
    return np.where(exec_ns < 0, exec_ns, np.ceil(exec_ns * slowdown).astype(np.int64))


def replay_measured(
    kernels: KernelSet,
    platform: Platform,
    records: RecordStore,
    predicted: dict[CostKey, tuple[float, float]],
) -> dict[str, Any]:
    """Return the figures of a model of which all kernels are measured, or measured now."""
    graph, names = kernels.graph, list(kernels.kernels)
    costs = decide_kernels(kernels.kernels.values(), platform.devices, records, calls=calls_of(graph))
    links = measure_links(platform, records)
    table = assemble_costs(graph, platform, times_of(costs), links)
    table = under_load(table, graph, platform, records, MeasureConfig())
    loaded, alone = (build_problem(graph, platform, table, loaded=load) for load in (True, False))
    classes = list(dict.fromkeys(device.cost_class for device in platform.devices))
    shape = len(names), len(classes)
    truth, guesses = np.full(shape, np.inf), np.full((2, *shape), np.nan)
    for row, column in np.ndindex(shape):
        key = names[row], classes[column]
        time_ns = costs[key].best.time_ns
        truth[row, column] = time_ns if time_ns >= 0 else np.inf
        guesses[:, row, column] = predicted.get(key, (np.nan, np.nan))
    outlook = Outlook(
        np.array([names.index(task.kernel) for task in graph.tasks]),
        np.array([classes.index(device.cost_class) for device in platform.devices]),
        lambda exec_ns: replace(loaded, exec_ns=_slowed(exec_ns, table.slowdown)),
        lambda exec_ns: replace(alone, exec_ns=exec_ns),
    )
    return replay(outlook, truth, *guesses)


def measured(args: argparse.Namespace) -> None:
    """Print the figures of models that are measured."""
    devices, records = cost_model._devices(), RecordStore(args.records)
    sets = cost_model._load_sets(args.models, Platform(tuple(devices.values())), Path(args.cache))
    for kernels in sets.values():
        decide_kernels(kernels.kernels.values(), list(devices.values()), records)
    profiles = {
        name: device_profile(device, records, MeasureConfig()) for name, device in devices.items()
    }
    rows = read_rows(sets, [], devices, profiles, records, measure=False)
    data = training_set(rows, profiles)
    platforms = {"detect": detect_platform(), "unlike-cpus": unlike_cpus()}
    platforms["native, baseline, all"] = Platform(tuple(devices.values()))
    shipped = load_cost_model(SHIPPED, str(tvm.__version__))
    for name, kernels in sets.items():
        held = np.flatnonzero([row.source == name for row in rows])
        others = np.flatnonzero(~np.isin(data.groups, list(kernels.kernels)))
        others = np.sort(np.random.default_rng(0).permutation(others)[:500])
        for label in ("shipped", "of the others"):
            model = shipped if label == "shipped" else fit_model(data.take(others), 0, 3)
            times = zip(*model.predict(data.features[held]), strict=True)
            keys = [(rows[row].kernel, devices[rows[row].device].cost_class) for row in held]
            predicted = dict(zip(keys, times, strict=True))
            for where, platform in platforms.items():
                show(name, f"{where} ({label})", replay_measured(kernels, platform, records, predicted))


def show(name: str, where: str, found: dict[str, Any]) -> None:
    share = found["measured"] / found["kernels"]
    print(
        f"{name:18} {where:38} {found['measured']:4} of {found['kernels']:4} ({share:.0%}) in "
        f"{found['rounds']:2} rounds, makespan {found['makespan']:.4f}",
        flush=True,
    )


def main() -> None:
    graphs = sorted(path.name.removesuffix(".json.gz") for path in GRAPHS.glob("*.json.gz"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["simulated", "measured"])
    parser.add_argument("--models", nargs="+", default=graphs)
    parser.add_argument("--cores", nargs="+", type=int, default=[2, 16])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--error", type=float, default=0.1, help="median error of simulated predictions")
    parser.add_argument("--claimed", type=float, default=0.1, help="what predictions say of it")
    parser.add_argument("--records", help="file of measured times to use and extend")
    parser.add_argument("--cache", default="kernel-sets", help="folder that keeps lowered kernels")
    args = parser.parse_args()
    if args.what == "measured":
        measured(args)
        return
    for name in args.models:
        for cores in args.cores:
            show(name, f"{cores} cores", simulate(name, cores, args))


if __name__ == "__main__":
    main()
