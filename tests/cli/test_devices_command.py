"""``tvm-sphinx devices``: what it shows of a machine, and the platform file that it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.platform import machines
from tvm_sphinx.cli import main
from tvm_sphinx.platform import core_kinds, detect_platform, read_platform, sysfs
from tvm_sphinx.platform.home import HOME_VARIABLE
from tvm_sphinx.platform.machine import usable_cores


def test_kinds_and_groups_of_a_laptop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machines.hybrid_laptop(tmp_path)
    machines.write(tmp_path, "proc/self/cgroup", "0::/")
    machines.write(tmp_path, "sys/fs/cgroup/cpu.max", "1250000 100000")
    monkeypatch.setattr(sysfs, "ROOT", tmp_path)
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    monkeypatch.setattr(core_kinds, "probe_cores", lambda cores: {})
    out = tmp_path / "platform.toml"
    assert main(["devices", "-o", str(out)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["allowed", "processors", "0-19"] in lines
    assert lines[2][:6] == ["quota", "the", "time", "of", "12.5", "processors:"]
    assert next(line for line in lines if line[:1] == ["P"])[1:4] == ["0,2,4,6,8,10", "1.00", "1.00"]
    assert next(line for line in lines if line[:1] == ["E"])[-3:] == ["3.60", "GHz", "cpu_atom"]
    assert ["6", "P", "+", "6", "E", "cores", "1", "cores0,2,4,6,8,10,12-17"] in lines
    assert read_platform(out) == detect_platform()


def test_this_machine_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "--json", "--probe"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [device["name"] for device in told["devices"]] == [
        device.name for device in detect_platform().devices
    ]
    assert sorted(core for kind in told["kinds"] for core in kind["cores"]) == list(usable_cores())
    assert max(kind["speed"] for kind in told["kinds"]) == 1


def test_an_output_that_cannot_be_written_is_refused_before_the_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(core_kinds, "probe_cores", lambda cores: pytest.fail("probed"))
    assert main(["devices", "--probe", "-o", str(tmp_path / "none" / "p.toml")]) == 4
    assert "Expected an existing folder" in capsys.readouterr().err
