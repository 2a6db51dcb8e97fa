"""Put a program's platform on the cores that this process may use."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from ..errors import PlatformError
from ..notice import warn
from .core_kinds import CoreKind, find_kinds
from .limits import read_limits
from .machine import allowed_cores, list_text, physical_cores, why_not_allowed
from .platform import Platform
from .topology import read_cores


def fit_machine(platform: Platform, used: Collection[int] | None = None) -> Platform:
    """Return the platform with cores of this process in place of those that it may not use.

    A core is replaced by one of the same kind that no device of the platform has, each by one. What is
    computed does not change, and neither do the times, as far as the cores are equal. Cores of other
    machines stay.

    Parameters
    ----------
    platform
    used
        Positions of the devices that a program runs on, by default all; the others stay as they are.

    Raises
    ------
    PlatformError
        If there are not enough such cores; the message says what leaves them out, such as a cpuset.
    """
    mine = [
        device
        for number, device in enumerate(platform.devices)
        if device.is_cpu and device.rpc_key is None and (used is None or number in used)
    ]
    kind_of = {
        core: kind
        for device in mine
        for core, kind in zip(device.cores, device.core_kinds or [""] * len(device.cores), strict=True)
    }
    _warn_of_quota(len(kind_of))
    if set(kind_of) <= set(allowed_cores()):
        return platform
    moved = _replacements(kind_of)
    devices = tuple(
        replace(device, cores=tuple(moved.get(core, core) for core in device.cores))
        if device in mine
        else device
        for device in platform.devices
    )
    return replace(platform, devices=devices)


def _replacements(kind_of: Mapping[int, str]) -> dict[int, int]:
    """Return a free core of the same kind for each core that is not allowed."""
    allowed = allowed_cores()
    missing = sorted(core for core in kind_of if core not in allowed)
    free = [core for core in physical_cores() if core not in kind_of]
    kinds = _kinds_by_name(kind_of)
    moved: dict[int, int] = {}
    for core in missing:
        fitting = kinds.get(kind_of[core], ()) if kinds else free
        found = next((other for other in free if other in fitting), None)
        if found is None:
            raise PlatformError(_refusal(kind_of, core))
        free.remove(found)
        moved[core] = found
    return moved


def _kinds_by_name(kind_of: Mapping[int, str]) -> dict[str, tuple[int, ...]]:
    """Return the cores of each kind of this process; none where the platform tells no kinds apart."""
    if not any(kind_of.values()):
        return {}
    kinds: tuple[CoreKind, ...] = find_kinds(read_cores())
    return {kind.name: kind.cores for kind in kinds}


def _refusal(kind_of: Mapping[int, str], core: int) -> str:
    kind = kind_of[core]
    same = [other for other in kind_of if kind_of[other] == kind]
    named = f" of kind {kind}" if kind else ""
    count = len(same)
    return (
        f"The program needs {count} core{'s' * (count > 1)}{named} ({list_text(same)}), and there are "
        f"not as many: core {core} cannot be used, {why_not_allowed(core)}; allowed: "
        f"{list_text(allowed_cores())}. Allow as many, or compile the model here."
    )


def _warn_of_quota(num_cores: int) -> None:
    quota = read_limits().quota
    if quota is not None and num_cores > max(1.0, quota):
        warn(
            f"The program uses {num_cores} cores, and the quota of this process's control group is the "
            f"time of {quota:g}: it will be stopped for a part of each period. Raise the quota, or "
            f"compile the model under it."
        )
