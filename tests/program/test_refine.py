"""The loop closed: what is run, corrected and kept."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tvm_sphinx
from tests.networks import recurrent_net
from tvm_sphinx.cost.measure.kernel_timing import MeasureConfig
from tvm_sphinx.cost.records.in_place import in_place_path
from tvm_sphinx.errors import SphinxError
from tvm_sphinx.platform.machine import usable_cores
from tvm_sphinx.program import refine as loop
from tvm_sphinx.program.compare_builds import Build
from tvm_sphinx.program.compiled import CompiledModel
from tvm_sphinx.program.kinds import LaneProgramFile, StockProgram
from tvm_sphinx.scheduling.schedule import Schedule, validate
from tvm_sphinx.search import SearchResult


def field(**places: list[int]) -> dict[str, Build]:
    """Return builds of schedules by name, from the device of each task."""
    builds = {}
    for name, device in places.items():
        count = np.arange(len(device), dtype=np.int64)
        schedule = Schedule(np.array(device), count, count + 1, len(device), 0, "problem")
        found = SearchResult(schedule, "cpga", 0, (), 1, 0.0, "evaluations")
        builds[name] = Build(found, StockProgram(b"", ("cpu:0",), "main"))
    return builds


BOTH = field(found=[0, 1, 0], single=[1, 1, 1])


@pytest.mark.parametrize(
    ("found_ns", "single_ns", "kept"),
    [
        ([90, 91, 89, 90], [100, 101, 99, 100], "found"),
        ([100, 101, 99, 100], [90, 91, 89, 90], "single"),
        # Faster as a median, but not in every fourth round: the noise does not tell them apart.
        ([98, 97, 99, 120], [100, 100, 98, 100], "single"),
    ],
)
def test_of_two_that_noise_does_not_tell_apart_the_simpler_is_kept(
    found_ns: list[float], single_ns: list[float], kept: str
) -> None:
    assert loop._simplest(BOTH, {"found": np.array(found_ns), "single": np.array(single_ns)}) == kept


def test_a_program_of_the_stock_vm_is_not_refined() -> None:
    assert not loop._is_for_lanes(BOTH["found"])


QUICK = MeasureConfig(sample_ms=1.0, under_load=False)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("records") / "records.jsonl"


@pytest.fixture(scope="module")
def refined(records: Path) -> CompiledModel:
    if len(usable_cores()) < 2:
        pytest.skip("needs two cores")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "cores_of_others", lambda *_: 0.0)  # whoever else runs here
        # So much time that it is not what ends the loop.
        return tvm_sphinx.compile(
            recurrent_net(3), "unlike-cpus", records=records, measure=QUICK, refine_s=100.0
        )


def schedule_of(compiled: CompiledModel) -> Schedule:
    assert compiled.decision is not None
    return compiled.decision.schedule


def test_what_is_kept_computes_the_same(refined: CompiledModel) -> None:
    assert "Refined in " in refined.note
    assert re.search(r"Measured in turn: [\d.]+ [mu]s; \w.* \d\.\d\d times as long", refined.note)
    inputs = refined.random_inputs()
    for mine, right in zip(refined.run(inputs), refined.run_reference(inputs), strict=True):
        np.testing.assert_allclose(mine, right, rtol=1e-4, atol=1e-5)


def test_the_report_has_the_times_that_were_seen(refined: CompiledModel, tmp_path: Path) -> None:
    decision, report = refined.decision, refined.report
    assert decision is not None
    assert report is not None
    validate(decision.problem, decision.schedule)
    assert report.makespan_ns == decision.schedule.makespan_ns
    assert isinstance(refined.program, LaneProgramFile)
    planned = refined.program.image.schedule
    assert planned is not None
    assert planned.makespan_ns == decision.schedule.makespan_ns
    refined.save(tmp_path / "model.sphinx")
    loaded = CompiledModel.load(tmp_path / "model.sphinx")
    assert loaded.note == refined.note


def test_a_loop_of_the_same_programs_is_not_run_again(
    refined: CompiledModel, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_trace", lambda *_: pytest.fail("was traced again"))
    monkeypatch.setattr(loop, "_race", lambda *_: pytest.fail("was raced again"))
    again = tvm_sphinx.compile(
        recurrent_net(3), "unlike-cpus", records=records, measure=QUICK, refine_s=100.0
    )
    assert again.note == refined.note
    assert loop._is_alike(schedule_of(again), schedule_of(refined))
    assert schedule_of(again).makespan_ns == schedule_of(refined).makespan_ns
    inputs = refined.random_inputs()
    for mine, right in zip(again.run(inputs), refined.run(inputs), strict=True):
        np.testing.assert_array_equal(mine, right)


def test_later_compilations_are_costed_by_the_times_that_were_seen(
    refined: CompiledModel, records: Path
) -> None:
    plain = tvm_sphinx.compile(recurrent_net(3), "unlike-cpus", records=records, measure=QUICK)
    assert plain.report is not None
    assert refined.report is not None
    assert plain.report.num_traced == refined.report.num_traced > 0
    assert "corrected by traces of" in plain.describe()
    assert plain.report.best_single_device_ns == refined.report.best_single_device_ns
    # Another model of the same kernels was not seen.
    other = tvm_sphinx.compile(recurrent_net(2), "unlike-cpus", records=records, measure=QUICK)
    assert other.report is not None
    assert other.report.num_traced == 0


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), float("nan")])
def test_a_time_out_of_range_is_refused(seconds: float) -> None:
    with pytest.raises(SphinxError, match="time to refine of 0 s or more"):
        tvm_sphinx.compile("inception-v1", refine_s=seconds)


def test_placements_alike_are_of_the_same_order_too() -> None:
    one = BOTH["found"].found.best
    assert loop._is_alike(one, replace(one, makespan_ns=one.makespan_ns))
    assert not loop._is_alike(one, BOTH["single"].found.best)


def test_what_was_seen_while_others_used_the_cores_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if len(usable_cores()) < 2:
        pytest.skip("needs two cores")
    monkeypatch.setattr(loop, "cores_of_others", lambda *_: 0.9)
    records = tmp_path / "records.jsonl"
    with pytest.warns(UserWarning, match=r"Other processes used 0\.9 cores .* not kept"):
        found = tvm_sphinx.compile(
            recurrent_net(2), "unlike-cpus", records=records, measure=QUICK, refine_s=1.0
        )
    assert "Refined in " in found.note
    assert not in_place_path(records).exists()
