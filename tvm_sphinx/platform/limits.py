"""What the kernel lets this process use of a machine's processors: its quota and its cpuset."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .sysfs import parse_list, read_int, read_text, system_path


@dataclass(frozen=True)
class CpuLimits:
    """Limits of the control groups that this process is in.

    ``quota`` is how many processors' time it gets, such as 1.5, and ``cpuset`` the processors that it
    may run on; None where there is no such limit.
    """

    quota: float | None
    cpuset: tuple[int, ...] | None


def read_limits() -> CpuLimits:
    """Return the narrowest limits of the process's control groups, of version 1 or 2."""
    groups = _groups()
    quotas: list[float] = []
    cpusets: list[tuple[int, ...]] = []
    for controllers, path in groups:
        for folder in _folders(controllers, path):
            quotas += _quota(folder)
            for name in ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus"):
                if cpus := parse_list(read_text(folder / name)):
                    cpusets.append(cpus)
                    break
    return CpuLimits(min(quotas, default=None), min(cpusets, key=len, default=None))


def _groups() -> list[tuple[str, str]]:
    """Return the (controllers, path) of each hierarchy that the process is in; "" is version 2."""
    groups = []
    for line in read_text("proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers or {"cpu", "cpuset"} & set(controllers.split(",")):
            groups.append((controllers, path.strip("/")))
    return groups


def _folders(controllers: str, path: str) -> Iterator[Path]:
    """Yield the folders of a group and of all above it.

    In a container the path may be that of the host, of which only the root can be seen.
    """
    mounts = [controllers, *controllers.split(",")] if controllers else ["", "unified"]
    for mount in mounts:
        root = system_path("sys/fs/cgroup") / mount
        group = root / path
        yield from dict.fromkeys([group, *(up for up in group.parents if up.is_relative_to(root)), root])


def _quota(folder: Path) -> list[float]:
    quota, _, period = read_text(folder / "cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        return [int(quota) / int(period)]
    old, old_period = read_int(folder / "cpu.cfs_quota_us"), read_int(folder / "cpu.cfs_period_us")
    return [old / old_period] if old and old > 0 and old_period and old_period > 0 else []
