"""Extraction: kernels, aliases, tuples, constants, several functions, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax

from tests.networks import recurrent_net, transformer
from tests.relax_modules import cpu_platform
from tvm_sphinx.errors import ModelError, UnsupportedError
from tvm_sphinx.frontend.extract import Kernel, extract_task_graph, is_memory_bound, weight_reuse
from tvm_sphinx.frontend.lower import lower_to_kernels
from tvm_sphinx.patterns import find_patterns
from tvm_sphinx.platform.targets import device_target
from tvm_sphinx.scheduling.graph import FROM_CONSTANT, FROM_INPUT, GraphInput, Operand, Task, TaskGraph

TARGET = device_target(cpu_platform(1).devices[0])
FOUR = relax.TensorType([2, 2], "float32")


def _module(body) -> tvm.IRModule:
    builder = relax.BlockBuilder()
    x = relax.Var("x", FOUR)
    with builder.function("main", [x]):
        with builder.dataflow():
            output = builder.emit_output(body(builder, x))
        builder.emit_func_output(output)
    return builder.finalize()


def test_views_tuples_and_constants_are_no_tasks() -> None:
    def body(builder: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        product = builder.emit(relax.op.matmul(x, relax.const(np.ones((2, 2), "float32"))))
        flat = builder.emit(relax.op.reshape(product, (4,)))
        pair = builder.emit(relax.Tuple([flat, x]))
        first = builder.emit(relax.TupleGetItem(pair, 0))
        back = builder.emit(relax.op.reshape(first, (2, 2)))
        second = builder.emit(relax.op.matmul(back, x))
        return relax.Tuple([second, product, relax.Tuple([x])])

    graph = extract_task_graph(lower_to_kernels(_module(body), TARGET)).graph
    assert [task.operands for task in graph.tasks] == [
        (Operand(FROM_INPUT, 0), Operand(FROM_CONSTANT, 0)),
        (Operand(0, 0), Operand(FROM_INPUT, 0)),
    ]
    assert graph.outputs == (Operand(1, 0), Operand(0, 0), Operand(FROM_INPUT, 0))
    assert [task.weight_bytes for task in graph.tasks] == [16, 0]
    assert graph.tasks[0].flops == 16
    assert graph.inputs[0].bytes == 16


def test_a_kernel_with_two_outputs() -> None:
    def body(builder: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        halves = builder.emit(relax.op.split(x, 2, axis=0))
        low = builder.emit(relax.TupleGetItem(halves, 1))
        return builder.emit(relax.op.matmul(low, x))

    graph = extract_task_graph(relax.transform.LegalizeOps()(_module(body))).graph
    assert graph.tasks[0].output_bytes == (8, 8)
    assert graph.tasks[1].operands[0] == Operand(0, 1)
    assert graph.edges[0].bytes == 8


def test_equal_kernels_share_an_id_and_others_do_not() -> None:
    graph = extract_task_graph(lower_to_kernels(transformer(layers=3), TARGET)).graph
    per_layer, rest = divmod(graph.num_tasks, 3)
    assert rest == 0
    kinds = [task.kernel for task in graph.tasks]
    assert kinds[:per_layer] == kinds[per_layer : 2 * per_layer] == kinds[2 * per_layer :]
    longer = extract_task_graph(lower_to_kernels(transformer(layers=1, length=18), TARGET)).graph
    assert {task.kernel for task in longer.tasks}.isdisjoint(kinds)


EXTENT, COUNT = 6, 6
BLOCK = {"dtype": "float16", "axis": -1, "strides": (1, 1), "padding": (1, 1, 1, 1)}


def _row_of_blocks(count: int, changed: int, change: dict[str, Any]) -> TaskGraph:
    """Return blocks of a product, a softmax and a pooling, one of which differs from the others."""
    image = relax.TensorType([1, 2, EXTENT, EXTENT], "float32")
    weight = relax.const(np.ones((EXTENT, EXTENT), "float32"))
    builder = relax.BlockBuilder()
    x = relax.Var("x", image)
    with builder.function("main", [x]):
        with builder.dataflow():
            y = x
            for block in range(count):
                chosen = {**BLOCK, **(change if block == changed else {})}
                y = builder.emit(relax.op.astype(relax.op.matmul(y, weight), chosen["dtype"]))
                y = builder.emit(relax.op.nn.softmax(y, axis=chosen["axis"]))
                y = relax.op.nn.avg_pool2d(
                    y, (3, 3), strides=chosen["strides"], padding=chosen["padding"]
                )
                y = builder.emit(relax.op.astype(builder.emit(y), "float32"))
            output = builder.emit_output(y)
        builder.emit_func_output(output)
    return extract_task_graph(lower_to_kernels(builder.finalize(), TARGET)).graph


@pytest.mark.parametrize("changed", [0, 2, COUNT - 1])
@pytest.mark.parametrize(
    ("change", "tasks"),
    [
        ({"dtype": "float64"}, 3),
        ({"axis": -2}, 1),
        ({"strides": (2, 2), "padding": (3, 3, 4, 4)}, 1),
        ({"padding": (0, 0, 2, 2)}, 1),
    ],
    ids=["dtype", "axis", "strides", "padding"],
)
def test_another_dtype_or_attribute_breaks_the_match_of_its_block_and_no_other(
    change: dict[str, Any], tasks: int, changed: int
) -> None:
    equal, graph = _row_of_blocks(COUNT, -1, {}), _row_of_blocks(COUNT, changed, change)
    size = equal.num_tasks // COUNT
    blocks = [tuple(range(block * size, (block + 1) * size)) for block in range(COUNT)]

    def found(graph: TaskGraph) -> set[tuple[int, ...]]:
        return {row for p in find_patterns(graph).patterns for row in p.occurrences if len(row) == size}

    assert graph.num_tasks == equal.num_tasks == COUNT * size
    assert [task.operands for task in graph.tasks] == [task.operands for task in equal.tasks]
    assert found(equal) == set(blocks)
    assert found(graph) == set(blocks) - {blocks[changed]}
    kernels = [task.kernel for task in graph.tasks]
    alone = [task for task in range(graph.num_tasks) if kernels.count(kernels[task]) == 1]
    assert len(alone) == tasks
    assert set(alone) <= set(blocks[changed])
    others = [block for block in blocks if block != blocks[changed]]
    for same_place in zip(*others, strict=True):
        assert len({kernels[task] for task in same_place}) == 1


def test_the_same_module_has_the_same_fingerprint() -> None:
    graphs = [extract_task_graph(lower_to_kernels(transformer(layers=1), TARGET)).graph for _ in "ab"]
    assert graphs[0].fingerprint == graphs[1].fingerprint


def test_dropout_is_the_identity() -> None:
    def body(builder: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        dropped = builder.emit(relax.op.nn.dropout(x))
        kept = builder.emit(relax.TupleGetItem(dropped, 0))
        return builder.emit(relax.op.nn.relu(kept))

    graph = extract_task_graph(lower_to_kernels(_module(body), TARGET)).graph
    assert graph.num_tasks == 1


def test_an_external_call_is_a_task() -> None:
    def body(builder: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        first = builder.emit(relax.call_dps_packed("library.relu", (x,), FOUR))
        return builder.emit(relax.call_dps_packed("library.relu", (first,), FOUR))

    extraction = extract_task_graph(lower_to_kernels(_module(body), TARGET))
    assert [task.op_kinds for task in extraction.graph.tasks] == [("library.relu",)] * 2
    assert len(extraction.kernels) == 1


def test_a_private_function_is_inlined_and_the_entry_is_chosen() -> None:
    module = _module(lambda builder, x: builder.emit(relax.op.nn.relu(x)))
    other = relax.utils.copy_with_new_vars(module["main"]).with_attr("global_symbol", "other")
    module["other"] = other
    lowered = lower_to_kernels(module, TARGET, "other")
    assert extract_task_graph(lowered, "other").graph.name == "other"
    assert extract_task_graph(lowered).graph.name == "main"
    with pytest.raises(ModelError, match="known: main, other"):
        extract_task_graph(lowered, "third")


def test_an_operator_that_was_not_lowered_is_named() -> None:
    with pytest.raises(UnsupportedError, match=r"calls relax\.nn\.relu"):
        extract_task_graph(_module(lambda builder, x: builder.emit(relax.op.nn.relu(x))))


def test_an_assertion_is_refused_as_one() -> None:
    builder = relax.BlockBuilder()
    x = relax.Var("x", FOUR)
    with builder.function("main", [x], pure=False):
        positive = builder.emit(relax.op.greater(relax.op.max(x), relax.const(0.0)))
        builder.emit(relax.op.assert_op(positive))
        builder.emit_func_output(builder.emit(relax.op.nn.relu(x)))
    with pytest.raises(UnsupportedError, match="asserts something of what it computes"):
        extract_task_graph(lower_to_kernels(builder.get(), TARGET))


def test_weights_come_back_after_what_is_read_between_two_uses() -> None:
    """1 to 4 MB of weights, in powers of four; a weight that comes back at once is nearest."""
    types = tuple(relax.TensorType([1024, 1024], "uint8") for _ in range(3))
    names = "abcd"
    kernels = {name: Kernel(name, None, types, None, (1,)) for name in names}

    def reuse(*reads: tuple[str, int]) -> list[int]:
        operands = [(Operand(FROM_INPUT, 0), Operand(FROM_CONSTANT, constant)) for _, constant in reads]
        tasks = [Task(f"t{i}", reads[i][0], both, (1 << 20,)) for i, both in enumerate(operands)]
        found = weight_reuse(TaskGraph("g", tuple(tasks), (GraphInput("x", 1 << 20),)), kernels)
        return [found[name] >> 20 for name in names]

    assert reuse(("a", 0)) == [1, 0, 0, 0]
    assert reuse(("a", 0), ("b", 1), ("c", 2)) == [4, 4, 4, 0]
    # Constant 0 is read in turn with constant 1, or by itself; of an even number the longer way counts.
    assert reuse(("a", 0), ("b", 1), ("a", 0), ("b", 1), ("c", 2), ("d", 3)) == [4, 4, 4, 4]
    assert reuse(("a", 0), ("a", 0), ("a", 0), ("b", 1), ("c", 2), ("d", 3)) == [1, 4, 4, 4]
    # The nearest power counts, and beyond 64 MB nothing is farther.
    assert reuse(*(("a", constant) for constant in range(7))) == [4, 0, 0, 0]
    assert reuse(*(("a", constant) for constant in range(8))) == [16, 0, 0, 0]
    assert reuse(*(("a", constant) for constant in range(100))) == [64, 0, 0, 0]


def test_what_one_step_alone_has_constant_is_no_weight() -> None:
    """The first step of a chain begins with a constant; what all others read was just written."""

    def steps(count: int) -> Any:
        def body(builder: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
            state = relax.const(np.ones((2, 2), "float32"))
            for _ in range(count):
                state = builder.emit(relax.op.matmul(state, x))
            return state

        (kernel,) = extract_task_graph(lower_to_kernels(_module(body), TARGET)).kernels.values()
        return kernel.weights, kernel.reuse_bytes > 0

    assert steps(1) == ((0,), True)
    assert steps(3) == ((), False)


def test_steps_of_a_recurrent_network_find_their_weights_near() -> None:
    def reuse(steps: int) -> set[int]:
        lowered = lower_to_kernels(recurrent_net(steps=steps, hidden=384), TARGET, targets=[TARGET])
        return {kernel.reuse_bytes for kernel in extract_task_graph(lowered).kernels.values()}

    assert reuse(5) == reuse(8)
    assert 0 < min(reuse(5) - {0}) <= max(reuse(5))


def test_what_memory_bounds() -> None:
    """A product by a vector uses each weight once; one of many rows computes more than it reads."""

    def kernel(rows: int, depth: int, columns: int) -> Any:
        left, right = (tvm.te.placeholder(shape) for shape in ((rows, depth), (depth, columns)))
        k = tvm.te.reduce_axis((0, depth))
        product = tvm.te.compute(
            (rows, columns), lambda i, j: tvm.te.sum(left[i, k] * right[k, j], axis=k)
        )
        return tvm.te.create_prim_func([left, right, product])

    size = 4 * 512 * 512
    assert is_memory_bound(kernel(1, 512, 512), size)
    assert not is_memory_bound(kernel(128, 512, 512), 2 * size)
    assert not is_memory_bound("a.packed.function", size)
