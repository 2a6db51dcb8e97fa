"""Features of a kernel on a device: its terms, the device's rates, and the time of each part alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .profile import PROFILE_NAMES
from .terms import TERM_NAMES, CoreShape, kernel_terms
from .walk import read_nest

FloatArray = npt.NDArray[np.float64]

#: Version of what the features mean; a model of another version is refused.
FEATURE_VERSION = 2
_TIME_NAMES = ("arithmetic", "access", "scalar", "near", "third", "cold", "overhead")
FEATURE_NAMES = (
    "reuse_bytes",
    *TERM_NAMES,
    *PROFILE_NAMES,
    *(f"{name}_ns" for name in _TIME_NAMES),
    "roofline_ns",
    "analytic_ns",
    *(f"{name}_part" for name in _TIME_NAMES),
    "intensity",
)
_TERM = {name: 1 + place for place, name in enumerate(TERM_NAMES)}
_PROFILE = {name: 1 + len(TERM_NAMES) + place for place, name in enumerate(PROFILE_NAMES)}
# Issue slots of a multiply-add that one instruction is worth, by rough throughputs (uops.info).
_ARITHMETIC = {
    "add": 0.5,
    "mul": 0.5,
    "div": 8.0,
    "max": 0.5,
    "compare": 0.5,
    "select": 0.5,
    "branch": 2.0,
    "root": 4.0,
    "library": 40.0,
    "lane_index": 4.0,
    "bit": 0.5,
    "cast": 0.5,
}
_ACCESS = {
    "read_contiguous": 1.0,
    "read_constant": 1.0,
    "read_strided": 1.0,
    "read_gather": 1.0,
    "write_contiguous": 2.0,
    "write_constant": 2.0,
    "write_strided": 2.0,
}


def kernel_numbers(
    function: Any, weights: Sequence[int], reuse_bytes: int, shape: CoreShape
) -> list[float]:
    """Return what a kernel that is scheduled for a device of this shape is described by.

    These are the bytes between two uses of its weights, and its terms.
    """
    reuse = float(reuse_bytes) if weights else 0.0
    return [reuse, *kernel_terms(read_nest(function), weights, shape)]


def feature_rows(numbers: FloatArray, profiles: FloatArray) -> FloatArray:
    """Return the features of kernels on devices, shape (N, F) float64, logarithms of (1 + value).

    Parameters
    ----------
    numbers : (N, K) float64
        What `kernel_numbers` returns, one row for each kernel.
    profiles : (N, P) float64
        ``DeviceProfile.numbers`` of the device of each row.
    """
    raw = np.concatenate([numbers, profiles], axis=1)
    times = _times_ns(raw)
    roofline, analytic = _roofline_ns(raw), analytic_ns(times)
    parts = times / np.maximum(analytic, 1e-9)[:, None]
    moved = raw[:, _TERM["input_bytes"]] + raw[:, _TERM["output_bytes"]] + raw[:, _TERM["cold_bytes"]]
    intensity = raw[:, _TERM["all_flops"]] / np.maximum(moved, 1.0)
    logs = np.log1p(np.concatenate([raw, times], axis=1))
    sums = np.log(roofline)[:, None], np.log(analytic)[:, None]
    return np.concatenate([logs, *sums, parts, np.log1p(intensity)[:, None]], axis=1)


def analytic_ns(times: FloatArray) -> FloatArray:
    """Return the time of a kernel whose parts overlap ideally: what the model corrects, shape (N,)."""
    arithmetic, access, scalar, near, third, cold, overhead = times.T
    longest: FloatArray = np.maximum.reduce([np.maximum(arithmetic, access) + scalar, near, third])
    total: FloatArray = longest + cold + overhead
    return total


def _times_ns(raw: FloatArray) -> FloatArray:
    """Return the time of each part of a kernel by the device's rates, shape (N, 7)."""
    cores = np.maximum(raw[:, _PROFILE["cores"]], 1.0)
    lanes = raw[:, _PROFILE["vector_bytes"]] / 4.0
    per_ns = raw[:, _PROFILE["gflop_per_s"]] / (2.0 * cores * lanes)  # vector multiply-adds of a core
    parallel = np.where(raw[:, _TERM["launches"]] > 0, cores, 1.0)
    near = raw[:, _PROFILE["near_gb_per_s"]] / cores
    memory = raw[:, _PROFILE["memory_gb_per_s"]] / cores
    cold = raw[:, _PROFILE["cold_gb_per_s"]] / cores * parallel
    launch_ns = raw[:, _TERM["launches"]] * raw[:, _PROFILE["launch_ns"]]
    return np.stack(
        [
            _issue_slots(raw, "vector", _ARITHMETIC) / per_ns,
            _issue_slots(raw, "vector", _ACCESS) / per_ns,
            _issue_slots(raw, "scalar", {**_ARITHMETIC, **_ACCESS}) / per_ns,
            raw[:, _TERM["l1_bytes"]] / (4.0 * near),
            raw[:, _TERM["l2_bytes"]] / (3.0 * memory),
            raw[:, _TERM["cold_bytes"]] / cold,
            raw[:, _PROFILE["call_ns"]] + launch_ns,
        ],
        axis=1,
    )


def _issue_slots(raw: FloatArray, prefix: str, weights: dict[str, float]) -> FloatArray:
    """Return the instructions of a kernel, weighted by what each costs, shape (N,)."""
    total: FloatArray = np.zeros(len(raw))
    for name, weight in weights.items():
        place = _TERM.get(f"{prefix}_{name}")
        if place is not None:
            total += weight * raw[:, place]
    return total


def _roofline_ns(raw: FloatArray) -> FloatArray:
    """Return operations over the peak rate, or bytes over the bandwidth where that is more."""
    moved = raw[:, _TERM["input_bytes"]] + raw[:, _TERM["output_bytes"]] + raw[:, _TERM["cold_bytes"]]
    compute = raw[:, _TERM["all_flops"]] / raw[:, _PROFILE["gflop_per_s"]]
    result: FloatArray = np.maximum(compute, moved / raw[:, _PROFILE["memory_gb_per_s"]])
    return np.maximum(result, 1.0)
