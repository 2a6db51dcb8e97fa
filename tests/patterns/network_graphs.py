"""Task graphs that have the shape of networks, drawn without TVM."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from tvm_sphinx.scheduling.graph import FROM_CONSTANT, FROM_INPUT, GraphInput, Operand, Task, TaskGraph

INPUT = Operand(FROM_INPUT, 0)


@dataclass
class Builder:
    """Adds tasks by kernel and operands, and returns each task's output."""

    tasks: list[Task] = field(default_factory=list)

    def add(self, kernel: str, *operands: Operand, size: int = 4096, flops: int = 10**6) -> Operand:
        kinds = (kernel.split("/", maxsplit=1)[0],)
        weight = (
            (Operand(FROM_CONSTANT, len(self.tasks)),) if "conv" in kernel or "dense" in kernel else ()
        )
        name = f"t{len(self.tasks)}"
        self.tasks.append(Task(name, kernel, (*operands, *weight), (size,), kinds, flops))
        return Operand(len(self.tasks) - 1, 0)

    def chain(self, start: Operand, *kernels: str) -> Operand:
        for kernel in kernels:
            start = self.add(kernel, start)
        return start

    def graph(self, *outputs: Operand, name: str = "net", inputs: int = 1) -> TaskGraph:
        arguments = tuple(GraphInput(f"x{index}", 4096) for index in range(inputs))
        return TaskGraph(name, tuple(self.tasks), arguments, outputs)


def transformer_layer(b: Builder, x: Operand, width: str = "") -> Operand:
    """Post-norm encoder layer: 13 tasks."""
    q, k, v = (
        b.add(f"transpose{way}/{width}", b.add(f"dense_qkv/{width}", x)) for way in ("_h", "_ht", "_h")
    )
    scores = b.add(f"softmax/{width}", b.add(f"matmul_qk/{width}", q, k))
    mixed = b.add(f"dense_out/{width}", b.add(f"matmul_sv/{width}", scores, v), x)
    normed = b.add(f"layer_norm/{width}", mixed)
    wide = b.add(f"dense_up_gelu/{width}", normed)
    return b.add(f"layer_norm/{width}", b.add(f"dense_down/{width}", wide, normed))


def transformer(layers: int, name: str = "transformer") -> TaskGraph:
    b = Builder()
    x = b.add("layer_norm/", b.add("embed", INPUT))
    for _ in range(layers):
        x = transformer_layer(b, x)
    return b.graph(b.chain(x, "dense_pool", "tanh"), name=name)


def two_towers(layers: int) -> TaskGraph:
    """Two equal towers on two inputs, joined by a dot product."""
    b = Builder()
    ends = []
    for tower in range(2):
        x = b.add("embed", Operand(FROM_INPUT, tower))
        for _ in range(layers):
            x = transformer_layer(b, x)
        ends.append(b.chain(x, "dense_pool", "normalise"))
    return b.graph(b.add("dot", *ends), name="two-towers", inputs=2)


def inception(blocks: Sequence[str]) -> TaskGraph:
    """Inception blocks, with the kernels of each told apart by its width."""
    b = Builder()
    x = b.chain(INPUT, "conv_stem", "pool_stem")
    for width in blocks:
        x = b.add(
            f"concat/{width}",
            b.add(f"conv1/{width}", x),
            b.chain(x, f"conv3_reduce/{width}", f"conv3/{width}"),
            b.chain(x, f"conv5_reduce/{width}", f"conv5/{width}"),
            b.chain(x, f"pool/{width}", f"conv_pool/{width}"),
        )
    return b.graph(b.chain(x, "avg_pool", "dense"), name="inception")


def resnet(stages: Sequence[int] = (3, 4, 6, 3)) -> TaskGraph:
    """Bottleneck blocks; the first of each stage has a projection and another first convolution."""
    b = Builder()
    x = b.chain(INPUT, "conv_stem", "pool_stem")
    for stage, blocks in enumerate(stages):
        for block in range(blocks):
            first = block == 0
            narrow = b.chain(x, f"conv_a{'_first' if first else ''}/{stage}", f"conv_b/{stage}")
            shortcut = b.add(f"conv_projection/{stage}", x) if first else x
            x = b.add(f"conv_c_add/{stage}", narrow, shortcut)
    return b.graph(b.chain(x, "avg_pool", "dense"), name="resnet")


def bilstm(steps: int) -> TaskGraph:
    """Two recurrent chains over the same steps, in opposite directions, joined at each step."""
    b = Builder()
    inputs = [b.add("take", INPUT) for _ in range(steps)]
    hidden: list[list[Operand]] = []
    for order in (range(steps), range(steps - 1, -1, -1)):
        h = c = b.add("zeros")
        row = [h] * steps
        for step in order:
            gates = b.add("dense_gates", inputs[step], h)
            c = b.add("cell", gates, c)
            row[step] = h = b.add("output_gate", gates, c)
        hidden.append(row)
    joined = [b.add("concat", *pair) for pair in zip(*hidden, strict=True)]
    return b.graph(b.add("stack", *joined), name="bilstm")


def long_chain(tasks: int) -> TaskGraph:
    """One chain; kernels recur with period 5, except at every 97th task."""
    b = Builder()
    x = INPUT
    for index in range(tasks):
        x = b.add("odd" if index % 97 == 96 else f"k{index % 5}", x)
    return b.graph(x, name="chain")


def wide_fan(tasks: int) -> TaskGraph:
    """One task that feeds all others, which one task joins."""
    b = Builder()
    root = b.add("root", INPUT)
    return b.graph(b.add("join", *(b.add("leaf", root) for _ in range(tasks - 2))), name="fan")


def random_graph(
    tasks: int, kernels: int = 40, seed: int = 0, inputs_per_task: int = 2, dropped: float = 0.0
) -> TaskGraph:
    """Each task reads outputs of recent tasks; what none reads is returned, but for a dropped share."""
    draw = random.Random(seed)
    b = Builder()
    for task in range(tasks):
        count = min(task, draw.randint(1, inputs_per_task))
        sources = draw.sample(range(max(0, task - 30), task), count)
        reads = [Operand(source, 0) for source in sources] or [INPUT]
        b.add(f"k{draw.randrange(kernels)}", *reads)
    read = {operand.producer for task in b.tasks for operand in task.operands}
    sinks = [Operand(task, 0) for task in range(tasks) if task not in read]
    kept = [sink for sink in sinks if draw.random() >= dropped]
    return b.graph(*kept, name=f"random-{seed}")


def ring(count: int) -> TaskGraph:
    """Equal tasks that read two of equal tasks each, in a ring; nothing is returned."""
    b = Builder()
    sources = [b.add("source", INPUT) for _ in range(count)]
    for index, source in enumerate(sources):
        b.add("join", source, sources[(index + 1) % count])
    return b.graph(name=f"ring-{count}")


def stacked(block: Callable[[Builder, Operand], Operand], count: int) -> TaskGraph:
    """Equal blocks one after the other, between a head and a tail."""
    b = Builder()
    x = b.add("head", INPUT)
    for _ in range(count):
        x = block(b, x)
    return b.graph(b.add("tail", x), name="stacked")


def random_block(seed: int, tasks: int, kernels: int) -> Callable[[Builder, Operand], Operand]:
    """A random connected block with one entry and one exit, the same at each call."""

    def build(b: Builder, x: Operand) -> Operand:
        draw = random.Random(seed)
        made = [b.add("enter", x)]
        for _ in range(tasks):
            reads = draw.sample(made, min(len(made), draw.randint(1, 2)))
            made.append(b.add(f"k{draw.randrange(kernels)}", *reads))
        read = {operand for task in b.tasks[made[0].producer :] for operand in task.operands}
        return b.add("leave", *[operand for operand in made if operand not in read])

    return build


def renumbered(graph: TaskGraph, seed: int) -> tuple[TaskGraph, list[int]]:
    """Return the same graph in another topological order, and the new id of each task."""
    draw = random.Random(seed)
    waiting = [len(row) for row in graph.predecessors]
    ready = [task for task, count in enumerate(waiting) if count == 0]
    order: list[int] = []
    while ready:
        task = ready.pop(draw.randrange(len(ready)))
        order.append(task)
        for reader in graph.successors[task]:
            waiting[reader] -= 1
            if not waiting[reader]:
                ready.append(reader)
    new_id = [0] * graph.num_tasks
    for position, task in enumerate(order):
        new_id[task] = position

    def moved(operand: Operand) -> Operand:
        return operand._replace(producer=new_id[operand.producer]) if operand.producer >= 0 else operand

    tasks = tuple(
        replace(graph.tasks[task], operands=tuple(map(moved, graph.tasks[task].operands)))
        for task in order
    )
    return replace(graph, tasks=tasks, outputs=tuple(map(moved, graph.outputs))), new_id


def with_kernel(graph: TaskGraph, task: int, kernel: str) -> TaskGraph:
    """Return the graph with another kernel at one task: another shape, dtype or attribute."""
    tasks = list(graph.tasks)
    tasks[task] = replace(tasks[task], kernel=kernel)
    return replace(graph, tasks=tuple(tasks))
