"""Importers for two published sets of scheduling problems.

*dnn-partitioning*: Tarnawski, Phanishayee, Devanur, Mahajan, Nina Paravecino: "Efficient algorithms for
device placement of DNN graph operators", NeurIPS 2020. *dag-bench*: the DAG benchmark of ANRGUSC.
"""

from __future__ import annotations

import heapq
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import ProblemError
from .integers import MAX_TOTAL, is_whole
from .problem import CANNOT_RUN, NO_GROUP, UNLIMITED, Int64Array, SchedulingProblem

_Value = TypeVar("_Value")

_NS_PER_MS = 1_000_000
# Stands for no time; times that a file gives are >= 0.
_CANNOT_RUN_MS = -1.0
# Far above any file of the set, and far below what would fill the memory.
_MAX_DEVICES = 1024


def import_dnn_partitioning(content: dict[str, Any], name: str) -> SchedulingProblem:
    """Return a problem of the dnn-partitioning set.

    ``maxFPGAs`` accelerators with ``maxSizePerFPGA`` bytes each, and ``maxCPUs`` CPUs that share one
    memory. Latencies and edge costs are milliseconds; an edge costs ``cost`` between an accelerator
    and a CPU, twice that between two accelerators, nothing between CPUs. Nodes of one ``colorClass``
    share a device; ``size`` is resident. Tasks are renumbered topologically, stable by position.

    Raises
    ------
    ProblemError
        If a field is missing or holds something else, a number is negative or too large, a
        name or edge is given twice, or the graph has a cycle.
    """
    try:
        num_fast, num_cpus = _count(content, "maxFPGAs"), _count(content, "maxCPUs")
        pairs = _by_name(
            "edge",
            [((edge["sourceId"], edge["destId"]), _number(edge, "cost")) for edge in content["edges"]],
        )
        by_id = _by_name("node id", [(node["id"], node) for node in content["nodes"]])
        order = _topological(list(by_id), list(pairs))
        exec_ms = [
            [_fast_ms(by_id[task])] * num_fast + [_number(by_id[task], "cpuLatency")] * num_cpus
            for task in order
        ]
        colors: dict[Any, int] = {}
        groups = [by_id[task].get("colorClass") for task in order]
        colocation = [
            NO_GROUP if color is None else colors.setdefault(color, len(colors)) for color in groups
        ]
        sizes = [round(_number(by_id[task], "size")) for task in order]
        capacity = round(_number(content, "maxSizePerFPGA"))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _not_of("dnn-partitioning", error) from error
    kinds = np.array([1] * num_fast + [0] * num_cpus)
    steps = (kinds[:, None] + kinds[None, :]) * (1 - np.eye(len(kinds), dtype=np.int64))
    return _build(
        name,
        [f"accelerator{i}" for i in range(num_fast)] + [f"cpu{i}" for i in range(num_cpus)],
        np.array(exec_ms, dtype=np.float64),
        order,
        {pair: cost_ms * steps for pair, cost_ms in pairs.items()},
        colocation=colocation,
        memory_bytes=[capacity] * num_fast + [UNLIMITED] * num_cpus,
        weight_bytes=sizes,
    )


def _fast_ms(node: dict[str, Any]) -> float:
    if node["supportedOnFpga"] not in (0, 1):
        raise ProblemError(f"Expected supportedOnFpga as 0 or 1; got {node['supportedOnFpga']!r:.40}.")
    return _number(node, "fpgaLatency") if node["supportedOnFpga"] else _CANNOT_RUN_MS


def import_dagbench(content: dict[str, Any], name: str) -> SchedulingProblem:
    """Return a problem of the dag-bench set: related machines, one speed per device and per link.

    A task takes cost / device speed, a copy size / link speed; both count milliseconds.

    Raises
    ------
    ProblemError
        If a field is missing or holds something else, a number is negative or too large, a speed is
        0, a name or dependency is given twice, a link is missing, or the graph has a cycle.
    """
    try:
        graph, nodes = content["task_graph"], content["network"]["nodes"]
        cost = _by_name("task name", [(task["name"], _number(task, "cost")) for task in graph["tasks"]])
        pairs = _by_name(
            "dependency",
            [((dep["source"], dep["target"]), _number(dep, "size")) for dep in graph["dependencies"]],
        )
        order = _topological(list(cost), list(pairs))
        devices = [str(node["name"]) for node in nodes]
        speed = np.array([_speed(node) for node in nodes])
        per_byte = np.full((len(devices), len(devices)), np.nan)
        for link in content["network"]["edges"]:
            ends = devices.index(link["source"]), devices.index(link["target"])
            per_byte[ends] = per_byte[ends[::-1]] = 1.0 / _speed(link)
        name = str(content.get("name", name))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _not_of("dag-bench", error) from error
    np.fill_diagonal(per_byte, 0.0)
    if np.isnan(per_byte).any():
        raise ProblemError("Expected a link between every two nodes of the network.")
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused with its value
        exec_ms = np.array([cost[task] for task in order])[:, None] / speed[None, :]
        tables = {pair: size * per_byte for pair, size in pairs.items()}
    return _build(name, devices, exec_ms, order, tables)


def _not_of(name: str, error: Exception) -> ProblemError:
    reason = error if isinstance(error, ProblemError) else f"{error!r}."
    return ProblemError(f"Not a problem of {name}: {reason}")


def _number(entry: dict[str, Any], key: str) -> float:
    """Return a number of the file; the limit is one that no time and no size of a problem may reach."""
    value = entry[key]
    if not (is_whole(value) or isinstance(value, float)) or not 0 <= value < MAX_TOTAL:
        raise ProblemError(f"Expected {key} as a number >= 0 and below 2**62; got {value!r:.40}.")
    return float(value)


def _speed(entry: dict[str, Any]) -> float:
    if not (speed := _number(entry, "speed")):
        raise ProblemError(f"Expected speed > 0; got {entry['speed']!r}.")
    return speed


def _count(entry: dict[str, Any], key: str) -> int:
    count: int = entry[key]
    if not is_whole(count) or not 0 <= count <= _MAX_DEVICES:
        raise ProblemError(f"Expected {key} as an integer of 0..{_MAX_DEVICES}; got {count!r:.40}.")
    return count


def _by_name(kind: str, entries: list[tuple[Any, _Value]]) -> dict[Any, _Value]:
    """Return the entries by name; two of one name are refused, where a dict would keep the last."""
    by_name: dict[Any, _Value] = {}
    for name, entry in entries:
        if name in by_name:
            raise ProblemError(f"Expected each {kind} once; {name!r:.80} is given twice.")
        by_name[name] = entry
    return by_name


def _topological(names: list[Any], pairs: list[tuple[Any, Any]]) -> list[Any]:
    """Return the names with every edge pointing forward, otherwise in the order in which they came."""
    place = {name: position for position, name in enumerate(names)}
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
        table = _to_ns(tables_ms[pair])
        key = table.tobytes()
        if key not in classes:
            tables.append(table)
        copy_class.append(classes.setdefault(key, len(classes)))
    exec_ns = np.where(exec_ms == _CANNOT_RUN_MS, CANNOT_RUN, _to_ns(exec_ms))
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


def _to_ns(times_ms: npt.NDArray[np.float64]) -> Int64Array:
    """Return milliseconds as whole nanoseconds, if a problem may have such times."""
    beyond = ~(times_ms < MAX_TOTAL / _NS_PER_MS)
    if beyond.any():
        raise ProblemError(f"Expected times below 2**62 ns; got {times_ms[beyond][0]:.6g} ms.")
    whole: Int64Array = np.rint(times_ms * _NS_PER_MS).astype(np.int64)
    return whole
