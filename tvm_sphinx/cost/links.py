"""Measure what it takes to hand a tensor from one device to another. [TVM]"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from .._tvm import tvm
from ..errors import UnsupportedError
from ..platform import Device, Link, Platform
from ..runtime.handover import measure_handover
from ..targets import runtime_device
from .progress import Progress
from .records import median_and_spread
from .table import fit_link

_COPY_BYTES = (1 << 12, 1 << 16, 1 << 20, 1 << 23)


def measure_links(platform: Platform, progress: Progress | None = None) -> tuple[Any, Any]:
    """Return the latency (ns) and the bandwidth (bytes/s) of every ordered pair of devices, each (D, D).

    Links that the platform gives are taken from it; others are measured, once for each kind of pair.
    CPU devices share their memory: handing a tensor over takes the time to wake the lane that waits for
    it, and no copy.

    Raises
    ------
    UnsupportedError
        If a device is not at hand to be measured, and the platform does not give its links.
    """
    num_devices = len(platform.devices)
    latency = np.zeros((num_devices, num_devices), dtype=np.int64)
    bandwidth = np.full((num_devices, num_devices), math.inf)
    given = {(link.src, link.dst): link for link in platform.links}
    measured: dict[tuple[object, ...], Link] = {}
    pairs = [(i, j) for i in range(num_devices) for j in range(num_devices) if i != j]
    for done, (i, j) in enumerate(pairs):
        src, dst = platform.devices[i], platform.devices[j]
        link = given.get((src.name, dst.name))
        if link is None:
            kind = _kind_of_pair(src, dst)
            if kind not in measured:
                measured[kind] = _measure_link(src, dst)
            link = measured[kind]
        latency[i, j], bandwidth[i, j] = link.latency_ns, link.bandwidth_bytes_per_s
        if progress:
            progress("measure copies", done + 1, len(pairs))
    return latency, bandwidth


def _kind_of_pair(src: Device, dst: Device) -> tuple[object, ...]:
    """Return what pairs whose copies cost the same have in common."""
    shared = bool(set(src.cores) & set(dst.cores))
    return src.memory_space, dst.memory_space, len(src.cores), len(dst.cores), shared


def _measure_link(src: Device, dst: Device) -> Link:
    """Measure a hand-over in shared memory, else copies at several sizes, as the VM makes them."""
    for device in (src, dst):
        if not runtime_device(device.runtime).exist:
            raise UnsupportedError(
                f"Device {device.name!r} ({device.runtime}) is not at hand to measure copies from "
                f"{src.name!r} to {dst.name!r}; give this link in the platform file."
            )
    if src.memory_space == dst.memory_space == "host":
        handover_ns = measure_handover(Platform((src, dst)))[src.name, dst.name]
        return Link(src.name, dst.name, handover_ns, math.inf)
    source, target = runtime_device(src.runtime), runtime_device(dst.runtime)
    times = []
    for size in _COPY_BYTES:
        data = tvm.runtime.empty((size,), "uint8", source)
        times.append(_time_copy(data, target))
    latency, bandwidth = fit_link(_COPY_BYTES, times)
    return Link(src.name, dst.name, latency, bandwidth)


def _time_copy(data: Any, target: Any) -> float:
    samples = []
    for _ in range(9):
        begin = time.perf_counter_ns()
        data.copyto(target)
        target.sync()
        samples.append(float(time.perf_counter_ns() - begin))
    return median_and_spread(samples)[0]
