"""How much longer schedules are that were found with predicted times, judged by measured ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cost_rows import Row
from kernel_sets import KernelSet

from tvm_sphinx.cost.choose.assemble import assemble_costs, under_load
from tvm_sphinx.cost.measure.kernels import MeasureConfig
from tvm_sphinx.cost.measure.links import Links, measure_links
from tvm_sphinx.cost.records.store import RecordStore
from tvm_sphinx.cost.table import CostTable, build_problem
from tvm_sphinx.platform import Device, Platform
from tvm_sphinx.scheduling.schedule import Schedule
from tvm_sphinx.search import search_schedule

#: A schedule within this factor of the one found with measured times is as good.
GOAL = 1.05


def regrets(
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
                _table(sets[name], platform, times, links, records)
                for times in (measured, entry["predicted"])
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
        met = sum(value <= GOAL for value in values)
        print(f"schedules within 5%: {met} of {len(values)}, worst {max(values):.3f}")
    return results


def _table(
    kernels: KernelSet,
    platform: Platform,
    times: dict[tuple[str, str], float],
    links: Links,
    records: RecordStore,
) -> CostTable | None:
    """Return the table that a compilation would make of given times; None where one is missing."""
    pairs = ((task.kernel, device.name) for task in kernels.graph.tasks for device in platform.devices)
    if not times.keys() >= set(pairs):
        return None

    def time_of(kernel: str, device: Device) -> tuple[int, int, bool]:
        return max(1, round(times[kernel, device.name])), 0, True

    costs = assemble_costs(kernels.graph, platform, time_of, links)
    return under_load(costs, kernels.graph, platform, records, MeasureConfig())


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
