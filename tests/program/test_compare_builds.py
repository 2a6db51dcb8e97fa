"""Schedule or single device: by what is promised, then by what is measured, and what is said of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tvm_sphinx.kernels.code_cache import CACHE_VARIABLE
from tvm_sphinx.platform import Device, Platform
from tvm_sphinx.program import compare_builds
from tvm_sphinx.program.compare_builds import (
    Build,
    choose_faster,
    choose_promising,
    compare_executables,
    compare_programs,
    race_with_single,
)
from tvm_sphinx.program.kinds import LaneProgramFile, StockProgram
from tvm_sphinx.progress import StageClock
from tvm_sphinx.scheduling.schedule import Schedule
from tvm_sphinx.search import SearchResult

ONE = Device("one", '{"kind": "llvm"}', "cpu:0", (0,))
HERE, THERE = Platform((ONE,)), Platform((replace(ONE, rpc_key="board"),))


def found(makespan_ns: int, devices: Sequence[int]) -> SearchResult:
    """Return a search that placed two tasks, and whose schedule takes so long."""
    half = makespan_ns // 2
    schedule = Schedule(list(devices), [0, half], [half, makespan_ns], makespan_ns, 0, "problem")
    return SearchResult(schedule, "cpga", 0, (), 1, 0.0, "evaluations")


def program(name: str) -> StockProgram:
    return StockProgram(name.encode(), ("cpu:0",), "main")


@pytest.mark.parametrize(
    ("makespan_ns", "told"),
    [
        (980, ""),
        (981, "at 981 ns, too little below the best single device's 1 us to be tried: "),
        (1000, "at 1 us, no less than the best single device's 1 us: "),
        (1030, "at 1.03 us, no less than the best single device's 1 us: "),
    ],
)
def test_a_schedule_has_to_promise_two_percent(makespan_ns: int, told: str) -> None:
    over_all, single = found(makespan_ns, (0, 1)), found(1000, (0, 0))
    chosen, note = choose_promising(over_all, single)
    assert chosen is (single if told else over_all)
    assert told in note
    assert bool(told) == bool(note)


def test_nothing_is_said_where_the_best_schedule_is_that_of_one_device() -> None:
    single = found(1000, (0, 0))
    assert choose_promising(found(1000, (0, 0)), single) == (single, "")


@pytest.mark.parametrize(("ratio", "is_kept"), [(0.99, False), (1.0, True), (None, True)])
def test_the_build_that_measures_slower_gives_way(
    ratio: float | None, is_kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare_builds, "compare_programs", lambda *_, **__: ratio)
    build = Build(found(500, (0, 1)), program("both"), "as it is")
    single = Build(found(1000, (0, 0)), program("one"))
    kept = choose_faster(build, single, {})
    if is_kept:
        assert kept is build
    else:
        assert (kept.found, kept.program) == (single.found, single.program)
        assert "predicted at 500 ns, measured 0.99x as fast as the best single device" in kept.note


def test_programs_of_the_stock_vm_are_not_raced() -> None:
    build = Build(found(500, (0, 1)), program("both"))
    assert choose_faster(build, Build(found(1000, (0, 0)), program("one")), {}) is build


def test_a_reference_is_built_once_and_raced_only_where_it_can_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compare_builds, "compare_programs", lambda *_, **__: 0.5)
    single = found(1000, (0, 0))
    build, reference = Build(found(500, (0, 1)), program("both")), Build(single, program("one"))

    def race(
        of: Build, to: SearchResult | None, platform: Platform
    ) -> tuple[Build, Build | None, list[str]]:
        clock = StageClock()
        kept, other = race_with_single(of, to, lambda _: reference, platform, (), clock)
        return kept, other, list(clock.stages_s)

    assert race(build, None, HERE) == (build, None, [])
    assert race(reference, single, HERE) == (reference, reference, [])
    assert race(build, single, THERE) == (build, reference, ["build reference"])
    kept, other, stages = race(build, single, HERE)
    assert (kept.program, other, stages) == (reference.program, reference, ["build reference", "race"])


@pytest.mark.parametrize(("ratio", "name"), [(1.01, "one"), (0.8, "team"), (None, "one")])
@pytest.mark.parametrize("is_scheduled", [False, True])
def test_the_best_single_device_is_the_one_that_measures_the_fastest(
    ratio: float | None, name: str, is_scheduled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    raced: list[tuple[Any, Any]] = []

    def compare(first: Any, second: Any, *_: Any, **__: Any) -> float | None:
        raced.append((first.library, second.library))
        return ratio if b"team" in raced[-1] and len(raced) == 1 else 2.0

    monkeypatch.setattr(compare_builds, "compare_programs", compare)
    single, rival = found(1000, (0, 0)), found(1100, (1, 1))
    single_build = Build(single, program("one"), "as predicted")
    first = Build(found(500, (0, 1)), program("both")) if is_scheduled else single_build
    made = {id(single): single_build, id(rival): Build(rival, program("team"))}
    where = Platform((ONE, replace(ONE, name="team", cores=(0, 1))))
    kept, reference = race_with_single(
        first, single, lambda one: made[id(one)], where, (), StageClock(), rivals=[rival]
    )
    assert reference is not None
    assert reference.program.library == name.encode()
    assert kept.program is (first.program if is_scheduled else reference.program)
    assert raced[0] == (b"one", b"team")
    assert (b"both", name.encode()) in raced or not is_scheduled
    told = "team measured 1.25x as fast as one, the best by prediction. as predicted"
    assert reference.note == (f"Of single devices {told}" if name == "team" else "as predicted")


def test_a_second_rival_is_not_said_to_beat_the_best_by_prediction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compare_builds, "compare_programs", lambda *_, **__: 0.5)
    builds = {
        name: Build(found(1000 + 10 * number, (number, number)), program(name))
        for number, name in enumerate(("one", "two", "three"))
    }
    made = {id(build.found): build for build in builds.values()}
    where = Platform(tuple(replace(ONE, name=name, cores=(at,)) for at, name in enumerate(builds)))
    single, *rivals = (build.found for build in builds.values())
    kept, _ = race_with_single(
        builds["one"], single, lambda one: made[id(one)], where, (), StageClock(), rivals=rivals
    )
    assert kept.note == (
        "Of single devices three measured 2.00x as fast as two. "
        "Of single devices two measured 2.00x as fast as one, the best by prediction."
    )


class Racer:
    """Takes a fixed time for a run, by a clock of its own."""

    def __init__(self, clock: list[float], once_s: float) -> None:
        self.clock, self.once_s = clock, once_s

    def durations_ns(self, _: Any, count: int) -> np.ndarray:
        self.clock[0] += (count + 1) * self.once_s
        return np.full(count, round(1e9 * self.once_s))


@pytest.mark.parametrize(("once_s", "most_s", "rounds"), [(0.001, 15.0, 15), (1.0, 25.0, 3)])
def test_a_slow_model_is_raced_for_as_long_as_the_limit_allows(
    once_s: float, most_s: float, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(compare_builds.time, "monotonic", lambda: clock[0])
    mine, other = Racer(clock, once_s), Racer(clock, 2 * once_s)
    told: list[tuple[str, int, int]] = []
    ratio = compare_executables(mine, other, {}, lambda *step: told.append(step), limit_s=10.0)
    assert ratio == 2.0
    assert clock[0] <= most_s
    assert (told[0][1], told[-1][1:]) == (0, (15, 15))
    assert len({done for _, done, _ in told if done > 0}) >= rounds


class Image:
    """Stands for what runs."""

    platform = HERE

    def __init__(self, name: str) -> None:
        self.name = name

    def what_runs(self) -> str:
        return self.name


@pytest.mark.parametrize(
    ("ratios", "is_kept"),
    [
        ((1.5, 1.6, 1.7), True),
        ((0.7, 0.8, 0.9), True),
        ((0.98, 0.99, 1.01), True),
        ((0.8, 1.1, 1.2), False),
    ],
)
def test_a_clear_verdict_is_kept_for_programs_that_run_alike(
    ratios: tuple[float, ...], is_kept: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr("tvm_sphinx.program.kinds.ConcurrentExecutable", lambda image: image)
    monkeypatch.setattr(compare_builds, "cores_of_others", lambda *_: 0.0)
    races: list[str] = []

    def race(one: Image, other: Image, *_: Any, stage: str = "") -> list[float]:
        races.append(f"{one.name} {other.name}")
        return list(ratios)

    monkeypatch.setattr(compare_builds, "_race", race)

    def compared(one: str, other: str) -> float | None:
        return compare_programs(LaneProgramFile(Image(one)), LaneProgramFile(Image(other)), ())

    once = 2 if ratios[1] < 1.0 else 1  # who loses has a second chance
    assert compared("a", "b") == compared("a", "b") == ratios[1]
    assert races == ["a b"] * (once if is_kept else 2 * once)
    assert compared("b", "a") == ratios[1]
    assert races[-1] == "b a"


def test_a_schedule_that_lost_by_a_disturbance_wins_its_second_race(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr("tvm_sphinx.program.kinds.ConcurrentExecutable", lambda image: image)
    told = "race against the best single device"
    outcomes = iter([[0.85, 0.86, 0.87], [1.14, 1.15, 1.16], [1.14, 1.15, 1.16]])
    stages: list[str] = []

    def race(*_: Any, stage: str) -> list[float]:
        stages.append(stage)
        return next(outcomes)

    monkeypatch.setattr(compare_builds, "_race", race)
    monkeypatch.setattr(compare_builds, "cores_of_others", lambda *_: 0.0)
    both = LaneProgramFile(Image("a")), LaneProgramFile(Image("b"))
    assert compare_programs(*both, ()) == 1.15
    assert not list(tmp_path.iterdir()), "two races that differ are no clear verdict"
    assert stages == [told, f"{told}, once more"]
    assert compare_programs(*both, ()) == 1.15
    assert list(tmp_path.iterdir())


def test_a_race_that_others_disturbed_is_told_and_not_remembered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr("tvm_sphinx.program.kinds.ConcurrentExecutable", lambda image: image)
    monkeypatch.setattr(compare_builds, "cores_of_others", lambda *_: 0.9)
    monkeypatch.setattr(compare_builds, "_race", lambda *_, **__: [0.5, 0.5, 0.5])
    both = LaneProgramFile(Image("a")), LaneProgramFile(Image("b"))
    with pytest.warns(UserWarning, match=r"Other processes used 0\.9 cores .* \(0\.50x\)"):
        assert compare_programs(*both, ()) == 0.5
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(compare_builds, "_race", lambda *_, **__: [2.0, 2.0, 2.0])
    assert compare_programs(*both, ()) == 2.0
    assert not list(tmp_path.iterdir())
