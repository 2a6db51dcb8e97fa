"""``tvm-sphinx devices``: what it prints, and that the file it writes is the platform it printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tvm_sphinx.cli import main
from tvm_sphinx.platform import Device, Link, Platform, detect_platform, load_platform, read_platform
from tvm_sphinx.platform.platform_text import platform_text


def test_the_machine_at_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "platform.toml"
    assert main(["devices", "-o", str(path)]) == 0
    printed = capsys.readouterr().out
    detected = detect_platform()
    assert all(device.name in printed for device in detected.devices)
    assert read_platform(path) == detected
    assert main(["devices", "--platform", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == detected.to_json()


def test_devices_that_share_cores_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "platform.toml"
    path.write_text(
        '[[device]]\nname = "one"\ntarget = "host"\ncores = [0]\nmemory_bytes = 1048576\n'
        '[[device]]\nname = "twin"\ntarget = "baseline"\ncores = [0]\n'
    )
    assert main(["devices", "--platform", str(path)]) == 0
    _, one, twin = capsys.readouterr().out.splitlines()
    assert one.startswith("one (host)")
    assert one.endswith("1.0 MiB   twin")
    assert twin.endswith("no limit  one")


def test_a_file_keeps_all_that_a_platform_says(tmp_path: Path) -> None:
    target = json.dumps({"kind": "llvm", "mattr": ["+avx2", "+fma"], "mcpu": "x86-64"})
    gpu = '{"arch": "sm_90", "kind": "cuda"}'
    devices = (
        Device("a", target, "cpu:0", (0,), memory_bytes=5, cache_bytes=(1, 2, 3)),
        Device("b", gpu, "cuda:0", peak_gflop_per_s=2.5, rpc_key="board"),
    )
    platform = Platform(devices, "a", (Link("a", "b", 9000, 12e9),))
    path = tmp_path / "platform.toml"
    path.write_text(platform_text(platform))
    assert load_platform(path).to_json() == platform.to_json()


def test_an_unknown_platform_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "--platform", "gpu-box"]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert "one of: detect, unlike-cpus" in line
