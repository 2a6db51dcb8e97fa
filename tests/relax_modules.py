"""Random Relax modules, and platforms and schedules to place them with."""

from __future__ import annotations

import numpy as np
from tvm import relax

from tvm_sphinx.platform import Device, Platform
from tvm_sphinx.platform.targets import baseline_target, host_target
from tvm_sphinx.scheduling.graph import TaskGraph
from tvm_sphinx.scheduling.schedule import Schedule

EXTENT = 6


def cpu_platform(num_devices: int) -> Platform:
    """Return CPU devices of alternating targets on the first core."""
    targets = [host_target(), baseline_target()]
    return Platform(tuple(Device(f"d{i}", targets[i % 2], "cpu:0", (0,)) for i in range(num_devices)))


def serial_schedule(graph: TaskGraph, devices: list[int]) -> Schedule:
    """Return a schedule that runs the tasks one after another on the given devices."""
    count = graph.num_tasks
    start = np.arange(count)
    return Schedule(devices, start, start + 1, count, 0, "hand-written")


def random_module(seed: int, num_ops: int = 12) -> relax.Function:
    """Return a module of branches, shared tensors, residuals, tuples, views, weights, outputs."""
    rng = np.random.default_rng(seed)
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType([EXTENT, EXTENT], "float32"))
    y = relax.Var("y", relax.TensorType([EXTENT, EXTENT], "float32"))
    with builder.function("main", [x, y]):
        with builder.dataflow():
            values = [x, y]
            for _ in range(num_ops):
                values.append(_random_op(builder, rng, values))
            picks = sorted(set(rng.integers(2, len(values), 3).tolist()) | {len(values) - 1})
            outputs = [values[i] for i in picks]
            result = (
                relax.Tuple([outputs[0], relax.Tuple(outputs[1:])]) if len(outputs) > 1 else outputs[0]
            )
            output = builder.emit_output(result)
        builder.emit_func_output(output)
    return builder.finalize()


def _random_op(builder: relax.BlockBuilder, rng: np.random.Generator, values: list) -> relax.Var:
    a, b = (values[int(i)] for i in rng.integers(max(0, len(values) - 6), len(values), 2))
    kind = int(rng.integers(0, 8))
    if kind == 0:
        return builder.emit(relax.op.add(a, b))
    if kind == 1:
        return builder.emit(relax.op.matmul(a, b))
    if kind == 2:
        return builder.emit(relax.op.nn.relu(a))
    if kind == 3:
        weight = relax.const(rng.standard_normal((EXTENT, EXTENT)).astype("float32") / EXTENT)
        return builder.emit(relax.op.matmul(a, weight))
    if kind == 4:
        flat = builder.emit(relax.op.reshape(a, (EXTENT * EXTENT,)))
        return builder.emit(relax.op.reshape(flat, (EXTENT, EXTENT)))
    if kind == 5:
        halves = builder.emit(relax.op.split(a, 2, axis=1))
        left = builder.emit(relax.TupleGetItem(halves, 0))
        right = builder.emit(relax.TupleGetItem(halves, 1))
        return builder.emit(relax.op.concat([right, left], axis=1))
    if kind == 6:
        pair = builder.emit(relax.Tuple([a, b]))
        return builder.emit(relax.TupleGetItem(pair, int(rng.integers(0, 2))))
    return builder.emit(relax.op.nn.softmax(a))
