"""A CPU beside a GPU has its weights packed once, and computes what the model says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tvm
import tvm_ffi
from tvm import relax

from tests import weights_net
from tests.relax_modules import serial_schedule
from tvm_sphinx.cost.choose.candidates import Candidate
from tvm_sphinx.cost.choose.costing import Costing, cost_kernels
from tvm_sphinx.cost.measure.kernel_timing import MeasureConfig
from tvm_sphinx.cost.measure.kernels import implement_for, implementation_id
from tvm_sphinx.cost.records.store import RecordStore
from tvm_sphinx.cost.table import build_problem
from tvm_sphinx.frontend.extract import Extraction, Kernel, extract_task_graph
from tvm_sphinx.frontend.lower import lower_for_platform
from tvm_sphinx.kernels import packed_weights
from tvm_sphinx.kernels.implement import implement_kernel
from tvm_sphinx.platform import Device, Link, Platform
from tvm_sphinx.platform.machine import usable_cores
from tvm_sphinx.platform.targets import baseline_target, device_target, host_target
from tvm_sphinx.relax_pass import annotate_schedule
from tvm_sphinx.runtime.build import build_image
from tvm_sphinx.runtime.executable import ConcurrentExecutable
from tvm_sphinx.scheduling.schedule import Schedule, peak_memory_bytes

CORE = Device("core", host_target(), "cpu:0", usable_cores()[:1])
OTHER = Device("other", baseline_target(), "cpu:0", usable_cores()[:1])
# Absent on any machine that tests run on.
GPU = Device(
    "gpu",
    '{"arch": "sm_90", "kind": "cuda", "max_num_threads": 1024}',
    "cuda:9",
    peak_gflop_per_s=1e5,
    peak_gb_per_s=1e4,
)
LINKS = tuple(Link(a, b, 10, 1e12) for a, b in (("core", "gpu"), ("gpu", "core")))
BESIDE = Platform((CORE, GPU), links=LINKS)
QUICK = MeasureConfig(sample_ms=0.1, under_load=False)


def extract(module: Any, where: Platform) -> Extraction:
    return extract_task_graph(lower_for_platform(module, where))


@pytest.fixture(scope="module")
def extraction() -> Extraction:
    return extract(weights_net.relax_module(), BESIDE)


def cost(extraction: Extraction, *sources: Any) -> Costing:
    return cost_kernels(extraction, BESIDE, RecordStore(None), list(sources), config=QUICK)


@pytest.fixture(scope="module")
def costing(extraction: Extraction) -> Costing:
    """What the rules' kernels cost: TVM's default loops, over plain weights, may be as fast for some."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tvm_sphinx.cost.choose.candidates.default_loops", lambda *_: None)
        return cost(extraction)


def on_one(extraction: Extraction, device: int) -> Schedule:
    return serial_schedule(extraction.graph, [device] * extraction.graph.num_tasks)


def constants_of(annotated: Any) -> list[Any]:
    """Return the constants that kernels of a placed function are called with."""
    calls = [b.value for block in annotated["main"].body.blocks for b in block.bindings]
    arguments = [a for c in calls if isinstance(c, relax.Call) and len(c.args) > 1 for a in c.args[1]]
    return [argument for argument in arguments if isinstance(argument, tvm.ir.GenericConst)]


@pytest.mark.parametrize(
    ("devices", "chosen"),
    [((CORE, GPU), True), ((CORE, OTHER, GPU), False)],
    ids=["one core", "two classes, implemented at the end"],
)
def test_a_network_keeps_its_numbers(devices: tuple[Device, ...], chosen: bool) -> None:
    where = Platform(devices)
    extraction = extract(weights_net.relax_module(), where)
    numbers = [task % (len(devices) - 1) for task in range(extraction.graph.num_tasks)]
    schedule = serial_schedule(extraction.graph, numbers)
    annotated = annotate_schedule(extraction, schedule, where, implement_for if chosen else None)
    relax.analysis.well_formed(annotated)
    # Without the GPU, on which nothing runs, any machine can run it.
    image = build_image(annotated, where, schedule)
    x, expected = weights_net.example()
    (found,) = (np.from_dlpack(ConcurrentExecutable(image).run([x])),)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_each_weight_is_held_once_as_the_cpu_takes_it(extraction: Extraction) -> None:
    annotated = annotate_schedule(extraction, on_one(extraction, 0), BESIDE)
    constants = constants_of(annotated)
    held = {constant.value.data_ptr(): constant.value for constant in constants}
    assert len(held) == len(weights_net.EXTENTS) == len(constants) - 1  # one is read by two tasks
    sizes = sorted(int(np.prod(value.shape)) * 4 for value in held.values())
    plain = {name: 4 * int(np.prod(extents)) for name, extents in weights_net.EXTENTS.items()}
    assert sizes == sorted({**plain, **weights_net.PACKED_BYTES}.values())
    # Written once more, as for the race of two schedules, it is packed no second time.
    again = constants_of(annotate_schedule(extraction, on_one(extraction, 0), BESIDE))
    assert {constant.value.data_ptr() for constant in again} == set(held)


def test_a_platform_of_cpus_alone_packs_where_it_lowers() -> None:
    extraction = extract(weights_net.relax_module(), Platform((CORE,)))
    assert not any(kernel.packable for kernel in extraction.kernels.values())
    for kernel in extraction.kernels.values():
        assert not packed_weights(implement_for(kernel, CORE))


def test_a_kernel_with_a_weight_in_one_call_alone_packs_it_in_each(extraction: Extraction) -> None:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType([20, 20], "float32"))
    weight = np.random.default_rng(0).standard_normal((20, 20)).astype(np.float32)
    with builder.function("main", [x]):
        with builder.dataflow():
            first = builder.emit(relax.op.matmul(x, relax.const(weight)))
            output = builder.emit_output(relax.op.matmul(first, x))
        builder.emit_func_output(output)
    found = extract(builder.get(), BESIDE)
    (kernel,) = found.kernels.values()
    assert kernel.packable == ()
    assert not packed_weights(implement_for(kernel, CORE))
    annotated = annotate_schedule(found, on_one(found, 0), BESIDE)
    value = np.random.default_rng(1).standard_normal((20, 20)).astype(np.float32)
    result = ConcurrentExecutable(build_image(annotated, BESIDE)).run([value])
    np.testing.assert_allclose(np.from_dlpack(result), value @ weight @ value, rtol=1e-4, atol=1e-4)


def test_packed_kernels_have_records_of_their_own(extraction: Extraction) -> None:
    found = [
        (kernel, made)
        for kernel in extraction.kernels.values()
        if packed_weights(made := implement_for(kernel, CORE))
    ]
    assert len(found) == len(weights_net.PACKED_BYTES)
    for kernel, packed in found:
        plain = implement_kernel(kernel.function, device_target(CORE))
        assert implementation_id(kernel, packed, CORE) != implementation_id(kernel, plain, CORE)


def test_memory_counts_weights_as_each_device_holds_them(
    extraction: Extraction, costing: Costing
) -> None:
    graph = extraction.graph
    problem = build_problem(graph, BESIDE, costing.table)
    plain = {name: 4 * int(np.prod(extents)) for name, extents in weights_net.EXTENTS.items()}
    packed = {**plain, **weights_net.PACKED_BYTES}
    for device, sizes in ((0, packed), (1, plain)):
        # A weight counts for each task that reads it.
        total = sum(sizes.values()) + sizes["shared"]
        assert problem.weight_bytes_on[:, device].sum() == total
        schedule = on_one(extraction, device)
        outputs = replace(problem, output_bytes=np.zeros(graph.num_tasks, dtype=np.int64))
        assert peak_memory_bytes(outputs, schedule)[device] == total
    annotated = annotate_schedule(extraction, on_one(extraction, 0), BESIDE, costing.choices.function)
    image = build_image(annotated, BESIDE, on_one(extraction, 0))
    held = [buffer.bytes for buffer in image.program.buffers if buffer.space == "weights"]
    assert sorted(held) == sorted(packed.values())


class _Source:
    """A source of one candidate for each kernel, over weights as the model has them."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, kernel: Kernel, device: Device) -> Sequence[Candidate]:
        if not device.is_cpu or not kernel.packable:
            return []
        function = kernel.function.with_attrs({"tirx.is_scheduled": True, "sphinx.test": 1})
        if self.factor != 1:
            scaled = tvm.tirx.const(self.factor, "float32")

            def change(store: Any) -> Any:
                return tvm.tirx.BufferStore(store.buffer, store.value * scaled, store.indices)

            function = function.with_body(
                tvm_ffi.structural_map(function.body, (tvm.tirx.BufferStore, change))
            )
        return [Candidate("plain", function)]


def test_candidates_over_plain_weights_compete_with_packed_ones(
    extraction: Extraction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are called with the same weights, one of them packed; what is chosen runs in the network."""
    monkeypatch.setattr("tvm_sphinx.cost.choose.kernel_costs.is_faster", lambda *_: True)
    monkeypatch.setattr("tvm_sphinx.cost.choose.candidates.default_loops", lambda *_: None)
    for limit in ("_GIVE_UP", "_LAG"):
        monkeypatch.setattr(f"tvm_sphinx.cost.choose.check_candidate.{limit}", 1e9)
    found = cost(extraction, _Source(1))
    chosen = {kernel: found.choices.origin(kernel, CORE) for kernel in extraction.kernels}
    assert set(chosen.values()) >= {"plain"}
    plain = {name: 4 * int(np.prod(extents)) for name, extents in weights_net.EXTENTS.items()}
    assert build_problem(extraction.graph, BESIDE, found.table).weight_bytes_on[:, 0].sum() == (
        sum(plain.values()) + plain["shared"]
    )
    schedule = on_one(extraction, 0)
    annotated = annotate_schedule(extraction, schedule, BESIDE, found.choices.function)
    x, expected = weights_net.example()
    result = ConcurrentExecutable(build_image(annotated, BESIDE, schedule)).run([x])
    np.testing.assert_allclose(np.from_dlpack(result), expected, rtol=1e-4, atol=1e-5)


def test_a_wrong_candidate_over_plain_weights_is_found_out(extraction: Extraction) -> None:
    with pytest.warns(UserWarning, match="plain candidate .* computes other numbers"):
        found = cost(extraction, _Source(1.5))
    assert "plain" not in {found.choices.origin(kernel, CORE) for kernel in extraction.kernels}
