"""Measure what it takes to hand a tensor from one device to another. [TVM]"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..._tvm import tvm
from ...errors import UnsupportedError
from ...notice import warn
from ...platform import Device, Platform
from ...platform.machine import usable_cores
from ...platform.targets import host_target, is_absent, is_at_hand, runtime_device
from ...progress import Progress
from ...scheduling.problem import Int64Array
from ..records.classes import class_of, class_of_pair
from ..records.store import DeviceClass, Record, RecordStore, median_and_spread
from ..table import LinkFit, fit_link
from .gpu_links import crossing_samples, staging_samples, stream_samples
from .handover import fetch_samples, handover_samples
from .roofline import needs_estimate
from .sampling import host_load

_COPY_BYTES = (1 << 12, 1 << 16, 1 << 20, 1 << 23)
_COPIES = 9
_COPY, _CROSSING = "copy of {} bytes", "crossing of {} bytes"
_HANDOVER = "hand-over"
_FETCHED_BYTES = 1 << 18
_FETCH = f"fetch of {_FETCHED_BYTES} bytes"
_STAGED_BYTES = 1 << 20
_STAGING = f"staging of {_STAGED_BYTES} bytes"
# Of a tensor, no more than this is in another core's cache: the rest has left it for where it is as far
# for the core that wrote it. With second-level caches of 2 MB, 1 MB took 25 us longer, 2 MB none.
_MOST_FETCHED_BYTES = 1 << 20


class Links(NamedTuple):
    """What a copy or a hand-over costs for each ordered pair of devices, shape (D, D) each.

    Latency (ns), bandwidth (bytes/s), the relative error of both, and the bytes that are moved at most;
    and how many kinds of pair were estimated because there was no time to measure them.
    ``staging_bytes_per_s``, shape (D,), is what a GPU's feeder copies of a caller's memory to pinned
    memory or back, and infinite where nothing is copied.
    """

    latency_ns: Int64Array
    bandwidth_bytes_per_s: npt.NDArray[np.float64]
    error: npt.NDArray[np.float64]
    most_bytes: npt.NDArray[np.float64]
    num_estimated: int = 0
    staging_bytes_per_s: npt.NDArray[np.float64] = np.empty(0)


#: What a hand-over between cores and a copy between memories take where nobody measured them: an error
#: of their own size, which says that they are known no better.
ESTIMATED_HANDOVER = LinkFit(1_000, 1e10, 1.0)
ESTIMATED_COPY = LinkFit(20_000, 1e10, 1.0)


def measure_links(
    platform: Platform,
    records: RecordStore,
    progress: Progress | None = None,
    end_s: float = math.inf,
) -> Links:
    """Return what copies and hand-overs between every ordered pair of devices cost.

    Links that the platform gives are taken from it, others from the records; what is on neither is
    measured, once for each kind of pair, and recorded. CPU devices share their memory: handing a tensor
    over takes the time to wake the lane that waits for it, and to fetch what is in another core's cache.
    No kind of pair is begun once ``time.monotonic()`` has reached ``end_s``: the rest is estimated. So
    are those of a device that is not at hand, but that the platform tells enough of.

    Raises
    ------
    UnsupportedError
        If a device is not at hand to be measured, and the platform gives neither its links nor its peaks
        or card.
    """
    num_devices = len(platform.devices)
    latency = np.zeros((num_devices, num_devices), dtype=np.int64)
    bandwidth = np.full((num_devices, num_devices), math.inf)
    error = np.zeros((num_devices, num_devices))
    most = np.full((num_devices, num_devices), math.inf)
    given = {(link.src, link.dst): link for link in platform.links}
    fits: dict[str, LinkFit] = {}
    estimated = 0
    pairs = [(i, j) for i in range(num_devices) for j in range(num_devices) if i != j]
    between = [(platform.devices[i], platform.devices[j]) for i, j in pairs]
    unknown = [_without_helpers(*ends) for ends in between if (ends[0].name, ends[1].name) not in given]
    one_of_each = {str(class_of_pair(*ends)): ends for ends in unknown}
    is_known = all(_is_on_record(*ends, records) for ends in one_of_each.values())
    stage = f"measure copies{', all on record' * is_known}"
    for done, (i, j) in enumerate(pairs):
        src, dst = platform.devices[i], platform.devices[j]
        link = given.get((src.name, dst.name))
        if link is not None:
            fit = LinkFit(link.latency_ns, link.bandwidth_bytes_per_s, 0.0)
        else:
            src, dst = _without_helpers(src, dst)
            kind = str(class_of_pair(src, dst))
            if kind not in fits:
                may_measure = time.monotonic() < end_s and not _is_guessed(src, dst)
                if may_measure or _is_on_record(src, dst, records):
                    fits[kind] = _fit(src, dst, records)
                else:
                    stays = _share_memory(src, dst) or src.runtime == dst.runtime
                    fits[kind] = ESTIMATED_HANDOVER if stays else ESTIMATED_COPY
                    estimated += 1
            fit = fits[kind]
        latency[i, j], bandwidth[i, j], error[i, j] = fit
        if link is None and _share_memory(src, dst):
            most[i, j] = _MOST_FETCHED_BYTES
        if progress:
            progress(stage, done + 1, len(pairs))
    staging = np.array([_staging(device, records, end_s) for device in platform.devices])
    return Links(latency, bandwidth, error, most, estimated, staging)


def _without_helpers(src: Device, dst: Device) -> tuple[Device, Device]:
    """Return the ends of a hand-over between CPU devices with two cores of each at most.

    It is the leader of a team that waits for a tensor, however many cores help it afterwards: so a
    machine of many cores has no more kinds of pair than one of two. Ends that share cores still do.
    """
    if not _share_memory(src, dst) or src.rpc_key is not None:
        return src, dst
    shared = [core for core in src.cores if core in dst.cores]
    return _shortened(src, shared[:1]), _shortened(dst, shared[:1])


def _shortened(device: Device, kept: list[int]) -> Device:
    """Return a device with two of its cores at most, its leader and one of those that are kept."""
    if len(device.cores) <= 2:
        return device
    chosen = list(dict.fromkeys([device.cores[0], *kept, *device.cores]))[:2]
    at = [device.cores.index(core) for core in chosen]
    return replace(
        device,
        cores=tuple(chosen),
        core_kinds=tuple(device.core_kinds[i] for i in at if device.core_kinds),
        core_speeds=tuple(device.core_speeds[i] for i in at if device.core_speeds),
        core_memory_speeds=tuple(device.core_memory_speeds[i] for i in at if device.core_memory_speeds),
    )


def _staging(device: Device, records: RecordStore, end_s: float) -> float:
    """Return the bytes per second of a GPU's staging; infinite where it is not known."""
    if not _is_cuda(device):
        return math.inf
    where, version = class_of(device), str(tvm.__version__)
    known = records.get(_STAGING, str(where), version, "copy")
    if known is None:
        if not is_at_hand(device) or time.monotonic() >= end_s:
            return math.inf
        samples = staging_samples(device, _STAGED_BYTES)
        known = Record(_STAGING, where, version, samples, host_load(), kind="copy")
        records.add(known)
    middle, _ = median_and_spread(known.samples_ns)
    return 1e9 * _STAGED_BYTES / max(1, middle)


def _is_on_record(src: Device, dst: Device, records: RecordStore) -> bool:
    """Return whether all is on record that `_fit` would measure of a kind of pair."""
    if _share_memory(src, dst) and src.rpc_key is not None:
        return False  # what stands for it is found out when it is measured
    names = _measured_names(src, dst)
    where, version = str(class_of_pair(src, dst)), str(tvm.__version__)
    return all(records.get(name, where, version, "copy") is not None for name in names)


def _measured_names(src: Device, dst: Device) -> list[str]:
    """Return the names of the records that a kind of pair is known by."""
    if _share_memory(src, dst):
        return [_HANDOVER, _FETCH]
    if src.runtime == dst.runtime and _is_cuda(src):
        return [_HANDOVER]
    name = _CROSSING if _is_cuda(src) or _is_cuda(dst) else _COPY
    return [name.format(size) for size in _COPY_BYTES]


def _fit(src: Device, dst: Device, records: RecordStore) -> LinkFit:
    """Return what is known of a kind of pair, from records or measured now."""
    if _share_memory(src, dst):
        if src.rpc_key is not None:
            src, dst = _stand_ins(src, dst)
        middle, spread = median_and_spread(_record(_HANDOVER, src, dst, records))
        fetch_ns, _ = median_and_spread(_record(_FETCH, src, dst, records))
        bandwidth = 1e9 * _FETCHED_BYTES / fetch_ns if fetch_ns > 0 else math.inf
        return LinkFit(middle, bandwidth, spread / max(1, middle))
    if src.runtime == dst.runtime and _is_cuda(src):
        middle, spread = median_and_spread(_record(_HANDOVER, src, dst, records))
        return LinkFit(middle, math.inf, spread / max(1, middle))
    names = _measured_names(src, dst)
    times = [median_and_spread(_record(name, src, dst, records))[0] for name in names]
    return fit_link(_COPY_BYTES, times)


def _is_guessed(src: Device, dst: Device) -> bool:
    """Return whether a device is not at hand, and the platform is content with estimates for it."""
    ends = (src, dst)
    return any(needs_estimate(end) or (is_absent(end) and end.card is not None) for end in ends)


def _is_cuda(device: Device) -> bool:
    return device.rpc_key is None and device.runtime.startswith("cuda:")


def _share_memory(src: Device, dst: Device) -> bool:
    return src.memory_space == dst.memory_space == "host" and src.rpc_key == dst.rpc_key


def _stand_ins(src: Device, dst: Device) -> tuple[Device, Device]:
    """Return devices of this machine whose hand-over stands for that of two remote ones."""
    cores = usable_cores()
    warn(
        f"The hand-over between remote devices {src.name!r} and {dst.name!r} cannot be measured from "
        f"here; that between lanes of this machine is taken. Give the link in the platform file."
    )
    shared = bool(set(src.cores) & set(dst.cores))
    ends = (cores[0], cores[0] if shared else cores[-1])
    first, second = (Device(f"end{i}", host_target(), "cpu:0", (core,)) for i, core in enumerate(ends))
    return first, second


def _record(name: str, src: Device, dst: Device, records: RecordStore) -> tuple[float, ...]:
    """Return the samples of a copy or hand-over, from the records or measured and recorded now."""
    where: DeviceClass = class_of_pair(src, dst)
    version = str(tvm.__version__)
    known = records.get(name, str(where), version, "copy")
    if known is None:
        samples = _measure(name, src, dst)
        known = Record(name, where, version, samples, host_load(), kind="copy")
        records.add(known)
    return known.samples_ns


def _measure(name: str, src: Device, dst: Device) -> tuple[float, ...]:
    for device in (src, dst):
        if not is_at_hand(device):
            raise UnsupportedError(
                f"Device {device.name!r} ({device.runtime}) is not at hand to measure copies from "
                f"{src.name!r} to {dst.name!r}; give this link in the platform file."
            )
    if name == _HANDOVER:
        if _is_cuda(src):
            return stream_samples(src, dst)
        return handover_samples(Platform((src, dst)), 0, 1)
    if name == _FETCH:
        return fetch_samples(Platform((src, dst)), 0, 1, _FETCHED_BYTES)
    size = int(name.split()[2])
    if not _is_cuda(src) and not _is_cuda(dst):
        return time_copies(runtime_device(src.runtime), runtime_device(dst.runtime), size)
    if src.is_cpu or dst.is_cpu:
        return crossing_samples(src, dst, size)
    # From one GPU to another by way of the host, as the lanes do it.
    host = Device("host", host_target(), "cpu:0", usable_cores()[:1])
    out, back = crossing_samples(src, host, size), crossing_samples(host, dst, size)
    return tuple(map(sum, zip(out, back, strict=True)))


def time_copies(source: Any, target: Any, size: int) -> tuple[float, ...]:
    """Return the times in ns of copies of ``size`` bytes between two TVM devices, after a first one."""
    data = tvm.runtime.empty((size,), "uint8", source)
    copied = tvm.runtime.empty((size,), "uint8", target)
    gpu = target if source.dlpack_device_type() == tvm.cpu().dlpack_device_type() else source
    samples = []
    for _ in range(_COPIES + 1):
        begin = time.perf_counter_ns()
        data.copyto(copied)
        gpu.sync()
        samples.append(float(time.perf_counter_ns() - begin))
    return tuple(samples[1:])
