"""Measured kernels of models and drawn ones on several devices, and errors of what predicts them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from kernel_sets import KernelSet

from tvm_sphinx._tvm import tvm
from tvm_sphinx.cost.measure.kernels import (
    MeasureConfig,
    implement_for,
    implementation_id,
    measure_kernels,
)
from tvm_sphinx.cost.model.features import FEATURE_NAMES, feature_rows, kernel_numbers
from tvm_sphinx.cost.model.profile import DeviceProfile
from tvm_sphinx.cost.model.regression import TrainingSet
from tvm_sphinx.cost.model.terms import TERM_NAMES
from tvm_sphinx.cost.records.classes import class_of
from tvm_sphinx.cost.records.store import RecordStore, median_and_spread
from tvm_sphinx.errors import SphinxError
from tvm_sphinx.frontend.extract import Kernel
from tvm_sphinx.platform import Device

#: Source of the rows of drawn kernels.
DRAWN = "drawn"
_ROOFLINE = FEATURE_NAMES.index("roofline_ns")
# What a plain linear model sees: logarithms of counts and of the device's rates, no times.
_PLAIN = slice(0, 1 + len(TERM_NAMES) + 12)


@dataclass(frozen=True)
class Row:
    """A kernel of a source (a model, or the drawn ones) on a device."""

    source: str
    kernel: str
    device: str
    numbers: list[float]
    time_ns: float
    spread: float


def training_set(rows: Sequence[Row], profiles: dict[str, DeviceProfile]) -> TrainingSet:
    """Return the features and times of rows, in their order; a kernel is a group."""
    return TrainingSet(
        feature_rows(
            np.array([row.numbers for row in rows]),
            np.array([profiles[row.device].numbers for row in rows]),
        ),
        np.array([row.time_ns for row in rows]),
        np.array([row.kernel for row in rows]),
    )


def baselines(known: TrainingSet, features: Any) -> dict[str, Any]:
    """Return the times that a roofline and a linear model, fitted to known kernels, predict."""
    return {
        "roofline": np.exp(features[:, _ROOFLINE]),
        "linear": _linear(known.features[:, _PLAIN], known.times_ns, features[:, _PLAIN]),
    }


def read_rows(
    sets: dict[str, KernelSet],
    drawn: Sequence[Kernel],
    devices: dict[str, Device],
    profiles: dict[str, DeviceProfile],
    records: RecordStore,
    *,
    measure: bool,
) -> list[Row]:
    """Return all kernels with their times; those that are not on record are measured, or left out.

    Raises
    ------
    SphinxError
        If none has a time.
    """
    sources = [(name, kernel) for name, kernels in sets.items() for kernel in kernels.kernels.values()]
    sources += [(DRAWN, kernel) for kernel in drawn]
    if measure:
        _measure(sets, drawn, devices, records)
    rows = []
    for source, kernel in sources:
        for name, device in devices.items():
            row = None if kernel.is_external else _row(kernel, device, records)
            if row is not None:
                function, time_ns, spread = row
                shape = profiles[name].shape
                numbers = kernel_numbers(function, kernel.weights, kernel.reuse_bytes, shape)
                rows.append(Row(source, kernel.id, name, numbers, time_ns, spread))
    if not rows:
        raise SphinxError("Expected measured kernels; none is on record for these models and devices.")
    return rows


def _measure(
    sets: dict[str, KernelSet],
    drawn: Sequence[Kernel],
    devices: dict[str, Device],
    records: RecordStore,
) -> None:
    """Put on record what is not: each drawn kernel on one device, a model's kernels on all."""
    for number, kernel in enumerate(drawn):
        device = list(devices.values())[number % len(devices)]
        measure_kernels([kernel], device, records, MeasureConfig())
    for name, kernels in sets.items():
        ours = [kernel for kernel in kernels.kernels.values() if not kernel.is_external]
        for device in devices.values():
            begin = time.monotonic()
            measure_kernels(ours, device, records, MeasureConfig())
            print(f"{name} on {device.name}: {time.monotonic() - begin:.1f} s", flush=True)


def _row(kernel: Kernel, device: Device, records: RecordStore) -> tuple[Any, float, float] | None:
    function = implement_for(kernel, device)
    key = implementation_id(kernel, function, device)
    record = records.get(key, str(class_of(device)), str(tvm.__version__))
    if record is None or not record.samples_ns:
        return None
    median, spread = median_and_spread(record.samples_ns)
    return function, float(max(1, median)), spread / max(1, median)


def noise(rows: Sequence[Row]) -> float:
    """Return the median spread of the samples, relative."""
    return float(np.median([row.spread for row in rows]))


def errors(predicted: Any, measured: Any) -> dict[str, float]:
    """Return how far predictions are off, by the measures of the issue."""
    error = np.abs(predicted - measured) / measured
    return {
        "error": float(np.median(error)),
        "within": float((error <= 0.25).mean()),
        "spearman": _spearman(predicted, measured),
        "total": float(predicted.sum() / measured.sum()),
    }


def _spearman(first: Any, second: Any) -> float:
    if len(first) < 3:
        return 1.0
    ranks = [_ranks(values) for values in (first, second)]
    return float(np.corrcoef(*ranks)[0, 1])


def _ranks(values: Any) -> Any:
    """Return ranks, the mean of the places for ties."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[inverse]


def _linear(features: Any, times: Any, wanted: Any) -> Any:
    """Fit the logarithm of the time by ridge regression on the logarithms of the counts."""
    mean, scale = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-9)
    known = np.concatenate([(features - mean) / scale, np.ones((len(features), 1))], axis=1)
    weights = np.linalg.solve(known.T @ known + 1e-2 * np.eye(known.shape[1]), known.T @ np.log(times))
    asked = np.concatenate([(wanted - mean) / scale, np.ones((len(wanted), 1))], axis=1)
    return np.exp(np.clip(asked @ weights, 0.0, 34.0))
