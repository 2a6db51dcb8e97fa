"""Errors on a kind of device that the training never saw, from what was measured on the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from cost_rows import Row, baselines, errors, training_set

from tvm_sphinx.cost.model.profile import DeviceProfile
from tvm_sphinx.cost.model.regression import TrainingSet, predict_ns, train_booster
from tvm_sphinx.errors import SphinxError

_FOLDS = 5
#: What a prediction of a kernel on a device has not seen.
CASES = ("device", "kernel", "both")


def leave_one_device_out(
    rows: Sequence[Row], profiles: dict[str, DeviceProfile], seed: int
) -> dict[str, dict[str, Any]]:
    """Return the errors on each device by what the training has not seen, and those of baselines.

    The cases are "device" (the kernel was measured, on the other devices), "kernel" (the device has
    times of other kernels) and "both". Kernels are left out in five folds, whichever network they are
    of. The baselines are fitted without the device and without the kernel, as in "both".

    Raises
    ------
    SphinxError
        If there are rows of fewer than two devices.
    """
    distinct = list({(row.kernel, row.device, row.time_ns): row for row in rows}.values())
    data = training_set(distinct, profiles)
    device = np.array([row.device for row in distinct])
    names = [name for name in profiles if (device == name).any()]
    if len(names) < 2:
        raise SphinxError(f"Expected measured kernels of at least 2 devices; got those of {names}.")
    fold = _folds(data.groups, seed)
    report = {}
    for name in names:
        here = device == name
        predicted = {case: np.zeros(int(here.sum())) for case in (*CASES, "roofline", "linear")}
        predicted["device"] = predict_ns(train_booster(data.take(~here), seed), data.features[here])
        for number in range(int(fold.max()) + 1):
            held = here & (fold == number)
            if not held.any():
                continue
            for case, known in (("kernel", fold != number), ("both", (fold != number) & ~here)):
                predicted[case][held[here]] = _predict(data, known, held, seed)
            others = data.take((fold != number) & ~here)
            for how, values in baselines(others, data.features[held]).items():
                predicted[how][held[here]] = values
        times = data.times_ns[here]
        report[name] = {
            "rows": len(times),
            "trained_on": int((~here).sum()),
            **{case: errors(values, times) for case, values in predicted.items()},
        }
    return report


def _folds(kernels: Any, seed: int) -> Any:
    """Return the fold of each row, shape (N,); rows of one kernel are of one fold."""
    names, place = np.unique(kernels, return_inverse=True)
    if len(names) < 2:
        raise SphinxError(f"Expected at least 2 measured kernels; got {len(names)}.")
    return np.random.default_rng(seed).permutation(len(names))[place] % min(_FOLDS, len(names))


def _predict(data: TrainingSet, known: Any, held: Any, seed: int) -> Any:
    return predict_ns(train_booster(data.take(known), seed), data.features[held])


def print_devices(report: dict[str, dict[str, Any]]) -> None:
    """Print a line for each device and case."""
    print(
        f"\n{'device left out':16} {'not seen':8} {'rows':>5} {'others':>6}  {'error':>6} {'in 25%':>6} "
        f"{'Spearman':>8} {'sum':>5}  {'roofline':>8} {'linear':>7}"
    )
    for name, entry in report.items():
        for case in CASES:
            found, sizes = entry[case], f"{entry['rows']:>5} {entry['trained_on']:>6}"
            print(
                f"{name:16} {case:8} {sizes}  {found['error']:>6.1%} {found['within']:>6.0%} "
                f"{found['spearman']:>8.3f} {found['total']:>5.2f}  "
                f"{entry['roofline']['error']:>8.1%} {entry['linear']['error']:>7.1%}"
            )
