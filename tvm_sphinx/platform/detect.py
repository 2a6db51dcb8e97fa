"""Platforms of the machine at hand: what it has, or what somebody asks of it. [TVM]"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from .core_groups import core_groups
from .core_kinds import CoreKind, find_kinds
from .device import Device
from .machine import group_name, usable_cores
from .platform import Platform
from .target_text import CPU_KINDS, default_runtime, parse_target
from .targets import baseline_target, check_target, cuda_devices, host_target
from .topology import Core, read_cores

#: Targets that have a word of their own, in platform files and on the command line.
NAMED_TARGETS = {"host": host_target, "baseline": baseline_target}


# Streams that branches of a network run in side by side on one GPU.
_STREAMS_PER_GPU = 3
# Cores that are computed on before one is left to a GPU's feeder.
_LEAST_CORES = 3


def detect_platform() -> Platform:
    """Return the platform of this machine.

    It offers groups of cores, see `core_groups`, with the kinds of core that `find_kinds` finds; and of
    each NVIDIA GPU some streams, devices that work side by side. Where there are cores enough, one for
    each GPU is left to the thread that feeds it.
    """
    gpus, cores = cuda_devices(), read_cores()
    devices = cpu_devices(cores, find_kinds(cores), len(gpus))
    devices += [
        Device(f"gpu{number}.{stream}", gpu, f"cuda:{number}")
        for number, gpu in enumerate(gpus)
        for stream in range(_STREAMS_PER_GPU)
    ]
    return Platform(tuple(devices))


def cpu_devices(cores: Sequence[Core], kinds: Sequence[CoreKind], num_feeders: int = 0) -> list[Device]:
    """Return a device of this machine for each group of cores worth scheduling on.

    Parameters
    ----------
    cores, kinds
        See `read_cores` and `find_kinds`.
    num_feeders
        GPUs, for each of which a core of the slowest kind is left out, where there are enough.
    """
    kind_of = {number: kind for kind in kinds for number in kind.cores}
    if num_feeders and len(cores) >= _LEAST_CORES + num_feeders:
        spared = [number for kind in kinds for number in kind.cores][-num_feeders:]
        cores = [core for core in cores if core.number not in spared]
    unlike = len(kinds) > 1
    target = host_target()
    return [
        Device(
            group_name(group),
            target,
            f"cpu:{index}",
            group,
            core_kinds=tuple(kind_of[core].name for core in group) if unlike else (),
            core_speeds=tuple(kind_of[core].speed for core in group) if unlike else (),
            core_memory_speeds=tuple(kind_of[core].memory_speed for core in group) if unlike else (),
        )
        for index, group in enumerate(core_groups(cores, kinds))
    ]


def unlike_cpus() -> Platform:
    """Return two unlike CPU devices of this machine.

    One core has all its instruction sets, the other is held to the baseline of its architecture. On a
    machine of one core they take turns.
    """
    cores = usable_cores()
    return with_kinds(
        Platform(
            (
                Device("native", host_target(), "cpu:0", (cores[0],)),
                Device("baseline", baseline_target(), "cpu:0", (cores[min(1, len(cores) - 1)],)),
            )
        )
    )


def with_kinds(platform: Platform) -> Platform:
    """Return a platform with the kinds and speeds of this machine's cores, for devices that give none.

    On a machine of one kind it stays as it is, and so do devices of other machines or of other cores.
    """
    cores = read_cores()
    kinds = find_kinds(cores)
    if len(kinds) < 2:
        return platform
    of_core = {number: kind for kind in kinds for number in kind.cores}
    kind_of = {thread: of_core[core.number] for core in cores for thread in core.siblings}
    devices = tuple(
        replace(
            device,
            core_kinds=tuple(kind_of[core].name for core in device.cores),
            core_speeds=device.core_speeds or tuple(kind_of[core].speed for core in device.cores),
            core_memory_speeds=device.core_memory_speeds
            or device.core_speeds
            or tuple(kind_of[core].memory_speed for core in device.cores),
        )
        if device.is_cpu
        and device.rpc_key is None
        and not device.core_kinds
        and set(device.cores) <= set(kind_of)
        else device
        for device in platform.devices
    )
    return replace(platform, devices=devices)


def platform_of_targets(targets: Sequence[str]) -> Platform:
    """Return a platform of these targets; the n-th CPU target owns the n-th core of this machine.

    Raises
    ------
    PlatformError
        If TVM does not know a target, or there is none of a CPU.
    """
    cores = usable_cores()
    devices: list[Device] = []
    num_cpus = 0
    for number, given in enumerate(targets):
        target = resolve_target(given, f"--target {given!r}")
        is_cpu = json.loads(target)["kind"] in CPU_KINDS
        own = (cores[num_cpus % len(cores)],) if is_cpu else ()
        num_cpus += is_cpu
        devices.append(Device(f"device{number}", target, default_runtime(target), own))
    return with_kinds(Platform(tuple(devices)))


def resolve_target(value: object, where: str = "target") -> str:
    """Return a target as canonical JSON, from a word of `NAMED_TARGETS` or what `parse_target` takes.

    Raises
    ------
    PlatformError
        If it has another form, or TVM does not know it.
    """
    if isinstance(value, str) and value in NAMED_TARGETS:
        return NAMED_TARGETS[value]()
    target = parse_target(value, where)
    check_target(target, where)
    return target
