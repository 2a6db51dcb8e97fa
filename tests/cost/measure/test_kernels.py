"""Measuring: what is on record is not measured again, whatever kind it is; what is foreign is told."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tvm
from tvm import relax, te, tirx

import tvm_sphinx
from tests.relax_modules import random_module
from tvm_sphinx.cost.choose.candidates import Candidate
from tvm_sphinx.cost.choose.check_candidate import check_candidate
from tvm_sphinx.cost.choose.kernel_costs import Implementation
from tvm_sphinx.cost.measure import kernels as measure
from tvm_sphinx.cost.measure import links
from tvm_sphinx.cost.measure.hosts import LocalHost
from tvm_sphinx.cost.measure.kernel_timing import MeasureConfig, evaluate, shape_texts
from tvm_sphinx.cost.measure.kernels import implement_for, implementation_id, measure_kernels
from tvm_sphinx.cost.measure.links import measure_links, time_copies
from tvm_sphinx.cost.measure.precision import Demand
from tvm_sphinx.cost.measure.sampling import Goal, Samples
from tvm_sphinx.cost.records.classes import class_of, class_of_pair
from tvm_sphinx.cost.records.store import Record, RecordStore, read_records
from tvm_sphinx.errors import SphinxError, UnsupportedError
from tvm_sphinx.frontend.extract import Kernel
from tvm_sphinx.kernels.code_cache import CACHE_VARIABLE
from tvm_sphinx.platform import Device, Link, Platform
from tvm_sphinx.platform.machine import group_name, machine_id, usable_cores
from tvm_sphinx.platform.targets import host_target
from tvm_sphinx.program.compiled import CompiledModel
from tvm_sphinx.runtime import kernels

QUICK = MeasureConfig(sample_ms=0.2)
VERSION = str(tvm.__version__)


def doubling_kernel(extent: int = 64) -> Kernel:
    source = te.placeholder((extent,), name="source")
    result = te.compute((extent,), lambda i: source[i] * 2.0, name="result")
    ty = relax.TensorType([extent], "float32")
    return Kernel(f"double{extent}", te.create_prim_func([source, result]), (ty, ty))


def one_core() -> Device:
    return Device("core", host_target(), "cpu:0", usable_cores()[:1])


def test_a_second_compile_measures_nothing(tmp_path: Path) -> None:
    """Kernels, hand-overs and what they lose side by side: after one compile all are on record."""
    path = tmp_path / "records.jsonl"
    stages: list[str] = []

    def compiled() -> CompiledModel:
        return tvm_sphinx.compile(
            random_module(3),
            "detect",
            records=path,
            measure=QUICK,
            with_reference=False,
            progress=lambda stage, *_: stages.append(stage),
        )

    first = compiled()
    before = path.read_bytes()
    assert before
    stages.clear()
    assert compiled().report == first.report
    assert path.read_bytes() == before
    assert all(stage.endswith("all on record") for stage in stages if stage.startswith("measure"))
    kinds = {record.kind for record in read_records(path)}
    assert kinds == ({"kernel"} if len(usable_cores()) == 1 else {"kernel", "copy", "load"})


def test_a_record_says_where_and_of_what_it_is() -> None:
    store = RecordStore(None)
    (record,) = measure_kernels([doubling_kernel()], one_core(), store, QUICK)
    assert record.shapes == ("float32[64]", "float32[64]") == shape_texts(doubling_kernel())
    assert record.where.machine == machine_id()
    assert (record.where.device, record.where.cores) == ("1 cores", 1)
    assert record.where.target == host_target()
    assert record.kind == "kernel"
    assert store.num_added >= 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tvm": "0.26.0"}, r"by TVM 0\.26\.0"),
        ({"where": replace(class_of(one_core()), machine="laptop")}, r"on another machine \(laptop\)"),
    ],
)
def test_foreign_records_are_measured_anew_and_told(change: dict[str, object], reason: str) -> None:
    own = RecordStore(None)
    (record,) = measure_kernels([doubling_kernel()], one_core(), own, QUICK)
    foreign = RecordStore(None)
    foreign.add(replace(record, **change, samples_ns=(1e9,)))
    with pytest.warns(UserWarning, match=f"1 of 1 kernels were measured {reason}"):
        (found,) = measure_kernels([doubling_kernel()], one_core(), foreign, QUICK)
    assert found.key == record.key
    assert found.samples_ns != (1e9,)


class ScriptedBench:
    """Gives out prepared samples in the place of time."""

    host = LocalHost()

    def __init__(self, *answers: Samples) -> None:
        self.answers: Iterator[Samples] = iter(answers)

    def build(self, functions: dict[str, object]) -> object:
        return self

    def time(self, *_: object) -> Samples:
        return next(self.answers)

    def turn(self, *_: object) -> None:
        return


def test_times_are_on_record_apart_for_each_choice_of_passes() -> None:
    kernel, device = doubling_kernel(), one_core()
    function = implement_for(kernel, device)
    plain = implementation_id(kernel, function, device)
    with tvm.transform.PassContext():
        assert implementation_id(kernel, function, device) == plain
    names = {plain}
    for config in ({}, {"tirx.disable_vectorize": True}, {"tirx.disable_vectorize": False}):
        with tvm.transform.PassContext(opt_level=3, config=config):
            names.add(implementation_id(kernel, function, device))
    assert len(names) == 4
    assert all(name.startswith(plain) for name in names)


def test_a_disturbed_kernel_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The better of both is what is used; both are on record."""
    bad, good = Samples((100, 900) * 5, 0.4, 0.9), Samples((100,) * 10, 0.0, 0.0)
    monkeypatch.setattr(measure, "_open_bench", lambda *_: ScriptedBench(bad, good))
    monkeypatch.setattr(measure, "_RETRY_SHARE", 1e9)
    store = RecordStore(None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # measured well in the end, so there is nothing to warn of
        monkeypatch.setattr(measure, "_STOLEN", 1.0)
        (record,) = measure_kernels([doubling_kernel()], one_core(), store, QUICK)
    assert record.samples_ns == (100,) * 10
    assert store.num_added == 2


def test_a_machine_that_stays_busy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = Samples((100, 900) * 5, 0.4, 0.9)
    monkeypatch.setattr(measure, "_open_bench", lambda *_: ScriptedBench(bad, bad))
    monkeypatch.setattr(measure, "_RETRY_SHARE", 1e9)
    with pytest.warns(UserWarning, match="The machine was busy .* on 'core': 1 of 1 medians"):
        measure_kernels([doubling_kernel()], one_core(), RecordStore(None), QUICK)


class Evaluated:
    """A module whose calls take the times that are given, by TVM's time evaluator."""

    def __init__(self, times_ns: Iterator[int]) -> None:
        self.times_ns = times_ns

    def time_evaluator(self, *_: object, number: int, repeat: int) -> Callable[[], SimpleNamespace]:
        def means() -> list[float]:
            return [1e-9 * np.mean([next(self.times_ns) for _ in range(number)]) for _ in range(repeat)]

        return lambda: SimpleNamespace(results=means())


@pytest.mark.parametrize("time_ns", [2_000, 100_000, 3_000_000])
def test_the_time_evaluator_is_asked_until_the_goal_is_met(time_ns: int) -> None:
    """A quiet kernel ends at the least time, a noisy one when its median is known or time is spent."""
    goal = Goal(0.02, min_ns=10_000_000, max_ns=60_000_000, resolution_ns=0)
    calls = itertools.count()
    quiet = evaluate(Evaluated(time_ns for _ in calls), "k", (), None, goal, lambda: 0)
    assert set(quiet.ns) == {time_ns}
    assert quiet.disturbed == 0
    assert 10_000_000 <= next(calls) * time_ns <= 30_000_000
    rng = np.random.default_rng(0)
    times = (round(time_ns * rng.lognormal(0, 1)) for _ in itertools.count())
    noisy = evaluate(Evaluated(times), "k", (), None, goal, lambda: 0)
    assert len(noisy.ns) > len(quiet.ns)
    tick = itertools.count()
    disturbed = evaluate(Evaluated(itertools.repeat(time_ns)), "k", (), None, goal, lambda: next(tick))
    assert disturbed.disturbed == 1.0


def refused_kernel() -> Kernel:
    """Return a kernel that TVM lowers, but has no code for: a call with too few operands."""
    source = te.placeholder((64,), name="source")
    result = te.compute(
        (64,), lambda i: tirx.call_intrin("float32", "tirx.tvm_mma_sync", source[i]), name="result"
    )
    ty = relax.TensorType([64], "float32")
    return Kernel("refused", te.create_prim_func([source, result]), (ty, ty))


def test_a_kernel_that_tvm_refuses_is_recorded_as_such_and_told() -> None:
    store = RecordStore(None)
    with pytest.warns(
        UserWarning, match=r"TVM refuses 1 kernels for device 'core'.*args\.size\(\) == 8"
    ):
        refused, timed = measure_kernels([refused_kernel(), doubling_kernel()], one_core(), store, QUICK)
    assert refused.samples_ns == ()
    assert timed.samples_ns
    assert store.get(*refused.key[:-1]) is refused, "the store adds the method"


def without_linker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


def with_failing_linker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    linker = tmp_path / "gcc"
    linker.write_text("#!/bin/sh\necho No space left on device >&2\nexit 1\n")
    linker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")


def without_temporary_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))


def without_memory(monkeypatch: pytest.MonkeyPatch, _: Path) -> None:
    def build(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(kernels.tirx, "build", build)
    monkeypatch.setenv(CACHE_VARIABLE, "")  # nothing was compiled before


def without_any_code(monkeypatch: pytest.MonkeyPatch, _: Path) -> None:
    """What TVM says where a compiler that it calls is not there, as for CUDA."""

    def build(*_: object, **__: object) -> None:
        raise RuntimeError("nvcc: command not found")

    monkeypatch.setattr(kernels.tirx, "build", build)
    monkeypatch.setenv(CACHE_VARIABLE, "")  # nothing was compiled before


@pytest.mark.parametrize(
    ("fail", "cause"),
    [
        (without_linker, "Expected a C compiler to link kernels"),
        (with_failing_linker, "cannot link the kernels: .*No space left on device"),
        (without_temporary_folder, "cannot link the kernels: .*No such file or directory"),
        (without_memory, "cannot be built on this machine: MemoryError"),
        (without_any_code, "No kernel at all can be built for device 'core': .*nvcc: command not found"),
    ],
)
def test_what_fails_on_this_machine_is_told_and_not_recorded(
    fail: Callable[[pytest.MonkeyPatch, Path], None],
    cause: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    store, kernel = RecordStore(None), doubling_kernel()
    with monkeypatch.context() as context:
        fail(context, tmp_path)
        with pytest.raises(UnsupportedError, match=cause) as told:
            measure_kernels([kernel], one_core(), store, QUICK)
        assert "\n" not in str(told.value)
        rule, tuned = (
            Implementation(kernel, one_core(), Candidate(origin, kernel.function), origin, 1)
            for origin in ("rule", "tuned")
        )
        with pytest.raises(UnsupportedError):
            check_candidate(tuned, rule, store)
    assert len(store) == 0
    (record,) = measure_kernels([kernel], one_core(), store, QUICK)
    assert record.samples_ns


def test_measuring_less_than_nothing_is_refused() -> None:
    for bad in ({"sample_ms": 0.0}, {"half_width": float("nan")}):
        with pytest.raises(SphinxError, match=r"Expected .* > 0; got"):
            MeasureConfig(**bad)


@pytest.mark.skipif(len(usable_cores()) < 2, reason="a hand-over has two ends")
def test_links_are_measured_once_for_each_kind_of_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = usable_cores()[:2]
    devices = [Device(f"core{core}", host_target(), "cpu:0", (core,)) for core in (first, second)]
    devices.append(Device("both", host_target(), "cpu:0", (first, second)))
    given = Link("core0", "both", 7, 1e9)
    platform = Platform(tuple(devices), links=(replace(given, src=devices[0].name),))
    store = RecordStore(None)
    found = measure_links(platform, store)
    assert (found.latency_ns[0, 2], found.bandwidth_bytes_per_s[0, 2]) == (7, 1e9)
    assert found.latency_ns[0, 1] == found.latency_ns[1, 0]
    assert (found.error >= 0).all()
    # Between cores, from a core to both, and back: to be woken, and to fetch what the other wrote.
    assert store.num_added == 6
    assert found.most_bytes[0, 1] < found.most_bytes[0, 2] == np.inf
    monkeypatch.setattr(links, "_measure", lambda *_: pytest.fail("measured twice"))
    again = measure_links(platform, store)
    for left, right in zip(found, again, strict=True):
        np.testing.assert_array_equal(left, right)


def test_links_of_many_cores_are_of_no_more_kinds_than_those_of_two(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A team's leader waits for the tensor, whoever helps it: ends have two cores at most."""
    groups = [(n,) for n in range(16)]
    for size in (2, 4, 8, 16):
        groups += [tuple(range(n, n + size)) for n in range(0, 16, size)]
    devices = [Device(group_name(group), host_target(), "cpu:0", group) for group in groups]
    ends: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def samples(_: str, src: Device, dst: Device) -> tuple[float, ...]:
        ends.append((src.cores, dst.cores))
        return (500.0,) * 9

    monkeypatch.setattr(links, "_measure", samples)
    found = measure_links(Platform(tuple(devices)), RecordStore(None))
    assert (found.latency_ns[~np.eye(len(devices), dtype=bool)] == 500).all()
    # One or two cores on each side, apart or with one in common, to wake and to fetch.
    assert len(ends) == 2 * 7
    assert max(max(len(src), len(dst)) for src, dst in ends) == 2
    # Ends that share cores still do: a core with a pair around it, a pair with a larger team around it.
    assert sum(bool(set(src) & set(dst)) for src, dst in ends) == 2 * 3


def test_links_that_there_is_no_time_for_are_estimated_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    devices = [Device(f"core{core}", host_target(), "cpu:0", (core,)) for core in (0, 1)]
    platform = Platform((*devices, Device("gpu", '{"kind": "cuda"}', "cuda:0")))
    store = RecordStore(None)
    version, pair = VERSION, class_of_pair(*devices)
    monkeypatch.setattr(links, "_measure", lambda *_: pytest.fail("there was no time"))
    found = measure_links(platform, store, end_s=0.0)
    # Between cores, to the GPU, and back; the errors say that nothing is known.
    assert found.num_estimated == 3
    assert store.num_added == 0
    assert (found.error[~np.eye(3, dtype=bool)] == 1.0).all()
    assert 0 < found.latency_ns[0, 1] < found.latency_ns[0, 2]
    # What is on record is taken from there all the same.
    for name, ns in (("hand-over", 300.0), (f"fetch of {1 << 18} bytes", 9000.0)):
        store.add(Record(name, pair, version, (ns,) * 9, kind="copy"))
    again = measure_links(platform, store, end_s=0.0)
    assert (again.num_estimated, again.latency_ns[0, 1], again.error[0, 1]) == (2, 300, 0.0)


@pytest.mark.skipif(len(usable_cores()) < 2, reason="a hand-over has two ends")
@pytest.mark.parametrize(
    ("kind", "warning"), [("copy", "1 torn or malformed"), ("kernel", None), ("load", None)]
)
def test_a_hand_over_on_record_without_a_sample_is_measured_anew(
    tmp_path: Path, kind: str, warning: str | None
) -> None:
    path, cores = tmp_path / "records.jsonl", usable_cores()[:2]
    first, second = (Device(f"core{core}", host_target(), "cpu:0", (core,)) for core in cores)
    empty = Record("hand-over", class_of_pair(first, second), VERSION, (), kind=kind)
    path.write_text(empty.to_line())
    with contextlib.nullcontext() if warning is None else pytest.warns(UserWarning, match=warning):
        store = RecordStore(path)
    found = measure_links(Platform((first, second)), store)
    assert store.num_added == 2
    assert found.latency_ns[0, 1] >= 0


def test_pairs_on_unlike_machines_or_that_share_cores_are_of_their_own_kind() -> None:
    one, far = one_core(), replace(one_core(), rpc_key="board")
    assert class_of(far).machine == "RPC key board"
    kinds = {str(class_of_pair(*pair)) for pair in ((one, one), (one, far), (far, one), (far, far))}
    assert len(kinds) == 4
    assert "share cores" in str(class_of_pair(one, one))


def test_copies_are_timed_at_every_size() -> None:
    times = [min(time_copies(tvm.cpu(), tvm.cpu(), size)) for size in (1 << 12, 1 << 23)]
    assert min(times) > 0


class WideBench(ScriptedBench):
    """Gives out wide samples at a first look, and notes how well each kernel is asked for after that."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float]] = []

    def time(self, _module: object, _symbol: str, kernel: Kernel, goal: Goal) -> Samples:  # type: ignore[override]
        ns = {"double64": 1000, "double128": 10}[kernel.id]
        self.asked.append((kernel.id, goal.half_width))
        return Samples((int(0.8 * ns), ns, int(1.2 * ns)) * 4, 0.2, 0.0)


def test_a_kernel_that_matters_is_timed_closer_after_a_first_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = WideBench()
    monkeypatch.setattr(measure, "_open_bench", lambda *_: bench)
    monkeypatch.setattr(measure, "_RETRY_SHARE", 0.0)
    kernels = [doubling_kernel(128), doubling_kernel(64)]
    with pytest.warns(UserWarning, match="busy"):
        measure_kernels(kernels, one_core(), RecordStore(None), QUICK, demand=Demand({"double64": 2}))
    least = QUICK.goal.half_width
    # 10 ns are less than the clock resolves; 2,000 of 2,010 ns have to be known as well as can be.
    assert bench.asked == [("double128", 0.1), ("double64", 0.1), ("double64", least)]
