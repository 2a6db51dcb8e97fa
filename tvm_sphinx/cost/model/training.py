"""Make a cost model of this machine from drawn kernels and all that is on record. [TVM]"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence

import numpy as np

from ..._tvm import tvm
from ...errors import SphinxError
from ...frontend.extract import Kernel
from ...notice import warn
from ...platform import Device
from ...platform.detect import detect_platform, unlike_cpus
from ...platform.device import CostClass, one_of_each_class
from ...platform.targets import device_target
from ...progress import Progress
from ..choose.costing import measure_rules
from ..measure.kernel_timing import MeasureConfig
from ..measure.kernels import implement_for, implementation_id, measure_kernels
from ..records.classes import class_of
from ..records.kernel_archive import KernelArchive, read_function
from ..records.kernel_lines import ArchivedKernel
from ..records.store import Record, RecordStore, median_and_spread
from .features import feature_rows, kernel_numbers
from .generate import draw_kernels
from .model_file import CostModel
from .profile import PROBE, DeviceProfile, measure_profile
from .regression import FOLDS, TrainingSet, cross_validate, held_out, train_booster, train_spread
from .terms import CoreShape

# Kernels that are built together, and so lost together if a build is cut short.
_BATCH = 32
_FEWEST_ROWS = 1


def default_devices() -> tuple[Device, ...]:
    """Return unlike CPU devices of this machine, each kind once, for a model of all of them."""
    found = [*detect_platform().devices, *unlike_cpus().devices]
    return tuple(one_of_each_class(device for device in found if device.is_cpu))


def train_model(
    devices: Sequence[Device],
    records: RecordStore,
    *,
    samples: int = 900,
    budget_s: float | None = None,
    seed: int = 0,
    config: MeasureConfig | None = None,
    progress: Progress | None = None,
) -> CostModel:
    """Return a cost model of CPU devices, learned from drawn kernels and from those of models.

    What is on record is not measured again, so a run that was cut short goes on where it was. Equal
    records and an equal seed give equal models.

    Parameters
    ----------
    devices
        CPU devices to measure on, of one or several kinds.
    records
        Measured times, used and extended, with the kernels beside them (see `KernelArchive`).
    samples
        Kernels to draw and measure; each goes to one of the devices, in turn.
    budget_s
        Seconds after which no further kernel is measured; None measures all of them.
    seed
        Of the draws and of the training.
    config
        How long to measure each kernel.
    progress
        Called as ``progress(stage, done, total)``.

    Raises
    ------
    SphinxError
        If an argument is out of range, or nothing is on record to learn from.
    """
    if samples < 0 or (budget_s is not None and budget_s < 0) or seed < 0:
        raise SphinxError(
            f"Expected samples, budget_s and seed >= 0; got {samples}, {budget_s} and {seed}."
        )
    devices = [device for device in devices if device.is_cpu]
    if not devices:
        raise SphinxError("Expected at least one CPU device to train for; got none.")
    config = config or MeasureConfig()
    profiles = {device.cost_class: device_profile(device, records, config) for device in devices}
    archive = KernelArchive.beside(records)
    if samples:
        measure_drawn(devices, records, samples, budget_s, seed, config, progress)
    data = training_set(devices, records, archive, profiles)
    if progress:
        progress("train", 0, 1)
    model = fit_model(data, seed)
    if progress:
        progress("train", 1, 1)
    return model


def fit_model(data: TrainingSet, seed: int, folds: int = FOLDS) -> CostModel:
    """Return the model of a training set, its errors by cross validation in so many folds."""
    predicted = cross_validate(data, seed, folds)
    return CostModel(
        train_booster(data, seed),
        train_spread(data, predicted, seed),
        str(tvm.__version__),
        data.fingerprint,
        len(data.times_ns),
        held_out(data, predicted),
    )


def device_profile(
    device: Device,
    records: RecordStore,
    config: MeasureConfig,
    end_s: float = math.inf,
    like: DeviceProfile | None = None,
) -> DeviceProfile:
    """Return the profile of a CPU device, see `measure_profile`.

    No probe is begun once ``time.monotonic()`` has reached ``end_s``, and none measured twice where that
    is finite.
    """
    again = math.isinf(end_s)
    version = str(tvm.__version__)

    def measure(kernels: Sequence[Kernel], target: Device, store: RecordStore) -> list[Record | None]:
        functions = [implement_for(kernel, target) for kernel in kernels]
        measure_kernels(
            kernels, target, store, config, "probe", functions=functions, end_s=end_s, again=again
        )
        pairs = zip(kernels, functions, strict=True)
        keys = [implementation_id(kernel, function, target) for kernel, function in pairs]
        return [store.get(key, str(class_of(target)), version) for key in keys]

    return measure_profile(device, records, measure, like)


def measure_drawn(
    devices: Sequence[Device],
    records: RecordStore,
    samples: int,
    budget_s: float | None,
    seed: int,
    config: MeasureConfig,
    progress: Progress | None = None,
) -> int:
    """Measure drawn kernels, each on one of the devices, and return how many are on record then."""
    end_s = math.inf if budget_s is None else time.monotonic() + budget_s
    targets = [device_target(device) for device in devices]
    batch: list[Kernel] = []
    done = 0
    for number, sample in enumerate(draw_kernels(samples, seed, targets)):
        batch.append(sample)
        if len(batch) < _BATCH * len(devices) and number + 1 < samples:
            continue
        if time.monotonic() >= end_s:
            break
        for place, device in enumerate(devices):
            measure_rules(batch[place :: len(devices)], [device], records, config=config, end_s=end_s)
        done += len(batch)
        batch = []
        if progress:
            progress("measure drawn kernels", done, samples)
    return done


def archived_numbers(kept: ArchivedKernel, shapes: Sequence[CoreShape]) -> list[list[float]]:
    """Return what a kernel on file is described by on devices of these shapes, see `kernel_numbers`.

    Raises
    ------
    SphinxError
        If it cannot be read, or is none that is described by finite numbers.
    """
    function = read_function(kept)
    try:
        rows = [kernel_numbers(function, kept.weights, kept.reuse_bytes, shape) for shape in shapes]
    except Exception as error:  # a file may hold any function: of symbolic shapes, without buffers
        raise SphinxError(f"The kernel {kept.kernel!r} on file cannot be described.") from error
    if not np.isfinite(rows).all():
        raise SphinxError(f"The kernel {kept.kernel!r} on file is not described by finite numbers.")
    return rows


def _lot(kept: ArchivedKernel) -> bytes:
    """Return what a kernel is drawn by: the order of these is that of no model."""
    return hashlib.sha256(kept.kernel.encode()).digest()


def training_set(
    devices: Sequence[Device],
    records: RecordStore,
    archive: KernelArchive,
    profiles: dict[CostClass, DeviceProfile],
    most: int | None = None,
) -> TrainingSet:
    """Return all that is on record of kernels that are in the archive, on devices of these classes.

    With ``most``, of some of them, drawn by their ids, until there are as many times. Kernels that
    cannot be read there are left out, with one warning.

    Raises
    ------
    SphinxError
        If there is nothing.
    """
    numbers: list[list[float]] = []
    numbers_of_device: list[list[float]] = []
    times: list[float] = []
    groups: list[str] = []
    version = str(tvm.__version__)
    unreadable = 0
    for kept in archive if most is None else sorted(archive, key=_lot):
        if most is not None and len(times) >= most:
            break
        if kept.group == PROBE or kept.tvm != version:
            continue  # the times of probes are features
        measured: list[tuple[DeviceProfile, Record]] = []
        for device in devices:
            record = records.get(kept.kernel, str(class_of(device)), version)
            if record is not None and record.samples_ns:
                measured.append((profiles[device.cost_class], record))
        try:
            rows = archived_numbers(kept, [profile.shape for profile, _ in measured]) if measured else []
        except SphinxError:
            unreadable += 1
            continue
        numbers += rows
        for profile, record in measured:
            numbers_of_device.append(profile.numbers)
            times.append(float(max(1, median_and_spread(record.samples_ns)[0])))
            groups.append(kept.group)
    if unreadable:
        warn(f"{unreadable} measured kernels cannot be read and are left out.")
    if len(times) < _FEWEST_ROWS:
        raise SphinxError(
            "Expected measured kernels to learn from; none is on record for these devices. Measure some "
            "with: tvm-sphinx train --samples 900"
        )
    order = sorted(range(len(times)), key=lambda row: (groups[row], numbers_of_device[row], times[row]))
    features = feature_rows(
        np.array([numbers[row] for row in order]), np.array([numbers_of_device[row] for row in order])
    )
    return TrainingSet(
        features,
        np.array([times[row] for row in order]),
        np.array([groups[row] for row in order], dtype=np.str_),
    )
