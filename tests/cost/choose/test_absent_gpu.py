"""Platforms with a GPU that is not at hand: records of such cards count, the rest is estimated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax

from tvm_sphinx.cost.choose.assemble import estimated_ns
from tvm_sphinx.cost.choose.costing import Costing, cost_kernels
from tvm_sphinx.cost.choose.criticality import by_urgency
from tvm_sphinx.cost.choose.kernel_costs import read_kernel_costs
from tvm_sphinx.cost.measure.kernel_timing import MeasureConfig
from tvm_sphinx.cost.measure.kernels import implement_for, implementation_id
from tvm_sphinx.cost.records.cards import shipped_records
from tvm_sphinx.cost.records.classes import class_of
from tvm_sphinx.cost.records.store import Record, RecordStore
from tvm_sphinx.cost.table import build_problem
from tvm_sphinx.errors import PlatformError, UnsupportedError
from tvm_sphinx.frontend.extract import Extraction, extract_task_graph
from tvm_sphinx.frontend.lower import lower_for_platform
from tvm_sphinx.platform import Device, Link, Platform
from tvm_sphinx.platform.machine import usable_cores
from tvm_sphinx.platform.targets import host_target
from tvm_sphinx.program.decide import decide_schedule, record_decision
from tvm_sphinx.program.options import CompileOptions
from tvm_sphinx.report.describe import format_report
from tvm_sphinx.report.placement import placement_report
from tvm_sphinx.report.why import explain_tasks
from tvm_sphinx.scheduling.problem import UNLIMITED
from tvm_sphinx.scheduling.schedule import violations

H100 = "NVIDIA H100 80GB HBM3"
TARGET = '{"arch": "sm_90", "kind": "cuda", "max_num_threads": 1024}'
# Absent on any machine that tests run on.
STRONG = Device("gpu", TARGET, "cuda:9", peak_gflop_per_s=1e5, peak_gb_per_s=1e4)
WEAK = replace(STRONG, peak_gflop_per_s=0.05, peak_gb_per_s=0.01)
QUICK = MeasureConfig(sample_ms=0.2, under_load=False)
WIDTH, LAYERS = 128, 5
LAYER_BYTES = 4 * WIDTH * WIDTH


def platform(*gpus: Device, near: bool = True) -> Platform:
    """Return a core and GPUs, to and from which copies take next to nothing if ``near``."""
    core = Device("core", host_target(), "cpu:0", usable_cores()[:1])
    pairs = [(a, b) for g in gpus for a, b in ((core, g), (g, core))]
    links = tuple(Link(a.name, b.name, 10, 1e12) for a, b in pairs) if near else ()
    return Platform((core, *gpus), links=links)


@pytest.fixture(scope="module")
def extraction() -> Extraction:
    """A chain of products, each with weights of its own."""
    rng = np.random.default_rng(0)
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType([64, WIDTH], "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            value: Any = x
            for _ in range(LAYERS):
                weight = relax.const(rng.random((WIDTH, WIDTH), dtype="float32"))
                value = builder.emit(relax.op.matmul(value, weight))
            output = builder.emit_output(value)
        builder.emit_func_output(output)
    return extract_task_graph(lower_for_platform(builder.get(), platform(STRONG)))


@pytest.fixture(scope="module")
def store() -> RecordStore:
    return RecordStore(None)


def costs_of(extraction: Extraction, where: Platform, store: RecordStore) -> Costing:
    return cost_kernels(extraction, where, store, config=QUICK)


def test_what_is_not_on_record_is_estimated_and_said_to_be(
    extraction: Extraction, store: RecordStore
) -> None:
    where = platform(WEAK, near=False)
    costing = costs_of(extraction, where, store)
    assert not costing.table.measured[:, 1].any()
    assert costing.table.measured[:, 0].all()
    decided = decide_schedule(extraction.graph, where, costing, CompileOptions())
    report = placement_report(
        extraction.graph, where, decided.found, decided.single.best, costing.summary
    )
    assert f"gpu is not at hand: {LAYERS} of its {LAYERS} times are estimates" in format_report(report)
    assert "kinds of link between devices estimated" in format_report(report)
    assert (decided.found.best.device == 0).all()  # too weak to be worth a copy


def test_records_of_such_a_card_count(extraction: Extraction, store: RecordStore) -> None:
    (kernel,) = extraction.kernels.values()
    named = replace(STRONG, card=H100)
    key = implementation_id(kernel, implement_for(kernel, named), named)
    known = RecordStore(None)
    known.know([Record(key, class_of(named), str(tvm.__version__), (4_000.0,) * 6)])
    costing = costs_of(extraction, platform(named), known)
    assert costing.table.exec_ns[:, 1].tolist() == [4_000] * LAYERS
    assert costing.table.measured[:, 1].all()
    assert costing.estimated == {"gpu": 0}


def test_estimates_are_scaled_by_what_is_on_record() -> None:
    bound, known = np.array([100, 200, 300]), np.array([300, -1, 900])
    assert estimated_ns(bound, known, known > 0).tolist() == [300, 600, 900]
    assert estimated_ns(bound, known, known > 9_000).tolist() == bound.tolist()


def test_what_matters_is_asked_whatever_fits_the_memory(
    extraction: Extraction, store: RecordStore
) -> None:
    """Where little is measured HEFT tells what matters, which puts more on the GPU than fits."""
    where = platform(replace(STRONG, memory_bytes=LAYER_BYTES))
    table = costs_of(extraction, where, store).table
    costs = read_kernel_costs(extraction.kernels.values(), where.devices, RecordStore(None))
    order = by_urgency(costs, extraction.graph, where, table)
    assert {one.device.name for one in order} == {"core", "gpu"}


def test_a_gpu_smaller_than_the_model_gets_what_fits_and_says_so(
    extraction: Extraction, store: RecordStore
) -> None:
    tensor_bytes, inputs = 4 * 64 * WIDTH, 4 * 64 * WIDTH
    room = 2 * LAYER_BYTES + 3 * tensor_bytes + inputs + 512 * LAYERS
    gpus = [replace(STRONG, name=f"gpu.{i}", memory_bytes=room) for i in range(2)]
    where = platform(*gpus)
    costing = costs_of(extraction, where, store)
    problem = build_problem(extraction.graph, where, costing.table)
    assert problem.memory_bytes[0] == UNLIMITED
    assert 0 < problem.memory_bytes[1] < room
    assert problem.memory_bytes[2] == 0
    decided = decide_schedule(extraction.graph, where, costing, CompileOptions())
    on_gpu = np.flatnonzero(decided.found.best.device > 0)
    assert 1 <= len(on_gpu) <= 2  # of both streams together
    assert not list(violations(problem, decided.found.best))
    decision = record_decision(
        decided, decided.found, extraction.graph, where, costing, CompileOptions()
    )
    left = next(task for task in range(LAYERS) if task not in on_gpu)
    (reasons,) = explain_tasks(decision, extraction.graph, str(left))
    assert any("have no room there" in text for text in reasons.binds), reasons.binds


def test_streams_of_a_gpu_that_holds_all_have_all_of_it(
    extraction: Extraction, store: RecordStore
) -> None:
    gpus = [replace(STRONG, name=f"gpu.{i}", memory_bytes=1 << 30) for i in range(2)]
    where = platform(*gpus)
    problem = build_problem(extraction.graph, where, costs_of(extraction, where, store).table)
    assert problem.memory_bytes.tolist() == [UNLIMITED, 1 << 30, 1 << 30]


def test_an_absent_gpu_of_which_nothing_is_told_is_refused(
    extraction: Extraction, store: RecordStore
) -> None:
    bare = replace(STRONG, peak_gb_per_s=None)
    with pytest.raises(UnsupportedError, match=r"'gpu' \(cuda:9\) is not at hand"):
        costs_of(extraction, platform(bare), store)


def test_shipped_records_are_those_of_the_card() -> None:
    found = shipped_records(H100)
    assert found
    assert {record.where.machine for record in found} == {H100}
    assert shipped_records("none such") == ()


@pytest.mark.parametrize("card", ["", 5])
def test_a_card_is_the_name_of_a_gpu(card: Any) -> None:
    with pytest.raises(PlatformError, match="Expected card of device 'gpu' as the name of a GPU"):
        replace(STRONG, card=card)
    with pytest.raises(PlatformError, match="Expected card of device 'core'"):
        replace(platform().devices[0], card="x")


def test_a_card_is_written_to_and_read_from_a_platform_file() -> None:
    where = platform(replace(STRONG, card=H100))
    assert Platform.from_json(where.to_json()) == where
