"""Modules, platforms and schedules for the lanes, and the same kernels one after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tvm
from tvm import relax

from tests.relax_modules import EXTENT, random_module
from tvm_sphinx.frontend.extract import Extraction, extract_task_graph
from tvm_sphinx.frontend.lower import lower_to_kernels
from tvm_sphinx.platform import Device, Platform
from tvm_sphinx.platform.machine import usable_cores
from tvm_sphinx.platform.targets import baseline_target, device_target, host_target
from tvm_sphinx.relax_pass import annotate_schedule
from tvm_sphinx.runtime.build import build_executable
from tvm_sphinx.runtime.executable import ConcurrentExecutable
from tvm_sphinx.runtime.loading import load_kernels
from tvm_sphinx.scheduling.schedule import Schedule

__all__ = ["EXTENT", "random_module"]


def cores() -> tuple[int, int]:
    """Return two cores of this machine; on a machine of one core the same twice."""
    usable = usable_cores()
    return usable[0], usable[min(1, len(usable) - 1)]


def platforms() -> dict[str, Platform]:
    """Return platforms of two and three CPU devices, unlike ones and such as share cores."""
    first, second = cores()
    host, baseline = host_target(), baseline_target()
    one = Device("one", host, "cpu:0", (first,))
    two = Device("two", baseline, "cpu:0", (second,))
    both = Device("both", host, "cpu:0", tuple(dict.fromkeys((first, second))))
    twin = Device("twin", host, "cpu:0", (first,))
    return {
        "unlike": Platform((one, two)),
        "sharing": Platform((one, two, both), "two"),
        "one core": Platform((one, twin)),
    }


def list_schedule(extraction: Extraction, platform: Platform, placement: Sequence[int]) -> Schedule:
    """Return a schedule that starts each task, in topological order, as early as its device is free."""
    graph = extraction.graph
    start, finish = np.zeros(graph.num_tasks, np.int64), np.zeros(graph.num_tasks, np.int64)
    free: dict[int, int] = {}
    for task in range(graph.num_tasks):
        device_cores = platform.devices[placement[task]].cores
        ready = [int(finish[other]) for other in graph.predecessors[task]]
        start[task] = max([0, *ready, *(free.get(core, 0) for core in device_cores)])
        finish[task] = start[task] + 100 + 10 * (task % 3)
        free.update(dict.fromkeys(device_cores, int(finish[task])))
    return Schedule(placement, start, finish, int(finish.max(initial=0)), 0, "hand-written")


class ParallelKernels:
    """Implements kernels with every outermost spatial loop parallel, so that teams have work."""

    def __call__(self, module: Any) -> Any:
        functions = {}
        for var, function in module.functions.items():
            schedule = tvm.s_tir.Schedule(tvm.IRModule({"main": function}))
            for block in schedule.get_child_blocks(schedule.get_sblock("root")):
                loops = schedule.get_loops(block)
                if loops:
                    schedule.parallel(loops[0])
            functions[var] = schedule.mod["main"]
        return tvm.IRModule(functions)


def placed(
    module: Any, platform: Platform, placement: Sequence[int] | int
) -> tuple[Extraction, Schedule, Any]:
    """Return a module's extraction, a schedule and the annotated module; an int seeds a placement."""
    host = device_target(platform.devices[platform.host_index])
    extraction = extract_task_graph(lower_to_kernels(module, host))
    num_tasks = extraction.graph.num_tasks
    if isinstance(placement, int):
        rng = np.random.default_rng(placement)
        placement = rng.integers(0, len(platform.devices), num_tasks).tolist()
    schedule = list_schedule(extraction, platform, placement)
    return extraction, schedule, annotate_schedule(extraction, schedule, platform)


def build(
    module: Any, platform: Platform, placement: Sequence[int] | int = 0, **options: Any
) -> ConcurrentExecutable:
    """Compile a module for the lanes."""
    _, schedule, annotated = placed(module, platform, placement)
    return build_executable(annotated, platform, schedule, kernel_pass=ParallelKernels(), **options)


def one_after_another(
    executable: ConcurrentExecutable, inputs: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Return the results of the executable's own kernels, called in order on this thread.

    Each tensor has memory of its own, so neither planning nor threads have a part in it.
    """
    image = executable.image
    program = image.program
    kernels = load_kernels(image.library) if image.library else None
    weights = np.from_dlpack(image.weights)
    memory: dict[int, np.ndarray] = {}
    for number, buffer in enumerate(program.buffers):
        aligned = tvm.runtime.empty((max(buffer.bytes, 1),), "uint8")
        memory[number] = np.from_dlpack(aligned)
        if buffer.space == "input":
            memory[number][: buffer.bytes] = inputs[buffer.index].reshape(-1).view(np.uint8)
        if buffer.space == "weights":
            offset = executable.plan.offsets[number]
            memory[number][: buffer.bytes] = weights[offset : offset + buffer.bytes]

    def tensor(index: int) -> Any:
        view = program.tensors[index]
        whole = tvm.runtime.from_dlpack(memory[view.buffer])
        return whole._create_view(view.shape, view.dtype)

    for step in program.steps:
        operands = [tensor(operand) for operand in step.operands]
        if step.kind == "kernel":
            kernels.get_function(step.function)(*operands)
        elif step.kind == "external":
            tvm.get_global_func(step.function)(*operands)
        else:
            operands[0].copyto(operands[1])
    return [tensor(output).numpy() for output in program.outputs]


def random_inputs(executable: ConcurrentExecutable, seed: int = 0) -> list[np.ndarray]:
    """Return normal floats for each argument."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape, dtype in executable.inputs.values()]


def flat(result: Any) -> list[np.ndarray]:
    """Return the tensors of a result as arrays, in order."""
    if isinstance(result, tuple):
        return [array for item in result for array in flat(item)]
    return [np.from_dlpack(result)]


def assert_same(results: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
    """Check that results are bit-identical."""
    assert len(results) == len(expected)
    for result, want in zip(results, expected, strict=True):
        assert result.shape == want.shape
        assert result.tobytes() == want.tobytes()


def calling(name: str, shape: tuple[int, ...] = (EXTENT, EXTENT)) -> Any:
    """Return a module of two branches, one of which calls a packed function of that name."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType(shape, "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            left = builder.emit(relax.op.nn.relu(x))
            right = builder.emit(relax.op.exp(x))
            out = relax.TensorType(shape, "float32")
            called = builder.emit(relax.op.call_dps_packed(name, [left], out_ty=out))
            output = builder.emit_output(relax.op.add(called, right))
        builder.emit_func_output(output)
    return builder.finalize()
