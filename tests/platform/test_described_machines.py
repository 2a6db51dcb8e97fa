"""What `detect` offers on machines that are described, by what their kernels tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.platform import machines
from tvm_sphinx.platform import Device, sysfs
from tvm_sphinx.platform.core_groups import MOST_GROUPS
from tvm_sphinx.platform.core_kinds import CoreKind, find_kinds, group_cores
from tvm_sphinx.platform.core_probe import CoreTimes
from tvm_sphinx.platform.detect import cpu_devices
from tvm_sphinx.platform.limits import read_limits
from tvm_sphinx.platform.machine import usable_cores
from tvm_sphinx.platform.topology import read_cores

Describe = Callable[[Path], None]


@pytest.fixture
def on_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Describe], Path]:
    """Return a function that puts this process on a described machine."""

    def put(describe: Describe) -> Path:
        describe(tmp_path)
        monkeypatch.setattr(sysfs, "ROOT", tmp_path)
        return tmp_path

    return put


def _offered(num_feeders: int = 0) -> tuple[tuple[CoreKind, ...], list[Device]]:
    cores = read_cores()
    kinds = find_kinds(cores, probe=False)
    return kinds, cpu_devices(cores, kinds, num_feeders)


def _groups(devices: list[Device]) -> list[tuple[int, ...]]:
    return [device.cores for device in devices]


def test_hybrid_laptop(on_machine: Callable[[Describe], Path]) -> None:
    on_machine(machines.hybrid_laptop)
    kinds, devices = _offered()
    p_cores, e_cores = (0, 2, 4, 6, 8, 10), tuple(range(12, 20))
    assert [(kind.name, kind.cores) for kind in kinds] == [("P", p_cores), ("E", e_cores)]
    assert kinds[0].speed == 1 > kinds[1].speed
    groups = _groups(devices)
    assert groups[:14] == [(core,) for core in (*p_cores, *e_cores)]
    assert {p_cores[:2], p_cores[:4], p_cores, e_cores[4:6], e_cores[4:], e_cores} <= set(groups)
    assert groups[-1] == (*p_cores, *e_cores)
    assert len(groups) == len(set(groups)) == 27
    classes = Counter(device.cost_class.place for device in devices)
    assert classes == {
        "1 P cores": 6,
        "2 P cores": 3,
        "4 P cores": 1,
        "6 P cores": 1,
        "1 E cores": 8,
        "2 E cores": 4,
        "4 E cores": 2,
        "8 E cores": 1,
        "6 P + 8 E cores": 1,
    }
    assert devices[-1].core_speeds == (1,) * 6 + (kinds[1].speed,) * 8


def test_phone_board_of_three_kinds(on_machine: Callable[[Describe], Path]) -> None:
    on_machine(machines.phone_board)
    kinds, devices = _offered()
    assert [(kind.name, kind.cores) for kind in kinds] == [
        ("P", (7,)),
        ("E", (4, 5, 6)),
        ("E2", (0, 1, 2, 3)),
    ]
    assert [kind.speed for kind in kinds] == [1, 0.809, 0.317]
    groups = _groups(devices)
    assert groups == [
        *((core,) for core in range(8)),
        (0, 1),
        (2, 3),
        (4, 5),
        (4, 5, 6),
        (0, 1, 2, 3),
        (7, 4, 5, 6, 0, 1, 2, 3),
    ]
    assert devices[-1].name == "cores0-7"
    assert devices[-1].cost_class.place == "1 P + 3 E + 4 E2 cores"


def test_desktop_of_two_cache_domains(on_machine: Callable[[Describe], Path]) -> None:
    on_machine(machines.two_domain_desktop)
    kinds, devices = _offered()
    assert [(kind.name, kind.cores) for kind in kinds] == [("", tuple(range(16)))]
    groups = _groups(devices)
    assert {len(group) for group in groups} == {1, 2, 4, 8, 16}
    assert [group for group in groups if len(group) == 8] == [tuple(range(8)), tuple(range(8, 16))]
    assert [group for group in groups if len(group) == 2] == [(n, n + 1) for n in range(0, 16, 2)]
    assert len(groups) == 31
    assert devices[0].cost_class.place == "1 cores"
    assert devices[0].core_kinds == ()


def test_two_socket_server(on_machine: Callable[[Describe], Path]) -> None:
    on_machine(machines.two_socket_server)
    kinds, devices = _offered()
    assert len(kinds) == 1
    assert len(kinds[0].cores) == 128
    groups = _groups(devices)
    assert len(groups) <= MOST_GROUPS
    sizes = Counter(map(len, groups))
    assert [sizes[size] for size in (128, 64, 32, 16, 8)] == [1, 2, 4, 8, 16]
    assert all(sizes[size] >= 1 for size in (1, 2, 4))
    assert tuple(range(64)) in groups
    assert tuple(range(120, 128)) in groups


def test_a_core_of_the_slowest_kind_is_left_to_a_gpus_feeder(
    on_machine: Callable[[Describe], Path],
) -> None:
    on_machine(machines.phone_board)
    _, devices = _offered(num_feeders=1)
    assert devices[-1].cores == (7, 4, 5, 6, 0, 1, 2)


def test_a_quota_leaves_as_many_cores_as_it_keeps_busy(
    on_machine: Callable[[Describe], Path],
) -> None:
    on_machine(machines.container)
    assert read_limits().quota == 1.5
    assert usable_cores() == (0,)
    assert _groups(_offered()[1]) == [(0,)]


def test_a_quota_leaves_the_fastest_cores(on_machine: Callable[[Describe], Path]) -> None:
    root = on_machine(machines.phone_board)
    machines.write(root, "proc/self/cgroup", "0::/")
    machines.write(root, "sys/fs/cgroup/cpu.max", "250000 100000")
    assert [kind.cores for kind in _offered()[0]] == [(7,), (4,)]


@pytest.mark.parametrize(
    ("files", "quota", "cpuset"),
    [
        ({"sys/fs/cgroup/cpu.max": "max 100000"}, None, None),
        (
            {"sys/fs/cgroup/a/cpu.max": "400000 100000", "sys/fs/cgroup/cpu.max": "300000 100000"},
            3,
            None,
        ),
        ({"sys/fs/cgroup/a/b/cpu.max": "250000 100000"}, 2.5, None),
        ({"sys/fs/cgroup/a/b/cpuset.cpus.effective": "4-7"}, None, (4, 5, 6, 7)),
        ({"sys/fs/cgroup/cpu.max": "nonsense"}, None, None),
    ],
)
def test_limits_of_control_groups(
    on_machine: Callable[[Describe], Path],
    files: dict[str, str],
    quota: float | None,
    cpuset: tuple[int, ...] | None,
) -> None:
    """The narrowest limit counts, of a group or of one above it."""

    def describe(root: Path) -> None:
        machines.write(root, "proc/self/cgroup", "0::/a/b")
        for path, text in files.items():
            machines.write(root, path, text)

    on_machine(describe)
    limits = read_limits()
    assert (limits.quota, limits.cpuset) == (quota, cpuset)


def test_limits_of_control_groups_of_version_1(on_machine: Callable[[Describe], Path]) -> None:
    """In a container the group's path is the host's, of which only the root is there."""

    def describe(root: Path) -> None:
        machines.write(
            root, "proc/self/cgroup", "9:cpuset:/docker/ab\n4:cpu,cpuacct:/docker/ab\n1:name=systemd:/"
        )
        machines.write(root, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "600000")
        machines.write(root, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000")
        machines.write(root, "sys/fs/cgroup/cpuset/cpuset.cpus", "2-3,9")

    on_machine(describe)
    limits = read_limits()
    assert (limits.quota, limits.cpuset) == (6, (2, 3, 9))


def test_one_core(on_machine: Callable[[Describe], Path]) -> None:
    on_machine(lambda root: machines.write_machine(root, [machines.Cpu(0)]))
    kinds, devices = _offered()
    assert [(kind.name, kind.cores, kind.speed) for kind in kinds] == [("", (0,), 1.0)]
    assert [(device.name, device.cores) for device in devices] == [("core0", (0,))]


def test_a_machine_that_tells_nothing(on_machine: Callable[[Describe], Path]) -> None:
    """Without ``/sys`` all cores are taken for equal, and for one cache domain."""
    on_machine(lambda root: machines.write(root, "proc/thread-self/status", "Cpus_allowed_list:\t0-3"))
    kinds, devices = _offered()
    assert [(kind.name, kind.cores) for kind in kinds] == [("", (0, 1, 2, 3))]
    assert _groups(devices)[4:] == [(0, 1), (2, 3), (0, 1, 2, 3)]


def test_the_probe_splits_what_nobody_tells_of(on_machine: Callable[[Describe], Path]) -> None:
    """A virtual machine hides that two of its four cores are slow; a few percent split nothing."""
    on_machine(lambda root: machines.write(root, "proc/thread-self/status", "Cpus_allowed_list:\t0-3"))
    times = {
        0: CoreTimes(250, 1000),
        1: CoreTimes(100, 1000),
        2: CoreTimes(112, 1100),
        3: CoreTimes(240, 1000),
    }
    kinds = group_cores(read_cores(), times)
    assert [(kind.name, kind.cores) for kind in kinds] == [("P", (1, 2)), ("E", (0, 3))]
    assert kinds[1].speed == pytest.approx(106 / 245, abs=0.001)
    slow_memory = {core: CoreTimes(100, 1000 if core < 3 else 2500) for core in range(4)}
    assert [kind.cores for kind in group_cores(read_cores(), slow_memory)] == [(0, 1, 2), (3,)]


def test_the_probe_gives_the_speeds_of_kinds_that_are_told(
    on_machine: Callable[[Describe], Path],
) -> None:
    """Big cores of a laptop are 1.3 times as fast by their frequency, 1.9 times by measurement."""
    on_machine(machines.hybrid_laptop)
    cores = read_cores()
    times = {core.number: CoreTimes(100 if core.make == "cpu_core" else 190, 500) for core in cores}
    kinds = group_cores(cores, times)
    assert [(kind.name, len(kind.cores), kind.speed, kind.memory_speed) for kind in kinds] == [
        ("P", 6, 1.0, 1.0),
        ("E", 8, 0.526, 1.0),
    ]
