"""What cores reach, measured on this machine, and its record."""

from __future__ import annotations

from pathlib import Path

import pytest

from tvm_sphinx.cli.bench import bench_devices
from tvm_sphinx.errors import PlatformError
from tvm_sphinx.platform import (
    Device,
    Platform,
    core_kinds,
    detect_platform,
    platform_of_targets,
    read_platform,
)
from tvm_sphinx.platform.core_probe import (
    CoreTimes,
    probe_cores,
    read_probe,
    record_path,
    write_probe,
)
from tvm_sphinx.platform.detect import with_kinds
from tvm_sphinx.platform.home import HOME_VARIABLE
from tvm_sphinx.platform.machine import machine_id, usable_cores
from tvm_sphinx.platform.slow_cores import SLOW_VARIABLE, slow_cores
from tvm_sphinx.platform.topology import read_cores


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))
    monkeypatch.delenv(SLOW_VARIABLE, raising=False)


def test_each_core_is_timed() -> None:
    cores = usable_cores()
    times = probe_cores(cores)
    assert tuple(times) == cores
    assert all(min(found) > 0 for found in times.values())


def test_a_core_that_is_not_there_leaves_the_kernels_word() -> None:
    assert probe_cores([*usable_cores(), 99_999]) == {}


def test_a_slowed_core_is_another_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty times as slow is more than what disturbs a core of a busy machine."""
    cores = usable_cores()
    if len(cores) < 2:
        pytest.skip("a kind needs another")
    monkeypatch.setenv(SLOW_VARIABLE, f"{cores[1]}:20")
    platform = detect_platform()
    slow, both = platform.device(f"core{cores[1]}"), platform.devices[-1]
    assert slow.core_kinds == ("E",)
    assert slow.core_speeds[0] < 0.25
    assert both.core_kinds.count("P") == len(cores) - 1
    assert both.cores[-1] == cores[1]
    assert slow.cost_class != platform.device(f"core{cores[0]}").cost_class


def test_kinds_are_found_for_platforms_that_give_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A platform file that names a fast and a slow core does not have to say so."""
    cores = usable_cores()[:2]
    if len(cores) < 2:
        pytest.skip("a kind needs another")
    monkeypatch.setenv(SLOW_VARIABLE, f"{cores[1]}:20")
    text = "".join(
        f'[[device]]\nname = "{name}"\ntarget = "host"\ncores = {list(owned)}\n'
        for name, owned in (("fast", cores[:1]), ("slow", cores[1:]), ("both", cores))
    )
    path = tmp_path / "platform.toml"
    path.write_text(text + 'core_kinds = ["big", "little"]\n')
    platform = read_platform(path)
    assert [d.core_kinds for d in platform.devices] == [("P",), ("E",), ("big", "little")]
    assert platform.device("slow").core_speeds[0] < 0.25
    assert [d.core_kinds for d in platform_of_targets(["host", "host"]).devices] == [("P",), ("E",)]
    assert [d.core_kinds for d in bench_devices(platform, 2)] == [("P", "E")]
    elsewhere = Device("far", platform.devices[0].target, "cpu:0", (77_777,))
    assert with_kinds(Platform((elsewhere,))).devices == (elsewhere,)


def test_slowed_cores_make_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    before = machine_id()
    monkeypatch.setenv(SLOW_VARIABLE, "3:2,1:2.5")
    assert machine_id() == f"{before}, core 1 slowed 2.5 times, core 3 slowed 2 times"
    assert slow_cores() == {1: 2.5, 3: 2.0}


@pytest.mark.parametrize("value", ["1", "1:0.5", "a:2", "1:2;2:2", "1:1e9"])
def test_a_slowdown_of_another_form_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SLOW_VARIABLE, value)
    with pytest.raises(PlatformError, match=r"CORE:FACTOR,.*got"):
        slow_cores()


def test_what_is_on_record_is_not_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kinds stay what they are, whatever the machine does later."""
    cores = read_cores()
    kinds = core_kinds.find_kinds(cores)
    monkeypatch.setattr(core_kinds, "probe_cores", lambda numbers: pytest.fail("probed again"))
    assert core_kinds.find_kinds(cores) == kinds


def test_the_record_keeps_machines_and_cores_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    write_probe({0: CoreTimes(1, 2)})
    write_probe({1: CoreTimes(3, 4)})
    monkeypatch.setenv(SLOW_VARIABLE, "1:2")
    assert read_probe([0]) == {}
    write_probe({0: CoreTimes(5, 6)})
    monkeypatch.delenv(SLOW_VARIABLE)
    assert read_probe([0, 1]) == {0: (1, 2), 1: (3, 4)}
    assert read_probe([0, 2]) == {}


@pytest.mark.parametrize("content", ["", "[]", '{"version": 0, "machines": {}}', '{"version": 1'])
def test_a_broken_record_is_none(content: str) -> None:
    record_path().write_text(content)
    assert read_probe([0]) == {}
    write_probe({0: CoreTimes(1, 2)})
    assert read_probe([0]) == {0: (1, 2)}


def test_a_folder_that_cannot_be_written_to_keeps_no_record(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "file" / "below"))
    write_probe({0: CoreTimes(1, 2)})
    assert read_probe([0]) == {}
