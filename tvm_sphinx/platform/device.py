"""A device that tasks run on, what it costs the same as, and a link between two of them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..errors import PlatformError

#: What is told of each core of a device: see `Device`.
CORE_KEYS = ("core_kinds", "core_speeds", "core_memory_speeds")


@dataclass(frozen=True)
class CostClass:
    """What devices have in common that run a kernel equally fast: one measurement serves them all.

    This is the one definition. Records add the machine (`tvm_sphinx.cost.records.classes.class_of`).

    Parameters
    ----------
    target
        TVM target as canonical JSON.
    place
        What of the machine it is: ``"2 cores"`` of a CPU, ``"1 P + 1 E cores"`` where these are of
        unlike kinds, else the runtime device, ``"cuda:0"``.
    cores
        How many cores; 0 if it is no CPU.
    rpc_key
        Of the machines that it is one of; None is this machine.
    """

    target: str
    place: str
    cores: int
    rpc_key: str | None = None

    def __str__(self) -> str:
        remote = "" if self.rpc_key is None else f" of RPC key {self.rpc_key}"
        return f"{self.target} on {self.place}{remote}"


@dataclass(frozen=True, repr=False)
class Device:
    """Something that a task can run on.

    Parameters
    ----------
    name
        Unique in its platform.
    target
        TVM target as canonical JSON, for example ``{"kind": "llvm", "mcpu": "znver4"}``.
    runtime
        Runtime device, ``"cpu:0"`` or ``"cuda:0"``. CPU devices share the host's memory, so all of them
        are ``"cpu:0"`` unless a platform file says otherwise.
    cores
        For a CPU device the operating system's ids of the cores that it owns; its kernels run with
        that many threads. Two devices that share a core exclude each other in time.
    memory_bytes
        Capacity, or None for no limit.
    peak_gflop_per_s, peak_gb_per_s
        What the device can reach at most. Where both are given, a device that is not at hand gets
        roofline estimates in the place of measured costs.
    rpc_key
        Where given, the device is one of another machine: its kernels are measured on a server that
        TVM's RPC tracker lists under this key, and its cores are that machine's.
    card
        Name of a GPU as its driver tells it, such as ``"NVIDIA H100 80GB HBM3"``: where it is not at
        hand, what is on record of such cards counts.
    cache_bytes
        Sizes of a core's first, second and third level data caches, for predicting times; None is what
        the operating system tells of a core of this machine, and unknown for one of another machine.
    core_kinds
        Of each core its kind, such as ``"P"``, on a machine whose cores are not equally fast. Devices
        whose cores are of the same kinds cost the same.
    core_speeds
        What each core computes in comparison with the others; parallel loops are shared out in
        proportion. None are given where all are equal.
    core_memory_speeds
        What each core reads of memory in comparison with the others: loops of kernels that memory bounds
        are shared out in this proportion. By default as ``core_speeds``.
    """

    name: str
    target: str
    runtime: str
    cores: tuple[int, ...] = ()
    memory_bytes: int | None = None
    peak_gflop_per_s: float | None = None
    peak_gb_per_s: float | None = None
    rpc_key: str | None = None
    cache_bytes: tuple[int, ...] | None = None
    core_kinds: tuple[str, ...] = ()
    core_speeds: tuple[float, ...] = ()
    core_memory_speeds: tuple[float, ...] = ()
    card: str | None = None

    def __post_init__(self) -> None:
        where = f"device {self.name!r}"
        if not self.name or not isinstance(self.name, str):
            raise PlatformError(f"Expected a name for every device; got {self.name!r}.")
        if not re.fullmatch(r"(cpu|cuda|rocm|opencl|vulkan|metal):\d+", self.runtime):
            raise PlatformError(
                f"Expected runtime of {where} in the form KIND:INDEX, such as 'cpu:0' or 'cuda:0'; "
                f"got {self.runtime!r}."
            )
        if self.is_cpu != bool(self.cores):
            rule = "at least one core" if self.is_cpu else "no cores"
            raise PlatformError(f"Expected {rule} for {where} ({self.runtime}); got {self.cores}.")
        if len(set(self.cores)) != len(self.cores) or min(self.cores, default=0) < 0:
            raise PlatformError(f"Expected distinct cores >= 0 for {where}; got {self.cores}.")
        if self.memory_bytes is not None and self.memory_bytes < 0:
            raise PlatformError(f"Expected memory_bytes >= 0 for {where}; got {self.memory_bytes}.")
        for key in ("peak_gflop_per_s", "peak_gb_per_s"):
            value = getattr(self, key)
            if value is not None and not 0 < value < float("inf"):
                raise PlatformError(f"Expected {key} > 0 for {where}; got {value}.")
        self._check_cores(where)
        if self.rpc_key is not None and (not self.rpc_key or not isinstance(self.rpc_key, str)):
            raise PlatformError(f"Expected rpc_key of {where} as a name; got {self.rpc_key!r}.")
        if self.card is not None and (not self.card or not isinstance(self.card, str) or self.is_cpu):
            raise PlatformError(
                f"Expected card of {where} as the name of a GPU; got {self.card!r} ({self.runtime})."
            )
        if self.cache_bytes is not None and (len(self.cache_bytes) != 3 or min(self.cache_bytes) <= 0):
            raise PlatformError(
                f"Expected cache_bytes of {where} as three sizes > 0, those of the first, second and "
                f"third level; got {self.cache_bytes}."
            )

    def _check_cores(self, where: str) -> None:
        for key in CORE_KEYS:
            values = getattr(self, key)
            if values and len(values) != len(self.cores):
                raise PlatformError(
                    f"Expected {key} of {where} for each of its {len(self.cores)} cores; got {values}."
                )
        for kind in self.core_kinds:
            if not isinstance(kind, str) or not re.fullmatch(r"[A-Za-z][\w-]*", kind):
                raise PlatformError(
                    f"Expected core_kinds of {where} as names such as 'P' and 'E'; got {kind!r}."
                )
        for key in ("core_speeds", "core_memory_speeds"):
            for speed in getattr(self, key):
                if not 0.001 <= speed <= 1000:
                    raise PlatformError(f"Expected {key} of {where} from 0.001 to 1000; got {speed}.")

    def __repr__(self) -> str:
        found = re.search(r'"mcpu": ?"([^"]*)"|"arch": ?"([^"]*)"', self.target)
        processor = f" for {found[1] or found[2]}" if found else ""
        cores = f" on cores {', '.join(map(str, self.cores))}" if self.cores else ""
        remote = f" of RPC key {self.rpc_key}" if self.rpc_key else ""
        return f"<Device {self.name!r}: {self.runtime}{cores}{processor}{remote}>"

    @property
    def is_cpu(self) -> bool:
        """Whether this is a set of cores of the host."""
        return self.runtime.startswith("cpu:")

    @property
    def memory_space(self) -> str:
        """Name of the memory that the device computes in; CPU devices share ``"host"``."""
        return "host" if self.is_cpu else self.runtime

    @property
    def target_config(self) -> dict[str, Any]:
        """The target as a dict."""
        config: dict[str, Any] = json.loads(self.target)
        return config

    @property
    def cost_class(self) -> CostClass:
        """What it has in common with devices that run a kernel equally fast."""
        place = f"{_count_cores(self)} cores" if self.is_cpu else self.runtime
        return CostClass(self.target, place, len(self.cores), self.rpc_key)


def _count_cores(device: Device) -> str:
    """Return how many cores of which kinds a device has, such as ``"6 P + 8 E"``."""
    if not device.core_kinds:
        return str(len(device.cores))
    counts = Counter(device.core_kinds)
    names = sorted(counts, key=lambda kind: (kind != "P", kind))
    return " + ".join(f"{counts[kind]} {kind}" for kind in names)


def one_of_each_class(devices: Iterable[Device]) -> list[Device]:
    """Return the first device of each cost class, in order."""
    first: dict[CostClass, Device] = {}
    for device in devices:
        first.setdefault(device.cost_class, device)
    return list(first.values())


@dataclass(frozen=True)
class Link:
    """What a copy from one device to another costs: latency + bytes / bandwidth."""

    src: str
    dst: str
    latency_ns: int
    bandwidth_bytes_per_s: float

    def __post_init__(self) -> None:
        if self.latency_ns < 0 or not self.bandwidth_bytes_per_s > 0:
            raise PlatformError(
                f"Expected latency_ns >= 0 and bandwidth_bytes_per_s > 0 of link {self.src!r} -> "
                f"{self.dst!r}; got {self.latency_ns} and {self.bandwidth_bytes_per_s}."
            )
