"""CPU time of reading the features of a model's kernels, and of predicting their times."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from kernel_sets import KernelSet

from tvm_sphinx.cost.measure.kernels import implement_for
from tvm_sphinx.cost.model.features import feature_rows, kernel_numbers
from tvm_sphinx.cost.model.model_file import CostModel
from tvm_sphinx.cost.model.profile import DeviceProfile
from tvm_sphinx.platform import Device

#: Goals of the issue: a model of this many tasks in this time, this many kernels in that.
TASKS, EXTRACT_S = 500, 1.0
KERNELS, DEVICES, PREDICT_S = 500, 4, 0.05
_REPEATS = 5


def measure_speed(
    model: CostModel,
    sets: dict[str, KernelSet],
    devices: dict[str, Device],
    profiles: dict[str, DeviceProfile],
) -> dict[str, Any]:
    """Return seconds of CPU time for each model, and for a prediction of 500 kernels on 4 devices.

    A model's distinct kernels are read once for each device, implemented before.
    """
    found: dict[str, Any] = {"models": {}}
    numbers: list[list[float]] = []
    numbers_of_device: list[list[float]] = []
    for name, kernels in sets.items():
        work = [
            (implement_for(kernel, device), kernel, profiles[label])
            for kernel in kernels.kernels.values()
            if not kernel.is_external
            for label, device in devices.items()
        ]
        seconds, read = _timed(
            lambda work=work: [
                kernel_numbers(function, kernel.weights, kernel.reuse_bytes, profile.shape)
                for function, kernel, profile in work
            ]
        )
        numbers += read
        numbers_of_device += [profile.numbers for *_, profile in work]
        found["models"][name] = {
            "tasks": kernels.graph.num_tasks,
            "kernels": len(read),
            "seconds": seconds,
        }
    if numbers:
        wanted = np.arange(KERNELS * DEVICES) % len(numbers)
        raw, profile_rows = np.array(numbers)[wanted], np.array(numbers_of_device)[wanted]
        times = [
            _timed(lambda: model.predict(feature_rows(raw, profile_rows)))[0] for _ in range(_REPEATS)
        ]
        found["predict_s"] = float(np.median(times))
    return found


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the CPU time of all threads that a call takes, in s, and its result."""
    begin = time.process_time()
    result = call()
    return time.process_time() - begin, result


def print_speed(found: dict[str, Any]) -> None:
    """Print the largest models and the prediction, beside the goals."""
    large = {name: entry for name, entry in found["models"].items() if entry["tasks"] >= TASKS}
    slowest = sorted(found["models"], key=lambda name: -found["models"][name]["seconds"])[:1]
    print()
    for name in dict.fromkeys([*large, *slowest]):
        entry = found["models"][name]
        print(
            f"features of {name}: {entry['tasks']} tasks, {entry['kernels']} kernels with devices, "
            f"{entry['seconds']:.3f} s of CPU time"
        )
    met = sum(entry["seconds"] < EXTRACT_S for entry in large.values())
    print(f"features of {TASKS} tasks within {EXTRACT_S} s: {met} of {len(large)} models")
    if "predict_s" in found:
        print(
            f"prediction of {KERNELS} kernels x {DEVICES} devices: {1e3 * found['predict_s']:.1f} ms of "
            f"CPU time, goal {1e3 * PREDICT_S:.0f} ms"
        )
