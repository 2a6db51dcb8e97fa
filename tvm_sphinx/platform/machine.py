"""What the operating system tells of this machine's cores."""

from __future__ import annotations

import functools
import os
import platform
from pathlib import Path

_SYSFS_CPU = Path("/sys/devices/system/cpu")


def allowed_cores() -> tuple[int, ...]:
    """Return the logical processors that this process may use."""
    return tuple(sorted(os.sched_getaffinity(0)))


def usable_cores() -> tuple[int, ...]:
    """Return the cores that this process may use, one logical processor for each physical core."""
    seen: set[int] = set()
    cores = []
    for core in allowed_cores():
        if core not in seen:
            cores.append(core)
            siblings = _read_list(_SYSFS_CPU / f"cpu{core}/topology/thread_siblings_list")
            seen.update(siblings or (core,))
    return tuple(cores)


def core_groups(cores: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Return the groups of cores worth scheduling on, without repeats, small groups first.

    These are each core alone, the cores that share a last-level cache, those of one NUMA node or of
    one cluster of equal cores, and all of them.
    """
    groups: dict[tuple[int, ...], None] = {(core,): None for core in cores}
    between: set[tuple[int, ...]] = set()
    for core in cores:
        for members in (_last_level_cache(core), _numa_node(core), _equal_cores(core, cores)):
            between.add(tuple(sorted(set(members) & set(cores))))
    between.add(tuple(sorted(cores)))
    for group in sorted(between, key=lambda group: (len(group), group)):
        if len(group) > 1:
            groups[group] = None
    return tuple(groups)


def group_name(cores: tuple[int, ...]) -> str:
    """Return a short name: ``core3``, ``cores0-7`` or, with gaps, ``cores0,2,4``."""
    if len(cores) == 1:
        return f"core{cores[0]}"
    if cores == tuple(range(cores[0], cores[-1] + 1)):
        return f"cores{cores[0]}-{cores[-1]}"
    return "cores" + ",".join(map(str, cores))


def _last_level_cache(core: int) -> tuple[int, ...]:
    caches = sorted((_SYSFS_CPU / f"cpu{core}/cache").glob("index*"), key=lambda path: path.name)
    return _read_list(caches[-1] / "shared_cpu_list") if caches else ()


def _numa_node(core: int) -> tuple[int, ...]:
    nodes = list((_SYSFS_CPU / f"cpu{core}").glob("node[0-9]*"))
    return _read_list(nodes[0] / "cpulist") if nodes else ()


def _equal_cores(core: int, cores: tuple[int, ...]) -> tuple[int, ...]:
    """Return the cores of the same make, where the kernel tells them apart.

    Arm systems give each core a capacity; x86 systems of unlike cores list those of each make.
    """
    for makes in sorted(_SYSFS_CPU.parents[1].glob("cpu_*/cpus")):
        members = _read_list(makes)
        if core in members:
            return members
    capacity = {other: _read_text(_SYSFS_CPU / f"cpu{other}/cpu_capacity") for other in cores}
    if not capacity.get(core):
        return ()
    return tuple(other for other in cores if capacity[other] == capacity[core])


def _read_text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _read_list(path: Path) -> tuple[int, ...]:
    """Read the kernel's list form, ``0-3,8``; empty where the file is missing."""
    members: list[int] = []
    for part in filter(None, _read_text(path).split(",")):
        first, _, last = part.partition("-")
        members.extend(range(int(first), int(last or first) + 1))
    return tuple(members)


#: What is taken for the sizes of a core's data caches where nothing tells them.
UNKNOWN_CACHE_BYTES = (32 << 10, 512 << 10, 8 << 20)


@functools.cache
def machine_id() -> str:
    """Return what tells machines apart that run a kernel unequally fast: processor, cores, cache.

    Equal machines have equal ids. The processor's name alone would not do: virtual machines give short
    ones, and one processor is sold with several numbers of cores.
    """
    fields: dict[str, str] = {}
    for line in _read_text(Path("/proc/cpuinfo")).splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), value.strip())
    name = fields.get("model name") or fields.get("cpu model") or platform.machine()
    numbers = [
        fields[key]
        for key in ("cpu family", "model", "stepping", "cpu implementer", "cpu part", "cpu variant")
        if key in fields
    ]
    caches = sorted((_SYSFS_CPU / "cpu0/cache").glob("index*"), key=lambda path: path.name)
    last = _read_text(caches[-1] / "size") if caches else ""
    parts = [" ".join([name, "-".join(numbers)]).strip(), f"{os.cpu_count()} CPUs"]
    return ", ".join([*parts, *([f"{last} cache"] if last else [])])


def cache_bytes(core: int) -> tuple[int, int, int]:
    """Return the sizes of a core's first, second and third level data caches.

    Where the operating system tells nothing they are `UNKNOWN_CACHE_BYTES`; a level that is not there
    is as large as the one below it.
    """
    sizes: dict[int, int] = {}
    for path in sorted((_SYSFS_CPU / f"cpu{core}/cache").glob("index*")):
        if _read_text(path / "type") in ("Data", "Unified"):
            text = _read_text(path / "size")
            unit = {"K": 1 << 10, "M": 1 << 20}.get(text[-1:], 1)
            digits = text.rstrip("KM")
            level = _read_text(path / "level")
            if digits.isdigit() and level.isdigit():
                sizes[int(level)] = int(digits) * unit
    if not sizes:
        return UNKNOWN_CACHE_BYTES
    first = sizes.get(1, UNKNOWN_CACHE_BYTES[0])
    second = sizes.get(2, first)
    return first, second, sizes.get(3, second)
