"""The cores of this machine as the kernel tells of them: makes, caches, nodes and sockets."""

from __future__ import annotations

from dataclasses import dataclass

from .machine import cache_bytes, physical_cores, quota_cores
from .sysfs import read_int, read_list, read_text, system_path

# The lists of an Intel processor's unlike cores, the fastest first.
_MAKES = ("cpu_core", "cpu_atom", "cpu_lowpower")
_CPU = "sys/devices/system/cpu"


@dataclass(frozen=True)
class Core:
    """One core, by a logical processor of it.

    Parameters
    ----------
    number
        The logical processor.
    make
        ``"cpu_core"`` or ``"cpu_atom"`` of an Intel processor with unlike cores, else "".
    capacity
        What it computes in comparison with the largest core, which has 1024; None where it is not told.
    max_mhz
        Its highest frequency, None where it is not told.
    cache_bytes
        Sizes of its first, second and third level data caches.
    domain
        Logical processors that share its last-level cache.
    node, socket
        NUMA node and package; 0 where they are not told.
    siblings
        Logical processors of the same physical core.
    """

    number: int
    make: str
    capacity: int | None
    max_mhz: float | None
    cache_bytes: tuple[int, int, int]
    domain: tuple[int, ...]
    node: int
    socket: int
    siblings: tuple[int, ...]

    def may_equal(self, other: Core) -> bool:
        """Return whether nothing that is told says that one is faster than the other.

        Cores of one make differ by some percent in what they are rated for.
        """
        if (self.make, self.cache_bytes) != (other.make, other.cache_bytes):
            return False
        if self.capacity is not None and other.capacity is not None:
            return _are_near(self.capacity, other.capacity)
        if self.max_mhz is not None and other.max_mhz is not None:
            return _are_near(self.max_mhz, other.max_mhz)
        return self.capacity is None and other.capacity is None

    @property
    def told_speed(self) -> float:
        """What is told of its speed, in numbers that only compare with those of this machine."""
        if self.capacity is not None:
            return float(self.capacity)
        rank = len(_MAKES) - _MAKES.index(self.make) if self.make else 1
        return rank * (self.max_mhz or 1.0)


def read_cores() -> tuple[Core, ...]:
    """Return the cores that this process may use, ascending; under a quota the fastest of them.

    They are as many as `usable_cores` returns.
    """
    makes = {core: make for make in _MAKES for core in read_list(f"sys/devices/{make}/cpus")}
    cores = [_read_core(core, makes.get(core, "")) for core in physical_cores()]
    fastest = sorted(cores, key=lambda core: -core.told_speed)[: quota_cores()]
    return tuple(sorted(fastest, key=lambda core: core.number))


def _read_core(core: int, make: str) -> Core:
    where = f"{_CPU}/cpu{core}"
    khz = read_int(f"{where}/cpufreq/cpuinfo_max_freq")
    nodes = sorted(system_path(where).glob("node[0-9]*"))
    socket = read_int(f"{where}/topology/physical_package_id")
    return Core(
        number=core,
        make=make,
        capacity=read_int(f"{where}/cpu_capacity"),
        max_mhz=khz / 1000 if khz else None,
        cache_bytes=cache_bytes(core),
        domain=_last_level_cache(core),
        node=int(nodes[0].name.removeprefix("node")) if nodes else 0,
        socket=max(0, socket or 0),
        siblings=read_list(f"{where}/topology/thread_siblings_list") or (core,),
    )


def _last_level_cache(core: int) -> tuple[int, ...]:
    """Return the logical processors that share a core's largest cache; all, where none is told."""
    found = [
        (level, path)
        for path in system_path(f"{_CPU}/cpu{core}/cache").glob("index*")
        if (level := read_int(path / "level")) is not None and read_text(path / "shared_cpu_list")
    ]
    return read_list(max(found)[1] / "shared_cpu_list") if found else ()


def _are_near(first: float, second: float) -> bool:
    return min(first, second) >= 0.85 * max(first, second)
