"""Where a program's steps run when GPUs take part: workers, feeders and streams. Knows no TVM.

A list is what one of them goes through in order. Lists of CPU workers come first, one for each core;
then one for each feeder, the thread that issues what a GPU does; then one for each stream of a GPU: its
compute streams, one for each device that it is, and a stream for the copies in each direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import UnsupportedError
from ..platform import Device, Platform
from .program import COMPILED, PINNED, LaneProgram, Step

#: What a stream does: compute, copy to its GPU, copy from it.
COMPUTE, COPY_IN, COPY_OUT = "compute", "in", "out"


@dataclass(frozen=True)
class Stream:
    """A stream of a GPU (see `Places.gpus`); ``device`` is the platform's device that computes in it."""

    gpu: int
    role: str
    device: int = -1


@dataclass(frozen=True)
class Places:
    """Which lists the steps of a program stand in.

    Parameters
    ----------
    cores
        Core of each CPU worker.
    gpus
        Runtime devices of the GPUs; the feeder of GPU i is worker ``len(cores) + i``.
    streams
        Stream i goes through list ``num_workers + i``.
    device_workers
        For each device of the platform its CPU workers, the first of which leads.
    of_step
        For each step its lists; the first one runs it.
    step_speeds
        What each core of a step's device can do for it in comparison with the others; empty of a GPU.
    """

    cores: tuple[int, ...]
    gpus: tuple[str, ...]
    streams: tuple[Stream, ...]
    device_workers: tuple[tuple[int, ...], ...]
    of_step: tuple[tuple[int, ...], ...] = field(repr=False)
    step_speeds: tuple[tuple[float, ...], ...] = field(repr=False)

    @property
    def num_workers(self) -> int:
        """Number of threads: CPU workers and feeders."""
        return len(self.cores) + len(self.gpus)

    @property
    def num_lists(self) -> int:
        """Number of lists."""
        return self.num_workers + len(self.streams)

    def stream(self, place: int) -> Stream | None:
        """Return the stream that goes through a list; None for a thread's."""
        return self.streams[place - self.num_workers] if place >= self.num_workers else None

    def feeder(self, place: int) -> int | None:
        """Return the feeder's list that a list's steps are issued from; None for a CPU worker."""
        stream = self.stream(place)
        if stream is not None:
            return len(self.cores) + stream.gpu
        return place if place >= len(self.cores) else None


def find_places(program: LaneProgram, platform: Platform) -> Places:
    """Return the lists of a program whose steps name devices of a platform.

    Raises
    ------
    UnsupportedError
        If a step runs on a device that is neither a CPU nor a CUDA GPU.
    """
    devices = platform.devices
    used = sorted({step.device for step in program.steps})
    for device in used:
        if not devices[device].is_cpu and not devices[device].runtime.startswith("cuda:"):
            raise UnsupportedError(
                f"Lanes run CPU and CUDA devices; device {devices[device].name!r} is "
                f"{devices[device].runtime}."
            )
    cores = tuple(dict.fromkeys(core for device in used for core in devices[device].cores))
    gpus = tuple(sorted({devices[device].runtime for device in used if not devices[device].is_cpu}))
    if not cores and not gpus:
        # A program without steps still has one worker, which makes it run like any other.
        cores = devices[platform.host_index].cores[:1]
    device_workers = tuple(
        tuple(cores.index(core) for core in device.cores) if index in used else ()
        for index, device in enumerate(devices)
    )
    keys = [_stream_key(program, platform, gpus, step) for step in program.steps]
    streams = tuple(sorted({key for key in keys if key is not None}, key=_by_role))
    num_workers = len(cores) + len(gpus)
    of_step: list[tuple[int, ...]] = []
    for step, key in zip(program.steps, keys, strict=True):
        if key is not None:
            of_step.append((num_workers + streams.index(key),))
        elif step.kind == "stage":
            of_step.append((len(cores) + gpus.index(devices[step.device].runtime),))
        else:
            of_step.append(device_workers[step.device])
    speeds = tuple(_speeds(devices[step.device], step) for step in program.steps)
    return Places(cores, gpus, streams, device_workers, tuple(of_step), speeds)


def _speeds(device: Device, step: Step) -> tuple[float, ...]:
    of_memory = device.core_memory_speeds if step.memory_bound else ()
    return of_memory or device.core_speeds or (1.0,) * len(device.cores)


def _stream_key(
    program: LaneProgram, platform: Platform, gpus: Sequence[str], step: Step
) -> Stream | None:
    """Return the stream that a step runs in; None if a thread runs it."""
    device = platform.devices[step.device]
    if device.is_cpu or step.kind == "stage":
        return None
    gpu = gpus.index(device.runtime)
    if step.kind in COMPILED:
        return Stream(gpu, COMPUTE, step.device)
    if step.kind != "copy":
        raise UnsupportedError(f"GPUs run kernels and copies; {step.name!r} is of kind {step.kind!r}.")
    source, target = (program.buffers[program.tensors[t].buffer].memory for t in step.operands)
    if (source, target) == (PINNED, device.runtime):
        return Stream(gpu, COPY_IN)
    if (source, target) == (device.runtime, PINNED):
        return Stream(gpu, COPY_OUT)
    raise UnsupportedError(
        f"A GPU copies between its memory and pinned memory; {step.name!r} copies {source} to {target}."
    )


def _by_role(stream: Stream) -> tuple[int, int, int]:
    return stream.gpu, (COMPUTE, COPY_IN, COPY_OUT).index(stream.role), stream.device
