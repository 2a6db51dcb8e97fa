"""What each core of this machine reaches, by a short probe that is kept on record."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
from collections.abc import Mapping, Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import NamedTuple

from ..errors import EnvironmentMismatchError
from .home import data_home
from .machine import machine_id
from .slow_cores import slow_cores

# To be raised with whatever changes what the probe measures.
_VERSION = 1
_MAX_ROUNDS = 16
_BUDGET_NS = 800_000_000


class CoreTimes(NamedTuple):
    """The least times of a core, in ns: of a compute-bound kernel, and of one that reads memory."""

    compute_ns: int
    memory_ns: int

    def least(self, other: CoreTimes) -> CoreTimes:
        """Return the least of both."""
        return CoreTimes(min(self.compute_ns, other.compute_ns), min(self.memory_ns, other.memory_ns))


def probe_cores(cores: Sequence[int]) -> dict[int, CoreTimes]:
    """Time two kernels on each core in turn, several times, in some tenths of a second.

    What another process takes of a core meanwhile is left out, as far as it leaves some time of it.

    Returns
    -------
    dict
        By core; empty if a thread cannot be bound to one of them.

    Raises
    ------
    EnvironmentMismatchError
        If the package was installed without its C part.
    """
    count, slowed = len(cores), slow_cores()
    compute, memory = (ctypes.c_int64 * count)(), (ctypes.c_int64 * count)()
    numbers = (ctypes.c_int32 * count)(*cores)
    factors = (ctypes.c_double * count)(*(slowed.get(core, 1.0) for core in cores))
    budget = ctypes.c_int64(_BUDGET_NS)
    if _library().core_probe(count, numbers, factors, _MAX_ROUNDS, budget, compute, memory) != 0:
        return {}
    return {core: CoreTimes(*times) for core, *times in zip(cores, compute, memory, strict=True)}


def read_probe(cores: Sequence[int]) -> dict[int, CoreTimes]:
    """Return what is on record of these cores of this machine; empty if one of them is missing."""
    known = _read_record().get(machine_id(), {})
    try:
        return {core: CoreTimes(*map(int, known["times"][str(core)])) for core in cores}
    except (KeyError, TypeError, ValueError):
        return {}


def write_probe(times: Mapping[int, CoreTimes]) -> None:
    """Keep times on record, beside those of other cores; where nothing can be written, none is kept."""
    record = _read_record()
    entry = record.get(machine_id())
    known = dict(entry["times"]) if isinstance(entry, dict) and "times" in entry else {}
    known |= {str(core): list(found) for core, found in times.items()}
    record[machine_id()] = {"times": known}
    path = record_path()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(f".{os.getpid()}")
        scratch.write_text(json.dumps({"version": _VERSION, "machines": record}, indent=1))
        scratch.replace(path)


def record_path() -> Path:
    """Return the file of what cores reach: ``cores.json`` in `data_home`."""
    return data_home() / "cores.json"


def _read_record() -> dict[str, dict[str, dict[str, list[int]]]]:
    try:
        content = json.loads(record_path().read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict) or content.get("version") != _VERSION:
        return {}
    machines = content.get("machines")
    return machines if isinstance(machines, dict) else {}


def _library() -> ctypes.CDLL:
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).parent / f"_core_probe{suffix}"
        if path.is_file():
            return ctypes.CDLL(str(path))
    raise EnvironmentMismatchError(
        f"Expected _core_probe{EXTENSION_SUFFIXES[0]} in {Path(__file__).parent}; it is missing. "
        f"Reinstall tvm-sphinx with a C compiler at hand."
    )
