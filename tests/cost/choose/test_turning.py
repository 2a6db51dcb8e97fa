"""What images cost that stand otherwise on CPUs than on a GPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests import shuffle_net, weights_net
from tests.relax_modules import serial_schedule
from tests.test_weights_ahead import BESIDE, CORE, GPU, OTHER, QUICK, extract
from tvm_sphinx.cost.choose.costing import cost_kernels
from tvm_sphinx.cost.choose.turning import cost_turns
from tvm_sphinx.cost.measure.kernels import implementation_id
from tvm_sphinx.cost.records.classes import class_of
from tvm_sphinx.cost.records.store import Record, RecordStore
from tvm_sphinx.cost.table import build_problem
from tvm_sphinx.errors import ProblemError
from tvm_sphinx.frontend.extract import Extraction
from tvm_sphinx.platform import Platform
from tvm_sphinx.scheduling.schedule import peak_memory_bytes


@pytest.fixture(scope="module")
def extraction() -> Extraction:
    return extract(weights_net.relax_module(), BESIDE)


def test_a_turn_costs_what_the_gpu_takes_and_only_between_it_and_a_cpu(extraction: Extraction) -> None:
    where = Platform((CORE, GPU, OTHER, replace(GPU, name="stream")))
    slow = replace(GPU, peak_gb_per_s=1.0)
    turns = cost_turns(extraction, where, RecordStore(None), QUICK)
    assert turns is not None
    assert turns.turn_ns.shape == (extraction.graph.num_tasks, 4, 4)
    crosses = np.array([[i % 2 != j % 2 for i in range(4)] for j in range(4)])
    is_last = [(task, 0) in extraction.channels_last for task in range(extraction.graph.num_tasks)]
    # No kernel of a GPU takes less than 1.8 us.
    assert (turns.turn_ns == np.where(crosses, 1_800, 0) * np.array(is_last)[:, None, None]).all()
    sizes = [sum(task.output_bytes) for task in extraction.graph.tasks]
    assert turns.turned_bytes.tolist() == np.where(is_last, sizes, 0).tolist()
    # At 1 byte a ns, it is read and written.
    turns = cost_turns(extraction, Platform((CORE, slow)), RecordStore(None), QUICK)
    assert turns is not None
    twice = np.maximum(1_800, 2 * turns.turned_bytes) * np.array(is_last)
    assert turns.turn_ns[:, 0, 1].tolist() == turns.turn_ns[:, 1, 0].tolist() == twice.tolist()
    # Where nobody knows the bandwidth of a GPU, it takes what a copy is taken to take.
    unknown = replace(GPU, peak_gb_per_s=None, peak_gflop_per_s=None)
    turns = cost_turns(extraction, Platform((CORE, unknown)), RecordStore(None), QUICK)
    assert turns is not None
    copied = 20_000 + np.ceil(2 * turns.turned_bytes / 10).astype(int)
    assert turns.turn_ns[:, 0, 1].tolist() == np.where(is_last, copied, 0).tolist()


def test_all_results_of_a_task_are_turned() -> None:
    found = extract(shuffle_net.relax_module(), BESIDE)
    turns = cost_turns(found, BESIDE, RecordStore(None), QUICK)
    assert turns is not None
    (split,) = (at for at, task in enumerate(found.graph.tasks) if len(task.output_bytes) == 2)
    assert turns.turn_ns[split].tolist() == [[0, 3_600], [3_600, 0]]
    assert turns.turned_bytes[split] == 4 * 64 * (10 + 14)


def test_what_is_on_record_counts(extraction: Extraction, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured times of both directions are told apart."""
    records = RecordStore(None)
    known: dict[str, int] = {}

    def look_up(key: str, *_: object) -> Record | None:
        if not key.startswith("turn"):
            return None
        known[key] = 5_000 if key.startswith("turn-back") else 7_000
        return Record(key, class_of(GPU), "tvm", (float(known[key]),) * 3, 0.0)

    monkeypatch.setattr(records, "get", look_up)
    turns = cost_turns(extraction, BESIDE, records, QUICK)
    assert turns is not None
    # 8 x 8 images of 20, 12 and 24 channels.
    assert len(known) == 6
    is_last = np.array([(task, 0) in extraction.channels_last for task in range(len(turns.turn_ns))])
    assert turns.turn_ns[:, 1, 0].tolist() == np.where(is_last, 7_000, 0).tolist()
    assert turns.turn_ns[:, 0, 1].tolist() == np.where(is_last, 5_000, 0).tolist()


def test_cpus_alone_turn_nothing(extraction: Extraction) -> None:
    assert cost_turns(extraction, Platform((CORE, OTHER)), RecordStore(None), QUICK) is None
    alone = extract(weights_net.relax_module(), Platform((CORE,)))
    assert cost_turns(alone, Platform((CORE,)), RecordStore(None), QUICK) is None


def test_schedules_count_turns_in_time_and_memory(extraction: Extraction) -> None:
    graph = extraction.graph
    costing = cost_kernels(extraction, BESIDE, RecordStore(None), [], config=QUICK)
    with_turns = build_problem(graph, BESIDE, costing.table)
    without = build_problem(graph, BESIDE, replace(costing.table, turn_ns=None, turned_bytes=None))
    for number, edge in enumerate(graph.edges):
        more = (
            with_turns.copy_ns[with_turns.copy_class[number]]
            - without.copy_ns[without.copy_class[number]]
        )
        turned = 1_800 if (edge.src, 0) in extraction.channels_last else 0
        assert more.tolist() == [[0, turned], [turned, 0]]
    assert costing.table.turned_bytes is not None
    assert (
        with_turns.output_bytes - without.output_bytes
    ).tolist() == costing.table.turned_bytes.tolist()
    # Its own image and what it is turned into: 4 bytes of 20 channels of 8 x 8 pixels.
    schedule = serial_schedule(graph, [1, *[0] * (graph.num_tasks - 1)])
    plain = {name: 4 * int(np.prod(extents)) for name, extents in weights_net.EXTENTS.items()}
    assert peak_memory_bytes(with_turns, schedule)[1] == plain["stem"] + 2 * 4 * 20 * 64


def test_a_gpu_has_the_records_of_a_kernel_whatever_stands_channels_last(
    extraction: Extraction,
) -> None:
    turned = [kernel for kernel in extraction.kernels.values() if kernel.channels_last]
    assert turned
    for kernel in turned:
        plain = replace(kernel, id=kernel.content, channels_last=())
        ids = {
            implementation_id(one.on(GPU), one.on(GPU).function.with_attr("target", 0), GPU)
            for one in (kernel, plain)
        }
        assert len(ids) == 1


def test_a_table_of_another_shape_is_refused(extraction: Extraction) -> None:
    table = cost_kernels(extraction, BESIDE, RecordStore(None), [], config=QUICK).table
    with pytest.raises(ProblemError, match="turn_ns >= 0 of shape"):
        replace(table, turn_ns=np.zeros((1, 2, 2), dtype=np.int64))
    with pytest.raises(ProblemError, match="turned_bytes >= 0 of shape"):
        replace(table, turned_bytes=-np.ones(graph_size(extraction), dtype=np.int64))


def graph_size(extraction: Extraction) -> int:
    return extraction.graph.num_tasks
