"""A program's cores, where other ones are allowed than those that it was compiled for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.platform import machines
from tvm_sphinx.errors import PlatformError
from tvm_sphinx.platform import Device, Platform, core_kinds, sysfs
from tvm_sphinx.platform.fit import fit_machine

_LLVM = '{"kind": "llvm"}'


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sysfs, "ROOT", tmp_path)
    monkeypatch.setattr(core_kinds, "probe_cores", lambda cores: {})
    return tmp_path


def _platform(*groups: tuple[int, ...], kinds: dict[int, str] | None = None) -> Platform:
    return Platform(
        tuple(
            Device(
                f"device{number}",
                _LLVM,
                "cpu:0",
                cores,
                core_kinds=tuple(kinds[core] for core in cores) if kinds else (),
            )
            for number, cores in enumerate(groups)
        )
    )


def _cores(platform: Platform) -> list[tuple[int, ...]]:
    return [device.cores for device in platform.devices]


def test_a_program_for_cores_0_to_3_runs_on_4_to_7(root: Path) -> None:
    machines.container(root, quota="max 100000", cpuset="4-7")
    platform = _platform((0,), (1,), (2, 3), (0, 1, 2, 3))
    assert _cores(fit_machine(platform)) == [(4,), (5,), (6, 7), (4, 5, 6, 7)]


def test_cores_that_are_allowed_stay(root: Path) -> None:
    machines.container(root, quota="max 100000", cpuset="2-6")
    assert _cores(fit_machine(_platform((0,), (3, 2)))) == [(4,), (3, 2)]
    allowed = _platform((2, 3))
    assert fit_machine(allowed) is allowed


def test_too_small_a_cpuset_is_named(root: Path) -> None:
    machines.container(root, quota="max 100000", cpuset="4-5")
    with pytest.raises(
        PlatformError,
        match=r"needs 3 cores \(0-2\).*core 2 cannot be used.*cpuset of.*leaves out \(4-5\).*: 4-5\.",
    ):
        fit_machine(_platform((0, 1), (2,)))


def test_an_affinity_is_named(root: Path) -> None:
    machines.container(root, quota="max 100000", cpuset="0-63")
    machines.write(root, "proc/thread-self/status", "Cpus_allowed_list:\t9")
    with pytest.raises(PlatformError, match=r"affinity leaves out.*allowed: 9"):
        fit_machine(_platform((0, 1)))
    machines.write(root, "sys/devices/system/cpu/online", "9")
    with pytest.raises(PlatformError, match=r"core 1 cannot be used, which this machine lacks"):
        fit_machine(_platform((0, 1)))


def test_a_quota_below_the_cores_is_told(root: Path) -> None:
    machines.container(root, quota="150000 100000")
    platform = _platform((0, 1, 2))
    with pytest.warns(UserWarning, match=r"uses 3 cores, and the quota .* is the time of 1\.5"):
        assert fit_machine(platform) is platform


def test_a_core_is_replaced_by_one_of_its_kind(root: Path) -> None:
    machines.phone_board(root)
    machines.write(root, "proc/thread-self/status", "Cpus_allowed_list:\t1-3,5-7")
    kinds = {0: "E2", 1: "E2", 4: "E", 7: "P"}
    platform = _platform((0,), (1,), (4,), (7, 4, 0), kinds=kinds)
    assert _cores(fit_machine(platform)) == [(2,), (1,), (5,), (7, 5, 2)]
    with pytest.raises(PlatformError, match=r"needs 2 cores of kind P \(0,7\).*core 0 cannot be used"):
        fit_machine(_platform((7,), (0,), kinds={7: "P", 0: "P"}))


def test_a_thread_is_no_core_of_its_own(root: Path) -> None:
    """Two threads of a core do not stand for two cores."""
    machines.two_domain_desktop(root)
    machines.write(root, "proc/thread-self/status", "Cpus_allowed_list:\t4,5,20,21")
    assert _cores(fit_machine(_platform((0, 1)))) == [(4, 5)]
    with pytest.raises(PlatformError, match="needs 3 cores"):
        fit_machine(_platform((0, 1, 2)))


def test_only_the_cores_of_devices_that_run_something_have_to_be_there(root: Path) -> None:
    machines.container(root, quota="max 100000", cpuset="4-5")
    platform = _platform((0,), (1, 0), (0, 1, 2, 3))
    assert _cores(fit_machine(platform, used={1})) == [(0,), (5, 4), (0, 1, 2, 3)]
    with pytest.raises(PlatformError, match="needs 4 cores"):
        fit_machine(platform, used={1, 2})


def test_cores_of_another_machine_stay(root: Path) -> None:
    machines.container(root, quota="max 100000", cpuset="4-7")
    board = Device("board", _LLVM, "cpu:0", (0, 1), rpc_key="board")
    platform = Platform((Device("here", _LLVM, "cpu:0", (1,)), board))
    assert _cores(fit_machine(platform)) == [(4,), (0, 1)]
