"""The task graph: what has to be computed, and which tensor feeds which task. Knows nothing of TVM."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from ..errors import ProblemError
from ..wording import counted

#: ``Operand.producer`` of a tensor that is an argument of the model.
FROM_INPUT = -1
#: ``Operand.producer`` of a constant (a weight), resident on every device that uses it.
FROM_CONSTANT = -2


class Operand(NamedTuple):
    """One tensor that a task reads.

    ``producer`` is a task id, `FROM_INPUT` or `FROM_CONSTANT`; ``output`` is the output of that task,
    the position in ``TaskGraph.inputs``, or the id of the constant.
    """

    producer: int
    output: int


class Edge(NamedTuple):
    """A precedence between two tasks, with the bytes of the distinct tensors that it carries."""

    src: int
    dst: int
    bytes: int


@dataclass(frozen=True)
class Task:
    """One kernel call of the fused module.

    Tasks with the same ``kernel`` run structurally equal functions on the same shapes and dtypes, so
    one measurement serves all of them. ``operands`` keeps the order of the kernel's arguments;
    ``output_bytes`` has one entry per output tensor. ``origin`` names the operators of the source that
    the call computes, as people look them up: ``Conv conv1``, ``relu (model.py:12: y = F.relu(x))``.
    """

    name: str
    kernel: str
    operands: tuple[Operand, ...]
    output_bytes: tuple[int, ...]
    op_kinds: tuple[str, ...] = ()
    flops: int = 0
    weight_bytes: int = 0
    origin: tuple[str, ...] = ()


@dataclass(frozen=True)
class GraphInput:
    """An argument of the model: its name and its size in bytes."""

    name: str
    bytes: int


@dataclass(frozen=True, repr=False)
class TaskGraph:
    """Tasks in topological order; a task's id is its position.

    ``outputs`` lists the tensors that the model returns (task outputs, inputs or constants that are
    passed through). Checked once, at construction.

    Raises
    ------
    ProblemError
        If an operand refers to a later task, to an output or an input that does not exist, or if a
        size is negative.
    """

    name: str
    tasks: tuple[Task, ...]
    inputs: tuple[GraphInput, ...] = ()
    outputs: tuple[Operand, ...] = ()

    def __post_init__(self) -> None:
        names: set[str] = set()
        for position, task in enumerate(self.tasks):
            if task.name in names:
                raise ProblemError(f"Expected unique task names; got {task.name!r} twice.")
            names.add(task.name)
            if min((*task.output_bytes, task.flops, task.weight_bytes, 0)) < 0:
                raise ProblemError(f"Expected sizes >= 0 in task {task.name!r}; got {task!r}.")
            for operand in task.operands:
                self._check_operand(operand, position, f"task {position} ({task.name!r})")
        for operand in self.outputs:
            self._check_operand(operand, len(self.tasks), "the outputs")
        for graph_input in self.inputs:
            if graph_input.bytes < 0:
                raise ProblemError(f"Expected input bytes >= 0; got {graph_input!r}.")

    def __repr__(self) -> str:
        kernels = len({task.kernel for task in self.tasks})
        return (
            f"<TaskGraph {self.name!r}: {counted(self.num_tasks, 'task')} of "
            f"{counted(kernels, 'kernel')}, {counted(len(self.inputs), 'input')}, "
            f"{counted(len(self.outputs), 'output')}>"
        )

    def _check_operand(self, operand: Operand, before: int, where: str) -> None:
        producer, output = operand
        if producer == FROM_CONSTANT:
            known = output >= 0
        elif producer == FROM_INPUT:
            known = 0 <= output < len(self.inputs)
        else:
            known = 0 <= producer < before and 0 <= output < len(self.tasks[producer].output_bytes)
        if not known:
            raise ProblemError(
                f"Expected operands of {where} to be an output of an earlier task, an input or a "
                f"constant of the graph; got {operand!r}."
            )

    @property
    def num_tasks(self) -> int:
        """Number of tasks."""
        return len(self.tasks)

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """Edges between tasks, sorted by (src, dst) and unique; a tensor read twice counts once."""
        edges: list[Edge] = []
        for dst, task in enumerate(self.tasks):
            tensors = {operand for operand in task.operands if operand.producer >= 0}
            carried: dict[int, int] = {}
            for src, output in tensors:
                carried[src] = carried.get(src, 0) + self.tasks[src].output_bytes[output]
            edges.extend(Edge(src, dst, size) for src, size in carried.items())
        return tuple(sorted(edges))

    @cached_property
    def successors(self) -> tuple[tuple[int, ...], ...]:
        """For each task the tasks that read one of its outputs, ascending."""
        lists: list[list[int]] = [[] for _ in self.tasks]
        for edge in self.edges:
            lists[edge.src].append(edge.dst)
        return tuple(map(tuple, lists))

    @cached_property
    def predecessors(self) -> tuple[tuple[int, ...], ...]:
        """For each task the tasks whose outputs it reads, ascending."""
        lists: list[list[int]] = [[] for _ in self.tasks]
        for edge in self.edges:
            lists[edge.dst].append(edge.src)
        return tuple(map(tuple, lists))

    def input_bytes(self, task: int) -> int:
        """Bytes of the distinct model inputs that a task reads."""
        read = {operand for operand in self.tasks[task].operands if operand.producer == FROM_INPUT}
        return sum(self.inputs[operand.output].bytes for operand in read)

    def returned_bytes(self, task: int) -> int:
        """Bytes of the distinct outputs of a task that the model returns."""
        returned = {operand for operand in self.outputs if operand.producer == task}
        return sum(self.tasks[task].output_bytes[operand.output] for operand in returned)

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of everything that scheduling depends on; names and origins are left out."""
        content = self.to_json()
        del content["name"]
        for task in content["tasks"]:
            del task["name"], task["origin"]
        for graph_input in content["inputs"]:
            del graph_input["name"]
        return fingerprint_json(content)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serialisable form; `from_json` restores an equal graph."""
        return {
            "name": self.name,
            "tasks": [
                {
                    "name": task.name,
                    "kernel": task.kernel,
                    "operands": [list(operand) for operand in task.operands],
                    "output_bytes": list(task.output_bytes),
                    "op_kinds": list(task.op_kinds),
                    "flops": task.flops,
                    "weight_bytes": task.weight_bytes,
                    "origin": list(task.origin),
                }
                for task in self.tasks
            ],
            "inputs": [{"name": item.name, "bytes": item.bytes} for item in self.inputs],
            "outputs": [list(operand) for operand in self.outputs],
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> TaskGraph:
        """Rebuild a graph from `to_json`.

        Raises
        ------
        ProblemError
            If a field is missing or unknown, or an invariant of the graph does not hold.
        """
        try:
            return cls(
                name=content["name"],
                tasks=tuple(
                    Task(
                        **{
                            **task,
                            "operands": tuple(Operand(*operand) for operand in task["operands"]),
                            "output_bytes": tuple(task["output_bytes"]),
                            "op_kinds": tuple(task["op_kinds"]),
                            "origin": tuple(task.get("origin", ())),
                        }
                    )
                    for task in content["tasks"]
                ),
                inputs=tuple(GraphInput(**item) for item in content["inputs"]),
                outputs=tuple(Operand(*operand) for operand in content["outputs"]),
            )
        except (KeyError, TypeError) as error:
            raise ProblemError(f"Not a task graph in JSON form: {error!r}.") from error


def fingerprint_json(content: Any) -> str:
    """Return the hex digest of a JSON-serialisable value, the same on every machine."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]
