"""Which images stand channels last on CPUs beside a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tvm import relax

from tests.image_nets import random_image_module
from tvm_sphinx.frontend.extract import Extraction, Kernel, extract_task_graph, takes_channels_last
from tvm_sphinx.frontend.lower import lower_for_platform
from tvm_sphinx.platform import Device, Platform
from tvm_sphinx.platform.machine import usable_cores
from tvm_sphinx.platform.targets import host_target

CORE = Device("core", host_target(), "cpu:0", usable_cores()[:1])
GPU = Device("gpu", '{"arch": "sm_90", "kind": "cuda", "max_num_threads": 1024}', "cuda:9")
BESIDE, ALONE = Platform((CORE, GPU)), Platform((CORE,))
_OP, _NN = relax.op, relax.op.nn


def extract(module: Any, where: Platform = BESIDE) -> Extraction:
    return extract_task_graph(lower_for_platform(module, where))


def network(build: Any) -> Extraction:
    """Return a network over one image; a number of results may be returned."""
    rng = np.random.default_rng(0)
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType([1, 16, 8, 8], "float32"))

    def conv(image: Any, channels: int = 16, size: int = 3, groups: int = 1) -> Any:
        depth = int(image.ty.shape[1]) // groups
        weight = rng.standard_normal((channels, depth, size, size)).astype(np.float32)
        return builder.emit(_NN.conv2d(image, relax.const(weight), padding=size // 2, groups=groups))

    with builder.function("main", [x]):
        with builder.dataflow():
            output = builder.emit_output(build(x, conv, builder.emit))
        builder.emit_func_output(output)
    return extract(builder.finalize())


def chosen(extraction: Extraction) -> list[str]:
    """Return the kinds of the tasks whose results stand channels last."""
    tasks = [extraction.graph.tasks[operand.producer] for operand in sorted(extraction.channels_last)]
    return ["+".join(task.op_kinds) for task in tasks]


def test_images_between_convolutions_stand_channels_last_and_arguments_and_results_do_not() -> None:
    found = network(lambda x, conv, emit: conv(emit(_NN.relu(conv(conv(x))))))
    assert [operand.producer for operand in sorted(found.channels_last)] == [0, 1]
    first, second, third = (found.kernels[task.kernel] for task in found.graph.tasks)
    assert (first.channels_last, second.channels_last, third.channels_last) == ((2,), (0, 2), (0,))


def test_what_pools_and_joins_goes_along() -> None:
    def build(x: Any, conv: Any, emit: Any) -> Any:
        stem = conv(x)
        pooled = emit(_NN.max_pool2d(stem, (3, 3), padding=1))
        joined = emit(_OP.concat([conv(stem, 8), conv(pooled, 8)], 1))
        return emit(_OP.mean(emit(_NN.relu(conv(joined))), [2, 3]))

    found = network(build)
    assert len(found.channels_last) == found.graph.num_tasks - 1


def test_groups_shuffles_and_parts_of_channels_go_along() -> None:
    def build(x: Any, conv: Any, emit: Any) -> Any:
        parts = emit(_OP.reshape(conv(conv(x), 24, 1, groups=4), (1, 4, 6, 8, 8)))
        mixed = emit(_OP.reshape(emit(_OP.permute_dims(parts, [0, 2, 1, 3, 4])), (1, 24, 8, 8)))
        halves = emit(_OP.split(mixed, 2, 1))
        passed, taken = emit(halves[0]), emit(halves[1])
        joined = emit(_OP.concat([passed, conv(taken, 8)], 1))
        return emit(_OP.mean(emit(_NN.relu(conv(joined, 20, groups=2))), [2, 3]))

    found = network(build)
    num_outputs = sum(len(task.output_bytes) for task in found.graph.tasks)
    assert len(found.channels_last) == num_outputs - 1
    assert num_outputs == found.graph.num_tasks + 1


def test_a_part_of_the_channels_that_is_returned_stays_and_the_other_does_not() -> None:
    def build(x: Any, conv: Any, emit: Any) -> Any:
        parts = emit(_OP.split(conv(x), [4], 1))
        passed, taken = emit(parts[0]), emit(parts[1])
        return relax.Tuple([passed, emit(_OP.mean(conv(taken), [2, 3]))])

    # The convolution's result, the larger part of it, and what is made of that.
    assert sorted(network(build).channels_last) == [(0, 0), (1, 1), (2, 0)]


def test_what_another_kernel_reads_stays() -> None:
    def build(x: Any, conv: Any, emit: Any) -> Any:
        image = conv(x)
        return emit(_OP.add(conv(conv(image)), emit(_NN.softmax(image, 1))))

    found = network(build)
    # Not what the softmax reads and makes, but what is between the two convolutions.
    assert [operand.producer for operand in found.channels_last] == [1]


def test_an_image_that_is_looked_at_in_another_shape_stays() -> None:
    def build(x: Any, conv: Any, emit: Any) -> Any:
        image = conv(x)
        flat = emit(_OP.reshape(image, (16, 64)))
        mixed = emit(_OP.matmul(flat, relax.const(np.eye(64, dtype=np.float32))))
        return _OP.concat([emit(_OP.reshape(conv(image), (16, 64))), mixed])

    assert chosen(network(build)) == []


def test_a_sum_of_two_images_one_of_which_stays_is_not_worth_a_turn_more() -> None:
    """The sum is returned, so it stays; so does what it alone reads, but for a convolution's own."""

    def build(x: Any, conv: Any, emit: Any) -> Any:
        pooled = emit(_NN.max_pool2d(conv(x), (3, 3), padding=1))
        return _OP.concat([pooled, x], 1)

    # Turned in the pool, in the join, or behind the convolution: the bytes are the same.
    assert chosen(network(build)) == []


def test_calls_of_one_kernel_may_be_unlike() -> None:
    def build(x: Any, conv: Any, emit: Any) -> Any:
        return conv(conv(conv(x)))

    found = network(build)
    kernels = [found.kernels[task.kernel] for task in found.graph.tasks]
    assert len({kernel.content for kernel in kernels}) == 1
    assert [kernel.channels_last for kernel in kernels] == [(2,), (0, 2), (0,)]
    assert len({kernel.id for kernel in kernels}) == 3


def test_a_cpu_gets_a_function_of_its_own_and_a_gpu_that_of_the_model() -> None:
    found = network(lambda x, conv, emit: conv(conv(x, 24)))
    kernel: Kernel = found.kernels[found.graph.tasks[0].kernel]
    assert takes_channels_last(CORE)
    assert not takes_channels_last(GPU)
    assert kernel.on(GPU) is kernel
    here = kernel.on(CORE)
    assert here is kernel.on(CORE)
    assert here.id == kernel.id
    assert [int(extent) for extent in here.argument_types[-1].shape] == [1, 8, 8, 24]
    assert [int(extent) for extent in here.function.params[-1].shape] == [1, 8, 8, 24]
    assert [int(extent) for extent in here.argument_types[0].shape] == [1, 16, 8, 8]


@pytest.mark.parametrize("seed", range(3))
def test_cpus_alone_have_one_layout_for_all(seed: int) -> None:
    found = extract(random_image_module(seed), ALONE)
    assert not found.channels_last
    assert not any(kernel.channels_last for kernel in found.kernels.values())


@pytest.mark.parametrize("seed", range(12))
def test_each_call_has_its_images_where_the_network_says(seed: int) -> None:
    found = extract(random_image_module(seed))
    for task, (entry, call) in enumerate(zip(found.graph.tasks, found.dataflow.calls, strict=True)):
        positions = found.kernels[entry.kernel].channels_last
        for at, argument in enumerate(call.arguments):
            is_last = any(tensor in found.channels_last for tensor in found.dataflow.tensors(argument))
            assert is_last == (at in positions)
        for output in range(len(call.outputs)):
            is_made_last = (task, output) in found.channels_last
            assert is_made_last == (len(call.arguments) + output in positions)
    assert not found.channels_last.intersection(found.graph.outputs)
