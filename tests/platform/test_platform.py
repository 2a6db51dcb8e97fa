"""Platforms: what is detected, what a file may say, and what is refused in which words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tvm_sphinx.errors import PlatformError
from tvm_sphinx.platform import (
    Device,
    Link,
    Platform,
    detect_platform,
    load_platform,
    machine,
    platform_of_targets,
    read_platform,
    remote_platform,
    sysfs,
    unlike_cpus,
)
from tvm_sphinx.platform.machine import group_name, usable_cores
from tvm_sphinx.platform.target_text import parse_target
from tvm_sphinx.platform.targets import check_targets

GOOD = """
host = "big"
[[device]]
name = "big"
target = "host"
cores = [0]
[[device]]
name = "small"
target = "llvm -mcpu=x86-64"
cores = [0]
memory_bytes = 1000000
[[link]]
src = "big"
dst = "small"
latency_ns = 700
bandwidth_bytes_per_s = 2e9
"""


def _read(tmp_path: Path, text: str) -> Platform:
    path = tmp_path / "platform.toml"
    path.write_text(text)
    return read_platform(path)


def test_platform_file(tmp_path: Path) -> None:
    platform = _read(tmp_path, GOOD)
    assert platform.host_index == 0
    assert platform.device("small").memory_bytes == 1_000_000
    assert platform.device("small").target_config == {"kind": "llvm", "mcpu": "x86-64"}
    assert platform.links == (Link("big", "small", 700, 2e9),)
    assert Platform.from_json(platform.to_json()) == platform


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'cores = [0]\n[[device]]\nname = "small"',
            'core = [0]\n[[device]]\nname = "small"',
            "'core'; known: name",
        ),
        ('target = "host"', 'target = "lvm"', "Unknown kind 'lvm'.*known:.*llvm"),
        ('target = "host"', 'target = "llvm -mcpu=quantum"', "Unknown processor 'quantum'"),
        ('target = "host"', 'target = "llvm -mcpu=native"', "got mcpu = 'native'"),
        ('target = "host"', 'target = {kind = "llvm", nonsense = 1}', "nonsense"),
        ('target = "host"', 'target = "llvm mcpu"', "form -key=value"),
        ('host = "big"', 'host = "huge"', "Unknown host device 'huge'; known: big, small"),
        ('name = "small"', 'name = "big"', "unique device names"),
        ('dst = "small"', 'dst = "other"', "Unknown device of a link 'other'"),
        ("latency_ns = 700", 'latency_ns = "fast"', "Expected a number for 'latency_ns'"),
        ("latency_ns = 700", "latency_ns = -1", "latency_ns >= 0"),
        ("memory_bytes = 1000000", "memory_bytes = -5", "memory_bytes >= 0"),
        ('host = "big"', "host = ", "not valid TOML"),
        ('host = "big"', 'hosts = "big"', "Unknown key of .*'hosts'; known: host, device, link"),
    ],
)
def test_bad_platform_file(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(PlatformError, match=message):
        _read(tmp_path, GOOD.replace(old, new, 1))


def test_missing_platform_file(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match=r"Cannot read platform file .*detect, unlike-cpus"):
        load_platform(str(tmp_path / "none.toml"))


def test_two_devices_that_claim_a_core_that_the_machine_lacks(tmp_path: Path) -> None:
    platform = _read(tmp_path, GOOD.replace("cores = [0]", "cores = [9999]"))
    with pytest.raises(PlatformError, match=r"'big' claims core 9999.*known: 0"):
        platform.check_machine()


def test_detect_offers_each_core_and_all_together() -> None:
    platform = detect_platform()
    cores = usable_cores()
    owned = [device.cores for device in platform.devices if device.is_cpu]
    assert owned[: len(cores)] == [(core,) for core in cores]
    assert owned[-1] == cores
    assert len({device.target for device in platform.devices if device.is_cpu}) == 1
    platform.check_machine()


def test_one_logical_processor_for_each_physical_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for core, siblings in {0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"}.items():
        topology = tmp_path / f"sys/devices/system/cpu/cpu{core}/topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(siblings + "\n")
    monkeypatch.setattr(machine, "allowed_cores", lambda: (0, 1, 2, 3))
    monkeypatch.setattr(sysfs, "ROOT", tmp_path)
    assert usable_cores() == (0, 1)


def test_kinds_of_cores_are_part_of_the_cost_class_and_of_a_platform_file(tmp_path: Path) -> None:
    text = GOOD.replace("cores = [0]", 'cores = [4, 5, 0]\ncore_kinds = ["E", "P", "E"]', 1)
    speeds = "core_speeds = [0.5]\ncore_memory_speeds = [0.7]\nmemory_bytes"
    platform = _read(tmp_path, text.replace("memory_bytes", speeds))
    assert platform.devices[0].cost_class.place == "1 P + 2 E cores"
    assert platform.devices[1].cost_class.place == "1 cores"
    assert platform.devices[1].core_speeds == (0.5,)
    assert platform.devices[1].core_memory_speeds == (0.7,)
    assert Platform.from_json(json.loads(json.dumps(platform.to_json()))) == platform


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ('core_kinds = ["P", "E"]', "core_kinds of device 'big' for each of its 1 cores"),
        ("core_kinds = [1]", "core_kinds of device 'big' as a list of names"),
        ('core_kinds = ["1 P"]', "names such as 'P' and 'E'; got '1 P'"),
        ("core_speeds = [0.0]", r"core_speeds of device 'big' from 0.001 to 1000; got 0.0"),
        ("core_memory_speeds = [1, 2]", "core_memory_speeds of device 'big' for each of its 1 cores"),
        ('core_speeds = ["fast"]', "core_speeds of device 'big' as a list of numbers"),
    ],
)
def test_bad_kinds_of_cores(tmp_path: Path, given: str, message: str) -> None:
    with pytest.raises(PlatformError, match=message):
        _read(tmp_path, GOOD.replace("cores = [0]", f"cores = [0]\n{given}", 1))


@pytest.mark.parametrize(
    ("cores", "name"),
    [((3,), "core3"), ((0, 1, 2), "cores0-2"), ((0, 2), "cores0,2"), ((7, 4, 5, 0), "cores0,4-5,7")],
)
def test_group_names(cores: tuple[int, ...], name: str) -> None:
    assert group_name(cores) == name


def test_targets_of_the_command_line_each_get_a_core() -> None:
    platform = platform_of_targets(["host", "llvm -mcpu=x86-64"])
    cores = usable_cores()
    assert [d.cores for d in platform.devices] == [(cores[0],), (cores[1 % len(cores)],)]


def test_old_target_form_and_json_are_equal() -> None:
    old = parse_target("llvm -mcpu=x86-64-v3 -mattr=+avx2,+fma -num-cores=4")
    assert old == parse_target(
        '{"kind": "llvm", "mcpu": "x86-64-v3", "mattr": ["+avx2", "+fma"], "num-cores": 4}'
    )


def test_a_device_is_a_cpu_with_cores_or_none_without() -> None:
    with pytest.raises(PlatformError, match="at least one core"):
        Device("a", '{"kind": "llvm"}', "cpu:0")
    with pytest.raises(PlatformError, match="no cores"):
        Device("a", '{"kind": "cuda"}', "cuda:0", (0,))
    with pytest.raises(PlatformError, match="KIND:INDEX"):
        Device("a", '{"kind": "llvm"}', "cpu", (0,))


def test_a_platform_of_a_file_comes_back_without_tvm(tmp_path: Path) -> None:
    """What a program file says of its platform can be read where TVM is not there."""
    written = json.dumps(_read(tmp_path, GOOD).to_json())
    code = (
        "import json, sys; from tvm_sphinx.platform import Platform; "
        "made = Platform.from_json(json.loads(sys.argv[1])); "
        "print(json.dumps(made.to_json()) == sys.argv[1], 'tvm' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code, written], capture_output=True, text=True)
    assert found.stdout.split() == ["True", "False"], found.stderr


def test_a_platform_is_loaded_by_its_name_or_stays_as_it_is() -> None:
    detected = load_platform("detect")
    assert detected == detect_platform()
    assert load_platform(detected) is detected
    assert load_platform("unlike-cpus") == unlike_cpus()


def test_targets_that_tvm_does_not_know_are_refused_in_a_program_file() -> None:
    known = unlike_cpus()
    assert check_targets(known) is known
    unknown = Platform((Device("a", '{"kind": "llvm", "mcpu": "quantum"}', "cpu:0", (0,)),))
    with pytest.raises(PlatformError, match="Unknown processor 'quantum' in target of device 'a'"):
        check_targets(unknown)


def test_remote_platforms_say_what_they_lack() -> None:
    """The rules of ``--rpc-key`` stand with the platforms, not with the command."""
    with pytest.raises(PlatformError, match="Expected --rpc-tracker HOST:PORT with --rpc-key board"):
        remote_platform("detect", None, "board", None)
    with pytest.raises(PlatformError, match="'detect' is this machine"):
        remote_platform("detect", None, "board", "localhost:9")
    made = remote_platform("detect", ["llvm -mcpu=x86-64"], "board", "localhost:9")
    assert [device.rpc_key for device in made.devices] == ["board"]
