"""Decisions and traces that were drawn, of any size, for reports."""

from __future__ import annotations

import numpy as np

from tvm_sphinx.platform import Device, Platform
from tvm_sphinx.report.decision import Decision
from tvm_sphinx.runtime.trace import Trace, TracedStep
from tvm_sphinx.scheduling.constraints import pin_tasks
from tvm_sphinx.scheduling.graph import FROM_INPUT, GraphInput, Operand, Task, TaskGraph
from tvm_sphinx.scheduling.problem import SchedulingProblem
from tvm_sphinx.search import search_schedule
from tvm_sphinx.search.alternatives import weigh_alternatives

KINDS = ("conv2d", "matmul", "add", "softmax")


def layered_graph(num_blocks: int) -> TaskGraph:
    """Return blocks in a row of one task that forks into three which join: four tasks each."""
    tasks: list[Task] = []
    last = Operand(FROM_INPUT, 0)
    for block in range(num_blocks):
        first = len(tasks)
        tasks.append(_task(first, "conv2d", (last,)))
        for branch in range(2):
            tasks.append(_task(first + 1 + branch, ("matmul", "add")[branch], (Operand(first, 0),)))
        joined = (Operand(first + 1, 0), Operand(first + 2, 0))
        tasks.append(_task(first + 3, "softmax", joined, f"Concat block{block}"))
        last = Operand(first + 3, 0)
    return TaskGraph("drawn", tuple(tasks), (GraphInput("x", 4096),), (last,))


def _task(number: int, kind: str, operands: tuple[Operand, ...], origin: str = "") -> Task:
    told = origin or f"{kind} (net.py:{number + 1}: y = {kind}(x) if x < 1 else x)"
    return Task(f"{kind}_{number}", kind, operands, (4096,), (kind,), origin=(told,))


def drawn_problem(graph: TaskGraph, seed: int = 0) -> SchedulingProblem:
    """Return a problem of three devices, of which the last has the cores of both others."""
    rng = np.random.default_rng(seed)
    by_kind = {kind: rng.integers(20_000, 200_000, 3) for kind in KINDS}
    exec_ns = np.array([by_kind[task.op_kinds[0]] for task in graph.tasks])
    edges = [(edge.src, edge.dst) for edge in graph.edges]
    copies = 3_000 * (1 - np.eye(3, dtype=np.int64))
    return SchedulingProblem(
        name=graph.name,
        devices=("core0", "core1", "both"),
        device_cores=((0,), (1,), (0, 1)),
        exec_ns=exec_ns,
        edges=np.array(edges),
        copy_class=np.zeros(len(edges), dtype=np.int64),
        copy_ns=copies[None],
    )


def drawn_decision(num_blocks: int = 6, pins: tuple = ()) -> tuple[Decision, TaskGraph]:
    """Return a decision on a drawn problem, and its graph."""
    graph = layered_graph(num_blocks)
    free = drawn_problem(graph)
    problem = pin_tasks(free, graph, pins)
    found = search_schedule(problem, seed=1)
    shape = free.exec_ns.shape
    decision = Decision(
        problem=problem,
        schedule=found.best,
        exec_ns=free.exec_ns,
        spread_ns=free.exec_ns // 50,
        measured=np.ones(shape, dtype=np.bool_),
        origins=tuple(("rule", "tuned", "rule") for _ in graph.tasks),
        weighed=weigh_alternatives(problem, free),
        algorithm=found.algorithm,
        stop_reason=found.stop_reason,
        pins=tuple(map(str, pins)),
        measured_at=(1_700_000_000.0, 1_700_100_000.0),
        machine="a drawn machine",
        tvm="0.27.0",
    )
    return decision, graph


def drawn_trace(decision: Decision, graph: TaskGraph) -> Trace:
    """Return a run in which each task took a tenth longer than predicted."""
    schedule = decision.schedule
    place = {task: step for step, task in enumerate(schedule.order)}
    last: dict[int, int] = {}
    steps = []
    for task in schedule.order:
        device = int(schedule.device[task])
        begin, end = (int(t[task]) for t in (schedule.start_ns, schedule.finish_ns))
        cores = decision.problem.device_cores[device]
        producers = tuple(place[src] for src in graph.predecessors[task])
        previous = tuple(sorted({last[core] for core in cores if core in last}))
        steps.append(
            TracedStep(
                graph.tasks[task].name,
                "call",
                graph.tasks[task].kernel,
                device,
                begin * 11 // 10,
                end * 11 // 10,
                task,
                (begin, end),
                producers,
                previous,
            )
        )
        last.update(dict.fromkeys(cores, len(steps) - 1))
    return Trace(
        decision.problem.devices, decision.problem.device_cores, tuple(steps), schedule.makespan_ns
    )


def drawn_platform() -> Platform:
    """Return the platform of a drawn problem."""
    names = (("core0", (0,)), ("core1", (1,)), ("both", (0, 1)))
    return Platform(tuple(Device(name, '{"kind": "llvm"}', "cpu:0", cores) for name, cores in names))
