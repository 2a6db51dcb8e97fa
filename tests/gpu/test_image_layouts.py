"""A CPU beside a GPU has images channels last, the GPU as the model has them; what crosses is turned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tvm import relax

from tests import shuffle_net, weights_net
from tests.gpu.modules import assert_agree, on_cpu, platform
from tests.gpu.test_weights_ahead import drawn, extract, place
from tests.image_nets import random_image_module
from tests.runtime.modules import random_inputs
from tvm_sphinx.cost.choose.turning import cost_turns
from tvm_sphinx.cost.measure.kernel_timing import MeasureConfig
from tvm_sphinx.cost.records.store import RecordStore
from tvm_sphinx.program.build import build_stock_program
from tvm_sphinx.program.kinds import flatten_outputs
from tvm_sphinx.runtime.build import build_image
from tvm_sphinx.runtime.executable import ConcurrentExecutable
from tvm_sphinx.runtime.image import Image
from tvm_sphinx.runtime.program import LaneProgram

pytestmark = pytest.mark.gpu


def turns_of(image: Image) -> list[str]:
    return [step.function for step in image.program.steps if step.kind == "turn"]


@pytest.mark.parametrize("seed", range(4))
def test_placements_agree_with_the_cpu_alone(seed: int) -> None:
    module, where = random_image_module(seed), platform(1, 2)
    expected = on_cpu(module)
    inputs = random_inputs(expected)
    extraction = extract(module, where)
    annotated, schedule = place(extraction, where, drawn(extraction, where, seed))
    executable = ConcurrentExecutable(build_image(annotated, where, schedule))
    assert_agree(executable.run(inputs), expected.run(inputs))


def test_groups_shuffles_and_parts_of_channels_agree_with_onnx() -> None:
    """The shuffle crosses over too, and both parts of the split channels, each on its own."""
    where = platform()
    extraction = extract(shuffle_net.relax_module(), where)
    assert len(extraction.channels_last) == 8  # s, g, h, d, a, b, e, j
    x, expected = shuffle_net.example()
    # s, g, h, d, the split, e, j, what pools: e and j are made on the GPU, of two parts from the core.
    for devices, num_turns in (([0] * 9, 0), ([0, 1, 0, 1, 0, 1, 1, 0, 0], 7)):
        annotated, schedule = place(extraction, where, devices)
        image = build_image(annotated, where, schedule)
        assert len(turns_of(image)) == num_turns
        result = ConcurrentExecutable(image).run([x])
        np.testing.assert_allclose(np.from_dlpack(result), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("seed", [7, 8])
def test_stock_tvm_compiles_and_runs_the_placed_module(seed: int) -> None:
    where = platform(1, 2)
    extraction = extract(weights_net.relax_module(), where)
    x, expected = weights_net.example()
    annotated, _ = place(extraction, where, drawn(extraction, where, seed))
    program = build_stock_program(annotated, where, "main").open()
    (found,) = flatten_outputs(program([x]))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def made(devices: list[int], where: Any) -> tuple[Image, Any]:
    extraction = extract(weights_net.relax_module(), where)
    annotated, schedule = place(extraction, where, devices)
    return build_image(annotated, where, schedule), schedule


def test_nothing_is_turned_where_one_device_does_all() -> None:
    where = platform()
    for device in (0, 1):
        image, _ = made([device] * 11, where)
        assert turns_of(image) == []
        x, expected = weights_net.example()
        result = ConcurrentExecutable(image).run([x])
        np.testing.assert_allclose(np.from_dlpack(result), expected, rtol=1e-3, atol=1e-4)


def test_an_image_is_turned_once_in_each_memory() -> None:
    """What the core makes first, both streams read; what a stream makes next, the core reads twice."""
    where = platform(1, 2)
    x, expected = weights_net.example()
    # s, a, d, b, f, g, c, p, q, m, y: a and d read s; f reads a.
    image, schedule = made([0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0], where)
    assert turns_of(image) == ["to_channels_first", "to_channels_last", "to_channels_last1"]
    assert LaneProgram.from_json(image.program.to_json()) == image.program
    executable = ConcurrentExecutable(image)
    result, trace = executable.run_traced([x])
    np.testing.assert_allclose(np.from_dlpack(result), expected, rtol=1e-3, atol=1e-4)
    # Times are of tasks, to which turns do not belong.
    assert [step.task is None for step in trace.steps if step.kind == "turn"] == [True] * 3
    tasks = {step.task for step in trace.steps} - {None}
    assert tasks == set(range(len(schedule.order)))


def test_turns_are_measured_where_the_gpu_is_at_hand() -> None:
    where = platform()
    extraction = extract(weights_net.relax_module(), where)
    records = RecordStore(None)
    config = MeasureConfig(sample_ms=0.1, under_load=False)
    turns = cost_turns(extraction, where, records, config)
    assert turns is not None
    is_last = [(task, 0) in extraction.channels_last for task in range(len(turns.turn_ns))]
    for source, target in ((0, 1), (1, 0)):
        assert [bool(time_ns > 0) for time_ns in turns.turn_ns[:, source, target]] == is_last
    # There and back, for images of 12, 20 and 24 channels; a second time all are on record.
    assert len(records) == 6
    again = cost_turns(extraction, where, records, config)
    assert again is not None
    assert (again.turn_ns == turns.turn_ns).all()


def test_a_budget_that_is_used_up_measures_no_turn() -> None:
    where = platform()
    extraction = extract(weights_net.relax_module(), where)
    records = RecordStore(None)
    config = MeasureConfig(sample_ms=0.1, under_load=False)
    turns = cost_turns(extraction, where, records, config, end_s=0.0)
    assert turns is not None
    assert not len(records)
    is_last = [(task, 0) in extraction.channels_last for task in range(len(turns.turn_ns))]
    assert [bool(time_ns > 0) for time_ns in turns.turn_ns[:, 0, 1]] == is_last


@pytest.mark.parametrize("kind", ["row", "rows", "convolution"])
def test_a_border_behind_a_product_is_written(kind: str) -> None:
    """TVM, moving a consumer, leaves out what reads nothing of the producer; new memory is poisoned."""
    rng = np.random.default_rng(0)
    shape = {"row": (1, 64), "rows": (48, 64), "convolution": (1, 16, 8, 8)}[kind]
    x = rng.standard_normal(shape).astype("float32")
    builder = relax.BlockBuilder()
    given = relax.Var("x", relax.TensorType(shape, "float32"))
    with builder.function("main", [given]):
        with builder.dataflow():
            if kind == "convolution":
                weight = rng.standard_normal((16, 16, 1, 1)).astype("float32")
                made = builder.emit(relax.op.nn.conv2d(given, relax.const(weight)))
                wanted = np.einsum("nchw,oc->nohw", x, weight[..., 0, 0])
            else:
                weight = rng.standard_normal((64, 32)).astype("float32")
                made = builder.emit(relax.op.matmul(given, relax.const(weight)))
                wanted = x @ weight
            ends = [(0, 0)] * (len(shape) - 2) + [(0, 2), (0, 1)]
            widths = [int(width) for end in ends for width in end]
            result = builder.emit_output(builder.emit(relax.op.nn.pad(made, widths, "constant", 3.0)))
        builder.emit_func_output(result)
    where = platform()
    extraction = extract(builder.get(), where)
    annotated, schedule = place(extraction, where, [1] * len(extraction.graph.tasks))
    found = ConcurrentExecutable(build_image(annotated, where, schedule)).run([x])
    expected = np.pad(wanted, ends, constant_values=3.0)
    np.testing.assert_allclose(np.from_dlpack(found), expected, rtol=1e-4, atol=1e-4)
