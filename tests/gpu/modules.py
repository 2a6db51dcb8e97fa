"""Platforms with GPUs, and modules placed on them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.runtime.modules import cores, flat, list_schedule
from tvm_sphinx.frontend.extract import extract_task_graph
from tvm_sphinx.frontend.lower import lower_for_platform
from tvm_sphinx.platform import Device, Platform
from tvm_sphinx.platform.targets import cuda_devices, host_target
from tvm_sphinx.relax_pass import annotate_schedule
from tvm_sphinx.runtime.build import build_image
from tvm_sphinx.runtime.executable import ConcurrentExecutable
from tvm_sphinx.runtime.image import Image


def platform(num_gpus: int = 1, streams: int = 1, num_cpus: int = 1) -> Platform:
    """Return some CPU devices of one core, and GPUs of some streams each, as many as there are."""
    targets = cuda_devices()
    devices = [
        Device(f"cpu{i}", host_target(), "cpu:0", (core,)) for i, core in enumerate(cores()[:num_cpus])
    ]
    devices += [
        Device(f"gpu{gpu}.{stream}", targets[gpu], f"cuda:{gpu}")
        for gpu in range(min(num_gpus, len(targets)))
        for stream in range(streams)
    ]
    return Platform(tuple(devices))


def image(module: Any, where: Platform, *, device: int | None = None, seed: int = 0) -> Image:
    """Return a module compiled for a platform, on one device or in a random placement."""
    extraction = extract_task_graph(lower_for_platform(module, where))
    num_tasks = extraction.graph.num_tasks
    placement = np.random.default_rng(seed).integers(0, len(where.devices), num_tasks).tolist()
    if device is not None:
        placement = [device] * num_tasks
    schedule = list_schedule(extraction, where, placement)
    return build_image(annotate_schedule(extraction, schedule, where), where, schedule)


def assert_agree(results: Any, expected: Any) -> None:
    """Check that results are those of another processor: alike, but not to the bit."""
    for result, want in zip(flat(results), flat(expected), strict=True):
        assert result.shape == want.shape
        np.testing.assert_allclose(result, want, rtol=1e-3, atol=1e-4)


def on_cpu(module: Any) -> ConcurrentExecutable:
    """Return a module compiled for the first core alone."""
    return ConcurrentExecutable(image(module, platform(0), device=0))
