"""Seeded three-device cost tables for task graphs, so that figures do not depend on a machine.

Each device has an arithmetic rate per kind of kernel, a memory bandwidth and a time to start a kernel;
a kernel takes the roofline time, times a factor that is drawn once per kernel and device. The rates
are those of boards of three classes, rounded; what matters is that the devices are unlike.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from itertools import product

import numpy as np

from tvm_sphinx.scheduling.graph import TaskGraph
from tvm_sphinx.scheduling.problem import CANNOT_RUN, SchedulingProblem

_MATRIX = ("conv", "matmul", "dense")


@dataclass(frozen=True)
class Device:
    """Rates in flop/ns and byte/ns, times in ns."""

    name: str
    matrix_rate: float
    other_rate: float
    bandwidth: float
    start_ns: int
    only_matrix: bool = False


@dataclass(frozen=True)
class Board:
    """Devices, the first of them the host; copies between them take latency + bytes / bandwidth."""

    name: str
    devices: tuple[Device, ...]
    latency_ns: int
    bandwidth: float
    spread: float = 0.25


#: Unlike devices of like strength on shared memory: phones and single-board computers.
PHONE = Board(
    "phone",
    (
        Device("cpu", 60, 15, 20, 1_000),
        Device("gpu", 150, 40, 25, 12_000),
        Device("npu", 300, 2, 15, 20_000),
    ),
    latency_ns=15_000,
    bandwidth=8,
)
#: A strong GPU far away, a CPU that is good at small kernels, an accelerator for matrix kernels only.
DESKTOP = Board(
    "desktop",
    (
        Device("cpu", 200, 50, 40, 500),
        Device("gpu", 5000, 500, 400, 6_000),
        Device("npu", 2000, 1, 60, 10_000, only_matrix=True),
    ),
    latency_ns=10_000,
    bandwidth=12,
)
#: Three devices of nearly one speed and cheap copies: running side by side pays most.
EVEN = Board(
    "even",
    (
        Device("cpu", 100, 30, 20, 2_000),
        Device("gpu", 130, 30, 25, 3_000),
        Device("npu", 110, 25, 20, 3_000),
    ),
    latency_ns=3_000,
    bandwidth=20,
    spread=0.6,
)
BOARDS = (PHONE, DESKTOP, EVEN)


def make_problem(graph: TaskGraph, board: Board, seed: int = 0) -> SchedulingProblem:
    """Return the scheduling problem of a graph on a board."""
    rows: dict[str, list[int]] = {}
    for index, task in enumerate(graph.tasks):
        if task.kernel not in rows:
            rows[task.kernel] = [_exec_ns(graph, index, device, board, seed) for device in board.devices]
    sizes = sorted({edge.bytes for edge in graph.edges})
    row_of = {size: row for row, size in enumerate(sizes)}
    count = len(board.devices)
    tasks = range(graph.num_tasks)
    host_copies = [
        [_copy_ns(board, size, 0, d) for d in range(count)] for size in map(graph.input_bytes, tasks)
    ]
    returned = [
        [_copy_ns(board, size, d, 0) for d in range(count)] for size in map(graph.returned_bytes, tasks)
    ]
    return SchedulingProblem(
        name=f"{graph.name}/{board.name}",
        devices=tuple(device.name for device in board.devices),
        device_cores=tuple((index,) for index in range(count)),
        exec_ns=np.array([rows[task.kernel] for task in graph.tasks], dtype=np.int64),
        edges=np.array([(edge.src, edge.dst) for edge in graph.edges], dtype=np.int64).reshape(-1, 2),
        copy_class=np.array([row_of[edge.bytes] for edge in graph.edges], dtype=np.int64),
        copy_ns=np.array(
            [
                [[_copy_ns(board, size, a, b) for b in range(count)] for a in range(count)]
                for size in sizes
            ],
            dtype=np.int64,
        ).reshape(-1, count, count),
        release_ns=np.array(host_copies, dtype=np.int64).reshape(-1, count),
        delivery_ns=np.array(returned, dtype=np.int64).reshape(-1, count),
    )


def _exec_ns(graph: TaskGraph, index: int, device: Device, board: Board, seed: int) -> int:
    task = graph.tasks[index]
    is_matrix = any(name in kind for name, kind in product(_MATRIX, task.op_kinds))
    if device.only_matrix and not is_matrix:
        return CANNOT_RUN
    moved = sum(task.output_bytes) + task.weight_bytes + graph.input_bytes(index)
    moved += sum(
        graph.tasks[o.producer].output_bytes[o.output] for o in task.operands if o.producer >= 0
    )
    arithmetic = task.flops / (device.matrix_rate if is_matrix else device.other_rate)
    key = hashlib.sha256(f"{seed}/{board.name}/{device.name}/{task.kernel}".encode()).digest()
    factor = np.exp(random.Random(int.from_bytes(key[:8], "big")).gauss(0.0, board.spread))
    return int(device.start_ns + max(arithmetic, moved / device.bandwidth) * factor)


def _copy_ns(board: Board, size: int, src: int, dst: int) -> int:
    if src == dst or not size:
        return 0
    hops = 1 if 0 in (src, dst) else 2
    return hops * int(board.latency_ns + size / board.bandwidth)
