"""What the operating system tells of this machine's cores."""

from __future__ import annotations

import functools
import math
import os
import platform
from collections.abc import Iterable

from .limits import read_limits
from .slow_cores import slow_cores
from .sysfs import parse_list, read_int, read_list, read_text, system_path

_CPU = "sys/devices/system/cpu"


def allowed_cores() -> tuple[int, ...]:
    """Return the logical processors that this thread may use."""
    for line in read_text("proc/thread-self/status").splitlines():
        if line.startswith("Cpus_allowed_list:"):
            return parse_list(line.partition(":")[2])
    return tuple(sorted(os.sched_getaffinity(0)))


def why_not_allowed(core: int) -> str:
    """Return what keeps this process from a core that is not among `allowed_cores`."""
    online = read_list(f"{_CPU}/online") or tuple(range(os.cpu_count() or 1))
    cpuset = read_limits().cpuset
    if core not in online:
        return f"which this machine lacks (its processors: {list_text(online)})"
    if cpuset is not None and core not in cpuset:
        return f"which the cpuset of this process's control group leaves out ({list_text(cpuset)})"
    return "which this process's affinity leaves out (see taskset)"


def usable_cores() -> tuple[int, ...]:
    """Return the cores that this process may use, one logical processor for each physical core.

    Under a quota of processor time they are as many as it keeps busy, at least one: threads on more
    of them would be stopped for the rest of each period, all at once.
    """
    return physical_cores()[: quota_cores()]


def quota_cores() -> int | None:
    """Return how many cores a quota of processor time keeps busy, at least one; None without a quota."""
    quota = read_limits().quota
    return None if quota is None else max(1, math.floor(quota))


def physical_cores() -> tuple[int, ...]:
    """Return the first logical processor of each physical core that this process may use."""
    seen: set[int] = set()
    cores = []
    for core in allowed_cores():
        if core not in seen:
            cores.append(core)
            seen.update(read_list(f"{_CPU}/cpu{core}/topology/thread_siblings_list") or (core,))
    return tuple(cores)


def group_name(cores: tuple[int, ...]) -> str:
    """Return a short name: ``core3``, ``cores0-7`` or, with gaps, ``cores0,2,4-6``."""
    return f"core{'s' * (len(cores) > 1)}{list_text(cores)}"


def list_text(cores: Iterable[int]) -> str:
    """Return numbers in the kernel's list form, ascending, such as ``"0-3,8"``."""
    runs: list[list[int]] = []
    for core in sorted(cores):
        if runs and core == runs[-1][1] + 1:
            runs[-1][1] = core
        else:
            runs.append([core, core])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


#: What is taken for the sizes of a core's data caches where nothing tells them.
UNKNOWN_CACHE_BYTES = (32 << 10, 512 << 10, 8 << 20)


def machine_id() -> str:
    """Return what tells machines apart that run a kernel unequally fast: processor, cores, cache.

    Equal machines have equal ids. The processor's name alone would not do: virtual machines give short
    ones, and one processor is sold with several numbers of cores. Cores that are slowed for a test
    make another machine.
    """
    slowed = [f"core {core} slowed {factor:g} times" for core, factor in slow_cores().items()]
    return ", ".join([_machine_without_slowing(), *slowed])


@functools.cache
def _machine_without_slowing() -> str:
    fields: dict[str, str] = {}
    for line in read_text("proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), value.strip())
    name = fields.get("model name") or fields.get("cpu model") or platform.machine()
    numbers = [
        fields[key]
        for key in ("cpu family", "model", "stepping", "cpu implementer", "cpu part", "cpu variant")
        if key in fields
    ]
    caches = sorted(system_path(f"{_CPU}/cpu0/cache").glob("index*"), key=lambda path: path.name)
    last = read_text(caches[-1] / "size") if caches else ""
    parts = [" ".join([name, "-".join(numbers)]).strip(), f"{os.cpu_count()} CPUs"]
    return ", ".join([*parts, *([f"{last} cache"] if last else [])])


def cache_bytes(core: int) -> tuple[int, int, int]:
    """Return the sizes of a core's first, second and third level data caches.

    Where the operating system tells nothing they are `UNKNOWN_CACHE_BYTES`; a level that is not there
    is as large as the one below it.
    """
    sizes: dict[int, int] = {}
    for path in sorted(system_path(f"{_CPU}/cpu{core}/cache").glob("index*")):
        if read_text(path / "type") in ("Data", "Unified"):
            text = read_text(path / "size")
            unit = {"K": 1 << 10, "M": 1 << 20}.get(text[-1:], 1)
            digits = text.rstrip("KM")
            level = read_int(path / "level")
            if digits.isdigit() and level is not None:
                sizes[level] = int(digits) * unit
    if not sizes:
        return UNKNOWN_CACHE_BYTES
    first = sizes.get(1, UNKNOWN_CACHE_BYTES[0])
    second = sizes.get(2, first)
    return first, second, sizes.get(3, second)
