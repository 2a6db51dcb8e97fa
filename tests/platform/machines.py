"""Machines as their kernels describe them: ``/sys`` and ``/proc`` trees, by public descriptions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_CPU = "sys/devices/system/cpu"


@dataclass(frozen=True)
class Cpu:
    """One logical processor; ``caches`` are (level, type, size, processors that share it)."""

    number: int
    siblings: str = ""
    socket: int = 0
    node: int = 0
    max_khz: int = 0
    capacity: int = 0
    caches: tuple[tuple[int, str, str, str], ...] = ()


def write(root: Path, path: str, text: str) -> None:
    """Write a file of the tree."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text + "\n")


def write_machine(
    root: Path, cpus: list[Cpu], allowed: str = "", makes: dict[str, str] | None = None
) -> None:
    """Write the tree of a machine; ``allowed`` are the processors of the process, by default all."""
    write(
        root,
        "proc/thread-self/status",
        f"Name:\tpython\nCpus_allowed_list:\t{allowed or f'0-{len(cpus) - 1}'}",
    )
    write(root, f"{_CPU}/online", f"0-{len(cpus) - 1}")
    for make, members in (makes or {}).items():
        write(root, f"sys/devices/{make}/cpus", members)
    nodes: dict[int, list[int]] = {}
    for cpu in cpus:
        nodes.setdefault(cpu.node, []).append(cpu.number)
    for cpu in cpus:
        where = f"{_CPU}/cpu{cpu.number}"
        write(root, f"{where}/topology/thread_siblings_list", cpu.siblings or str(cpu.number))
        write(root, f"{where}/topology/physical_package_id", str(cpu.socket))
        write(root, f"{where}/node{cpu.node}/cpulist", ",".join(map(str, nodes[cpu.node])))
        if cpu.max_khz:
            write(root, f"{where}/cpufreq/cpuinfo_max_freq", str(cpu.max_khz))
        if cpu.capacity:
            write(root, f"{where}/cpu_capacity", str(cpu.capacity))
        for index, (level, kind, size, shared) in enumerate(cpu.caches):
            for name, text in (
                ("level", str(level)),
                ("type", kind),
                ("size", size),
                ("shared_cpu_list", shared),
            ):
                write(root, f"{where}/cache/index{index}/{name}", text)


def hybrid_laptop(root: Path) -> None:
    """Six P cores with two threads each (CPUs 0-11) and eight E cores in clusters of four (12-19)."""
    cpus = []
    for number in range(20):
        pair = number // 2 * 2
        cluster = 12 + (number - 12) // 4 * 4
        own = f"{pair}-{pair + 1}" if number < 12 else str(number)
        level1 = (1, "Data", "48K" if number < 12 else "32K", own)
        level2 = (
            (2, "Unified", "1280K", own)
            if number < 12
            else (2, "Unified", "2048K", f"{cluster}-{cluster + 3}")
        )
        # Two of the P cores are rated higher than the others.
        khz = 4800000 if pair in (4, 6) else 4700000
        caches = (level1, (1, "Instruction", "32K", own), level2, (3, "Unified", "24576K", "0-19"))
        cpus.append(Cpu(number, own, max_khz=khz if number < 12 else 3600000, caches=caches))
    write_machine(root, cpus, makes={"cpu_core": "0-11", "cpu_atom": "12-19"})


def phone_board(root: Path) -> None:
    """Four little, three big and one prime core; the kernel tells capacities and no caches."""
    capacities = [325] * 4 + [828] * 3 + [1024]
    write_machine(root, [Cpu(number, capacity=capacity) for number, capacity in enumerate(capacities)])


def two_domain_desktop(root: Path) -> None:
    """Sixteen cores with two threads each; eight cores share a last-level cache."""
    cpus = []
    for number in range(32):
        core = number % 16
        shared = "0-7,16-23" if core < 8 else "8-15,24-31"
        own = f"{core},{core + 16}"
        caches = ((1, "Data", "32K", own), (2, "Unified", "512K", own), (3, "Unified", "32768K", shared))
        cpus.append(Cpu(number, own, max_khz=5083398 - 50000 * (core % 8), caches=caches))
    write_machine(root, cpus)


def two_socket_server(root: Path) -> None:
    """Two sockets of 64 cores with two threads each; eight cores share a last-level cache."""
    cpus = []
    for number in range(256):
        core = number % 128
        first = core // 8 * 8
        own = f"{core},{core + 128}"
        shared = f"{first}-{first + 7},{first + 128}-{first + 135}"
        caches = ((1, "Data", "32K", own), (2, "Unified", "512K", own), (3, "Unified", "32768K", shared))
        cpus.append(Cpu(number, own, core // 64, core // 64, 3529053, caches=caches))
    write_machine(root, cpus)


def container(root: Path, quota: str = "150000 100000", cpuset: str = "0-63") -> None:
    """A machine of 64 equal cores, seen from a container with a quota and a cpuset."""
    caches = ((1, "Data", "32K", "0"), (3, "Unified", "262144K", "0-63"))
    cpus = [Cpu(number, caches=caches) for number in range(64)]
    write_machine(root, cpus, allowed=cpuset)
    write(root, "proc/self/cgroup", "0::/")
    write(root, "sys/fs/cgroup/cpu.max", quota)
    write(root, "sys/fs/cgroup/cpuset.cpus.effective", cpuset)
