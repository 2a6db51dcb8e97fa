"""Importers for two published sets of scheduling problems.

*dnn-partitioning*: Tarnawski, Phanishayee, Devanur, Mahajan, Nina Paravecino: "Efficient algorithms for
device placement of DNN graph operators", NeurIPS 2020. *dag-bench*: the DAG benchmark of ANRGUSC.
"""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np

from .errors import ProblemError
from .problem import CANNOT_RUN, NO_GROUP, UNLIMITED, SchedulingProblem

_NS_PER_MS = 1_000_000


def import_dnn_partitioning(content: dict[str, Any], name: str) -> SchedulingProblem:
    """Return a problem of the dnn-partitioning set.

    ``maxFPGAs`` accelerators with ``maxSizePerFPGA`` bytes each, and ``maxCPUs`` CPUs that share one
    memory. Latencies and edge costs are milliseconds; an edge costs ``cost`` between an accelerator
    and a CPU, twice that between two accelerators, nothing between CPUs. Nodes of one ``colorClass``
    share a device; ``size`` is resident. Tasks are renumbered topologically, stable by position.

    Raises
    ------
    ProblemError
        If a field is missing or holds something else, or the graph has a cycle.
    """
    try:
        nodes, num_fast, num_cpus = content["nodes"], int(content["maxFPGAs"]), int(content["maxCPUs"])
        pairs = {(edge["sourceId"], edge["destId"]): float(edge["cost"]) for edge in content["edges"]}
        order = _topological([node["id"] for node in nodes], list(pairs))
        by_id = {node["id"]: node for node in nodes}
        exec_ms = [
            [_fast_ms(by_id[task])] * num_fast + [float(by_id[task]["cpuLatency"])] * num_cpus
            for task in order
        ]
        colors: dict[Any, int] = {}
        groups = [by_id[task].get("colorClass") for task in order]
        colocation = [
            NO_GROUP if color is None else colors.setdefault(color, len(colors)) for color in groups
        ]
        sizes = [round(float(by_id[task]["size"])) for task in order]
        capacity = round(float(content["maxSizePerFPGA"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ProblemError(f"Not a problem of dnn-partitioning: {error!r}.") from error
    kinds = np.array([1] * num_fast + [0] * num_cpus)
    steps = (kinds[:, None] + kinds[None, :]) * (1 - np.eye(len(kinds), dtype=np.int64))
    return _build(
        name,
        [f"accelerator{i}" for i in range(num_fast)] + [f"cpu{i}" for i in range(num_cpus)],
        np.array(exec_ms, dtype=np.float64),
        order,
        {pair: cost_ms * steps for pair, cost_ms in pairs.items()},
        colocation=np.array(colocation, dtype=np.int64),
        memory_bytes=np.array([capacity] * num_fast + [UNLIMITED] * num_cpus, dtype=np.int64),
        weight_bytes=np.array(sizes, dtype=np.int64),
    )


def _fast_ms(node: dict[str, Any]) -> float:
    return float(node["fpgaLatency"]) if node["supportedOnFpga"] else -1.0


def import_dagbench(content: dict[str, Any], name: str) -> SchedulingProblem:
    """Return a problem of the dag-bench set: related machines, one speed per device and per link.

    A task takes cost / device speed, a copy size / link speed; both count milliseconds.

    Raises
    ------
    ProblemError
        If a field is missing or holds something else, a link is missing, or the graph has a cycle.
    """
    try:
        graph, nodes = content["task_graph"], content["network"]["nodes"]
        cost = {task["name"]: float(task["cost"]) for task in graph["tasks"]}
        pairs = {(dep["source"], dep["target"]): float(dep["size"]) for dep in graph["dependencies"]}
        order = _topological(list(cost), list(pairs))
        devices = [str(node["name"]) for node in nodes]
        speed = np.array([float(node["speed"]) for node in nodes])
        per_byte = np.full((len(devices), len(devices)), np.nan)
        for link in content["network"]["edges"]:
            ends = devices.index(link["source"]), devices.index(link["target"])
            per_byte[ends] = per_byte[ends[::-1]] = 1.0 / float(link["speed"])
        name = str(content.get("name", name))
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ProblemError(f"Not a problem of dag-bench: {error!r}.") from error
    np.fill_diagonal(per_byte, 0.0)
    if np.isnan(per_byte).any():
        raise ProblemError("Expected a link between every two nodes of the network.")
    exec_ms = np.array([cost[task] for task in order])[:, None] / speed[None, :]
    tables = {pair: size * per_byte for pair, size in pairs.items()}
    return _build(name, devices, exec_ms, order, tables)


def _topological(names: list[Any], pairs: list[tuple[Any, Any]]) -> list[Any]:
    """Return the names with every edge pointing forward, otherwise in the order in which they came."""
    place = {name: position for position, name in enumerate(names)}
    if len(place) != len(names):
        raise ProblemError("Expected unique task names; one is given twice.")
    waiting = dict.fromkeys(names, 0)
    followers: dict[Any, list[Any]] = {name: [] for name in names}
    for src, dst in pairs:
        followers[src].append(dst)
        waiting[dst] += 1
    ready = [position for position, name in enumerate(names) if not waiting[name]]
    order: list[Any] = []
    while ready:
        name = names[heapq.heappop(ready)]
        order.append(name)
        for follower in followers[name]:
            waiting[follower] -= 1
            if not waiting[follower]:
                heapq.heappush(ready, place[follower])
    if len(order) != len(names):
        raise ProblemError("Expected a graph without cycles.")
    return order


def _build(
    name: str, devices: list[str], exec_ms: Any, order: list[Any], tables_ms: dict[Any, Any], **more: Any
) -> SchedulingProblem:
    """Renumber edges by the order of the tasks, and turn milliseconds into nanoseconds."""
    place = {task: position for position, task in enumerate(order)}
    edges = sorted((place[src], place[dst], (src, dst)) for src, dst in tables_ms)
    classes: dict[bytes, int] = {}
    tables, copy_class = [], []
    for _, _, pair in edges:
        table = np.rint(tables_ms[pair] * _NS_PER_MS).astype(np.int64)
        key = table.tobytes()
        if key not in classes:
            tables.append(table)
        copy_class.append(classes.setdefault(key, len(classes)))
    exec_ns = np.where(exec_ms < 0, CANNOT_RUN, np.rint(exec_ms * _NS_PER_MS)).astype(np.int64)
    return SchedulingProblem(
        name=name,
        devices=tuple(devices),
        device_cores=tuple((device,) for device in range(len(devices))),
        exec_ns=exec_ns,
        edges=np.array([edge[:2] for edge in edges], dtype=np.int64),
        copy_class=np.array(copy_class, dtype=np.int64),
        copy_ns=np.array(tables, dtype=np.int64),
        **more,
    )
