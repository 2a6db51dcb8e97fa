"""Kinds of core: what is equally fast, first by what the kernel tells, then by measurement."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .core_probe import CoreTimes, probe_cores, read_probe, write_probe
from .topology import Core

# Cores that are told to be equal are not, if one takes so many times as long as another. Equal ones
# differ by what their frequencies do and by what else runs on the same machine: a virtual core whose
# physical one is shared took 1.5 times as long. Unlike cores that nobody tells of differ by more.
_COMPUTE_GAP, _MEMORY_GAP = 1.6, 2.0


@dataclass(frozen=True)
class CoreKind:
    """Cores that are equally fast.

    Parameters
    ----------
    name
        ``"P"`` the fastest, then ``"E"``, ``"E2"`` ...; "" on a machine whose cores are all equal.
    cores
        Their logical processors.
    speed, memory_speed
        What one of them computes, and reads of memory, in comparison with one of the fastest kind.
    """

    name: str
    cores: tuple[int, ...]
    speed: float
    memory_speed: float


def find_kinds(
    cores: Sequence[Core], *, probe: bool = True, again: bool = False
) -> tuple[CoreKind, ...]:
    """Return the kinds of these cores, the fastest first.

    Parameters
    ----------
    cores
    probe
        Whether to measure cores that are not on record; else kinds and speeds are as the kernel tells.
    again
        Whether to measure them although they are on record.
    """
    numbers = [core.number for core in cores]
    if len(cores) < 2:
        return group_cores(cores, {})
    times = {} if again else read_probe(numbers)
    if not times and probe:
        times = _probe_surely(cores)
        if times:
            write_probe(times)
    return group_cores(cores, times)


def _probe_surely(cores: Sequence[Core]) -> dict[int, CoreTimes]:
    """Measure cores; where that splits what is told to be equal, look a second time."""
    numbers = [core.number for core in cores]
    times = probe_cores(numbers)
    if times and len(group_cores(cores, times)) > len(group_cores(cores, {})):
        again = probe_cores(numbers)
        times = {core: times[core].least(again[core]) for core in again}
    return times


def group_cores(cores: Sequence[Core], times: Mapping[int, CoreTimes]) -> tuple[CoreKind, ...]:
    """Return the kinds of cores by what is told of them, split where measured times differ.

    Parameters
    ----------
    cores
    times
        By core; where there are none, nothing is split, and speeds are as told.
    """
    groups: list[list[Core]] = []
    for core in cores:
        same = next((group for group in groups if core.may_equal(group[0])), None)
        groups.append([core]) if same is None else same.append(core)
    if times:
        groups = [part for group in groups for part in _split(group, times)]
    speeds = [_speeds(group, times) for group in groups]
    order = sorted(range(len(groups)), key=lambda n: (-speeds[n][0], groups[n][0].number))
    fastest = [max(speed[which] for speed in speeds) for which in (0, 1)] if speeds else []
    return tuple(
        CoreKind(
            kind_name(rank) if len(groups) > 1 else "",
            tuple(core.number for core in groups[n]),
            round(speeds[n][0] / fastest[0], 3),
            round(speeds[n][1] / fastest[1], 3),
        )
        for rank, n in enumerate(order)
    )


def kind_name(rank: int) -> str:
    """Return the name of the n-th fastest kind, from 0."""
    return ("P", "E")[rank] if rank < 2 else f"E{rank}"


def _speeds(group: Sequence[Core], times: Mapping[int, CoreTimes]) -> tuple[float, float]:
    if not times:
        told = statistics.median(core.told_speed for core in group)
        return told, told
    found = [times[core.number] for core in group]
    return (
        1 / statistics.median(each.compute_ns for each in found),
        1 / statistics.median(each.memory_ns for each in found),
    )


def _split(group: list[Core], times: Mapping[int, CoreTimes]) -> list[list[Core]]:
    """Split cores where one takes much longer than the next faster one."""
    parts = _split_by(group, lambda core: times[core.number].compute_ns, _COMPUTE_GAP)
    return [
        sorted(part, key=lambda core: core.number)
        for half in parts
        for part in _split_by(half, lambda core: times[core.number].memory_ns, _MEMORY_GAP)
    ]


def _split_by(group: list[Core], time_ns: Callable[[Core], int], gap: float) -> list[list[Core]]:
    ordered = sorted(group, key=lambda core: (time_ns(core), core.number))
    parts = [[ordered[0]]]
    for before, core in itertools.pairwise(ordered):
        if time_ns(core) > gap * time_ns(before):
            parts.append([])
        parts[-1].append(core)
    return parts
